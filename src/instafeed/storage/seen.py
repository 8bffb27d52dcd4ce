"""Notes in Redis of which server held its data, and when: one beside each bucket of feeds, which may be on any server."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from instafeed.storage.redis import Node, RedisServer


@dataclass(frozen=True, slots=True)
class Note:
    """The last note of a bucket, and the server that holds it now."""

    key: str
    node: Node
    text: bytes | None

    @property
    def left_elsewhere_at(self) -> datetime | None:
        """When the note was left, if that was on another server, or before this one was started."""
        epoch, _, at = (self.text or b"").decode().partition(" ")
        return datetime.fromisoformat(at) if at and epoch != self.node.epoch else None


async def read(redis: RedisServer, *, buckets: int) -> list[Note]:
    """The notes of all buckets.

    Raises:
        RedisAway: not all servers answer.
    """
    keys = [f"seen:{{{bucket}}}" for bucket in range(buckets)]
    nodes = [await redis.node(key) for key in keys]
    found = await asyncio.gather(*(node.send("GET", key) for key, node in zip(keys, nodes, strict=True)))
    return [Note(*note) for note in zip(keys, nodes, found, strict=True)]


async def write(notes: list[Note], at: datetime) -> None:
    """Leave new notes, on the very servers that the last ones were read from.

    Raises:
        RedisAway: not all servers answer, or they are no longer the same.
    """
    text = at.isoformat()
    await asyncio.gather(*(note.node.send("SET", note.key, f"{note.node.epoch} {text}") for note in notes))
