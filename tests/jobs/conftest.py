"""Jobs are tested in the feeds' small world."""

from tests.feeds.conftest import gated, town, world

__all__ = ["gated", "town", "world"]
