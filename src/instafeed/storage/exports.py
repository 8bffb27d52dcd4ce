"""Copies of their data that people asked for: the rows, and what of a copy no list gives."""

from asyncpg import Record

from instafeed.ids import shard_of
from instafeed.models import Export, ExportStatus
from instafeed.storage.database import Connection

KEPT_DAYS = 7
"""A copy can be fetched for so long."""
FRESH_HOURS = 24
"""Whoever asks again within this time gets the same copy."""

_COLUMNS = "id, account_id, object_key, status, photos, photos_done, size, expires_at"


def _from_record(record: Record) -> Export:
    values = dict(record)
    values["status"] = ExportStatus(values["status"])
    return Export(**values)


async def insert(connection: Connection, export_id: int, *, account_id: int, object_key: str) -> Export:
    """Note that a copy is being made."""
    record = await connection.fetchrow(
        "insert into exports (shard, id, account_id, object_key, status, expires_at)"
        f" values ($1, $2, $3, $4, 'processing', now() + make_interval(days => $5)) returning {_COLUMNS}",
        shard_of(export_id),
        export_id,
        account_id,
        object_key,
        KEPT_DAYS,
    )
    assert record is not None
    return _from_record(record)


async def get(connection: Connection, export_id: int) -> Export | None:
    """One copy that has not expired."""
    record = await connection.fetchrow(
        f"select {_COLUMNS} from exports where shard = $1 and id = $2 and expires_at > now()",
        shard_of(export_id),
        export_id,
    )
    return _from_record(record) if record else None


async def fresh(connection: Connection, account_id: int) -> Export | None:
    """The account's copy that is being made, or was made within `FRESH_HOURS`."""
    record = await connection.fetchrow(
        f"select {_COLUMNS} from exports where shard = $1 and account_id = $2 and expires_at > now()"
        " and (status = 'processing' or ready_at > now() - make_interval(hours => $3)) order by id desc limit 1",
        shard_of(account_id),
        account_id,
        FRESH_HOURS,
    )
    return _from_record(record) if record else None


async def set_progress(connection: Connection, export_id: int, *, done: int, photos: int) -> bool:
    """Say how many of so many photos are in the copy; False if nobody waits for it any more."""
    return bool(
        await connection.fetchval(
            "update exports set photos_done = $3, photos = $4 where shard = $1 and id = $2 and status = 'processing'"
            " returning true",
            shard_of(export_id),
            export_id,
            done,
            photos,
        )
    )


async def mark_ready(connection: Connection, export_id: int, *, size: int) -> bool:
    """The copy is stored, and can be fetched for `KEPT_DAYS`; False if nobody waits for it any more."""
    return bool(
        await connection.fetchval(
            "update exports set status = 'ready', size = $3, ready_at = now(), expires_at = now() + make_interval(days => $4)"
            " where shard = $1 and id = $2 and status = 'processing' returning true",
            shard_of(export_id),
            export_id,
            size,
            KEPT_DAYS,
        )
    )


async def mark_failed(connection: Connection, export_id: int) -> None:
    """There will be no copy."""
    await connection.execute(
        "update exports set status = 'failed' where shard = $1 and id = $2 and status = 'processing'",
        shard_of(export_id),
        export_id,
    )


async def delete_expired(connection: Connection, *, limit: int) -> list[tuple[int, str]]:
    """Forget copies that have expired, of all shards; returns their ids and object keys."""
    records = await connection.fetch(
        "delete from exports where shard = any(array(select shard from exports where expires_at <= now() limit $1))"
        " and id = any(array(select id from exports where expires_at <= now() limit $1)) and expires_at <= now()"
        " returning id, object_key",
        limit,
    )
    return [(record["id"], record["object_key"]) for record in records]


async def requested(connection: Connection, account_id: int, *, below: int, limit: int) -> list[tuple[int, int]]:
    """(request id, account) of whom the account asks to follow, newest first, with ids below `below`."""
    records = await connection.fetch(
        "select id, followee_id from requesting where shard = $1 and requester_id = $2 and id < $3 order by id desc limit $4",
        shard_of(account_id),
        account_id,
        below,
        limit,
    )
    return [(record["id"], record["followee_id"]) for record in records]


async def reports(connection: Connection, account_id: int, *, below: int, limit: int) -> list[Record]:
    """What the account reported, newest first, with ids below `below`."""
    found: list[Record] = await connection.fetch(
        "select report.id, report.reason, report.detail, about.subject_kind, about.subject_id from reports report"
        " join report_cases about on about.shard = report.shard and about.id = report.case_id"
        " where report.reporter_id = $1 and report.id < $2 order by report.id desc limit $3",
        account_id,
        below,
        limit,
    )
    return found
