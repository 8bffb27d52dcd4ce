"""What tests say to Redis past our own client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from instafeed.settings import Settings


@asynccontextmanager
async def redis_client(settings: Settings) -> AsyncIterator[Redis]:
    """A plain client."""
    async with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        yield redis


async def write_down(redis: Redis) -> None:
    """Return when a server that is told to has written on its disk what it knows."""
    await redis.set("written down", "")
    await redis.execute_command("WAITAOF", 1, 0, 0)  # type: ignore[no-untyped-call]
    await redis.delete("written down")


@asynccontextmanager
async def queue_client(settings: Settings) -> AsyncIterator[Redis]:
    """The same for the jobs' Redis."""
    async with Redis.from_url(settings.queue_url) as redis:
        yield redis
