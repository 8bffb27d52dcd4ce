"""What the captions of posts name, kept in the posts' rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from instafeed.ids import shard_of
from instafeed.models import Mention
from instafeed.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Named:
    """What a caption names."""

    tags: tuple[str, ...] = ()
    mentions: tuple[Mention, ...] = ()


def mentions_from(value: list[dict[str, Any]]) -> tuple[Mention, ...]:
    """The mentions of a column."""
    return tuple(Mention(item["name"], item["start"], item["length"], item["account"]) for item in value)


def mentions_kept(mentions: Iterable[Mention]) -> list[dict[str, Any]]:
    """The column of mentions."""
    return [
        {"name": mention.name, "start": mention.start, "length": mention.length, "account": mention.account_id}
        for mention in mentions
    ]


async def lock(connection: Connection, post_id: int) -> tuple[Named, bool]:
    """What the post's caption names, and whether it is published; the row is locked until the transaction ends."""
    record = await connection.fetchrow(
        "select tags, mentions, published_at is not null as published from posts where shard = $1 and id = $2 for update",
        shard_of(post_id),
        post_id,
    )
    if record is None:
        return Named(), False
    return Named(tuple(record["tags"]), mentions_from(record["mentions"])), record["published"]


async def set_named(connection: Connection, post_id: int, named: Named) -> None:
    """Keep what the post's caption names."""
    await connection.execute(
        "update posts set tags = $3, mentions = $4 where shard = $1 and id = $2",
        shard_of(post_id),
        post_id,
        list(named.tags),
        mentions_kept(named.mentions),
    )
