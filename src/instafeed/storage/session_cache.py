"""Sessions in Redis: what most requests are authenticated by. PostgreSQL is the truth behind it.

An entry maps a session's name to its id. A session that was ended leaves a tombstone, which a late fill cannot replace.
"""

from collections.abc import Awaitable, Iterable
from typing import cast

from instafeed.storage.redis import RedisServer

_SECONDS = 900
_TOMBSTONE = b"-"
# Longer than any request that could still be about to fill the cache with what it read before.
_TOMBSTONE_SECONDS = 1800


class SessionCache:
    """Every method raises `RedisAway` when Redis does not answer."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis

    async def get(self, session_key: str) -> int | None:
        """The session's id, 0 if it was ended, None if it is not known here."""
        async with self._redis.calls("sessions") as redis:
            found = await cast("Awaitable[bytes | None]", redis.get(f"session:{session_key}"))
        return None if found is None else 0 if found == _TOMBSTONE else int(found)

    async def fill(self, session_key: str, session_id: int) -> None:
        """Remember a session that was read from the database; it is looked up there again after 15 minutes."""
        async with self._redis.calls("sessions") as redis:
            await redis.set(f"session:{session_key}", session_id, ex=_SECONDS, nx=True)

    async def end(self, session_keys: Iterable[str]) -> None:
        """From now on these sessions are ended."""
        async with self._redis.calls("sessions") as redis, redis.pipeline(transaction=False) as pipeline:
            for key in session_keys:
                pipeline.set(f"session:{key}", _TOMBSTONE, ex=_TOMBSTONE_SECONDS)
            await pipeline.execute()

    async def ended(self, session_keys: list[str]) -> set[str]:
        """Which of these sessions were ended."""
        async with self._redis.calls("sessions") as redis:
            found = await cast("Awaitable[list[bytes | None]]", redis.mget([f"session:{key}" for key in session_keys]))
        return {key for key, value in zip(session_keys, found, strict=True) if value == _TOMBSTONE}

    async def forget_all(self) -> None:
        """Forget every session, so that each is read from the database again; tombstones stay."""
        async with self._redis.calls("sessions") as redis:
            async for key in redis.scan_iter("session:*", count=1000):
                if await cast("Awaitable[bytes | None]", redis.get(key)) != _TOMBSTONE:
                    await redis.unlink(key)
