"""Counters beside what they count, and edges beside their other rows, walked in the order of their keys.

Each is compared within one statement: counters change in the transaction of what they count, so that what differs there has
drifted, whatever is going on. A statement may take a minute: some accounts have millions of followers.
"""

from dataclasses import dataclass
from typing import NamedTuple

from instafeed.ids import shard_of
from instafeed.storage import belongings
from instafeed.storage.belongings import Edges
from instafeed.storage.database import Connection

_SECONDS = 60.0

PAIRS = (
    *belongings.FOLLOWS,
    belongings.LIKES,
    belongings.LIKES.back,
    belongings.SAVES,
    belongings.SAVES.back,
)
"""Edges whose rows go by twos, each from both ends."""


@dataclass(frozen=True, slots=True)
class Counting:
    """What is counted of the rows of a table; `kept` and `counted` are expressions of SQL about a row `one`."""

    table: str
    names: tuple[str, ...]
    kept: str
    counted: str
    where: str = "true"


_SLOTS = "(select coalesce(sum({})::integer, 0) from counters where shard = one.shard and subject_id = one.id)"
_ROWS = "(select count(*)::integer from {0} where {0}.shard = one.shard and {1})"

ACCOUNTS = Counting(
    "accounts",
    ("posts", "followers", "following"),
    "one.post_count, one.follower_count, one.following_count",
    ", ".join(
        _ROWS.format(table, which)
        for table, which in (
            ("posts", "author_id = one.id and published_at is not null"),
            ("followers", "followee_id = one.id"),
            ("following", "follower_id = one.id"),
        )
    ),
)
POSTS = Counting(
    "posts",
    ("likes", "comments"),
    f"{_SLOTS.format('likes')}, {_SLOTS.format('comments')}",
    f"{_ROWS.format('likers', 'post_id = one.id')}, {_ROWS.format('comments', 'comments.post_id = one.id')}",
)
COMMENTS = Counting(
    "comments",
    ("replies",),
    _SLOTS.format("comments"),
    "(select count(*)::integer from comments reply where reply.shard = one.shard and reply.post_id = one.post_id"
    " and reply.parent_id = one.id)",
    "parent_id is null",
)


class Counted(NamedTuple):
    """One row's counters, by the names of its `Counting`."""

    id: int
    kept: tuple[int, ...]
    counted: tuple[int, ...]


async def counters(connection: Connection, of: Counting, *, after: tuple[int, int], limit: int) -> list[Counted]:
    """The counters of the rows that come next after (shard, id)."""
    records = await connection.fetch(
        f"with one as materialized (select * from {of.table} where (shard, id) > ($1, $2) and {of.where}"
        f" order by shard, id limit $3) select one.id, array[{of.kept}] as kept, array[{of.counted}] as counted from one"
        " order by one.shard, one.id",
        *after,
        limit,
        timeout=_SECONDS,
    )
    return [Counted(record["id"], tuple(record["kept"]), tuple(record["counted"])) for record in records]


async def counters_of(connection: Connection, of: Counting, id_: int) -> Counted | None:
    """The counters of one row; None if it is gone."""
    found = await counters(connection, of, after=(shard_of(id_), id_ - 1), limit=1)
    return found[0] if found and found[0].id == id_ else None


class Edge(NamedTuple):
    """A row of an edge, by the ids in its key."""

    one: int
    other: int
    is_half: bool
    """It has no row at the other end."""


_TWIN = (
    "exists (select from {0.twin} twin where twin.shard = ((edge.{0.other} >> 10) & 8191)::smallint"
    " and twin.{0.column} = edge.{0.column} and twin.{0.other} = edge.{0.other})"
)


async def edges(connection: Connection, of: Edges, *, after: tuple[int, int], limit: int) -> list[Edge]:
    """The rows that come next after these two ids of a key."""
    records = await connection.fetch(
        f"select edge.{of.column} as one, edge.{of.other} as other, not {_TWIN.format(of)} as is_half"
        f" from (select shard, {of.column}, {of.other} from {of.table}"
        f" where (shard, {of.column}, {of.other}) > ($1, $2, $3) order by 1, 2, 3 limit $4) as edge order by 1, 2, 3",
        shard_of(after[0]),
        *after,
        limit,
        timeout=_SECONDS,
    )
    return [Edge(record["one"], record["other"], record["is_half"]) for record in records]


async def delete_half(connection: Connection, of: Edges, edge: Edge) -> bool:
    """Delete a row that has none at the other end; False if it is gone, or has one now."""
    return bool(
        await connection.fetchval(
            f"delete from {of.table} edge where shard = $1 and {of.column} = $2 and {of.other} = $3"
            f" and not {_TWIN.format(of)} returning true",
            shard_of(edge.one),
            edge.one,
            edge.other,
        )
    )
