"""Sessions in Redis: what most requests are authenticated by. PostgreSQL is the truth behind it.

An entry maps a session's name to its id. A session that was ended leaves a tombstone, which a late fill cannot replace.
"""

import asyncio
from collections.abc import Iterable

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
        found: bytes | None = await self._redis.call(key := f"session:{session_key}", "GET", key)
        return None if found is None else 0 if found == _TOMBSTONE else int(found)

    async def fill(self, session_key: str, session_id: int) -> None:
        """Remember a session that was read from the database; it is looked up there again after 15 minutes."""
        key = f"session:{session_key}"
        await self._redis.call(key, "SET", key, session_id, "EX", _SECONDS, "NX")

    async def end(self, session_keys: Iterable[str]) -> None:
        """From now on these sessions are ended."""
        keys = [f"session:{key}" for key in session_keys]
        ends = [(await self._redis.node(key)).send("SET", key, _TOMBSTONE, "EX", _TOMBSTONE_SECONDS) for key in keys]
        await asyncio.gather(*ends)

    async def ended(self, session_keys: list[str]) -> set[str]:
        """Which of these sessions were ended."""
        keys = [f"session:{key}" for key in session_keys]
        found = await asyncio.gather(*[(await self._redis.node(key)).send("GET", key) for key in keys])
        return {key for key, value in zip(session_keys, found, strict=True) if value == _TOMBSTONE}
