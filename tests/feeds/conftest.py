"""Small worlds with a feed window of 10."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import settings as hypothesis_settings

from instafeed import feed_sources, work
from instafeed.dev.embedded import Endpoints
from instafeed.resources import Resources, open_resources
from instafeed.storage import timelines
from instafeed.storage.event_log import EventLog
from instafeed.storage.post_cache import PostCache
from instafeed.storage.redis import RedisServer
from instafeed.storage.rights_cache import RightsCache
from instafeed.storage.timelines import Timelines
from tests.conftest import _database, _redis_number, make_settings
from tests.feeds.gates import GatedDatabase, GatedRedis
from tests.feeds.world import World

# By hand, for hours: python -m pytest tests/feeds --hypothesis-profile=long
hypothesis_settings.register_profile("long", max_examples=10_000, deadline=None)
hypothesis_settings.register_profile("brief", max_examples=40, deadline=None)
if hypothesis_settings().max_examples == hypothesis_settings.get_profile("default").max_examples:
    hypothesis_settings.load_profile("brief")


def timelines_of(res: Resources, redis: RedisServer, *, window: int = 10, disorder_seconds: float = 0.003) -> Timelines:
    """Home feeds whose order is loose by three posts, if nothing else is said."""
    return Timelines(
        redis, "feed", window=window, buckets=res.timelines.buckets, idle_days=14, disorder_seconds=disorder_seconds
    )


@pytest.fixture(scope="session")
async def town(endpoints: Endpoints) -> AsyncIterator[Resources]:
    """The database and the Redis of all worlds."""
    async with _database(endpoints) as url:
        settings = make_settings(endpoints, url, redis_number=_redis_number() + 2, feed_window=10)
        async with open_resources(settings) as res:
            yield res


@pytest.fixture
async def world(town: Resources, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A world where nothing is left to do, in an empty Redis; accounts of other tests are there, but unconnected."""
    monkeypatch.setattr(timelines, "_TRIM_SLACK", 2)
    world = World.of(town)
    # Ids of these worlds are a millisecond apart.
    world = World.of(world.res, timelines=timelines_of(world.res, town.redis))
    await world.flush()
    await world.sql("delete from outbox returning 1")
    yield world
    await world.res.queue.close()


async def _keep_nothing(_: Resources, __: int) -> None:
    """Do what a heart does in the first three seconds."""


@pytest.fixture
async def gated(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """The world with a gate before every server."""
    monkeypatch.setattr(timelines, "_IDS_IN_FLIGHT", 0)  # one call at a time
    monkeypatch.setattr(feed_sources, "SPARE", 1)
    monkeypatch.setattr(work, "_keep_lease", _keep_nothing)  # leases end when a test says so
    res = world.res
    redis = GatedRedis(res.settings.redis_url.get_secret_value())
    world = World.of(
        res,
        db=GatedDatabase(res.db),
        redis=redis,
        timelines=timelines_of(res, redis),
        recents=Timelines(redis, "recent", window=10, buckets=64, idle_days=14, disorder_seconds=0),
        rights=RightsCache(redis, buckets=64),
        post_cache=PostCache(redis, buckets=64),
        events=EventLog(redis),
        settings=res.settings.model_copy(update={"fan_out_chunk": 2}),
    )
    yield world
    await redis.close()
    await world.res.queue.close()
