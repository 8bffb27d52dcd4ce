"""Which release this is."""

from importlib.metadata import version

# Not in the package itself: the decoder's processes import that, and the look-up takes a third of their start.
VERSION = version("instafeed")
