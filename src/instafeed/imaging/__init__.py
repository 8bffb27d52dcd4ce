"""Photos in, renditions out. The decoder runs in a process of its own; no other part of the program imports Pillow."""
