"""The hub is tested in the feeds' small world."""

from tests.feeds.conftest import town, world

__all__ = ["town", "world"]
