"""Who did what an entry of activity with many actors tells, from the rows of the acts themselves.

All of them are at the shard of the account that is told: likes of its posts, comments on them, its followers, and who asks to
follow it. An entry's own acts, and those that told it otherwise, are left out.
"""

from collections.abc import Iterable

from instafeed.ids import shard_of, span
from instafeed.models import Act, ActivityKind
from instafeed.storage.database import Connection

DAY = span(hours=24)
"""Follows, and requests to follow, of one day (UTC) are one entry, whose subject is the day's lowest id."""

# The newest acts on a subject: $1 is the shard, $2 the account that is told, $4 how many. Comments in the very order of their
# index, or all of a post's would be sorted.
_NEWEST = {
    ActivityKind.LIKE: "select id, account_id as actor_id from likers"
    " where shard = $1 and post_id = subject_id and account_id <> $2 order by id desc limit $4",
    # Whom a comment mentions is told of that.
    ActivityKind.COMMENT: "select id, author_id as actor_id from comments"
    " where shard = $1 and post_id = subject_id and parent_id is null and author_id <> $2"
    " and not mentions @> jsonb_build_array(jsonb_build_object('account', $2::bigint))"
    " order by parent_id desc, id desc limit $4",
    ActivityKind.FOLLOW: "select id, follower_id as actor_id from followers"
    f" where shard = $1 and followee_id = $2 and id >= subject_id and id < subject_id + {DAY} order by id desc limit $4",
    ActivityKind.FOLLOW_REQUEST: "select id, requester_id as actor_id from requesters"
    f" where shard = $1 and followee_id = $2 and id >= subject_id and id < subject_id + {DAY} order by id desc limit $4",
}
MANY = frozenset(_NEWEST)
"""What is told in one entry for all who do it."""


async def newest(
    connection: Connection, account_id: int, kind: ActivityKind, subject_ids: Iterable[int], *, limit: int
) -> dict[int, list[Act]]:
    """The newest acts of a kind that the account is told of, by subject, newest first; at most `limit` of each."""
    records = await connection.fetch(
        "select subject_id, (select array_agg(array[act.id, act.actor_id] order by act.id desc)"
        f" from ({_NEWEST[kind]}) act) as acts from unnest($3::bigint[]) as subject_id",
        shard_of(account_id),
        account_id,
        list(subject_ids),
        limit,
    )
    return {record["subject_id"]: [Act(*act) for act in record["acts"] or ()] for record in records}


async def actors(
    connection: Connection, account_id: int, kind: ActivityKind, subject_ids: Iterable[int], *, limit: int
) -> dict[int, int]:
    """How many accounts did the newest `limit` acts of a kind, by subject."""
    records = await connection.fetch(
        f"select subject_id, (select count(distinct act.actor_id) from ({_NEWEST[kind]}) act) as actors"
        " from unnest($3::bigint[]) as subject_id",
        shard_of(account_id),
        account_id,
        list(subject_ids),
        limit,
    )
    return {record["subject_id"]: record["actors"] for record in records}
