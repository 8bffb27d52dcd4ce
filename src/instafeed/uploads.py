"""Resumable uploads: photos that come in parts, through us or straight to S3, in any order.

S3 alone knows which parts have arrived. An upload is a row of `uploads` until it is completed, deleted or expires; then it is
a photo with its id, or nothing.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from instafeed import access, media, telemetry
from instafeed.errors import (
    DigestMismatch,
    InstafeedError,
    MediaIncomplete,
    MediaUnsupported,
    NotFound,
    TooManyUploads,
    Unavailable,
)
from instafeed.ids import shard_of
from instafeed.imaging.sniff import HEAD_BYTES
from instafeed.media import Stored
from instafeed.meter import Meter
from instafeed.models import Media, Upload, Viewer
from instafeed.resources import Resources
from instafeed.storage import media as media_rows
from instafeed.storage import uploads as upload_rows
from instafeed.storage.blobs import PART_BYTES, StoredPart, new_object_key, original_key
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Kind
from instafeed.work import note


async def begin(
    res: Resources, viewer: Viewer, upload_id: int, *, size: int, sha256: bytes, camera_facts: bool
) -> Upload:
    """Open an upload.

    Args:
        res: the resources.
        viewer: whose photo it will be.
        upload_id: the id to give it; where the viewer's upload is there already, it is found again.
        size: how many bytes the photo has.
        sha256: their SHA-256.
        camera_facts: keep what the camera wrote of itself and its settings.

    Raises:
        MediaTooLarge: no photo has so many bytes.
        TooManyUploads: the viewer has too many open.
        Unavailable: it could not be opened; nothing is left.
    """
    settings = res.settings
    if size > settings.upload_max_bytes:
        raise media.too_large(settings.upload_max_bytes)

    async def body(connection: Connection) -> tuple[Upload, int | None]:
        left = None
        if (there := await upload_rows.get(connection, upload_id)) is not None:
            if there.account_id != viewer.account_id:
                raise Unavailable("Ask again in a moment.", retry_after=1)  # two processes made the same id
            if there.s3_upload_id is not None:
                return there, None
            # The same request came before and broke off. Should it be still at it, it finds its row gone.
            left = await _drop(res, connection, there)
        await access.lock_self(connection, viewer)  # or two at once would both be the last one
        if await upload_rows.count(connection, viewer.account_id) >= settings.upload_max_open:
            raise TooManyUploads(f"At most {settings.upload_max_open} uploads may be open.")
        inserted = await upload_rows.insert(
            connection,
            upload_id,
            account_id=viewer.account_id,
            object_key=new_object_key(),
            size=size,
            sha256=sha256,
            part_size=PART_BYTES,
            camera_facts=camera_facts,
            seconds=settings.upload_expiry_seconds,
        )
        if inserted is None:
            raise Unavailable(
                "Ask again in a moment.", retry_after=1
            )  # the one before has expired and is not swept yet
        return inserted, left

    upload, left = await res.db.transact(body)
    if left is not None:
        await res.queue.ring(Kind.DISCARD, left)
    if upload.s3_upload_id is not None:
        return upload
    try:
        s3_upload_id = await res.blobs.begin_upload(original_key(upload.object_key))
        async with res.db.acquire() as connection:
            begun = await upload_rows.begin(connection, upload_id, upload.object_key, s3_upload_id)
        if begun is None:
            raise Unavailable("Ask again in a moment.", retry_after=1)
    except BaseException:
        with suppress(Unavailable):  # the sweep finds it by its row
            await asyncio.shield(_forget(res, upload))
        raise
    return begun


async def get(res: Resources, viewer: Viewer, upload_id: int) -> tuple[Upload, frozenset[int]]:
    """An upload of the viewer's, and the numbers of the parts that have arrived.

    Raises:
        NotFound: the viewer has no such upload open.
        Unavailable: S3 does not answer.
    """
    upload = await _open(res, viewer, upload_id)
    parts = await _parts(res, upload)
    return upload, frozenset(upload.numbers if parts is None else parts)


async def put_part(
    res: Resources,
    viewer: Viewer,
    upload_id: int,
    number: int,
    body: AsyncIterator[bytes],
    *,
    size: int | None,
    sha256: bytes | None,
) -> None:
    """Stream a part into S3. Sent again, it takes the place of the one before; if this fails, that one stays.

    Args:
        res: the resources.
        viewer: whose upload it is.
        upload_id: which upload.
        number: which part, from 1.
        body: the bytes, never empty pieces. What it raises when the client goes away passes through.
        size: how many bytes there will be; None if that is not known.
        sha256: what their SHA-256 must be; None to take what comes.

    Raises:
        NotFound: the viewer has no such upload open, or it has no such part.
        MediaIncomplete: the part has another size.
        DigestMismatch: the bytes are others.
        Unavailable: it could not be stored.
    """
    upload = await _open(res, viewer, upload_id)
    if number not in upload.numbers:
        raise NotFound
    wanted = upload.bytes_of(number)

    def wrong_size() -> MediaIncomplete:
        return MediaIncomplete(f"This part has {wanted} bytes.")

    if size not in {None, wanted}:
        raise wrong_size()
    meter = Meter(body, max_bytes=wanted, too_large=wrong_size)
    assert upload.s3_upload_id is not None
    try:
        await res.blobs.put_part(
            original_key(upload.object_key),
            upload.s3_upload_id,
            number,
            meter.whole(sha256=sha256),
            size=wanted,
        )
    except Exception as error:
        if meter.error not in (None, error):
            raise meter.error from error
        raise


async def complete(res: Resources, viewer: Viewer, upload_id: int) -> tuple[Media, bool]:
    """Make a photo of an upload whose parts have all arrived; returns it, and whether it is new.

    May be called again, also while it runs: the first one to commit makes the photo, and the others find it.

    Raises:
        NotFound: the viewer has no such upload open, and no photo that was one.
        MediaIncomplete: parts are missing; the upload stays open.
        DigestMismatch, MediaUnsupported: it is not the photo that was announced, or none; nothing is left.
        Unavailable: S3 or the database does not answer; the upload stays open.
    """
    try:
        upload = await _open(res, viewer, upload_id)
    except NotFound:
        return await media.get(res, viewer, upload_id), False
    try:
        with telemetry.PHOTO_SECONDS.labels("assemble").time():
            stored = await _assemble(res, upload)
        return await _commit(res, viewer, upload, stored)
    except (DigestMismatch, MediaUnsupported) as error:
        telemetry.UPLOADS.labels(type(error).__name__).inc()
        await asyncio.shield(_forget(res, upload))
        raise
    except InstafeedError as error:
        telemetry.UPLOADS.labels(type(error).__name__).inc()
        raise


async def _assemble(res: Resources, upload: Upload) -> Stored:
    """Have S3 put the parts together, and read what it made of them."""
    key = original_key(upload.object_key)
    parts = await _parts(res, upload)
    if parts is not None:
        missing = [number for number in upload.numbers if number not in parts]
        if missing:
            raise MediaIncomplete(f"Parts are missing: {', '.join(map(str, missing[:20]))}.")
        assert upload.s3_upload_id is not None
        with suppress(NotFound):  # somebody else completes it too, or deletes it
            await res.blobs.complete_upload(key, upload.s3_upload_id, [parts[number].etag for number in upload.numbers])
    content = await res.blobs.read(key, head_bytes=HEAD_BYTES)
    if content.size != upload.size:  # it was that of the parts: S3 errs, not the client
        raise Unavailable("The photo store has not kept what it was sent.", retry_after=2)
    if content.sha256 != upload.sha256:
        raise DigestMismatch("The SHA-256 of what came is not the one that was announced.")
    return Stored(media.type_of(content.head), content.size, content.sha256)


async def _commit(res: Resources, viewer: Viewer, upload: Upload, stored: Stored) -> tuple[Media, bool]:
    async def body(connection: Connection) -> tuple[Media, int] | None:
        if not await upload_rows.delete(connection, upload.id, upload.object_key):
            return None
        made = await media.become(
            res,
            connection,
            upload.id,
            stored,
            account_id=upload.account_id,
            object_key=upload.object_key,
            camera_facts=upload.camera_facts,
        )
        if made is None:
            raise Unavailable("Ask again in a moment.", retry_after=1)  # a photo of another process has the same id
        return made

    made = await res.db.transact(body)
    if made is None:
        # Completed by somebody else, or dropped: then S3 may have put it together after that.
        await _forget(res, upload)
        return await media.get(res, viewer, upload.id), False
    photo, entry = made
    await res.queue.ring(Kind.RENDER, entry)
    telemetry.UPLOADS.labels("stored").inc()
    return photo, True


async def delete(res: Resources, viewer: Viewer, upload_id: int) -> None:
    """Drop an upload of the viewer's with its parts, if it is open.

    Raises:
        Unavailable: the database does not answer.
    """
    with suppress(NotFound):
        await _forget(res, await _open(res, viewer, upload_id))


async def expire(res: Resources, *, limit: int) -> int:
    """Drop uploads that were not completed in time, at most `limit`; returns how many."""
    async with res.db.acquire() as connection:
        uploads = await upload_rows.expired(connection, limit=limit)
    for upload in uploads:
        await _forget(res, upload)
    return len(uploads)


async def _open(res: Resources, viewer: Viewer, upload_id: int) -> Upload:
    async with res.db.acquire() as connection:
        upload = await upload_rows.get(connection, upload_id)
    if upload is None or upload.account_id != viewer.account_id or upload.s3_upload_id is None:
        raise NotFound
    return upload


async def _parts(res: Resources, upload: Upload) -> dict[int, StoredPart] | None:
    """The parts that have arrived whole; None if S3 has put them together already."""
    key = original_key(upload.object_key)
    assert upload.s3_upload_id is not None
    try:
        found = await res.blobs.parts(key, upload.s3_upload_id)
    except NotFound:
        if await res.blobs.size(key) is None:
            raise
        return None
    return {
        number: part
        for number, part in found.items()
        if number in upload.numbers and part.size == upload.bytes_of(number)
    }


async def _forget(res: Resources, upload: Upload) -> None:
    """Leave nothing of an upload, unless it has become a photo. The row goes first: from then on it cannot."""

    async def body(connection: Connection) -> int | None:
        return await _drop(res, connection, upload)

    entry = await res.db.transact(body)
    if entry is not None:
        await res.queue.ring(Kind.DISCARD, entry)


async def _drop(res: Resources, connection: Connection, upload: Upload) -> int | None:
    await upload_rows.delete(connection, upload.id, upload.object_key)
    photo = await media_rows.get(connection, upload.id)
    if photo is not None and photo.object_key == upload.object_key:
        return None
    return await note(res, connection, shard_of(upload.id), Kind.DISCARD, {"key": upload.object_key})
