"""Entries of what accounts are told of, at their shards.

An entry of one act has its actor. An entry of all acts of a kind on a subject has none: who acted is told by the rows of the
acts themselves (`storage/acts.py`), which so many may write at once as like; the entry only knows where it stands.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from instafeed.ids import shard_of, span
from instafeed.models import ActivityKind
from instafeed.storage.database import Connection

MANY = 0
"""The actor of an entry that has many."""
STILL = span(hours=1 / 3600)
"""An entry that an act moved stands still for the acts of so long after it: of those who like a post in one second, one writes
its row and none waits.
"""


@dataclass(frozen=True, slots=True)
class EntryRow:
    """An entry as it is kept."""

    id: int
    """Where it stands: at most `STILL` below its newest act."""
    kind: ActivityKind
    subject_id: int
    actor_id: int


async def add(
    connection: Connection,
    account_ids: Iterable[int],
    kind: ActivityKind,
    entry_id: int,
    *,
    subject_id: int,
    actor_id: int,
) -> list[int]:
    """Tell each account of one act; returns who had not been told of it before."""
    told = list(account_ids)
    records = await connection.fetch(
        "insert into activity (shard, account_id, kind, subject_id, actor_id, id)"
        " select shard, account_id, $3, $4, $5, $6 from unnest($1::smallint[], $2::bigint[]) as told (shard, account_id)"
        " on conflict do nothing returning account_id",
        [shard_of(id_) for id_ in told],
        told,
        kind,
        subject_id,
        actor_id,
        entry_id,
    )
    return [record["account_id"] for record in records]


async def move(connection: Connection, account_id: int, kind: ActivityKind, act_id: int, *, subject_id: int) -> bool:
    """Move an account's entry to its newest act, or make it; False if it stands there already.

    It never moves down: an act that is undone leaves it where it is, and waits for nobody.
    """
    # An upsert would lock the row of an entry that stands still. An entry that has many is the only one of its subject: with
    # the actor in the condition, the index by actor would find everybody's entries of a day.
    moved: bool = await connection.fetchval(
        "with moved as (update activity set id = $5 where shard = $1 and account_id = $2 and kind = $3 and subject_id = $4"
        " and id < $6 returning 1), made as (insert into activity as entry"
        " (shard, account_id, kind, subject_id, actor_id, id) select $1, $2, $3, $4, $7, $5 where not exists (select"
        " from activity where shard = $1 and account_id = $2 and kind = $3 and subject_id = $4)"
        " on conflict (shard, account_id, kind, subject_id, actor_id) do update set id = greatest(entry.id, excluded.id)"
        " returning 1) select exists (select from moved) or exists (select from made)",
        shard_of(account_id),
        account_id,
        kind,
        subject_id,
        act_id,
        act_id - STILL,
        MANY,
    )
    return moved


async def page(
    connection: Connection,
    account_id: int,
    *,
    below: int,
    limit: int,
    above: int = 0,
    without: Iterable[ActivityKind] = (),
) -> list[EntryRow]:
    """The account's entries, newest first, with ids above `above` and below `below`, and not of these kinds."""
    records = await connection.fetch(
        "select id, kind, subject_id, actor_id from activity where shard = $1 and account_id = $2 and id < $3 and id > $5"
        " and kind <> all($6::text[])"
        " order by id desc limit $4",
        shard_of(account_id),
        account_id,
        below,
        limit,
        above,
        list(without),
    )
    return [
        EntryRow(record["id"], ActivityKind(record["kind"]), record["subject_id"], record["actor_id"])
        for record in records
    ]


async def remove(
    connection: Connection, account_id: int, kind: ActivityKind, *, subject_id: int, actor_id: int
) -> None:
    """Take an account's entry away."""
    # By the key: the index by actor would find all that the actor ever accepted.
    await connection.execute(
        "delete from activity where shard = $1 and account_id = $2 and kind = $3 and subject_id = $4 and actor_id + 0 = $5",
        shard_of(account_id),
        account_id,
        kind,
        subject_id,
        actor_id,
    )


async def forget_comments(connection: Connection, gone: Sequence[tuple[int, int]]) -> None:
    """Forget whom these comments (author, comment), which are gone, told of themselves, at all shards."""
    await connection.execute(
        "delete from activity using unnest($1::bigint[], $2::bigint[]) as gone (author_id, id)"
        " where activity.actor_id = gone.author_id and activity.subject_id = gone.id",
        [author_id for author_id, _ in gone],
        [comment_id for _, comment_id in gone],
    )


async def forget_post(connection: Connection, author_id: int, post_id: int, *, limit: int) -> int:
    """Forget up to so many entries, at all shards, of what an author's post told that is gone; returns how many."""
    records = await connection.fetch(
        "with gone as (select shard, account_id, kind from activity where actor_id = $1 and subject_id = $2 limit $3)"
        " delete from activity using gone where activity.shard = gone.shard and activity.account_id = gone.account_id"
        " and activity.kind = gone.kind and activity.actor_id = $1 and activity.subject_id = $2 returning 1",
        author_id,
        post_id,
        limit,
    )
    return len(records)
