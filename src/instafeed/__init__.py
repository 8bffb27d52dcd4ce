"""instafeed: the backend of a photo-sharing community."""
