"""Which posts have which tags. All rows of a tag are on one shard, which is a hash of it (docs/decisions/0019)."""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from instafeed.ids import shard_of_text
from instafeed.storage.database import Connection

STEPS = 8
"""So many levels double the number of uses."""
_GROWTH: float = 2 ** (1 / STEPS)
_DOUBLINGS = 31
_TAGS_AT_ONCE = 20
"""A statement with more parts would be planned anew each time; one with fewer tags leaves parts without any."""
_LAST = "\U0010ffff"


class Tag(NamedTuple):
    """A tag, and about how often it was ever used."""

    name: str
    level: int

    @property
    def uses(self) -> int:
        """The estimate: its standard error is a fifth."""
        return round((_GROWTH**self.level - 1) / (_GROWTH - 1))


@functools.lru_cache(maxsize=1 << 16)
def list_id(tag: str) -> int:
    """The number by which Redis keeps the recent posts with a tag: 128 bits of the tag's SHA-256, the highest of them set, so
    that it is no account's id.
    """
    return int.from_bytes(hashlib.sha256(tag.encode()).digest()[:16]) | 1 << 127


async def add(connection: Connection, post_id: int, author_id: int, tags: Iterable[str]) -> None:
    """Let the post be found by these tags, and count their use.

    The counter is Morris's ("Counting large numbers of events in small registers", 1978): a use raises the level with a
    probability that falls as the level grows. Whoever uses a popular tag writes, and waits for, no row but a new one.
    """
    # In one order, and made before they are counted: of two posts with the same tags neither waits for the other's end.
    names = sorted(tags)
    shards = [shard_of_text(tag) for tag in names]
    await connection.execute(
        "insert into tagged_posts (shard, tag, post_id, author_id)"
        " select shard, tag, $3, $4 from unnest($1::smallint[], $2::text[]) as named (shard, tag) on conflict do nothing",
        shards,
        names,
        post_id,
        author_id,
    )
    await connection.execute(
        "insert into tags (shard, tag, level)"
        " select shard, tag, 0 from unnest($1::smallint[], $2::text[]) as named (shard, tag) on conflict do nothing",
        shards,
        names,
    )
    await connection.execute(
        "with counted as materialized (select shard, tag from tags where shard = any($1::smallint[]) and tag = any($2::text[])"
        " and random() < power($3::float8, -level) order by tag for no key update)"
        " update tags set level = level + 1 from counted"
        " where tags.shard = any($1::smallint[]) and tags.shard = counted.shard and tags.tag = counted.tag",
        shards,
        names,
        _GROWTH,
    )


async def remove(connection: Connection, post_id: int, tags: Iterable[str]) -> None:
    """Let the post be found by these tags no more."""
    names = sorted(tags)
    await connection.execute(
        "delete from tagged_posts where shard = any($1::smallint[]) and tag = any($2::text[]) and post_id = $3",
        [shard_of_text(tag) for tag in names],
        names,
        post_id,
    )


async def newest(connection: Connection, tag: str, *, below: int, limit: int) -> list[tuple[int, int]]:
    """(post, author) of what has the tag, newest first, with ids below `below`."""
    records = await connection.fetch(
        "select post_id, author_id from tagged_posts where shard = $1 and tag = $2 and post_id < $3"
        " order by post_id desc limit $4",
        shard_of_text(tag),
        tag,
        below,
        limit,
    )
    return [(record["post_id"], record["author_id"]) for record in records]


# Each tag has its own range of the index: however many posts there are, no more than are wanted are read of each.
_NEWEST = " union all ".join(
    f"(select post_id, author_id from tagged_posts where shard = ($1::smallint[])[{place}] and tag = ($2::text[])[{place}]"
    " and post_id < $3 order by post_id desc limit $4)"
    for place in range(1, _TAGS_AT_ONCE + 1)
)


async def newest_of_many(
    connection: Connection, tags: Sequence[str], *, below: int, limit: int
) -> list[tuple[int, int]]:
    """(post, author) of what has any of the tags, newest first, each once, with ids below `below`."""
    found: set[tuple[int, int]] = set()
    for at in range(0, len(tags), _TAGS_AT_ONCE):
        some = tags[at : at + _TAGS_AT_ONCE]
        records = await connection.fetch(
            f"select distinct post_id, author_id from ({_NEWEST}) as found order by post_id desc limit $4",
            [shard_of_text(tag) for tag in some],
            list(some),
            below,
            limit,
        )
        found.update((record["post_id"], record["author_id"]) for record in records)
    return sorted(found, reverse=True)[:limit]


async def get(connection: Connection, tag: str) -> Tag:
    """The tag; one that was never used too."""
    level = await connection.fetchval("select level from tags where shard = $1 and tag = $2", shard_of_text(tag), tag)
    return Tag(tag, level or 0)


# Each doubling has its own range of the index: however many tags begin so, no more than these are read.
_POPULAR = " union all ".join(
    f"(select tag, level from tags where level / {STEPS} = {doubling} and tag >= $1 and tag <= $2 order by tag limit $3)"
    for doubling in reversed(range(_DOUBLINGS))
)


async def beginning_with(connection: Connection, prefix: str, *, limit: int) -> list[Tag]:
    """The most used tags that begin so, most used first; the tag itself, if it was ever used, is the first.

    It asks all shards, as every search does.
    """
    records = await connection.fetch(
        f"select tag, level from ({_POPULAR}) as found order by tag <> $1, level desc, tag limit $3",
        prefix,
        prefix + _LAST,
        limit,
    )
    return [Tag(record["tag"], record["level"]) for record in records]
