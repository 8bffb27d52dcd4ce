"""A copy of somebody's data to take along: a ZIP of JSON files and photos, made by a job and streamed into S3.

What is in it is what its owner may see, from the same lists. At any time a part of the ZIP is in memory, and a photo on disk.
A job that ended before its time leaves an upload in parts that the next one aborts, and begins again: a copy that was put
together from two times would tell neither.
"""

import contextlib
import json
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from instafeed import (
    access,
    blocks,
    devices,
    follow_requests,
    follows,
    moderation,
    mutes,
    posts,
    preferences,
    saves,
    scheduled,
    sessions,
    telemetry,
)
from instafeed.errors import NotFound
from instafeed.ids import MAX_ID, shard_of
from instafeed.media import scratch_folder
from instafeed.models import (
    Account,
    AccountWarning,
    Device,
    Export,
    ExportStatus,
    Listed,
    Media,
    Page,
    PostView,
    Session,
    Viewer,
    made_at,
)
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import comments as comment_rows
from instafeed.storage import emails as email_rows
from instafeed.storage import exports as export_rows
from instafeed.storage import followed_tags as followed_rows
from instafeed.storage import likes as like_rows
from instafeed.storage import media as media_rows
from instafeed.storage.blobs import new_export_key, original_key
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry, Kind
from instafeed.tags import FOLLOWED_MAX
from instafeed.work import FollowUp, note

T = TypeVar("T")
_Json = dict[str, Any]
_Pages = AsyncIterator[list[_Json]]

_TRIES = 5
"""Tries that failed, without a server being away, after which there will be no copy."""
_PAGE = 100
_PIECE_BYTES = 1 << 18
_ENDINGS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/avif": "avif",
    "image/gif": "gif",
}


class _Given(Exception):
    """Nobody waits for the copy any more."""


async def begin(res: Resources, viewer: Viewer, export_id: int) -> tuple[Export, bool]:
    """Have a copy of the viewer's data made, and whether it is a new one; not if one is being made, or was made lately."""

    async def body(connection: Connection) -> tuple[Export, int | None]:
        await access.lock_self(connection, viewer)
        there = await export_rows.get(connection, export_id) or await export_rows.fresh(connection, viewer.account_id)
        if there is not None:
            return there, None
        export = await export_rows.insert(
            connection, export_id, account_id=viewer.account_id, object_key=new_export_key()
        )
        payload = {"export": export_id, "key": export.object_key, "account": viewer.account_id}
        return export, await note(res, connection, shard_of(export_id), Kind.EXPORT, payload)

    export, entry = await res.db.transact(body)
    if entry is not None:
        await res.queue.ring(Kind.EXPORT, entry)
    return export, export.id == export_id


async def get(res: Resources, viewer: Viewer, export_id: int) -> Export:
    """A copy of the viewer's data.

    Raises:
        NotFound: the viewer has no such copy, or it has expired.
    """
    async with res.db.acquire() as connection:
        export = await export_rows.get(connection, export_id)
    if export is None or export.account_id != viewer.account_id:
        raise NotFound
    return export


async def expire(res: Resources, *, limit: int) -> int:
    """Drop copies that can be fetched no longer, at most about `limit`; returns how many."""

    async def body(connection: Connection) -> list[int]:
        return [
            await note(res, connection, shard_of(export_id), Kind.EXPORT, {"export": export_id, "key": key})
            for export_id, key in await export_rows.delete_expired(connection, limit=limit)
        ]

    entries = await res.db.transact(body)
    for entry in entries:
        await res.queue.ring(Kind.EXPORT, entry)
    return len(entries)


async def make(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: make a copy; or, if it is not wanted any more, leave nothing of it."""
    export_id, key = entry.payload["export"], entry.payload["key"]
    await res.blobs.abort_uploads(key)
    async with res.db.acquire() as connection:
        export = await export_rows.get(connection, export_id)
        if export is not None and entry.attempts > _TRIES:
            await export_rows.mark_failed(connection, export_id)
            export = None
    if export is not None and export.status is not ExportStatus.PROCESSING:
        return []
    if export is not None:
        with contextlib.suppress(_Given):
            await _store(res, export)
            return []
    await res.blobs.abort_uploads(key)
    await res.blobs.delete([key])
    return []


async def _store(res: Resources, export: Export) -> None:
    async with contextlib.aclosing(_archive(res, export)) as pieces:
        await res.blobs.put_unsized(export.object_key, pieces, content_type="application/zip")
    size = await res.blobs.size(export.object_key)
    async with res.db.acquire() as connection:
        if size is None or not await export_rows.mark_ready(connection, export.id, size=size):
            raise _Given
    telemetry.logger().info("export made", account=str(export.account_id), bytes=size)


class _Sink:
    """The file that a ZIP is written into: it is taken away as it comes."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        """Hold `data` until it is taken."""
        self._held += data
        return len(data)

    def flush(self) -> None:
        """Nothing waits elsewhere."""

    def take(self) -> Iterator[bytes]:
        """What was written, in pieces."""
        held, self._held = self._held, bytearray()
        for at in range(0, len(held), _PIECE_BYTES):
            yield bytes(held[at : at + _PIECE_BYTES])


async def _archive(res: Resources, export: Export) -> AsyncGenerator[bytes, None]:
    """The ZIP. What the database says of photos is told after the photos: nothing that is told is missing but what is lost."""
    sink = _Sink()
    archive = zipfile.ZipFile(sink, "w")  # type: ignore[call-overload] # it needs no more of a file than this
    async with contextlib.aclosing(_photos(res, export)) as photos:
        async for name, path, done, total in photos:
            with path.open("rb") as source, archive.open(_entry(name, export), "w") as target:
                while piece := source.read(_PIECE_BYTES):
                    target.write(piece)
                    for taken in sink.take():
                        yield taken
            await _tell(res, export, done=done, photos=total)
    for name, pages in _lists(res, export).items():
        entry = _entry(f"{name}.json", export)
        entry.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(entry, "w") as target:
            before = b"[\n"
            async for page in pages:
                for item in page:
                    target.write(before + json.dumps(item, ensure_ascii=False).encode())
                    before = b",\n"
                for taken in sink.take():
                    yield taken
            target.write(b"\n]\n" if before != b"[\n" else b"[]\n")
    archive.close()
    for taken in sink.take():
        yield taken


def _entry(name: str, export: Export) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, made_at(export.id).timetuple()[:6])


async def _tell(res: Resources, export: Export, *, done: int, photos: int) -> None:
    async with res.db.acquire() as connection:
        if not await export_rows.set_progress(connection, export.id, done=done, photos=photos):
            raise _Given


async def _photos(res: Resources, export: Export) -> AsyncGenerator[tuple[str, Path, int, int], None]:
    """The name and the file of each photo, as it was sent, or else its largest rendition; and how many there are."""
    async with res.db.acquire() as connection:
        total, done = await media_rows.count(connection, export.account_id), 0
    await _tell(res, export, done=0, photos=total)
    async for page in _pages_of_media(res, export.account_id):
        for media in page:
            done += 1
            with scratch_folder() as folder:
                path = folder / "photo"
                for key, content_type, sha256 in _places(media):
                    came = await res.blobs.fetch(key, path)
                    if came is not None and sha256 in {None, came}:
                        yield f"photos/{media.id}.{_ENDINGS.get(content_type, 'bin')}", path, done, max(total, done)
                        break


def _places(media: Media) -> Iterator[tuple[str, str, bytes | None]]:
    """Where a photo may be found, of which type, and with which SHA-256 if that is known; the best first."""
    yield original_key(media.object_key), media.content_type or "", media.sha256
    jpegs = [rendition for rendition in media.renditions if rendition.content_type == "image/jpeg"]
    if jpegs:
        yield max(jpegs, key=lambda rendition: rendition.width * rendition.height).key, "image/jpeg", None


async def _pages_of_media(res: Resources, account_id: int) -> AsyncIterator[list[Media]]:
    above: int | None = 0
    while above is not None:
        async with res.db.acquire() as connection:
            found = await media_rows.page(connection, account_id, above=above, limit=_PAGE)
        yield found
        above = found[-1].id if len(found) == _PAGE else None


def _lists(res: Resources, export: Export) -> dict[str, _Pages]:
    """Every JSON file, page by page, by its name."""
    me = export.account_id
    viewer = Viewer.of(me)
    return {
        "account": _account(res, me),
        "photos": _told(_pages_of_media(res, me)),
        "posts": _pages(partial(posts.page_of_author, res, viewer, me), _post),
        "scheduled": _scheduled(res, viewer),
        "likes": _likes(res, me),
        "saves": _pages(partial(saves.page, res, viewer), lambda view: {"post_id": str(view.post.id)}),
        "comments": _comments(res, me),
        "followers": _pages(partial(follows.followers, res, viewer, me), _listed),
        "following": _pages(partial(follows.following, res, viewer, me), _listed),
        "follow_requests": _pages(partial(follow_requests.page, res, viewer), _listed),
        "requested": _pages(partial(_requested, res, viewer), _listed),
        "blocks": _pages(partial(blocks.page, res, viewer), _listed),
        "mutes": _pages(partial(mutes.page, res, viewer), _listed),
        "preferences": _preferences(res, viewer),
        "followed_tags": _followed_tags(res, me),
        "devices": _pages(partial(devices.page, res, viewer), _device),
        "sessions": _pages(partial(sessions.page, res, viewer), _session),
        "warnings": _pages(partial(moderation.warnings, res, viewer), _warning),
        "reports": _reports(res, me),
    }


async def _pages(page: Callable[..., Awaitable[Page[T]]], shape: Callable[[T], _Json]) -> _Pages:
    below: int | None = MAX_ID
    while below is not None:
        found = await page(below=below, limit=_PAGE)
        yield [shape(item) for item in found.items]
        below = found.next


async def _told(pages: AsyncIterator[list[Media]]) -> _Pages:
    async for page in pages:
        yield [_media(media) for media in page]


async def _requested(res: Resources, viewer: Viewer, *, below: int, limit: int) -> Page[Listed]:
    async with res.db.acquire() as connection:
        fetch = partial(export_rows.requested, connection, viewer.account_id)
        return await access.page(connection, viewer, fetch, below=below, limit=limit)


async def _reports(res: Resources, account_id: int) -> _Pages:
    below: int | None = MAX_ID
    while below is not None:
        async with res.db.acquire() as connection:
            found = await export_rows.reports(connection, account_id, below=below, limit=_PAGE)
        yield [
            {
                "id": str(row["id"]),
                "subject": {"kind": row["subject_kind"], "id": str(row["subject_id"])},
                "reason": row["reason"],
                "detail": row["detail"],
                "created_at": _time(made_at(row["id"])),
            }
            for row in found
        ]
        below = found[-1]["id"] if len(found) == _PAGE else None


async def _likes(res: Resources, account_id: int) -> _Pages:
    above: int | None = 0
    while above is not None:
        async with res.db.acquire() as connection:
            found = await like_rows.posts_of_account(connection, account_id, above=above, limit=_PAGE)
        yield [{"post_id": str(post_id)} for post_id in found]
        above = found[-1] if len(found) == _PAGE else None


async def _followed_tags(res: Resources, account_id: int) -> _Pages:
    async with res.db.acquire() as connection:
        found = await followed_rows.page(connection, account_id, below=MAX_ID, limit=FOLLOWED_MAX)
    yield [{"name": tag, "since": _time(made_at(id_))} for id_, tag in found]


async def _scheduled(res: Resources, viewer: Viewer) -> _Pages:
    above: int | None = 0
    while above is not None:
        found = await scheduled.page(res, viewer, above=above, limit=_PAGE)
        yield [_post(view) | {"publish_at": _time(view.post.publish_at)} for view in found.items]
        above = found.next


async def _comments(res: Resources, account_id: int) -> _Pages:
    above: int | None = 0
    while above is not None:
        async with res.db.acquire() as connection:
            found = await comment_rows.ids_of_author(connection, account_id, above=above, limit=_PAGE)
            rows = await comment_rows.get_many(connection, found)
        yield [
            {
                "id": str(row.id),
                "post_id": str(row.post_id),
                "reply_to": str(row.parent_id) if row.parent_id else None,
                "text": row.text,
                "created_at": _time(made_at(row.id)),
            }
            for row in sorted(rows, key=lambda row: row.id)
        ]
        above = found[-1] if len(found) == _PAGE else None


async def _account(res: Resources, account_id: int) -> _Pages:
    async with res.db.acquire() as connection:
        account = await account_rows.get(connection, account_id)
        addresses = await email_rows.get(connection, account_id)
    if account is None:
        raise _Given
    yield [
        _who(account)
        | {
            "email": addresses.confirmed,
            "pending_email": addresses.pending,
            "bio": account.bio,
            "website": account.website,
            "is_private": account.is_private,
            "post_count": account.post_count,
            "follower_count": account.follower_count,
            "following_count": account.following_count,
            "created_at": _time(made_at(account_id)),
        }
    ]


async def _preferences(res: Resources, viewer: Viewer) -> _Pages:
    said = (await preferences.get(res, viewer)).said
    yield [{"kind": kind, **{channel.value: said[kind][channel] for channel in said[kind]}} for kind in said]


def _time(time: datetime | None) -> str | None:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if time else None


def _who(account: Account) -> _Json:
    return {"id": str(account.id), "username": account.username, "display_name": account.display_name}


def _listed(item: Listed) -> _Json:
    return _who(item.account) | {"since": _time(made_at(item.id))}


def _session(session: Session) -> _Json:
    times = {"created_at": _time(made_at(session.id)), "used_at": _time(session.used_at)}
    return {"id": str(session.id), "device_name": session.device_name} | times


def _device(device: Device) -> _Json:
    return {"name": device.name, "platform": device.platform.value, "registered_at": _time(made_at(device.id))}


def _warning(warning: AccountWarning) -> _Json:
    subject = {"kind": warning.subject.kind, "id": str(warning.subject.id)}
    return {
        "id": str(warning.id),
        "subject": subject,
        "message": warning.message,
        "created_at": _time(made_at(warning.id)),
    }


def _post(view: PostView) -> _Json:
    post = view.post
    return {
        "id": str(post.id),
        "caption": post.caption,
        "photos": [str(media.id) for media in post.media],
        "created_at": _time(made_at(post.id)),
        "published_at": _time(post.published_at),
        "edited_at": _time(post.edited_at),
    }


def _media(media: Media) -> _Json:
    return {
        "id": str(media.id),
        "post_id": str(media.post_id) if media.post_id and media.post_id > 0 else None,
        "is_avatar": media.post_id is not None and media.post_id < 0,
        "status": media.status.value,
        "alt_text": media.alt_text,
        "content_type": media.content_type,
        "bytes": media.size,
        "sha256": media.sha256.hex() if media.sha256 else None,
        "width": media.width,
        "height": media.height,
        "camera": asdict(media.camera) if media.camera else None,
        "created_at": _time(made_at(media.id)),
    }
