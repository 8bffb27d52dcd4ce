"""A world of its own where a test runs the jobs itself, and the feeds' small world."""

from collections.abc import AsyncIterator

import httpx
import pytest

from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from tests.client import http_client
from tests.conftest import running_api
from tests.feeds.conftest import gated, town, world
from tests.feeds.world import World
from tests.media.traces import Traces, tracing

__all__ = ["gated", "town", "world"]


@pytest.fixture
async def alone(fresh_settings: Settings) -> AsyncIterator[World]:
    """A world whose jobs wait until a test runs them."""
    async with open_resources(fresh_settings) as res:
        opened = World.of(res)
        yield World(res)
        await opened.res.queue.close()


@pytest.fixture
async def phone(alone: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client of its API, without a log-in."""
    async with running_api(alone.res.settings) as url, http_client(base_url=url) as client:
        yield client


@pytest.fixture
async def stored(alone: World) -> AsyncIterator[Traces]:
    """Looks at what its bucket has."""
    async with tracing(alone.res) as found:
        yield found


@pytest.fixture
def res_of(alone: World) -> Resources:
    """What that world's servers hold."""
    return alone.res
