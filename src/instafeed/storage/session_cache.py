"""Sessions in Redis: what most requests are authenticated by. PostgreSQL is the truth behind it.

An entry maps a session's name to its id. A session that was ended leaves a tombstone, which a late fill cannot replace. Keys
carry the server's epoch: a restarted server may have forgotten a tombstone, and what it still knows is never believed.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from instafeed import telemetry
from instafeed.storage.redis import Node, RedisServer

_SECONDS = 900
_TOMBSTONE = b"-"
# Longer than any request that could still be about to fill the cache with what it read before.
_TOMBSTONE_SECONDS = 1800

_HIT, _MISS = (telemetry.CACHE_READS.labels("sessions", outcome) for outcome in ("hit", "miss"))


class SessionCache:
    """Every method raises `RedisAway` when Redis does not answer."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis

    async def _node(self, session_key: str) -> Node:
        return await self._redis.node(f"{{{session_key}}}")

    @staticmethod
    def _key(session_key: str, epoch: str) -> str:
        return f"session:{epoch}:{{{session_key}}}"

    async def epoch(self, session_key: str) -> str:
        """Names the server's run; to be asked for before the database is, for `fill`."""
        return (await self._node(session_key)).epoch

    async def begin_get(self, session_key: str) -> "asyncio.Future[Any]":
        """Ask for a session; `finish_get` understands the answer."""
        node = await self._node(session_key)
        return node.send("GET", self._key(session_key, node.epoch))

    def finish_get(self, found: bytes | None) -> int | None:
        """The session's id, 0 if it was ended, None if it is not known here."""
        if found is None:
            _MISS.inc()
            return None
        _HIT.inc()
        return 0 if found == _TOMBSTONE else int(found)

    async def fill(self, session_key: str, session_id: int, *, epoch: str) -> None:
        """Remember a session that was read from the database; it is looked up there again after 15 minutes. A server that
        came up in between was not told what ended meanwhile, and does not believe what is filled in now.
        """
        node = await self._node(session_key)
        await node.send("SET", self._key(session_key, epoch), session_id, "EX", _SECONDS, "NX")

    async def end(self, session_keys: Iterable[str]) -> None:
        """From now on these sessions are ended."""
        sent = []
        for key in session_keys:
            node = await self._node(key)
            sent.append(node.send("SET", self._key(key, node.epoch), _TOMBSTONE, "EX", _TOMBSTONE_SECONDS))
        for answer in sent:
            await answer

    async def look(self, session_keys: Iterable[str]) -> dict[str, int | None]:
        """Of each session what `finish_get` says."""
        asked = {key: await self.begin_get(key) for key in session_keys}
        return {key: self.finish_get(await sent) for key, sent in asked.items()}
