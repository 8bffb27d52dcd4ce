"""Redis that hangs, is full, or only reads: as bad as one that is away, and noticed later."""

import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from redis.asyncio import Redis

from instafeed.dev.embedded import EmbeddedServers
from instafeed.dev.process import Child
from instafeed.settings import Settings
from tests.client import Client, http_client
from tests.faults.test_redis import agree
from tests.feeds.world import World
from tests.processes import running_api_process, running_worker


@asynccontextmanager
async def hung(servers: EmbeddedServers) -> AsyncIterator[None]:
    """It takes connections and never answers."""
    child = servers.redis._child
    assert isinstance(child, Child)
    child.send(signal.SIGSTOP)
    try:
        yield
    finally:
        child.send(signal.SIGCONT)


@asynccontextmanager
async def full(servers: EmbeddedServers) -> AsyncIterator[None]:
    """It takes nothing new."""
    async with Redis.from_url(servers.redis.url) as redis:
        await redis.config_set("maxmemory", "1")
        try:
            yield
        finally:
            await redis.config_set("maxmemory", "0")


@asynccontextmanager
async def read_only(servers: EmbeddedServers) -> AsyncIterator[None]:
    """It is the replica of a primary that is gone."""
    async with Redis.from_url(servers.redis.url) as redis:
        await redis.config_set("replica-serve-stale-data", "yes")
        await redis.replicaof("127.0.0.1", "9")
        try:
            yield
        finally:
            await redis.replicaof("NO", "ONE")


@pytest.mark.parametrize("faulty", [hung, full, read_only], ids=lambda fault: fault.__name__)
async def test_with_a_bad_redis_feeds_are_read_and_posts_taken_and_delivered_later(
    world: World,
    servers: EmbeddedServers,
    fault_settings: Settings,
    faulty: Callable[[EmbeddedServers], AbstractAsyncContextManager[None]],
) -> None:
    async with (
        running_worker(fault_settings),
        running_api_process(fault_settings) as api,
        http_client(base_url=api.url, timeout=20) as http,
    ):
        author, reader = await Client.sign_up(http), await Client.sign_up(http)
        await reader.follow(author)
        before = await author.post()
        await reader.sees(before["id"])
        photos = [await author.ready((await author.upload())["id"]) for _ in range(2)]
        posts = []
        async with faulty(servers):
            for photo in photos:
                began = time.monotonic()
                posts.append(await author.call("POST", "/v1/posts", 201, json={"media": [{"id": photo["id"]}]}))
                assert time.monotonic() - began < 5
                began = time.monotonic()
                assert before["id"] in await reader.feed()
                assert time.monotonic() - began < 5
        await agree(world, int(reader.id), int(author.id))
        assert sorted(await reader.feed()) == sorted(post["id"] for post in [before, *posts])
