"""Photos: taking them in, and making them ready."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from instafeed import telemetry
from instafeed.errors import (
    DigestMismatch,
    InstafeedError,
    MediaIncomplete,
    MediaTooLarge,
    MediaUnsupported,
    NotFound,
    UploadTooSlow,
)
from instafeed.ids import shard_of
from instafeed.imaging.process import DecoderFailed, Limits, Refused, Rendered
from instafeed.imaging.process import render as render_files
from instafeed.imaging.sniff import HEAD_BYTES, sniff
from instafeed.models import Media, MediaStatus, Rendition, Viewer
from instafeed.posts import publish_when_ready
from instafeed.resources import Resources
from instafeed.storage import media as media_rows
from instafeed.storage.blobs import new_object_key, original_key, rendition_prefix
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import FollowUp, note

_GRACE_SECONDS = 10.0
_DECODER_TRIES = 3


class _Meter:
    """Passes a body on, and counts, times, hashes and bounds it on the way."""

    def __init__(self, body: AsyncIterator[bytes], *, max_bytes: int, min_rate: int) -> None:
        self._body = body
        self._max_bytes = max_bytes
        self._min_rate = min_rate
        self._hash = hashlib.sha256()
        self._began = asyncio.get_running_loop().time()
        self.size = 0
        self.error: InstafeedError | None = None
        """Why the body ended early: the HTTP client that is fed with it reports an error of its own."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of what has passed."""
        return self._hash.digest()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while chunk := await self._next():
                yield chunk
        except InstafeedError as error:
            self.error = error
            raise

    async def _next(self) -> bytes:
        patience = _GRACE_SECONDS + self.size / self._min_rate if self._min_rate else None
        try:
            async with asyncio.timeout_at(None if patience is None else self._began + patience):
                chunk = await anext(self._body, b"")
        except TimeoutError:
            raise UploadTooSlow(f"Send at least {self._min_rate} bytes a second.") from None
        self.size += len(chunk)
        if self.size > self._max_bytes:
            raise MediaTooLarge(f"A photo has at most {self._max_bytes} bytes.")
        self._hash.update(chunk)
        telemetry.UPLOAD_BYTES.inc(len(chunk))
        return chunk


async def _with_head(chunks: AsyncIterator[bytes]) -> tuple[bytes, AsyncIterator[bytes]]:
    """The first bytes of a body, and the whole of it."""
    head = b""
    while len(head) < HEAD_BYTES and (chunk := await anext(chunks, b"")):
        head += chunk

    async def whole() -> AsyncIterator[bytes]:
        yield head
        async for chunk in chunks:
            yield chunk

    return head, whole()


async def receive(
    res: Resources, viewer: Viewer, media_id: int, body: AsyncIterator[bytes], *, size: int | None, sha256: bytes | None
) -> Media:
    """Stream a photo into S3 and have its renditions made.

    However it ends early, nothing is left: no object, no part of one, no row.

    Args:
        res: the resources.
        viewer: whose photo it is.
        media_id: the id to give it; where the viewer's photo is there already, it is found again.
        body: the bytes, never empty pieces. What it raises when the client goes away passes through.
        size: how many bytes there will be; None if that is not known.
        sha256: what their SHA-256 must be; None to take what comes.

    Raises:
        MediaTooLarge, MediaUnsupported, MediaIncomplete, UploadTooSlow, DigestMismatch: the photo is not taken.
        Unavailable: it could not be stored.
    """
    max_bytes = res.settings.upload_max_bytes
    if size is not None and size > max_bytes:
        raise MediaTooLarge(f"A photo has at most {max_bytes} bytes.")
    object_key = new_object_key()
    if (there := await _begin(res, viewer, media_id, object_key)) is not None:
        return there
    meter = _Meter(body, max_bytes=max_bytes, min_rate=res.settings.upload_min_bytes_per_second)
    try:
        media = await _store(res, media_id, object_key, meter, size, sha256)
    except BaseException as error:
        telemetry.UPLOADS.labels(type(error).__name__).inc()
        await asyncio.shield(_undo(res, media_id, object_key))
        if meter.error is not None:
            raise meter.error from error
        raise
    telemetry.UPLOADS.labels("stored").inc()
    return media


async def _begin(res: Resources, viewer: Viewer, media_id: int, object_key: str) -> Media | None:
    """Note that bytes are about to arrive; returns the photo if they have arrived before."""
    async with res.db.acquire() as connection:
        there = await media_rows.get(connection, media_id)
    if there is not None and there.status is not MediaStatus.PENDING:
        return there
    if there is not None:
        # The same request came before and broke off. Should it be still at it, it finds its row gone.
        await forget(res, media_id, there.object_key)
    async with res.db.acquire() as connection:
        await media_rows.insert_pending(connection, media_id, account_id=viewer.account_id, object_key=object_key)
    return None


async def _store(
    res: Resources, media_id: int, object_key: str, meter: _Meter, size: int | None, sha256: bytes | None
) -> Media:
    head, body = await _with_head(aiter(meter))
    if not head:
        raise MediaIncomplete("The photo is empty.")
    format_ = sniff(head)
    if format_ is None:
        raise MediaUnsupported("Send a JPEG, PNG, WebP, HEIC, AVIF or GIF.")
    key = original_key(object_key)
    if size is None:
        await res.blobs.put_unsized(key, body, content_type=format_.content_type)
    else:
        await res.blobs.put(key, body, size=size, content_type=format_.content_type)
        if meter.size != size:
            raise MediaIncomplete(f"{size} bytes were announced, {meter.size} came.")
    if sha256 is not None and meter.digest != sha256:
        raise DigestMismatch("The SHA-256 of what came is not the one in Content-Digest.")

    async def finish(connection: Connection) -> tuple[int, Media]:
        uploaded = await media_rows.mark_uploaded(
            connection,
            media_id,
            object_key=object_key,
            content_type=format_.content_type,
            size=meter.size,
            sha256=meter.digest,
        )
        if not uploaded:
            raise MediaIncomplete("The upload took so long that it was given up.")
        entry = await note(res, connection, shard_of(media_id), Kind.RENDER, {"media": media_id})
        return entry, uploaded

    entry, media = await res.db.transact(finish)
    await res.queue.ring(Kind.RENDER, entry)
    return media


async def _undo(res: Resources, media_id: int, object_key: str) -> None:
    """Leave nothing of an upload that failed. What cannot be undone now, the sweep finds by the row."""
    try:
        async with res.db.acquire() as connection:
            media = await media_rows.get(connection, media_id)
        if media is None or media.object_key != object_key:
            await res.blobs.delete_photo(object_key)
        elif media.status is MediaStatus.PENDING:
            await forget(res, media_id, object_key)
    except InstafeedError as error:
        telemetry.logger().warning("an upload was not undone yet", media=str(media_id), reason=error.detail)


async def forget(res: Resources, media_id: int, object_key: str) -> None:
    """Delete the objects of a photo that never became one, then its row."""
    await res.blobs.delete_photo(object_key)
    async with res.db.acquire() as connection:
        await media_rows.delete(connection, media_id)


async def get(res: Resources, viewer: Viewer, media_id: int) -> Media:
    """The viewer's photo.

    Raises:
        NotFound: the viewer has no such photo.
    """
    async with res.db.acquire() as connection:
        media = await media_rows.get(connection, media_id)
    if media is None or media.account_id != viewer.account_id or media.status is MediaStatus.PENDING:
        raise NotFound
    return media


async def render(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: make a photo's renditions; then publish its post if that was all it waited for."""
    media_id: int = entry.payload["media"]
    async with res.db.acquire() as connection:
        media = await media_rows.get(connection, media_id)
    if media is None or media.status is not MediaStatus.PROCESSING:
        return []
    with tempfile.TemporaryDirectory(prefix="instafeed-") as folder, telemetry.RENDER_SECONDS.time():
        source, out = Path(folder, "original"), Path(folder, "renditions")
        out.mkdir()
        await res.blobs.fetch(original_key(media.object_key), source)
        try:
            rendered = await render_files(source, out, limits=Limits(max_pixels=res.settings.upload_max_pixels))
        except Refused as refused:
            return await _fail(res, media_id, refused.reason.sentence)
        except DecoderFailed:
            if entry.attempts < _DECODER_TRIES:
                raise
            return await _fail(res, media_id, "The photo could not be read.")
        renditions = await _upload(res, media.object_key, rendered)

    async def finish(connection: Connection) -> tuple[bool, int | None]:
        ready = await media_rows.mark_ready(
            connection,
            media_id,
            width=rendered.width,
            height=rendered.height,
            blurhash=rendered.blurhash,
            renditions=renditions,
        )
        if ready is None:
            return await media_rows.get(connection, media_id) is None, None
        return False, await publish_when_ready(res, connection, ready.post_id) if ready.post_id else None

    gone, fan_out = await res.db.transact(finish)
    if gone:
        # Deleted while it was rendered: whoever deleted it may have been done before the last upload.
        await res.blobs.delete_photo(media.object_key)
    if fan_out is not None:
        await res.queue.ring(Kind.FAN_OUT, fan_out)
    return []


async def _fail(res: Resources, media_id: int, failure: str) -> list[FollowUp]:
    async with res.db.acquire() as connection:
        await media_rows.mark_failed(connection, media_id, failure)
    return []


async def _upload(res: Resources, object_key: str, rendered: Rendered) -> list[Rendition]:
    prefix = rendition_prefix(object_key)
    types = {file.path: file.content_type for file in rendered.files}
    async with asyncio.TaskGroup() as group:
        for path, content_type in types.items():
            group.create_task(res.blobs.put_file(prefix + path.name, path, content_type=content_type))
    return [
        Rendition(file.name, prefix + file.path.name, file.width, file.height, file.content_type, file.bytes)
        for file in rendered.files
    ]
