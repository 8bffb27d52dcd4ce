"""A world of each test's own, with a window of 10."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import settings as hypothesis_settings

from instafeed.resources import open_resources
from instafeed.settings import Settings
from instafeed.storage import timelines
from tests.feeds.world import World

# By hand, for hours: python -m pytest tests/feeds --hypothesis-profile=long
hypothesis_settings.register_profile("long", max_examples=1500, deadline=None)


@pytest.fixture
async def world(fresh_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """An empty world."""
    monkeypatch.setattr(timelines, "_TRIM_SLACK", 2)
    async with open_resources(fresh_settings) as res:
        world = World.of(res)
        yield world
        await world.res.queue.close()
