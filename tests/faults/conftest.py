"""Servers of their own for tests that break them."""

import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from instafeed.api import mentions
from instafeed.dev.embedded import EmbeddedServers
from instafeed.models import Post
from instafeed.resources import open_resources
from instafeed.settings import Settings
from instafeed.storage import migrations
from tests.conftest import make_settings
from tests.feeds.world import World, ticking
from tests.redis import redis_client


class FaultWorld(World):
    """A world that reads feeds as the API does, with which it shares the cached posts."""

    def render(self, post: Post) -> bytes:
        """As the API shows it."""
        return mentions.post_json(self.res, post)


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[EmbeddedServers]:
    """Servers that keep what they were told, as in production."""
    with tempfile.TemporaryDirectory(prefix="instafeed-faults-") as folder:
        async with EmbeddedServers(Path(folder), durable=True) as started:
            await migrations.migrate(started.endpoints.database_url)
            yield started


@pytest.fixture
async def fault_settings(servers: EmbeddedServers) -> Settings:
    """Settings for these servers. Fan-out goes in small steps, so that it can be caught in the middle."""
    endpoints = servers.endpoints
    return make_settings(endpoints, endpoints.database_url, redis_number=0, fan_out_chunk=100)


@pytest.fixture
async def world(fault_settings: Settings) -> AsyncIterator[World]:
    """A world whose bells are heard by whatever worker runs."""
    async with open_resources(fault_settings) as res:
        async with redis_client(res.settings) as redis:
            await redis.flushall()
        world = FaultWorld(replace(res, ids=ticking()))
        await world.sql("update outbox set done_at = now() where done_at is null returning 1")
        yield world
