"""Jobs are tested in the feeds' small world."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from instafeed.storage.queue import Queue
from tests.feeds.conftest import gated, town, world
from tests.feeds.world import World
from tests.redis import queue_client

__all__ = ["gated", "loud", "town", "world"]


@pytest.fixture
async def loud(world: World) -> AsyncIterator[World]:
    """The world with bells that are heard."""
    bells = Queue(world.res.settings.queue_url)
    async with queue_client(world.res.settings) as client:
        await client.flushdb()
    yield World(replace(world.res, queue=bells))
    await bells.close()
