"""Explore: rankings, and what they are made of. It asks all shards, for a bounded number of rows."""

from collections.abc import Iterable
from dataclasses import dataclass

from instafeed.ids import shard_of
from instafeed.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Ranking:
    """Posts, the best first."""

    id: int
    post_ids: list[int]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A post that may be ranked."""

    post_id: int
    author_id: int
    likes: int
    """By others than its author."""
    seconds: float
    """Since it was published."""


async def liked_lately(connection: Connection, *, limit: int) -> set[int]:
    """The posts that the newest so many likes are for."""
    # The number is in the text: a plan for any number of rows is one for a tenth of the table.
    records = await connection.fetch(f"select post_id from likers order by id desc limit {limit:d}")
    return {record["post_id"] for record in records}


async def candidates(connection: Connection, post_ids: Iterable[int], *, days: int) -> list[Candidate]:
    """Those of the posts that were published in the last days, by accounts that are public and not suspended."""
    wanted = list(post_ids)
    # Each post is looked up in the one partition that has it.
    records = await connection.fetch(
        "select post.id, post.author_id, extract(epoch from now() - post.published_at)::float8 as seconds,"
        " (select coalesce(sum(counter.likes), 0)::integer from counters counter"
        " where counter.shard = wanted.shard and counter.subject_id = wanted.id) as likes,"
        " exists (select from likes own where own.shard = wanted.shard and own.account_id = post.author_id"
        " and own.post_id = post.id) as own"
        " from unnest($1::smallint[], $2::bigint[]) as wanted (shard, id)"
        " join posts post on post.shard = wanted.shard and post.id = wanted.id"
        " join accounts author on author.shard = wanted.shard and author.id = post.author_id"
        " where post.published_at > now() - make_interval(days => $3)"
        " and not author.is_private and author.suspended_at is null",
        [shard_of(id_) for id_ in wanted],
        wanted,
        days,
    )
    return [
        Candidate(record["id"], record["author_id"], record["likes"] - record["own"], max(record["seconds"], 0.0))
        for record in records
    ]


async def newest(connection: Connection) -> Ranking | None:
    """The newest ranking, if there is any."""
    record = await connection.fetchrow("select id, post_ids from explore_rankings order by id desc limit 1")
    return Ranking(record["id"], record["post_ids"]) if record else None


async def get(connection: Connection, ranking_id: int) -> Ranking | None:
    """A ranking, if it is kept still."""
    record = await connection.fetchrow("select id, post_ids from explore_rankings where id = $1", ranking_id)
    return Ranking(record["id"], record["post_ids"]) if record else None


async def add(connection: Connection, post_ids: list[int], *, kept_seconds: int) -> None:
    """Add a ranking, and forget those that are older than this."""
    await connection.execute("insert into explore_rankings (post_ids) values ($1)", post_ids)
    await connection.execute(
        "delete from explore_rankings where made_at < now() - make_interval(secs => $1)", float(kept_seconds)
    )
