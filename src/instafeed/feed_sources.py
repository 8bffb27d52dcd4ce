"""Where the ids of a page of the home feed come from: a window in Redis, what was read ahead of SQL, SQL itself; and what the
viewer may see of it.
"""

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from instafeed import telemetry
from instafeed.errors import RedisAway
from instafeed.ids import MAX_ID
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import followed_tags as followed_rows
from instafeed.storage import follows as follow_rows
from instafeed.storage import posts as post_rows
from instafeed.storage import relations as relation_rows
from instafeed.storage import tags as tag_rows
from instafeed.storage.database import Connection
from instafeed.storage.rights_cache import Sides
from instafeed.storage.timelines import ReadAhead, Window, newest_of

Sql = Callable[[], AbstractAsyncContextManager[Connection]]
"""A connection for a read that was admitted."""

SPARE = 10
"""Ids read beyond a page, so that a few that may not be shown cost no further trip."""
READ_AHEAD = 500
"""Ids that are asked of SQL at once below the window: hardly more work than those of one page."""
TURNS = 20
"""Times that SQL is asked for a page. Where tags have so many posts that may not be shown, it ends early, and the next one goes on."""


class Rights(NamedTuple):
    """What a viewer's feed shows: posts of the authors in `sides`, and posts with one of `tags` of whoever is not away. Where
    `sides` is None, the cache's entry `name` has them.
    """

    celebrities: list[int]
    tags: list[str]
    name: bytes = b""
    sides: Sides | None = None

    @property
    def merged(self) -> list[int]:
        """The lists that are merged when the feed is read."""
        return [*self.celebrities, *map(tag_rows.list_id, self.tags)] if self.tags else self.celebrities


async def rights_from_sql(res: Resources, me: int, sql: Sql) -> Rights:
    """What the database says, which goes into the cache too."""
    fill = None
    with contextlib.suppress(RedisAway):
        fill = await res.rights.begin_fill(me)
    async with sql() as connection:
        authors = await follow_rows.feed_authors(connection, me)
        celebrities = await account_rows.celebrities_among(connection, authors) if authors else []
        tags = await followed_rows.of_account(connection, me)
        away = await relation_rows.kept_away(connection, me) if tags else set()
    sides = Sides(frozenset(authors), frozenset(away))
    if fill is not None:
        with contextlib.suppress(RedisAway):
            await res.rights.finish_fill(fill, sides, celebrities, tags)
    return Rights(celebrities, tags, sides=sides)


class WindowReader:
    """Reads on in a window of Redis: the viewer's list, and those of the celebrities and the tags that the viewer follows."""

    def __init__(self, res: Resources, me: int, rights: Rights, window: Window, sql: Sql, *, whole: bool) -> None:
        self._res = res
        self._me = me
        self._rights = rights
        self._merged = rights.merged
        self._window = window
        self._sql = sql
        self._whole = whole

    async def batch(self, below: int, wanted: int) -> Window | None:
        """At least `wanted` ids below `below`, unless Redis holds fewer; None if it does not hold what comes there."""
        try:
            return await self._batch(below, wanted)
        except RedisAway:
            return None

    async def _batch(self, below: int, wanted: int) -> Window | None:
        count = wanted + SPARE
        found = _slice(self._window.ids, below, count)
        if len(found) < wanted and not self._whole and not self._window.to_the_end:
            window = await self._res.timelines.read(self._me, limit=None)
            if window is None:
                return None
            self._window, self._whole = window, True
            found = _slice(window.ids, below, count)
        batch = Window(found, found[-1] if len(found) == count else self._window.floor)
        if self._merged and batch.floor < below:
            recent, missing = await self._res.recents.read_many(
                self._merged, below=below, above=batch.floor, limit=count
            )
            if missing:
                await _rebuild_recents(self._res, self._rights, missing, self._sql)
                return None
            batch = newest_of([batch, recent], count)
        return batch if batch.floor < below else None


class ReadAheadReader:
    """Reads on below the window, in ids of which SQL was asked for many at once.

    The posts of celebrities and with tags are asked of SQL for each page: when one comes late, nobody tells their followers'
    read-aheads.
    """

    def __init__(self, res: Resources, me: int, rights: Rights, asked: "asyncio.Future[Any] | None", sql: Sql) -> None:
        self._res = res
        self._me = me
        self._rights = rights
        self._asked = asked
        self._sql = sql
        self._held: ReadAhead | None = None

    async def batch(self, below: int, wanted: int) -> Window | None:
        """At least `wanted` ids below `below`, unless fewer were read ahead; None if nothing can be."""
        if not self._rights.name:
            return None
        try:
            held = await self._find(below)
        except RedisAway:
            return None
        if held is None:
            return None
        count = wanted + SPARE
        found = _slice(held.ids, below, count)
        batch = Window(found, found[-1] if len(found) == count else held.floor)
        if self._rights.celebrities or self._rights.tags:
            async with self._sql() as connection:
                recent = await authored(connection, self._rights.celebrities, below=below, limit=count)
                by_tags = await tagged(connection, self._rights.tags, below=below, limit=count)
            batch = newest_of([batch, recent, by_tags], count)
        return batch

    async def _find(self, below: int) -> ReadAhead | None:
        if self._held is None:
            asked = self._asked or await self._res.timelines.ask_read_ahead(self._me)
            self._held = self._res.timelines.read_ahead_of(await asked)
        if self._held is None or self._held.rights != self._rights.name or not self._held.covers(below):
            self._held = await self._read_ahead(below)
        return self._held

    async def _read_ahead(self, below: int) -> ReadAhead | None:
        # Asked after their name: should they be others by now, nobody will believe in that name any more.
        members = await self._res.rights.members(self._me)
        reading = await self._res.timelines.begin_read_ahead(self._me) if members else None
        if members is None or reading is None:
            return None
        authors = {*members.authors}.difference(self._rights.celebrities)
        async with self._sql() as connection:
            window = await authored(connection, authors, below=below, limit=READ_AHEAD)
        found = ReadAhead(self._rights.name, below, window.floor, window.ids)
        await self._res.timelines.finish_read_ahead(reading, found)
        return found


async def authored(connection: Connection, authors: Collection[int], *, below: int, limit: int) -> Window:
    """The newest posts of these authors, as SQL says."""
    ids = await post_rows.published_ids(connection, authors, below=below, limit=limit) if authors else []
    return Window(ids, ids[-1] if len(ids) == limit else 0)


async def tagged(connection: Connection, tags: Sequence[str], *, below: int, limit: int) -> Window:
    """Those of the newest `limit` posts with any of these tags whose authors show theirs to everybody, as SQL says."""
    found = await tag_rows.newest_of_many(connection, tags, below=below, limit=limit)
    authors = await account_rows.public_among(connection, {author_id for _, author_id in found}) if found else set()
    ids = [id_ for id_, author_id in found if author_id in authors]
    return Window(ids, found[-1][0] if len(found) == limit else 0)


def _slice(ids: list[int], below: int, count: int) -> list[int]:
    """The first `count` of the descending `ids` that are below `below`."""
    start = bisect_right(ids, -below, key=lambda id_: -id_) if ids and ids[0] >= below else 0
    return ids[start : start + count]


async def rebuild(res: Resources, me: int, sql: Sql) -> Window | None:
    """What Redis holds of the viewer's own list, once it was asked of SQL; None if somebody else is at it."""
    # The list is created before the query: what is published later finds it and is pushed to it.
    marker = await res.timelines.begin_rebuild(me)
    if marker is None:
        return None
    async with sql() as connection:
        authors = [me, *await follow_rows.feed_authors(connection, me)]
        window = await authored(connection, authors, below=MAX_ID, limit=res.timelines.window)
    if not await res.timelines.finish_rebuild(me, marker, window.ids, to_the_end=window.to_the_end):
        return None
    telemetry.FEED_REBUILDS.inc()
    return window


async def _rebuild_recents(res: Resources, rights: Rights, missing: list[int], sql: Sql) -> None:
    tags = {tag_rows.list_id(tag): tag for tag in rights.tags}
    for list_id in missing:
        marker = await res.recents.begin_rebuild(list_id)
        if marker is None:
            continue
        async with sql() as connection:
            if list_id in tags:
                window = await _newest_tagged(connection, tags[list_id], limit=res.recents.window)
            else:
                window = await _newest_authored(connection, list_id, limit=res.recents.window)
        await res.recents.finish_rebuild(list_id, marker, window.ids, to_the_end=window.to_the_end)


async def _newest_authored(connection: Connection, author_id: int, *, limit: int) -> Window:
    ids = await post_rows.ids_of_author(connection, author_id, below=MAX_ID, limit=limit, unpublished=False)
    return Window(ids, ids[-1] if len(ids) == limit else 0)


async def _newest_tagged(connection: Connection, tag: str, *, limit: int) -> Window:
    """What a list holds of a tag's posts: those of authors who show theirs to everybody, as far down as was looked.

    If it was given up before the end, the last post that was looked at too, shown or not: a list goes down to its last entry,
    and without any it would be built again by every read.
    """
    ids, floor = list[int](), MAX_ID
    for _ in range(TURNS):
        found = await tagged(connection, [tag], below=floor, limit=limit)
        ids, floor = [*ids, *found.ids], found.floor
        if found.to_the_end or len(ids) >= limit:
            break
    if floor and floor not in ids[-1:]:
        ids.append(floor)
    return Window(ids[:limit], floor if len(ids) <= limit else ids[limit - 1])
