"""The log of events that connected clients are told of: one Redis stream, read by every API process."""

from collections.abc import Awaitable
from typing import Any, cast

from instafeed.models import Event, EventType
from instafeed.storage.redis import RedisServer

_KEY = "events"
_LENGTH = 50_000


def _event(entry: tuple[bytes, dict[bytes, bytes]]) -> Event:
    id_, fields = entry
    return Event(
        id=id_.decode(),
        type=EventType(fields[b"type"].decode()),
        author_id=int(fields[b"author"]),
        post_id=int(fields[b"post"]),
    )


class EventLog:
    """Every method raises `RedisAway` when Redis does not answer."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis

    async def add(self, type_: EventType, *, author_id: int, post_id: int) -> None:
        """Log an event; the oldest of some 50,000 is forgotten."""
        async with self._redis.calls("events") as redis:
            await redis.xadd(
                _KEY, {"type": type_.value, "author": author_id, "post": post_id}, maxlen=_LENGTH, approximate=True
            )

    async def after(self, id_: str, *, limit: int) -> list[Event]:
        """Events after `id_`, oldest first."""
        async with self._redis.calls("events") as redis:
            found = await cast("Awaitable[list[Any]]", redis.xrange(_KEY, min=f"({id_}", count=limit))
        return [_event(entry) for entry in found]

    async def wait(self, id_: str, *, milliseconds: int) -> list[Event]:
        """Events after `id_`, oldest first; if there is none, the next one, or nothing after a while."""
        async with self._redis.calls("events") as redis:
            found = await cast("Awaitable[list[Any]]", redis.xread({_KEY: id_}, count=500, block=milliseconds))
        return [_event(entry) for _, entries in found for entry in entries]

    async def reaches_back_to(self, id_: str) -> bool:
        """Whether nothing after `id_` can have been forgotten."""
        async with self._redis.calls("events") as redis:
            found = await cast("Awaitable[list[Any]]", redis.xrange(_KEY, count=1))
        return bool(found) and order(found[0][0].decode()) <= order(id_)

    async def last_id(self) -> str:
        """The id of the newest event; with an empty log, one that every later event is after."""
        async with self._redis.calls("events") as redis:
            found = await cast("Awaitable[list[Any]]", redis.xrevrange(_KEY, count=1))
            if found:
                return cast("bytes", found[0][0]).decode()
            seconds, microseconds = await cast("Awaitable[tuple[int, int]]", redis.time())
        return f"{seconds * 1000 + microseconds // 1000}-0"


def order(id_: str) -> tuple[int, int]:
    """What ids are compared by.

    Raises:
        ValueError: not an id of the log.
    """
    milliseconds, _, sequence = id_.partition("-")
    if not (
        milliseconds.isascii()
        and milliseconds.isdigit()
        and sequence.isascii()
        and sequence.isdigit()
        and len(id_) < 40
    ):
        raise ValueError("not an id of the event log")
    return int(milliseconds), int(sequence)
