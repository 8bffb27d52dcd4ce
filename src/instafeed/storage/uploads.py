"""Resumable uploads: the rows. Their parts are in `storage/blobs.py`'s care."""

from asyncpg import Record

from instafeed.ids import shard_of
from instafeed.models import Upload
from instafeed.storage.database import Connection

_COLUMNS = "id, account_id, object_key, s3_upload_id, size, sha256, part_size, camera_facts, expires_at"


def _from_record(record: Record) -> Upload:
    return Upload(**record)


async def insert(
    connection: Connection,
    upload_id: int,
    *,
    account_id: int,
    object_key: str,
    size: int,
    sha256: bytes,
    part_size: int,
    camera_facts: bool,
    seconds: float,
) -> Upload | None:
    """Note an upload that is open for so many seconds: what a crash leaves behind can be found by this row.

    None if there is a row with this id, expired or not.
    """
    record = await connection.fetchrow(
        "insert into uploads (shard, id, account_id, object_key, size, sha256, part_size, camera_facts, expires_at)"
        f" values ($1, $2, $3, $4, $5, $6, $7, $8, now() + make_interval(secs => $9))"
        f" on conflict do nothing returning {_COLUMNS}",
        shard_of(upload_id),
        upload_id,
        account_id,
        object_key,
        size,
        sha256,
        part_size,
        camera_facts,
        seconds,
    )
    return _from_record(record) if record else None


async def begin(connection: Connection, upload_id: int, object_key: str, s3_upload_id: str) -> Upload | None:
    """Parts may come, to this multipart upload; None if the row is gone, or parts come to another one."""
    record = await connection.fetchrow(
        "update uploads set s3_upload_id = $4"
        f" where shard = $1 and id = $2 and object_key = $3 and s3_upload_id is null returning {_COLUMNS}",
        shard_of(upload_id),
        upload_id,
        object_key,
        s3_upload_id,
    )
    return _from_record(record) if record else None


async def get(connection: Connection, upload_id: int) -> Upload | None:
    """One upload that has not expired."""
    record = await connection.fetchrow(
        f"select {_COLUMNS} from uploads where shard = $1 and id = $2 and expires_at > now()",
        shard_of(upload_id),
        upload_id,
    )
    return _from_record(record) if record else None


async def count(connection: Connection, account_id: int) -> int:
    """How many uploads of the account are open."""
    found: int = await connection.fetchval(
        "select count(*) from uploads where shard = $1 and account_id = $2 and expires_at > now()",
        shard_of(account_id),
        account_id,
    )
    return found


async def delete(connection: Connection, upload_id: int, object_key: str) -> bool:
    """The upload is open no more; False if it was not. Waits for whoever is just completing or deleting it."""
    return bool(
        await connection.fetchval(
            "delete from uploads where shard = $1 and id = $2 and object_key = $3 returning true",
            shard_of(upload_id),
            upload_id,
            object_key,
        )
    )


async def expired(connection: Connection, *, limit: int) -> list[Upload]:
    """Uploads that were not completed in time, of all shards, for the sweep."""
    records = await connection.fetch(
        f"select {_COLUMNS} from uploads where expires_at <= now() order by expires_at limit $1", limit
    )
    return [_from_record(record) for record in records]
