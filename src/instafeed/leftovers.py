"""What crashes leave of photos, found in both directions and put right; and what is kept no longer.

A key is used once, and an upload makes a row of `media` with its key at its end, in one request; one in several requests has a
row of `uploads` from its beginning. So what is an hour older than the longest request, and has no row after it was listed, will
never have one: whatever else is to live under these prefixes needs such a row, or another prefix. Clocks may differ by what S3
allows, a quarter of an hour. Every step may run twice, beside uploads, workers and other sweeps.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from instafeed import sweep, telemetry
from instafeed.errors import Unavailable
from instafeed.ids import lowest_at, shard_of
from instafeed.models import MediaStatus
from instafeed.resources import Resources
from instafeed.storage import stored
from instafeed.storage.blobs import (
    Listed,
    first_object_key,
    is_object_key,
    is_rendition_hash,
    original_key,
    rendition_hash,
    rendition_prefix,
)
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Kind
from instafeed.storage.stored import Stored
from instafeed.work import note

_DAY_SECONDS = 86_400
_PAGE = 1000
_ROWS = 250
_SCAN_SECONDS = 6.0
_FEW = 100
_END = ("", False)


class Finding(StrEnum):
    """What can be found. Unless said otherwise, finding it is dealing with it."""

    OBJECT = "object_without_row"
    """It is deleted."""
    UPLOAD = "upload_without_row"
    """An open upload in parts: it is aborted."""
    DOUBTFUL = "doubtful_object"
    """One without a row, or such an upload, as most of those beside it: left alone, for this may be another database's
    bucket.
    """
    UNRENDERED = "unrendered_photo"
    """Nobody was going to make its renditions: somebody is now. Without its original it fails."""
    RENDITIONS = "lost_renditions"
    """They are made again."""
    LOST = "lost_photo"
    """Neither renditions nor an original: nothing can be done."""
    UNPOSTED = "unposted_photo"
    """Uploaded and not posted in time: its row and objects go."""
    ORIGINAL = "expired_original"
    """It is deleted; the renditions stay."""


@dataclass
class Sweep:
    """One run.

    Args:
        res: the resources.
        dry_run: find, and change nothing.
        all: delete objects without a row also where most have none.
        tell: is told of everything that is found, with its name.
    """

    res: Resources
    dry_run: bool = False
    all: bool = False
    tell: Callable[[Finding, str], None] = lambda *_: None
    found: Counter[Finding] = field(default_factory=Counter)

    def note(self, finding: Finding, names: Iterable[str]) -> None:
        """Something was found; it has been dealt with, unless this is a dry run."""
        for name in names:
            self.found[finding] += 1
            self.tell(finding, name)
            if not self.dry_run:
                telemetry.LEFTOVERS.labels(finding).inc()

    async def some(self) -> None:
        """Look for a bounded time, and go on where the last run ended."""
        try:
            # Of what is looked at whole, the arrivals are a part.
            for name, scan in ({"arrivals": _arrivals} | _SCANS).items():
                try:
                    await self._some(name, scan)
                except Unavailable as error:  # of one object that cannot be deleted, say: the other scans go on
                    telemetry.logger().warning("photos' leftovers: a scan broke off", scan=name, reason=error.detail)
        finally:
            if self.found:
                telemetry.logger().warning(
                    "photos' leftovers", found={finding.value: count for finding, count in self.found.items()}
                )

    async def _some(self, name: str, scan: "Scan") -> None:
        async with self.res.db.acquire() as connection:
            position = await stored.position(connection, name)
        until = time.monotonic() + _SCAN_SECONDS
        while True:
            position, more = await scan(self, position)
            async with self.res.db.acquire() as connection:
                await stored.set_position(connection, name, position)
            if not more or time.monotonic() > until:
                break

    async def whole(self) -> None:
        """Look at everything, from beginning to end."""
        for scan in _SCANS.values():
            position, more = "", True
            while more:
                position, more = await scan(self, position)


Scan = Callable[[Sweep, str], Awaitable[tuple[str, bool]]]
"""Looks at what comes after a position, empty at the beginning; returns where to go on, and whether there is more by now."""


async def clear(res: Resources) -> None:
    """By the clock: look at the next photos and objects, for half a minute at most."""
    await Sweep(res).some()


def _by_hash(listed: Iterable[Listed]) -> dict[str, list[Listed]]:
    """Renditions by their photo's hash. What is not ours is passed over."""
    found: dict[str, list[Listed]] = {}
    for item in listed:
        hash_ = item.key.split("/")[1]
        if is_rendition_hash(hash_):
            found.setdefault(hash_, []).append(item)
    return found


def _by_object_key(listed: Iterable[Listed]) -> dict[str, Listed]:
    """Originals by their photo's object key. What is not ours is passed over."""
    named = ((item.key.removeprefix(original_key("")), item) for item in listed)
    return {name: item for name, item in named if is_object_key(name)}


async def _unposted(run: Sweep, after: str) -> tuple[str, bool]:
    res = run.res
    before = datetime.fromtimestamp(time.time() - res.settings.media_unposted_seconds, UTC)

    async def body(connection: Connection) -> tuple[list[Stored], list[Stored], list[int]]:
        photos = await stored.unposted(connection, before, after=int(after or 0), limit=_ROWS)
        if run.dry_run:
            return photos, photos, []
        deleted = await stored.delete_unposted(connection, photos, before)
        entries = [
            await note(res, connection, shard_of(photo.id), Kind.DISCARD, {"key": photo.object_key})
            for photo in deleted
        ]
        return photos, deleted, entries

    photos, deleted, entries = await res.db.transact(body)
    for entry in entries:
        await res.queue.ring(Kind.DISCARD, entry)
    run.note(Finding.UNPOSTED, (str(photo.id) for photo in deleted))
    return _next(photos)


async def _unrendered(run: Sweep, after: str) -> tuple[str, bool]:
    below = lowest_at(sweep.abandoned_before(run.res))
    async with run.res.db.acquire() as connection:
        photos = await stored.unrendered(connection, after=int(after or 0), below=below, limit=_ROWS)
    for photo in photos:
        if await _render(run, photo, lost=False):
            run.note(Finding.UNRENDERED, [str(photo.id)])
    return _next(photos)


def _next(photos: Sequence[Stored]) -> tuple[str, bool]:
    return (str(photos[-1].id), True) if len(photos) == _ROWS else _END


async def _render(run: Sweep, photo: Stored, *, lost: bool) -> bool:
    """Have a photo rendered; False if somebody has noted that already."""
    res = run.res

    async def body(connection: Connection) -> int | None:
        if await stored.is_noted(connection, photo.id):
            return None
        if run.dry_run:
            return 0
        payload = {"media": photo.id, "key": photo.object_key, "lost": lost}
        return await note(res, connection, shard_of(photo.id), Kind.RENDER, payload)

    entry = await res.db.transact(body)
    if entry:
        await res.queue.ring(Kind.RENDER, entry)
    return entry is not None


async def _uploads(run: Sweep, after: str) -> tuple[str, bool]:
    blobs = run.res.blobs
    listed, following = await blobs.page_of_uploads(original_key(""), after=after, limit=_PAGE)
    old = _by_object_key(_old(run, listed))
    gone = await _without_row(run, old, await _rows(run, old))
    if not _is_doubtful(run, gone, len(old)):
        if not run.dry_run:
            for key in gone:
                await blobs.abort_uploads(key)
        run.note(Finding.UPLOAD, gone)
    return (following, True) if following else _END


async def _arrivals(run: Sweep, after: str) -> tuple[str, bool]:
    """What broke off lately: once an upload is as old as it may be, the bucket is looked at for it, in the order in which
    they began.
    """
    until = sweep.abandoned_before(run.res)
    after = after or original_key(first_object_key(until - _DAY_SECONDS))
    listed, more = await run.res.blobs.page(original_key(""), after=after, limit=_PAGE)
    due = [item for item in listed if item.key < original_key(first_object_key(until))]
    old = _by_object_key(_old(run, due))
    await _delete_objects(run, await _without_row(run, old, await _rows(run, old)), len(old))
    return (due[-1].key if due else after), more and len(due) == len(listed)


async def _originals(run: Sweep, after: str) -> tuple[str, bool]:
    listed, more = await run.res.blobs.page(original_key(""), after=after, limit=_PAGE)
    old = _by_object_key(_old(run, listed))
    rows = await _rows(run, old)
    gone = await _without_row(run, old, rows)
    await _delete_objects(run, gone, len(old))
    if (days := run.res.settings.originals_days) is not None:
        before = time.time() - days * _DAY_SECONDS
        expired = [rows.get(object_key) for object_key, item in old.items() if item.since < before]
        await _expire(run, [row for row in expired if row and row.status in {MediaStatus.READY, MediaStatus.FAILED}])
    return (listed[-1].key, True) if more and listed else _END


async def _expire(run: Sweep, photos: list[Stored]) -> None:
    keys = [original_key(photo.object_key) for photo in photos]
    if not run.dry_run:
        # The rows first: an original that its row takes for deleted is found again by its date.
        async with run.res.db.acquire() as connection:
            await stored.mark_original_deleted(connection, photos)
        await run.res.blobs.delete(keys)
    run.note(Finding.ORIGINAL, keys)


async def _renditions(run: Sweep, after: str) -> tuple[str, bool]:
    """Rows and renditions side by side, in the order of their hashes; a position is a hash."""
    listed, more = await run.res.blobs.page("renditions/", after=f"renditions/{after}0", limit=_PAGE)
    objects = _by_hash(listed)
    if more and len(objects) > 1:
        objects.popitem()  # the page may end amid a photo
    last = next(reversed(objects), None) if more else None
    async with run.res.db.acquire() as connection:
        rows = {
            rendition_hash(row.object_key): row for row in await stored.between(connection, after, last, limit=_ROWS)
        }
    if len(rows) == _ROWS:
        last = next(reversed(rows))
        objects = {hash_: found for hash_, found in objects.items() if hash_ <= last}
    old = _old(run, (item for found in objects.values() for item in found))
    stray = await _stray(run, (hash_ for hash_ in _by_hash(old) if hash_ not in rows))
    gone = [item.key for hash_, found in _by_hash(old).items() if hash_ in stray for item in found]
    await _delete_objects(run, gone, len(old))
    for hash_, row in rows.items():
        if row.status is MediaStatus.READY and not row.renditions <= {item.key for item in objects.get(hash_, [])}:
            await _restore(run, row)
    return (last, True) if last else _END


async def _restore(run: Sweep, photo: Stored) -> None:
    """Have the renditions made again, if any is missing now: since the bucket was listed they may have come, or gone with
    their post.
    """
    blobs = run.res.blobs
    there = await blobs.keys(rendition_prefix(photo.object_key))
    rows = await _rows(run, [photo.object_key])
    if photo.renditions <= set(there) or photo.object_key not in rows:
        return
    if photo.original_deleted or not await blobs.keys(original_key(photo.object_key)):
        run.note(Finding.LOST, [str(photo.id)])
    elif await _render(run, photo, lost=True):
        run.note(Finding.RENDITIONS, [str(photo.id)])


def _old(run: Sweep, listed: Iterable[Listed]) -> list[Listed]:
    before = sweep.abandoned_before(run.res)
    return [item for item in listed if item.since < before]


async def _rows(run: Sweep, object_keys: Iterable[str]) -> dict[str, Stored]:
    async with run.res.db.acquire() as connection:
        return await stored.of_keys(connection, object_keys)


async def _without_row(run: Sweep, old: Mapping[str, Listed], rows: Container[str]) -> list[str]:
    """The keys of what is stored, by object key, of photos without a row that nobody is going to delete."""
    stray = await _stray(run, (rendition_hash(object_key) for object_key in old if object_key not in rows))
    return [item.key for object_key, item in old.items() if rendition_hash(object_key) in stray]


async def _stray(run: Sweep, hashes: Iterable[str]) -> set[str]:
    """Of photos without a row those whose objects nobody is going to delete."""
    found = set(hashes)
    if found:
        async with run.res.db.acquire() as connection:
            found -= await stored.going(connection, found)
    return found


async def _delete_objects(run: Sweep, keys: list[str], beside: int) -> None:
    """Delete objects without a row, found among `beside` in all."""
    if _is_doubtful(run, keys, beside):
        return
    if not run.dry_run:
        await run.res.blobs.delete(keys)
    run.note(Finding.OBJECT, keys)


def _is_doubtful(run: Sweep, keys: list[str], beside: int) -> bool:
    """Whether so many of `beside` have no row that another database may have theirs."""
    if run.all or len(keys) <= max(_FEW, beside // 2):
        return False
    run.note(Finding.DOUBTFUL, keys)
    return True


_SCANS: dict[str, Scan] = {
    "unrendered": _unrendered,
    "uploads": _uploads,
    "originals": _originals,
    "renditions": _renditions,
    "unposted": _unposted,  # last: until the next run their objects are gone as well
}
