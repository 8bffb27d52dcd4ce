"""`instafeed dev`: everything on one machine, from one `pip install`."""
