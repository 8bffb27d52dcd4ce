"""Photos: the rows. The bytes are in `storage/blobs.py`'s care."""

from collections.abc import Iterable
from dataclasses import asdict

from asyncpg import Record, UniqueViolationError

from instafeed.ids import shard_of
from instafeed.models import Camera, Media, MediaStatus, PhotoOfPost, Rendition
from instafeed.storage import outbox
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Kind

_COLUMNS = (
    "id, account_id, status, failure, object_key, content_type, size, sha256, width, height, blurhash, dominant_color,"
    " camera_facts, camera, renditions, post_id, alt_text"
)


def _from_record(record: Record) -> Media:
    values = dict(record)
    values["status"] = MediaStatus(values["status"])
    values["renditions"] = tuple(Rendition(**rendition) for rendition in values["renditions"])
    values["camera"] = Camera(**values["camera"]) if values["camera"] else None
    return Media(**values)


async def insert(connection: Connection, media: Media, *, entry_id: int) -> bool | None:
    """Add a photo whose bytes are stored, and an entry of the outbox for rendering it. False if the id is taken, and no more can
    be done in the transaction; None if the account is suspended, or gone.

    One statement does it, with the account's row locked: an upload of a small photo takes little longer than its statements.
    """
    try:
        active = await connection.fetchval(
            "with owner as materialized"
            " (select suspended_at is null as active from accounts where shard = $1 and id = $3 for share),"
            " made as (insert into media (shard, id, account_id, status, object_key, content_type, size, sha256, camera_facts)"
            " select $1, $2, $3, $4, $5, $6, $7, $8, $9 from owner where active returning 1),"
            f" noted as ({outbox.add_from('made', first=10)})"
            " select active from owner",
            shard_of(media.id),
            media.id,
            media.account_id,
            media.status,
            media.object_key,
            media.content_type,
            media.size,
            media.sha256,
            media.camera_facts,
            *outbox.row(entry_id, Kind.RENDER, {"media": media.id, "key": media.object_key}),
        )
    except UniqueViolationError:  # rarer than what "on conflict" takes each time is worth
        return False
    return True if active else None


async def mark_ready(
    connection: Connection,
    media_id: int,
    *,
    width: int,
    height: int,
    blurhash: str,
    dominant_color: str,
    camera: Camera | None,
    renditions: Iterable[Rendition],
) -> Media | None:
    """The renditions are stored, maybe once more; None if the row is gone or has failed."""
    record = await connection.fetchrow(
        "update media set status = 'ready', width = $3, height = $4, blurhash = $5, renditions = $6,"
        " dominant_color = $7, camera = $8"
        f" where shard = $1 and id = $2 and status in ('processing', 'ready') returning {_COLUMNS}",
        shard_of(media_id),
        media_id,
        width,
        height,
        blurhash,
        [asdict(rendition) for rendition in renditions],
        dominant_color,
        asdict(camera) if camera else None,
    )
    return _from_record(record) if record else None


async def mark_failed(connection: Connection, media_id: int, failure: str) -> None:
    """There will be no renditions; `failure` is for the owner's eyes."""
    await connection.execute(
        "update media set status = 'failed', failure = $3 where shard = $1 and id = $2 and status = 'processing'",
        shard_of(media_id),
        media_id,
        failure,
    )


async def get(connection: Connection, media_id: int) -> Media | None:
    """One photo."""
    record = await connection.fetchrow(
        f"select {_COLUMNS} from media where shard = $1 and id = $2", shard_of(media_id), media_id
    )
    return _from_record(record) if record else None


async def count(connection: Connection, account_id: int) -> int:
    """How many photos the account has."""
    found: int = await connection.fetchval(
        "select count(*) from media where shard = $1 and account_id = $2",
        shard_of(account_id),
        account_id,
    )
    return found


async def page(connection: Connection, account_id: int, *, above: int, limit: int) -> list[Media]:
    """The account's photos, posted or not, oldest first, with ids above `above`."""
    records = await connection.fetch(
        f"select {_COLUMNS} from media where shard = $1 and account_id = $2 and id > $3 order by id limit $4",
        shard_of(account_id),
        account_id,
        above,
        limit,
    )
    return [_from_record(record) for record in records]


async def with_digest(connection: Connection, account_id: int, sha256: bytes) -> Media | None:
    """The account's photo with this SHA-256 that did not fail; at best one that can still be posted, as long as if it had
    been uploaded now.
    """
    record = await connection.fetchrow(
        "update media set uploaded_at = now() where shard = $1 and id = ("
        "select id from media where shard = $1 and account_id = $2 and sha256 = $3"
        " and status in ('processing', 'ready') order by post_id is not null, id desc limit 1"
        f") returning {_COLUMNS}",
        shard_of(account_id),
        account_id,
        sha256,
    )
    return _from_record(record) if record else None


async def of_posts(connection: Connection, post_ids: Iterable[int]) -> dict[int, tuple[Media, ...]]:
    """The photos of each post, in their order."""
    wanted = list(post_ids)
    records = await connection.fetch(
        f"select {_COLUMNS} from media where shard = any($1::smallint[]) and post_id = any($2::bigint[]) order by post_id, position",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
    )
    found: dict[int, list[Media]] = {}
    for record in records:
        found.setdefault(record["post_id"], []).append(_from_record(record))
    return {post_id: tuple(photos) for post_id, photos in found.items()}


async def claim(connection: Connection, post_id: int, account_id: int, photos: list[PhotoOfPost]) -> set[int]:
    """Give photos of the account to the post, in order; returns the ids that could be given.

    Not given are photos that are missing, failed, somebody else's, or another post's.
    """
    records = await connection.fetch(
        "update media set post_id = $3, position = wanted.position, alt_text = wanted.alt_text"
        " from unnest($4::bigint[], $5::text[]) with ordinality as wanted (id, alt_text, position)"
        " where media.shard = $1 and media.id = wanted.id and media.account_id = $2 and media.post_id is null"
        " and media.status in ('processing', 'ready') returning media.id",
        shard_of(account_id),
        account_id,
        post_id,
        [photo.media_id for photo in photos],
        [photo.alt_text for photo in photos],
    )
    return {record["id"] for record in records}


async def claim_avatar(connection: Connection, account_id: int, media_id: int) -> bool:
    """Give a photo of the account to itself as an avatar, again if it was one; False for one that cannot be given, as in
    `claim`.
    """
    return bool(
        await connection.fetchval(
            "update media set post_id = $4 where shard = $1 and id = $2 and account_id = $3"
            " and (post_id is null or post_id = $4) and status in ('processing', 'ready') returning true",
            shard_of(account_id),
            media_id,
            account_id,
            -account_id,
        )
    )


async def delete_avatars(connection: Connection, account_id: int, *, but: Iterable[int]) -> list[str]:
    """Forget the photos that the account claimed as avatars, but these; returns their object keys."""
    records = await connection.fetch(
        "delete from media where shard = $1 and post_id = $2 and id <> all($3::bigint[]) returning object_key",
        shard_of(account_id),
        -account_id,
        list(but),
    )
    return [record["object_key"] for record in records]


async def arrange(connection: Connection, post_id: int, photos: Iterable[Media]) -> None:
    """Put the photos of the post, all of which are given, into this order, and set what they show."""
    photos = list(photos)
    await connection.execute(
        "update media set position = wanted.position, alt_text = wanted.alt_text"
        " from unnest($3::bigint[], $4::text[]) with ordinality as wanted (id, alt_text, position)"
        " where media.shard = $1 and media.post_id = $2 and media.id = wanted.id",
        shard_of(post_id),
        post_id,
        [photo.id for photo in photos],
        [photo.alt_text for photo in photos],
    )


async def hand_over(connection: Connection, post_id: int, to_post_id: int) -> None:
    """Give all photos of one post to another one of the same author."""
    await connection.execute(
        "update media set post_id = $3 where shard = $1 and post_id = $2", shard_of(post_id), post_id, to_post_id
    )


async def delete_of_post(connection: Connection, post_id: int) -> list[str]:
    """Forget a post's photos; returns their object keys."""
    records = await connection.fetch(
        "delete from media where shard = $1 and post_id = $2 returning object_key", shard_of(post_id), post_id
    )
    return [record["object_key"] for record in records]
