"""Photos' and uploads' rows as the sweep sees them: of all shards, beside what the bucket lists."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from asyncpg import Record

from instafeed.ids import lowest_at, shard_of
from instafeed.models import MediaStatus
from instafeed.storage.blobs import rendition_hash
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Kind

# An index has it: the bucket tells no more of a photo than this.
_HASH = "substr(sha256(object_key::bytea), 1, 16)"
_SECONDS = 60.0
# The keys of both kinds of work that delete objects; what is done and what is not has an index each.
_GOING = " union all ".join(
    f"select {key} as object_key from outbox where kind = '{kind}' and {when}"
    for kind, key in (
        (Kind.DISCARD, "payload ->> 'key'"),
        (Kind.RETRACT, "jsonb_array_elements_text(payload -> 'object_keys')"),
    )
    for when in ("done_at is null and dead_at is null", "done_at > now() - interval '1 minute'")
)
_COLUMNS = "id, object_key, status, renditions, original_deleted_at is not null as original_deleted"


@dataclass(frozen=True, slots=True)
class Stored:
    """What should be stored of a photo, or of an upload in parts that will be one."""

    id: int
    object_key: str
    status: MediaStatus | None
    """None for an upload."""
    renditions: frozenset[str]
    """The keys of its renditions."""
    original_deleted: bool


def _from_record(record: Record) -> Stored:
    return Stored(
        id=record["id"],
        object_key=record["object_key"],
        status=MediaStatus(record["status"]) if record["status"] else None,
        renditions=frozenset(rendition["key"] for rendition in record["renditions"]),
        original_deleted=record["original_deleted"],
    )


async def of_keys(connection: Connection, object_keys: Iterable[str]) -> dict[str, Stored]:
    """The photos and open uploads with these object keys, by them.

    In one statement: an upload that is just completed is seen as the one or as the other.
    """
    keys = list(object_keys)
    records = await connection.fetch(
        f"select {_COLUMNS} from media where {_HASH} = any($1::bytea[])"
        " union all select id, object_key, null, '[]', false from uploads where object_key = any($2::text[])",
        [bytes.fromhex(rendition_hash(key)) for key in keys],
        keys,
    )
    return {record["object_key"]: _from_record(record) for record in records}


async def going(connection: Connection, hashes: Iterable[str]) -> set[str]:
    """Those of these `rendition_hash`es whose objects a job is about to delete, or has deleted within the last minute: what
    was listed before may be gone by now.
    """
    records = await connection.fetch(
        f"select encode({_HASH}, 'hex') as hash from ({_GOING}) going where {_HASH} = any($1::bytea[])",
        [bytes.fromhex(hash_) for hash_ in hashes],
        timeout=_SECONDS,
    )
    return {record["hash"] for record in records}


async def between(connection: Connection, after: str, to: str | None, *, limit: int) -> list[Stored]:
    """Photos with a `rendition_hash` above `after`, up to `to` or the end, in the order of these."""
    records = await connection.fetch(
        f"select {_COLUMNS} from media where {_HASH} > $1 and {_HASH} <= $2 order by {_HASH} limit $3",
        bytes.fromhex(after),
        bytes.fromhex(to) if to is not None else b"\xff" * 17,
        limit,
    )
    return [_from_record(record) for record in records]


async def unposted(connection: Connection, before: datetime, *, after: int, limit: int) -> list[Stored]:
    """Photos that arrived `before` then but are no post's, with ids above `after`, lowest first."""
    # No photo is pending, as some were once: the index has this condition.
    records = await connection.fetch(
        f"select {_COLUMNS} from media where post_id is null and status <> 'pending' and uploaded_at < $1"
        " and id > $2 and id < $3 order by id limit $4",
        before,
        after,
        lowest_at(before.timestamp()),  # what came later has no lower id
        limit,
    )
    return [_from_record(record) for record in records]


async def delete_unposted(connection: Connection, photos: Iterable[Stored], before: datetime) -> list[Stored]:
    """Forget those of these photos of which that is still true; returns them."""
    by_id = {photo.id: photo for photo in photos}
    records = await connection.fetch(
        "delete from media where shard = any($1::smallint[]) and id = any($2::bigint[]) and post_id is null"
        " and uploaded_at < $3 returning id",
        list({shard_of(id_) for id_ in by_id}),
        list(by_id),
        before,
    )
    return [by_id[record["id"]] for record in records]


async def unrendered(connection: Connection, *, after: int, below: int, limit: int) -> list[Stored]:
    """Photos that wait for their renditions, with ids from `after` to `below`, both not included, lowest first."""
    records = await connection.fetch(
        f"select {_COLUMNS} from media where status = 'processing' and id > $1 and id < $2 order by id limit $3",
        after,
        below,
        limit,
    )
    return [_from_record(record) for record in records]


async def is_noted(connection: Connection, media_id: int) -> bool:
    """Whether rendering the photo is in the outbox and not done: it waits, is under way, or was given up."""
    return bool(
        await connection.fetchval(
            "select exists (select from outbox where shard = $1 and done_at is null and kind = $2"
            " and payload -> 'media' = to_jsonb($3::bigint))",
            shard_of(media_id),
            Kind.RENDER,
            media_id,
        )
    )


async def mark_original_deleted(connection: Connection, photos: Iterable[Stored]) -> None:
    """From now on nobody counts on the originals of these photos."""
    ids = [photo.id for photo in photos]
    await connection.execute(
        "update media set original_deleted_at = now() where shard = any($1::smallint[]) and id = any($2::bigint[])"
        " and original_deleted_at is null",
        list({shard_of(id_) for id_ in ids}),
        ids,
    )


async def position(connection: Connection, scan: str) -> str:
    """How far a scan has come; empty where it begins."""
    return await connection.fetchval("select position from scans where name = $1", scan) or ""


async def set_position(connection: Connection, scan: str, position: str) -> None:
    """Note how far a scan has come."""
    await connection.execute(
        "insert into scans (name, position) values ($1, $2) on conflict (name) do update set position = $2",
        scan,
        position,
    )
