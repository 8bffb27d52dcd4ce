"""Who follows whom: each follow is a row at the follower's shard and one at the followee's."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from instafeed.ids import MAX_ID, shard_of
from instafeed.storage import accounts, mutes
from instafeed.storage.database import Connection


@dataclass(frozen=True, slots=True)
class PackedFollowers:
    """Some followers of one feed bucket: the keys of their timelines, each `width` characters, in one text."""

    bucket: int
    keys: str
    width: int


@dataclass(frozen=True, slots=True)
class Packed:
    """Followers packed by bucket and width of their keys."""

    followers: list[PackedFollowers]
    count: int
    last: int
    """The largest id among them; where there is none, the one above which they were asked for."""


async def upsert(connection: Connection, follow_id: int, *, follower: int, followee: int, notify: bool) -> bool:
    """Make `follower` follow `followee`; True if it is new, False if only `notify` was set."""
    new: bool = await connection.fetchval(
        "insert into following (shard, follower_id, followee_id, id, notify) values ($1, $2, $3, $4, $5)"
        " on conflict (shard, follower_id, followee_id) do update set notify = excluded.notify returning id = $4",
        shard_of(follower),
        follower,
        followee,
        follow_id,
        notify,
    )
    await connection.execute(
        "insert into followers (shard, followee_id, follower_id, id, notify) values ($1, $2, $3, $4, $5)"
        " on conflict (shard, followee_id, follower_id) do update set notify = excluded.notify",
        shard_of(followee),
        followee,
        follower,
        follow_id,
        notify,
    )
    return new


async def delete(connection: Connection, *, follower: int, followee: int) -> int | None:
    """End a follow; returns its id, None if there was none."""
    follow_id: int | None = await connection.fetchval(
        "delete from following where shard = $1 and follower_id = $2 and followee_id = $3 returning id",
        shard_of(follower),
        follower,
        followee,
    )
    await connection.execute(
        "delete from followers where shard = $1 and followee_id = $2 and follower_id = $3",
        shard_of(followee),
        followee,
        follower,
    )
    return follow_id


_NOT_MUTED = "not exists (select from mutes where mutes.shard = $1 and mutes.muter_id = $2 and mutes.muted_id = following.followee_id)"


async def feed_authors(connection: Connection, viewer: int) -> list[int]:
    """Whose posts are in `viewer`'s home feed besides its own: everybody whom it follows and does not mute.

    Nobody follows whom they block, or who blocks them. Suspended accounts are among them: whoever shows posts leaves
    theirs out (`visibility.shown_in_feeds`).
    """
    records = await connection.fetch(
        f"select followee_id from following where shard = $1 and follower_id = $2 and {_NOT_MUTED}",
        shard_of(viewer),
        viewer,
    )
    return [record["followee_id"] for record in records]


async def feed_authors_among(connection: Connection, viewer: int, candidates: Iterable[int]) -> set[int]:
    """Who of `candidates` is one of `feed_authors`."""
    records = await connection.fetch(
        "select followee_id from following where shard = $1 and follower_id = $2 and followee_id = any($3::bigint[])"
        f" and {_NOT_MUTED}",
        shard_of(viewer),
        viewer,
        list(candidates),
    )
    return {record["followee_id"] for record in records}


async def listeners_among(connection: Connection, author: int, candidates: Iterable[int]) -> set[int]:
    """Who of `candidates` is told as it happens what `author` posts: followers who do not mute it, and nobody while it
    is suspended.
    """
    followers = await followers_among(connection, author, candidates)
    if not followers or await accounts.suspended_among(connection, [author]):
        return set()
    return set(followers) - await mutes.muters_among(connection, author, followers)


async def followers_among(connection: Connection, followee: int, candidates: Iterable[int]) -> list[int]:
    """Who of `candidates` follows `followee`."""
    records = await connection.fetch(
        "select follower_id from followers where shard = $1 and followee_id = $2 and follower_id = any($3::bigint[])",
        shard_of(followee),
        followee,
        list(candidates),
    )
    return [record["follower_id"] for record in records]


async def page_of_followers(
    connection: Connection, account_id: int, *, below: int, limit: int
) -> list[tuple[int, int]]:
    """(follow id, account id) of followers, newest first, with follow ids below `below`."""
    records = await connection.fetch(
        "select id, follower_id from followers where shard = $1 and followee_id = $2 and id < $3 order by id desc limit $4",
        shard_of(account_id),
        account_id,
        below,
        limit,
    )
    return [(record["id"], record["follower_id"]) for record in records]


async def page_of_following(
    connection: Connection, account_id: int, *, below: int, limit: int
) -> list[tuple[int, int]]:
    """(follow id, account id) of followees, newest first, with follow ids below `below`."""
    records = await connection.fetch(
        "select id, followee_id from following where shard = $1 and follower_id = $2 and id < $3 order by id desc limit $4",
        shard_of(account_id),
        account_id,
        below,
        limit,
    )
    return [(record["id"], record["followee_id"]) for record in records]


async def packed_followers(
    connection: Connection,
    account_id: int,
    *,
    above: int = 0,
    up_to: int = MAX_ID,
    limit: int,
    buckets: int,
    key_parts: tuple[str, str],
) -> Packed:
    """Followers packed by the database, so that Python touches none of them.

    Args:
        connection: where to ask.
        account_id: whose followers.
        above: only ids above this; 0 to begin.
        up_to: only ids up to this one.
        limit: at most so many, in the order of their ids.
        buckets: number of timeline buckets; a follower's is its shard modulo this.
        key_parts: what stands in a timeline's key before the bucket, and between it and the id.
    """
    prefixes = [f"{key_parts[0]}{bucket}{key_parts[1]}" for bucket in range(buckets)]
    # Keys are joined by what each begins with, and of today's ids the width is told without writing them: a row costs a
    # quarter less than with its key put together and padded.
    records = await connection.fetch(
        "select bucket, digits, count(*) as count, max(follower_id) as last,"
        " string_agg(follower_id::text, ($5::text[])[bucket + 1]) as keys"
        " from (select follower_id, ((follower_id >> 10 & 8191) % $4)::int as bucket,"
        " case when follower_id >= 1000000000000000000 then 19 when follower_id >= 100000000000000000 then 18"
        " else length(follower_id::text) end as digits from followers"
        " where shard = $1 and followee_id = $2 and follower_id > $3 and follower_id <= $6 order by follower_id limit $7) piece"
        " group by bucket, digits",
        shard_of(account_id),
        account_id,
        above,
        buckets,
        prefixes,
        up_to,
        limit,
    )
    followers = []
    for record in records:
        prefix = prefixes[record["bucket"]]
        followers.append(PackedFollowers(record["bucket"], prefix + record["keys"], len(prefix) + record["digits"]))
    last = max((record["last"] for record in records), default=above)
    return Packed(followers, sum(record["count"] for record in records), last)


async def follower_ids(connection: Connection, account_id: int, *, above: int, limit: int) -> list[int]:
    """The next followers, in the order of their ids."""
    records = await connection.fetch(
        "select follower_id from followers where shard = $1 and followee_id = $2 and follower_id > $3"
        " order by follower_id limit $4",
        shard_of(account_id),
        account_id,
        above,
        limit,
    )
    return [record["follower_id"] for record in records]


async def chunks_of_followers(connection: Connection, account_id: int, *, size: int) -> list[tuple[int, int]]:
    """Chunks of about `size` followers in the order of their ids: above the one id, up to the other. Together they hold every
    follower that there can be, whoever comes or goes meanwhile.
    """
    records = await connection.fetch(
        "select follower_id from (select follower_id, row_number() over (order by follower_id) as number from followers"
        " where shard = $1 and followee_id = $2) numbered where number % $3 = 0 order by follower_id",
        shard_of(account_id),
        account_id,
        size,
    )
    bounds = [0, *(record["follower_id"] for record in records), MAX_ID]
    return list(pairwise(bounds))


async def subscribers(connection: Connection, account_id: int, *, above: int, limit: int) -> list[int]:
    """The next followers, in the order of their ids, who want to be told of the account's posts."""
    records = await connection.fetch(
        "select follower_id from followers where shard = $1 and followee_id = $2 and follower_id > $3 and notify"
        " order by follower_id limit $4",
        shard_of(account_id),
        account_id,
        above,
        limit,
    )
    return [record["follower_id"] for record in records]
