"""The log of events that connected clients are told of: one Redis stream, read by every API process."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from instafeed.models import Event, EventType
from instafeed.storage.redis import Node, RedisServer

_KEY = "events"
_LENGTH = 50_000
_BATCH = 500
_LAST_IN_MILLISECOND = 2**64 - 1
# As Redis makes them, until the year 5138: it refuses what is past 64 bits, and there is no date for what is far beyond.
_ID = re.compile(r"([0-9]{1,14})-([0-9]{1,20})")


def _event(entry: tuple[bytes, list[bytes]]) -> Event:
    id_, flat = entry
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return Event(
        id=id_.decode(),
        type=EventType(fields[b"type"].decode()),
        author_id=int(fields[b"author"]),
        post_id=int(fields[b"post"]),
    )


class EventReader:
    """Waits for events on a connection of its own; with the first `RedisAway` it is of no more use."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def wait(self, id_: str, *, milliseconds: int) -> list[Event]:
        """Events after `id_`, oldest first; if there is none, the next one, or nothing after a while, which must be well
        below the time limit of a call.
        """
        place = ("STREAMS", _KEY, id_)
        found = await self._node.send("XREAD", "COUNT", _BATCH, "BLOCK", milliseconds, *place)
        return [_event(entry) for _, entries in found or () for entry in entries]


class EventLog:
    """Every method raises `RedisAway` when Redis does not answer."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis

    async def add(self, type_: EventType, *, author_id: int, post_id: int) -> None:
        """Log an event; the oldest of some 50,000 is forgotten."""
        fields = ("type", type_.value, "author", author_id, "post", post_id)
        await self._redis.call(_KEY, "XADD", _KEY, "MAXLEN", "~", _LENGTH, "*", *fields)

    async def after(self, id_: str, *, limit: int) -> list[Event]:
        """Events after `id_`, oldest first."""
        found = await self._redis.call(_KEY, "XRANGE", _KEY, f"({id_}", "+", "COUNT", limit)
        return [_event(entry) for entry in found]

    @asynccontextmanager
    async def reader(self) -> AsyncIterator[EventReader]:
        """Whoever waits for the next events."""
        async with self._redis.dedicated(_KEY) as node:
            yield EventReader(node)

    async def reaches_back_to(self, id_: str) -> bool:
        """Whether nothing after `id_` can have been forgotten."""
        found = await self._redis.call(_KEY, "XRANGE", _KEY, "-", "+", "COUNT", 1)
        return bool(found) and order(found[0][0].decode()) <= order(id_)

    async def last_id(self) -> str:
        """The id of the newest event; with an empty log, one that every later event is after."""
        node = await self._redis.node(_KEY)
        last, time = node.send("XREVRANGE", _KEY, "+", "-", "COUNT", 1), node.send("TIME")
        found: list[tuple[bytes, Any]] = await last
        if found:
            return found[0][0].decode()
        seconds, microseconds = map(int, await time)
        # The next event may come within this millisecond, as its number 0.
        return f"{seconds * 1000 + microseconds // 1000 - 1}-{_LAST_IN_MILLISECOND}"


def order(id_: str) -> tuple[int, int]:
    """What ids are compared by.

    Raises:
        ValueError: not an id of the log.
    """
    found = _ID.fullmatch(id_)
    if found is None or int(found[2]) > _LAST_IN_MILLISECOND:
        raise ValueError("not an id of the event log")
    return int(found[1]), int(found[2])
