"""Redis: one client a process, bounded in time, and what its errors mean to us."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError

from instafeed import telemetry
from instafeed.errors import RedisAway

_SECONDS = 1.0
_CONNECTIONS = 16
_FAILURES_IN_A_ROW = 3
_PAUSE_SECONDS = 1.0
_SEEN = "seen"

_log = telemetry.logger()

_FAILURES = (RedisError, OSError, asyncio.TimeoutError)


def pool(url: str, *, seconds: float = _SECONDS) -> BlockingConnectionPool:
    """Connections to a Redis on which no call, nor the wait for one of them, takes longer than `seconds`."""
    return BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        # Once more on a connection that turns out to be dead: Redis may have been restarted since the last call.
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[RedisConnectionError],
    )


class Script:
    """A Lua script, named by its SHA-1 as Redis does."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Seen:
    """A note in Redis of which server held its data, and when."""

    server: str
    at: datetime


class RedisServer:
    """A Redis server that may be away: a call ends within about a second. After three failures in a row further calls
    fail at once for a second, so that requests do not wait in vain; one alone may be a hiccup of ours.
    """

    def __init__(self, url: str) -> None:
        self._client = Redis.from_pool(pool(url))
        self._away_until = 0.0
        self._failures = 0

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose(close_connection_pool=True)

    @asynccontextmanager
    async def calls(self, part: str) -> AsyncIterator[Redis]:
        """The client, for some calls of `part` (a metric's label).

        Raises:
            RedisAway: Redis does not answer, or refuses.
        """
        if time.monotonic() < self._away_until:
            raise RedisAway("Redis does not answer.", retry_after=1)
        try:
            yield self._client
            self._failures = 0
        except _FAILURES as error:
            self._failures += 1
            if self._failures >= _FAILURES_IN_A_ROW:
                self._away_until = time.monotonic() + _PAUSE_SECONDS
            telemetry.REDIS_FAILURES.labels(part).inc()
            _log.warning("redis failed", part=part, error=f"{type(error).__name__}: {error}"[:300])
            raise RedisAway("Redis does not answer.", retry_after=1) from error

    async def run(self, part: str, script: Script, keys: Sequence[str], *arguments: str | int) -> Any:
        """Run a script in one trip; its text is sent only to a server that has not seen it.

        Raises:
            RedisAway: Redis does not answer, or refuses.
        """
        async with self.calls(part) as redis:
            try:
                return await cast("Awaitable[Any]", redis.evalsha(script.sha, len(keys), *keys, *map(str, arguments)))
            except NoScriptError:
                return await cast("Awaitable[Any]", redis.eval(script.text, len(keys), *keys, *map(str, arguments)))

    async def server_id(self) -> str:
        """What names the running server: another one after a restart or a fail-over."""
        async with self.calls("server") as redis:
            info = await redis.info("server")
        return str(info["run_id"])

    async def seen(self) -> Seen | None:
        """The last note."""
        async with self.calls("server") as redis:
            found = await cast("Awaitable[bytes | None]", redis.get(_SEEN))
        if found is None:
            return None
        server, _, at = found.decode().partition(" ")
        return Seen(server, datetime.fromisoformat(at))

    async def see(self, seen: Seen) -> None:
        """Leave a note."""
        async with self.calls("server") as redis:
            await redis.set(_SEEN, f"{seen.server} {seen.at.isoformat()}")
