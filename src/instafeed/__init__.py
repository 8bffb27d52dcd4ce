"""instafeed: the backend of a photo-sharing community."""

from importlib.metadata import version

__version__ = version("instafeed")
