"""How far entries of activity were pushed: columns of their rows.

`pushed_id` is where an entry stood when it was pushed last, `pushed_at` when a push of it was begun last, and `push_waits` says
that work is noted which pushes it again when enough time has passed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from instafeed.ids import shard_of
from instafeed.models import ActivityKind
from instafeed.storage.database import Connection

# By the key: the index by actor would find everybody's entries of a day.
_ENTRY = "shard = any($1::smallint[]) and account_id = any($2::bigint[]) and kind = $3 and subject_id = $4 and actor_id + 0 = $5"


@dataclass(frozen=True, slots=True)
class Entry:
    """Which entries: of one kind, subject and actor, each account's own."""

    kind: ActivityKind
    subject_id: int
    actor_id: int


@dataclass(frozen=True, slots=True)
class Turns:
    """Whose turn it is."""

    now: dict[int, int] = field(default_factory=dict)
    """Accounts whose entry is to be pushed now, and where it stands."""
    later: list[int] = field(default_factory=list)
    """Accounts whose entry was pushed a moment ago, and for which work must be noted."""
    seconds: float = 0
    """In how many seconds it is the turn of the last of them."""


async def reached_among(
    connection: Connection, account_ids: Iterable[int], kind: ActivityKind, *, usually_mailed: bool
) -> list[int]:
    """Which of these accounts, in the order of their ids, have a device, or may want mails of this kind."""
    wanted = list(account_ids)
    records = await connection.fetch(
        "select id from accounts where shard = any($1::smallint[]) and id = any($2::bigint[]) and (exists (select from devices"
        " where devices.shard = accounts.shard and devices.account_id = accounts.id) or (email is not null and coalesce("
        "(select preferences -> $3 ->> 'mail' <> 'off' from inboxes where inboxes.shard = accounts.shard"
        " and inboxes.account_id = accounts.id), $4))) order by id",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
        kind,
        usually_mailed,
    )
    return [record["id"] for record in records]


async def take_turns(connection: Connection, entry: Entry, account_ids: Iterable[int], *, pause: float) -> Turns:
    """Begin to push the entries of these accounts that were moved since they were pushed, at most once in `pause` seconds.

    Whoever takes a turn and is killed leaves it to whoever comes after the pause.
    """
    wanted = list(account_ids)
    where = [list({shard_of(id_) for id_ in wanted}), wanted, entry.kind, entry.subject_id, entry.actor_id]
    records = await connection.fetch(
        "select account_id, id, push_waits,"
        " coalesce(extract(epoch from pushed_at - now())::float8 + $6, 0) as seconds from activity"
        f" where {_ENTRY} and id > pushed_id order by account_id for update",
        *where,
        pause,
    )
    now = {record["account_id"]: record["id"] for record in records if record["seconds"] <= 0}
    later = [record for record in records if record["seconds"] > 0 and not record["push_waits"]]
    turns = Turns(now, [record["account_id"] for record in later], max((r["seconds"] for r in later), default=0))
    for ids, change in ((list(now), "pushed_at = now(), push_waits = false"), (turns.later, "push_waits = true")):
        if ids:
            where[:2] = list({shard_of(id_) for id_ in ids}), ids
            await connection.execute(f"update activity set {change} where {_ENTRY}", *where)
    return turns


async def standing(connection: Connection, entry: Entry, account_ids: Iterable[int]) -> dict[int, int]:
    """Where the entries of these accounts stand, of those that are there."""
    wanted = list(account_ids)
    records = await connection.fetch(
        f"select account_id, id from activity where {_ENTRY}",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
        entry.kind,
        entry.subject_id,
        entry.actor_id,
    )
    return {record["account_id"]: record["id"] for record in records}


async def mark(connection: Connection, entry: Entry, pushed: Mapping[int, int]) -> None:
    """Remember where the entries of these accounts stood that were pushed."""
    await connection.execute(
        "update activity set pushed_id = greatest(pushed_id, pushed.id)"
        " from unnest($1::smallint[], $2::bigint[], $6::bigint[]) as pushed (shard, account_id, id)"
        " where activity.shard = pushed.shard and activity.account_id = pushed.account_id"
        " and kind = $3 and subject_id = $4 and actor_id + 0 = $5",
        [shard_of(id_) for id_ in pushed],
        list(pushed),
        entry.kind,
        entry.subject_id,
        entry.actor_id,
        list(pushed.values()),
    )
