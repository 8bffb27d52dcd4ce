"""The outbox: what a committed change still has to cause.

An entry is written in the transaction of its cause, and is the truth about the work; the queue's job only rings for it.
Whoever works on it holds a lease and renews it with every checkpoint, so that a killed worker's entry is free again
within `LEASE_SECONDS`.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from asyncpg import Record

from instafeed.ids import shard_of
from instafeed.storage.database import Connection
from instafeed.storage.pruning import delete_some

LEASE_SECONDS = 10.0
FIRST_RING_SECONDS = 5.0
"""The sweep rings for an entry that nobody took for so long: its doorbell was lost."""
RING_SECONDS = 10.0
"""The sweep rings again after so long."""
MAX_ATTEMPTS = 12
"""Attempts without any progress, after which an entry is dead."""
KEPT_DAYS = 7
PARTS_DONE = 1
"""Position of an entry all of whose parts are done; it has one more for each that is not."""
_LONGEST_PAUSE_SECONDS = 600.0
_AWAY_PAUSE_SECONDS = 3.0
_STUCK_SECONDS = 60.0


class Kind(StrEnum):
    """What kinds of work there are; each has one job of the same name."""

    RENDER = "render"
    FAN_OUT = "fan_out"
    DELIVER = "deliver"
    NOTIFY = "notify"
    ALIGN = "align"
    PUSH_AGAIN = "push_again"
    TAG = "tag"
    PUSH = "push"
    DIGEST = "digest"
    RETRACT = "retract"
    PRUNE = "prune"
    PRUNE_REPLIES = "prune_replies"
    PUBLISH = "publish"
    DISCARD = "discard"
    APPROVE = "approve"
    MAIL = "mail"
    AVATAR = "avatar"
    ERASE = "erase"
    EXPORT = "export"


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of work; `position` is how far it is, in the work's own terms."""

    id: int
    kind: Kind
    payload: dict[str, Any]
    position: int
    attempts: int
    again: bool = False
    """Somebody was at it before, and may have done any part of it."""


def _from_record(record: Record) -> Entry:
    return Entry(
        id=record["id"],
        kind=Kind(record["kind"]),
        payload=record["payload"],
        position=record["position"],
        attempts=record["attempts"],
        again=record["again"] or record["payload"].get("again", False),
    )


async def add(
    connection: Connection, entry_id: int, kind: Kind, payload: dict[str, Any], *, seconds: float = FIRST_RING_SECONDS
) -> None:
    """Note work to do; call it in the transaction that causes the work. Ids in `payload` are plain integers.

    The sweep rings for it after `seconds`: work that is to wait so long is not rung for before.
    """
    await connection.execute(_ADD.format(1, 2, 3, 4, 5), *row(entry_id, kind, payload, seconds=seconds))


# From now, and not from the transaction's beginning: nothing is done before its time because a lock was waited for.
_ADD = (
    "insert into outbox (shard, id, kind, payload, due_at)"
    " select ${}::smallint, ${}::bigint, ${}::text, ${}::jsonb, clock_timestamp() + make_interval(secs => ${})"
)


def add_from(cause: str, *, first: int) -> str:
    """SQL that adds an entry if `cause`, part of the same statement, has a row. The entry is `row`, its parameters begin
    with number `first`.
    """
    return f"{_ADD.format(*range(first, first + 5))} from {cause}"


def row(
    entry_id: int, kind: Kind, payload: dict[str, Any], *, seconds: float = FIRST_RING_SECONDS
) -> tuple[int, int, Kind, dict[str, Any], float]:
    """The parameters of `add_from`; see `add`."""
    return shard_of(entry_id), entry_id, kind, payload, seconds


async def cancel(connection: Connection, entry_id: int) -> None:
    """Forget work that is not to be done after all; whoever is at it already has to see that by itself."""
    await connection.execute("delete from outbox where shard = $1 and id = $2", shard_of(entry_id), entry_id)


async def claim(connection: Connection, entry_id: int) -> Entry | None:
    """Take an entry for `LEASE_SECONDS`; None if it is done, dead, or somebody else has it."""
    record = await connection.fetchrow(
        "update outbox set leased_until = now() + make_interval(secs => $3), due_at = now() + make_interval(secs => $3),"
        " attempts = attempts + 1, started_at = coalesce(started_at, now())"
        " where shard = $1 and id = $2 and done_at is null and dead_at is null and (leased_until is null or leased_until < now())"
        " returning id, kind, payload, position, attempts, started_at < now() as again",
        shard_of(entry_id),
        entry_id,
        LEASE_SECONDS,
    )
    return _from_record(record) if record else None


async def checkpoint(connection: Connection, entry_id: int, position: int) -> None:
    """Note progress and renew the lease."""
    await connection.execute(
        "update outbox set position = $3, attempts = 1, leased_until = now() + make_interval(secs => $4),"
        " due_at = now() + make_interval(secs => $4) where shard = $1 and id = $2",
        shard_of(entry_id),
        entry_id,
        position,
        LEASE_SECONDS,
    )


async def set_position(connection: Connection, entry_id: int, position: int) -> None:
    """Note a position that is no progress: neither the attempts nor the lease begin anew."""
    await connection.execute(
        "update outbox set position = $3 where shard = $1 and id = $2", shard_of(entry_id), entry_id, position
    )


async def renew(connection: Connection, entry_id: int) -> None:
    """Hold an entry for another `LEASE_SECONDS`."""
    await connection.execute(
        "update outbox set leased_until = now() + make_interval(secs => $3), due_at = now() + make_interval(secs => $3)"
        " where shard = $1 and id = $2 and done_at is null",
        shard_of(entry_id),
        entry_id,
        LEASE_SECONDS,
    )


async def finish(connection: Connection, entry_id: int) -> bool:
    """Mark an entry as done; False if somebody else was quicker."""
    return bool(
        await connection.fetchval(
            "update outbox set done_at = now(), leased_until = null where shard = $1 and id = $2 and done_at is null"
            " returning true",
            shard_of(entry_id),
            entry_id,
        )
    )


async def wait_for_parts(connection: Connection, entry_id: int, parts: int) -> bool:
    """Let an entry that began at position 0 rest until so many parts of it are done; False if it is done or rests already."""
    return bool(
        await connection.fetchval(
            "update outbox set position = $3, attempts = 0, leased_until = null, due_at = 'infinity'"
            " where shard = $1 and id = $2 and done_at is null and position = 0 returning true",
            shard_of(entry_id),
            entry_id,
            PARTS_DONE + parts,
        )
    )


async def rest(connection: Connection, entry_id: int) -> None:
    """Let an entry go on waiting for its parts."""
    await connection.execute(
        "update outbox set attempts = 0, leased_until = null,"
        " due_at = case when position > $3 then 'infinity'::timestamptz else now() end"
        " where shard = $1 and id = $2 and done_at is null",
        shard_of(entry_id),
        entry_id,
        PARTS_DONE,
    )


async def part_is_done(connection: Connection, entry_id: int) -> bool:
    """One part less to wait for; True if it was the last one, and the entry is to be rung for."""
    return bool(
        await connection.fetchval(
            "update outbox set position = position - 1,"
            " due_at = case when position = $3 + 1 then now() + make_interval(secs => $4) else due_at end"
            " where shard = $1 and id = $2 and done_at is null and position > $3 returning position = $3",
            shard_of(entry_id),
            entry_id,
            PARTS_DONE,
            FIRST_RING_SECONDS,
        )
    )


async def is_overtaken(connection: Connection, entry: Entry) -> bool:
    """Whether a later entry of the same kind, for the same author, waits; call it with the author's row locked."""
    return bool(
        await connection.fetchval(
            "select exists (select from outbox where shard = $1 and id > $2 and kind = $3 and done_at is null"
            " and dead_at is null and payload->'author' = to_jsonb($4::bigint))",
            shard_of(entry.id),
            entry.id,
            entry.kind,
            entry.payload["author"],
        )
    )


async def fail(connection: Connection, entry: Entry, error: str) -> bool:
    """Give an entry back after an error of its own, to be rung for after a pause that doubles; True if it is dead now."""
    return bool(
        await connection.fetchval(
            "update outbox set error = $3, leased_until = null, due_at = now() + make_interval(secs => $4),"
            " dead_at = case when attempts >= $5 then now() end where shard = $1 and id = $2 returning dead_at is not null",
            shard_of(entry.id),
            entry.id,
            error[:500],
            min(2.0 ** (entry.attempts - 1), _LONGEST_PAUSE_SECONDS),
            MAX_ATTEMPTS,
        )
    )


async def hand_back(connection: Connection, entry_id: int) -> None:
    """Give an entry back untried, because its worker stops; it can be taken at once."""
    await connection.execute(
        "update outbox set leased_until = null, due_at = now(), attempts = greatest(attempts - 1, 0)"
        " where shard = $1 and id = $2 and done_at is null",
        shard_of(entry_id),
        entry_id,
    )


async def postpone(connection: Connection, entry: Entry, error: str) -> None:
    """Give an entry back because a server is away, however often: that is no fault of the entry's."""
    await connection.execute(
        "update outbox set error = $3, leased_until = null, due_at = now() + make_interval(secs => $4),"
        " attempts = attempts - 1 where shard = $1 and id = $2",
        shard_of(entry.id),
        entry.id,
        error[:500],
        _AWAY_PAUSE_SECONDS,
    )


async def reopen(connection: Connection, kinds: list[Kind], *, done_since: datetime) -> int:
    """Make entries of all shards that were done since then due again; returns how many."""
    records = await connection.fetch(
        "update outbox set done_at = null, position = 0, attempts = 0, due_at = now()"
        " where done_at >= $1 and kind = any($2::text[]) returning 1",
        done_since,
        kinds,
    )
    return len(records)


async def begun(connection: Connection, kinds: list[Kind]) -> list[Entry]:
    """The entries of all shards that somebody is at, or was."""
    records = await connection.fetch(
        "select id, kind, payload, position, attempts, true as again from outbox where done_at is null and dead_at is null"
        " and kind = any($1::text[]) and (attempts > 0 or position > 0)",
        kinds,
    )
    return [_from_record(record) for record in records]


async def ring_late(connection: Connection, *, kinds: list[Kind], limit: int) -> list[tuple[Kind, int]]:
    """The entries of all shards that are due; each is due again if nobody takes it for `RING_SECONDS`.

    One that was taken `MAX_ATTEMPTS` times and never given back is dead: it ends whoever works on it. The only statement
    besides the other sweeps that names no shard.
    """
    records = await connection.fetch(
        "with late as (select shard, id from outbox where done_at is null and dead_at is null and due_at < now()"
        " and kind = any($1::text[]) order by due_at limit $2 for update skip locked)"
        " update outbox set due_at = now() + make_interval(secs => $3), dead_at = case when attempts >= $4 then now() end"
        " from late where outbox.shard = late.shard and outbox.id = late.id"
        " returning outbox.kind, outbox.id, outbox.dead_at is not null as dead",
        kinds,
        limit,
        RING_SECONDS,
        MAX_ATTEMPTS,
    )
    return [(Kind(record["kind"]), record["id"]) for record in records if not record["dead"]]


async def counts(connection: Connection) -> tuple[int, int, datetime | None]:
    """(late entries, dead entries, when the oldest late one was due), of all shards."""
    record = await connection.fetchrow(
        "select count(*) filter (where dead_at is null and due_at < now()) as late,"
        " count(*) filter (where dead_at is not null) as dead,"
        " min(due_at) filter (where dead_at is null and due_at < now()) as oldest from outbox where done_at is null"
    )
    assert record is not None
    return record["late"], record["dead"], record["oldest"]


async def stuck(connection: Connection, *, seconds: float, limit: int) -> tuple[int, list[tuple[Entry, str]]]:
    """How many entries of all shards do not get on, and the first of them, each with what is wrong with it: dead, due for
    `seconds` without being rung for, or given back with an error `seconds` after it was first taken.
    """
    records = await connection.fetch(
        "select id, kind, payload, position, attempts, started_at is not null as again, count(*) over () as total,"
        " concat_ws(': ', case when dead_at is not null then 'dead' when due_at < at.late then 'not rung for' else 'failing' end,"
        " error) as wrong"
        " from outbox, (select now() - make_interval(secs => $1) as late) at where done_at is null and (dead_at is not null"
        " or due_at < at.late or (error is not null and leased_until is null and started_at < at.late and due_at < 'infinity'))"
        " order by due_at limit $2",
        seconds,
        limit,
        timeout=_STUCK_SECONDS,
    )
    return records[0]["total"] if records else 0, [(_from_record(record), record["wrong"]) for record in records]


async def forget_done(connection: Connection, *, limit: int) -> int:
    """Delete entries done more than `KEPT_DAYS` ago; returns how many."""
    old = "done_at < now() - make_interval(days => $1)"
    return await delete_some(connection, "outbox", ("shard", "id"), old, KEPT_DAYS, limit=limit)
