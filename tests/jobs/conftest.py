"""Jobs are tested in the feeds' small world."""

from tests.feeds.conftest import world

__all__ = ["world"]
