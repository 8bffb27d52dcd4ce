"""Photos: taking them in, and making them ready."""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from structlog.contextvars import bind_contextvars

from instafeed import access, posts, telemetry
from instafeed.errors import (
    DigestMismatch,
    MediaIncomplete,
    MediaTooLarge,
    MediaUnsupported,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from instafeed.ids import shard_of
from instafeed.imaging.process import DecoderFailed, Encodings, Limits, Reason, Refused, Rendered
from instafeed.imaging.sniff import HEAD_BYTES, sniff
from instafeed.meter import Meter
from instafeed.models import Media, MediaStatus, PhotoOfPost, PostView, Rendition, Viewer
from instafeed.resources import Resources
from instafeed.storage import media as media_rows
from instafeed.storage import outbox
from instafeed.storage import stored as stored_rows
from instafeed.storage.blobs import began_at, new_object_key, original_key, rendition_prefix
from instafeed.storage.database import Connection, is_in_doubt
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import FollowUp, note

_DECODER_TRIES = 3
# With the pauses between them, over half a minute.
_FETCH_TRIES = 6
# A decoder that was ended, or a worker, may have been another photo's victim, or an overloaded machine's; a second one was
# this photo's.
_ENDED_TRIES = 2
_PERHAPS_OURS = {Reason.TOOK_TOO_LONG, Reason.DECODER_CRASHED}
# The sweep takes an hour more than the longest upload for granted; no two clocks that S3 accepts differ by the rest of it.
_COMMIT_SECONDS = 900
# A statement whose connection broke is executed at once, or never.
_DOUBT_SECONDS = 900.0
_FOLDER = "instafeed-render-"
_LEFT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Stored:
    """What S3 has of a photo."""

    content_type: str
    size: int
    sha256: bytes


class OtherBytes(Exception):
    """S3 gives others for a photo than it was sent, or none: an error, maybe, in a 200, a store that does not know its bucket
    for a moment, or for ever what a broken disk has.
    """


Commit = Callable[[Connection], Awaitable[None]]
"""What is committed together with a photo."""


def too_large(max_bytes: int) -> MediaTooLarge:
    """What is said of a photo with more bytes."""
    return MediaTooLarge(f"A photo has at most {max_bytes} bytes.")


async def receive(
    res: Resources,
    viewer: Viewer,
    media_id: int,
    body: AsyncIterator[bytes],
    *,
    size: int | None,
    sha256: bytes | None,
    camera_facts: bool = False,
    commit: Commit | None = None,
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
        camera_facts: keep what the camera wrote of itself and its settings.
        commit: called in the transaction that makes it a photo; may be called several times.

    Raises:
        MediaTooLarge, MediaUnsupported, MediaIncomplete, DigestMismatch: the photo is not taken.
        Unavailable: it could not be stored.
    """
    max_bytes = res.settings.upload_max_bytes
    if size is not None and size > max_bytes:
        raise too_large(max_bytes)
    meter = Meter(body, max_bytes=max_bytes, too_large=lambda: too_large(max_bytes))
    try:
        media = await _receive(res, viewer, media_id, meter, size, sha256, camera_facts, commit)
    except BaseException as error:
        telemetry.UPLOADS.labels(type(meter.error or error).__name__).inc()
        if meter.error not in (None, error):
            raise meter.error from error
        raise
    telemetry.UPLOADS.labels("stored").inc()
    return media


async def _receive(
    res: Resources,
    viewer: Viewer,
    media_id: int,
    meter: Meter,
    size: int | None,
    sha256: bytes | None,
    camera_facts: bool,
    commit: Commit | None,
) -> Media:
    content_type = type_of(await meter.head(HEAD_BYTES))

    async def store(key: str) -> Stored:
        body = aiter(meter)
        with telemetry.PHOTO_SECONDS.labels("receive").time():
            if size is None:
                await res.blobs.put_unsized(key, body, content_type=content_type)
            else:
                await res.blobs.put(key, body, size=size, content_type=content_type)
                async for _ in body:
                    pass  # to its very end, where it says whether the client is still there
        if sha256 is not None and meter.digest != sha256:
            raise DigestMismatch("The SHA-256 of what came is not the one in Content-Digest.")
        return Stored(content_type, meter.size, meter.digest)

    return await _take(res, viewer, media_id, store, camera_facts, commit)


def type_of(head: bytes) -> str:
    """The media type of a photo that begins with `head`.

    Raises:
        MediaIncomplete: there is nothing of it.
        MediaUnsupported: it is none that is taken.
    """
    if not head:
        raise MediaIncomplete("The photo is empty.")
    format_ = sniff(head)
    if format_ is None:
        raise MediaUnsupported("Send a JPEG, PNG, WebP, HEIC, AVIF or GIF.")
    return format_.content_type


async def known(res: Resources, viewer: Viewer, media_id: int, sha256: bytes, *, camera_facts: bool) -> Media | None:
    """The viewer's photo with this SHA-256, which can be posted, if they sent it before.

    Where a post has it already, it is copied within S3, and the copy is a photo of its own.

    Args:
        res: the resources.
        viewer: whose photo it is.
        media_id: the id to give a copy; where the viewer's photo is there already, it is found again.
        sha256: of the photo's bytes.
        camera_facts: as for `receive`, of a copy. A photo that is found stays as it was sent.

    Raises:
        Unavailable: it could not be copied.
    """
    async with res.db.acquire() as connection:
        found = await media_rows.with_digest(connection, viewer.account_id, sha256)
    if found is None or found.post_id is None:
        return found
    stored = Stored(found.content_type, found.size, sha256)
    source = original_key(found.object_key)

    async def store(key: str) -> Stored:
        await res.blobs.copy(source, key)
        if await res.blobs.size(key) != stored.size:
            raise Unavailable("The photo store has not kept the copy.", retry_after=2)
        return stored

    try:
        media = await _take(res, viewer, media_id, store, camera_facts, None)
    except NotFound:
        return None  # it was deleted just now
    telemetry.UPLOADS.labels("copied").inc()
    return media


async def _take(
    res: Resources,
    viewer: Viewer,
    media_id: int,
    store: Callable[[str], Awaitable[Stored]],
    camera_facts: bool,
    commit: Commit | None,
) -> Media:
    """Make a photo of what `store` stores under the key that it is given."""
    object_key = new_object_key()
    in_doubt = False

    async def finish(connection: Connection) -> tuple[Media, int] | None:
        nonlocal in_doubt
        in_doubt = True
        if commit is not None:
            # As posting does: two that share the account's row, as `become` does, could not both take it for themselves.
            await access.lock_self(connection, viewer)
        made = await become(
            res,
            connection,
            media_id,
            stored,
            account_id=viewer.account_id,
            object_key=object_key,
            camera_facts=camera_facts,
        )
        if made is not None and commit is not None:
            await commit(connection)
        return made

    await res.db.reach()  # or nothing is stored
    try:
        stored = await store(original_key(object_key))
        if time.time() > began_at(object_key) + res.settings.upload_longest_seconds + _COMMIT_SECONDS:
            raise MediaIncomplete("The upload took so long that it was given up.")
        made = await (res.db.transact if commit else res.db.statement)(finish)
    except BaseException as error:
        in_doubt = in_doubt and is_in_doubt(error)
        taken = await asyncio.shield(_undo(res, media_id, object_key, in_doubt=in_doubt))
        if taken is not None and isinstance(error, Exception):
            return taken  # it was committed after all: the answer was lost
        raise
    if made is None:
        return await _sent_before(res, viewer, media_id, object_key, stored)
    media, entry = made
    await res.queue.ring(Kind.RENDER, entry)
    return media


async def become(
    res: Resources,
    connection: Connection,
    media_id: int,
    stored: Stored,
    *,
    account_id: int,
    object_key: str,
    camera_facts: bool,
) -> tuple[Media, int] | None:
    """Make a photo of what is stored, in one statement; returns it, and the entry to ring for after the commit. None if the
    id is taken.

    Raises:
        Unauthenticated: the account is suspended, or gone.
    """
    entry_id = res.ids.next(shard_of(media_id))
    media = Media(
        media_id,
        account_id,
        MediaStatus.PROCESSING,
        object_key,
        stored.content_type,
        stored.size,
        stored.sha256,
        camera_facts=camera_facts,
    )
    made = await media_rows.insert(connection, media, entry_id=entry_id)
    if made is None:
        raise Unauthenticated
    return (media, entry_id) if made else None


async def _sent_before(res: Resources, viewer: Viewer, media_id: int, object_key: str, stored: Stored) -> Media:
    """The photo that has this id already: the same request came before, and what has come now is not needed."""
    await asyncio.shield(_undo(res, media_id, object_key, in_doubt=False))
    async with res.db.acquire() as connection:
        there = await media_rows.get(connection, media_id)
    if there is None or there.account_id != viewer.account_id:
        raise Unavailable("Ask again in a moment.", retry_after=1)  # two processes made the same id
    if there.sha256 != stored.sha256:
        raise MediaIncomplete("Another photo was sent under the same Idempotency-Key, and came first.")
    return there


async def _undo(res: Resources, media_id: int, object_key: str, *, in_doubt: bool) -> Media | None:
    """Leave nothing of an upload that broke off; returns the photo if it had become one.

    Where that is `in_doubt`, a statement of ours may still be under way to make it one: what is stored stays for as long as
    that can take.
    """

    async def body(connection: Connection) -> tuple[Media | None, int]:
        if in_doubt:
            media = await media_rows.get(connection, media_id)
            if media is not None and media.object_key == object_key:
                return media, 0
        seconds = _DOUBT_SECONDS if in_doubt else outbox.FIRST_RING_SECONDS
        return None, await note(res, connection, shard_of(media_id), Kind.DISCARD, {"key": object_key}, seconds=seconds)

    try:
        media, entry = await res.db.transact(body)
    except Unavailable as error:
        # The sweep finds it by its age.
        telemetry.logger().warning("an upload is not undone yet", media=str(media_id), reason=error.detail)
        return None
    if media is None and not in_doubt:
        await res.queue.ring(Kind.DISCARD, entry)
    return media


async def discard(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: delete what is stored of a photo that is none, or no more."""
    async with res.db.acquire() as connection:
        if await stored_rows.of_keys(connection, [entry.payload["key"]]):
            return []  # it has become one after all
    await res.blobs.abort_uploads(original_key(entry.payload["key"]))
    await res.blobs.delete_photo(entry.payload["key"])
    return []


async def post(
    res: Resources,
    viewer: Viewer,
    post_id: int,
    body: AsyncIterator[bytes],
    *,
    texts: Callable[[], tuple[str, str, datetime | None]],
    camera_facts: bool = False,
) -> PostView:
    """Stream a photo in and post it: both, or neither.

    Args:
        res: the resources.
        viewer: its author.
        post_id: the id to give both; where they are there already, they are found again.
        body: the photo's bytes, as for `receive`.
        texts: gives caption, alternative text, and when to publish it if not now; is asked when `body` has ended.
        camera_facts: as for `receive`.

    Raises:
        MediaTooLarge, MediaUnsupported, MediaIncomplete: the photo is not taken.
        Invalid, Conflict: the post cannot be published at that time.
        Unavailable: it could not be stored.
    """
    made: PostView | None = None

    async def commit(connection: Connection) -> None:
        nonlocal made
        caption, alt_text, publish_at = texts()
        photos = [PhotoOfPost(post_id, alt_text)]
        _, made = await posts.add(
            res, connection, viewer, post_id, caption=caption, photos=photos, publish_at=publish_at
        )

    await receive(res, viewer, post_id, body, size=None, sha256=None, camera_facts=camera_facts, commit=commit)
    return made or await posts.get(res, viewer, post_id)


async def get(res: Resources, viewer: Viewer, media_id: int) -> Media:
    """The viewer's photo.

    Raises:
        NotFound: the viewer has no such photo.
    """
    async with res.db.acquire() as connection:
        media = await media_rows.get(connection, media_id)
    if media is None or media.account_id != viewer.account_id:
        raise NotFound
    return media


async def render(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: make a photo's renditions; then publish its post if that was all it waited for, or show its account with it.

    The entry's position is how many tries have ended a decoder or a worker.
    """
    media_id: int = entry.payload["media"]
    async with res.db.acquire() as connection:
        media = await media_rows.get(connection, media_id)
    if media is None:
        return _deleted(entry)
    # Of a photo that is ready the renditions may have been lost.
    if media.status is not (MediaStatus.READY if entry.payload.get("lost") else MediaStatus.PROCESSING):
        return _next(entry, media)
    with scratch_folder() as folder, telemetry.RENDER_SECONDS.time():
        source, out = folder / "original", folder / "renditions"
        out.mkdir()
        with telemetry.PHOTO_SECONDS.labels("fetch").time():
            sha256 = await res.blobs.fetch(original_key(media.object_key), source)
        if sha256 != media.sha256:
            if entry.attempts < _FETCH_TRIES:
                raise OtherBytes("The photo store does not give what it was sent.")
            return await _fail(res, media_id, "The photo is lost.")
        try:
            with telemetry.PHOTO_SECONDS.labels("decode").time():
                rendered = await _decode(res, entry, source, out)
        except Refused as refused:
            if refused.reason in _PERHAPS_OURS and entry.position + 1 < _ENDED_TRIES:
                raise
            return await _fail(res, media_id, refused.reason.sentence)
        except DecoderFailed:
            if entry.attempts < _DECODER_TRIES:
                raise
            return await _fail(res, media_id, "The photo could not be read.")
        with telemetry.PHOTO_SECONDS.labels("store").time():
            renditions = await _upload(res, media.object_key, rendered)

    async def finish(connection: Connection) -> tuple[Media | None, int | None]:
        ready = await media_rows.mark_ready(
            connection,
            media_id,
            width=rendered.width,
            height=rendered.height,
            blurhash=rendered.blurhash,
            dominant_color=rendered.dominant_color,
            camera=rendered.camera if media.camera_facts else None,
            renditions=renditions,
        )
        if ready is None:
            return await media_rows.get(connection, media_id), None
        if ready.post_id is None or ready.post_id < 0:
            return ready, None
        return ready, await posts.publish_when_ready(res, connection, ready.post_id)

    there, fan_out = await res.db.transact(finish)
    if there is not None and there.post_id is not None and there.post_id > 0:
        bind_contextvars(post=str(there.post_id))  # whose photo it is, for the job's line in the log
    if fan_out is not None:
        await res.queue.ring(Kind.FAN_OUT, fan_out)
    return _next(entry, there)


def _next(entry: Entry, media: Media | None) -> list[FollowUp]:
    """What comes after a photo had its end; None: it was deleted."""
    if media is None:
        return _deleted(entry)
    is_avatar = media.post_id is not None and media.post_id < 0
    return [(Kind.AVATAR, {"account": media.account_id, "media": media.id})] if is_avatar else []


async def _decode(res: Resources, entry: Entry, source: Path, out: Path) -> Rendered:
    """Make the renditions; a try counts from its beginning on unless it turns out to have ended nothing."""
    if entry.position >= _ENDED_TRIES:
        raise Refused(Reason.DECODER_CRASHED)
    settings = res.settings
    limits = Limits(max_pixels=settings.upload_max_pixels)
    encodings = Encodings(
        bounds=settings.rendition_sizes,
        square=settings.rendition_square,
        jpeg_quality=settings.jpeg_quality,
        webp_quality=settings.webp_quality,
        avif=settings.avif_renditions == "on",
        avif_quality=settings.avif_quality,
    )
    counts = False
    try:
        await _count_tries(res, entry, entry.position + 1)
        return await res.decoder.render(source, out, limits=limits, encodings=encodings)
    except Refused as refused:
        counts = refused.reason in _PERHAPS_OURS
        raise
    finally:
        if not counts:
            with contextlib.suppress(Unavailable):  # then it counts
                await asyncio.shield(_count_tries(res, entry, entry.position))


async def _count_tries(res: Resources, entry: Entry, tries: int) -> None:
    async with res.db.acquire() as connection:
        await outbox.set_position(connection, entry.id, tries)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for one photo, for some minutes at most. Those that killed workers left behind go: they hold private originals."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_mtime < time.time() - _LEFT_SECONDS:
                shutil.rmtree(folder)
    with tempfile.TemporaryDirectory(prefix=_FOLDER) as name:
        yield Path(name)


def _deleted(entry: Entry) -> list[FollowUp]:
    """The photo was deleted while it was rendered: whoever deleted it may have been done before the last upload."""
    return [(Kind.DISCARD, {"key": entry.payload["key"]})]


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
