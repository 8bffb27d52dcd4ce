"""Reading the home feed.

PostgreSQL is the truth: the feed of V is every published post of V and of whom V follows now, and the posts of others that V
may see and that have a tag which V follows now, newest id first, but for those whom V mutes and for suspended authors. Redis
holds a window of it (`storage/timelines.py`), into which the recent posts of celebrities and with tags are merged here. The
window may hold too much (a deleted post, an author unfollowed a moment ago, a tag that was edited away), which reading leaves
out; it lacks nothing down to its floor.

A page is read in steps: ids from the window; where there is none or it ends, from what was read ahead of SQL, or from SQL;
their posts, ready-made; what of them the viewer may see now; until the page is full and one more is known, or the feed has
ended. When everything is cached that takes two trips to Redis: one for the window or what was read ahead and what is known of
the viewer's rights, one for posts, rights and what stands beside the posts: their counts and how the viewer has marked them;
and one in between for what is merged, if anything is.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from instafeed import feed_sources, reactions, telemetry
from instafeed.errors import RedisAway, Unavailable
from instafeed.feed_sources import ReadAheadReader, Rights, Sql, WindowReader
from instafeed.ids import MAX_ID
from instafeed.models import Counts, Marks, Post, Viewer
from instafeed.reactions import Reactions
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import posts as post_rows
from instafeed.storage.database import Connection
from instafeed.storage.post_cache import CachedPost, Found
from instafeed.storage.rights_cache import Look as RightsLook
from instafeed.storage.rights_cache import Sides
from instafeed.storage.timelines import Window, newest_of
from instafeed.visibility import shown_in_feeds, tags_in_feeds

Render = Callable[[Post], bytes]
"""How a post is sent, which is cached for all viewers."""

Admission = Callable[[], Awaitable[None]]
"""Awaited before the database is asked for anything, maybe several times; what it raises ends the read."""

_FROM_WINDOW, _FROM_READ_AHEAD, _FROM_SQL = map(telemetry.FEED_READS.labels, ("window", "read_ahead", "sql"))

_PLAIN_SECONDS = 3600
"""How long a post without a URL is cached."""
_REFILLS = 3
"""Times that a page is filled from a window full of what may not be shown, before SQL takes over."""


class Look(NamedTuple):
    """The first trip of a read, under way."""

    rights: RightsLook
    window: "asyncio.Future[Any]"
    limit: int | None
    read_ahead: "asyncio.Future[Any] | None"

    @property
    def is_warm(self) -> bool:
        """Whether the trip is over and the window is there."""
        return self.window.done() and self.window.exception() is None and self.window.result() is not None


class HomePage(NamedTuple):
    """A page of the home feed: ids and posts, newest first, and what stands beside the posts."""

    items: list[tuple[int, CachedPost]]
    counts: dict[int, Counts]
    marks: dict[int, Marks]
    """How the viewer has marked them; those that are not marked are not among these."""
    next: int | None
    """The next page begins below it; None at the end."""


async def begin_read(res: Resources, account_id: int, *, below: int, limit: int) -> Look | None:
    """Send the first trip of `read_home`, for a viewer who need not be authenticated yet; None if Redis is away."""
    first = limit + 1 + feed_sources.SPARE if below == MAX_ID else None
    try:
        rights = await res.rights.begin_look(account_id)
        window = await res.timelines.begin_read(account_id, limit=first, below=below)
        read_ahead = None if below == MAX_ID else await res.timelines.ask_read_ahead(account_id)
        return Look(rights, window, first, read_ahead)
    except RedisAway:
        return None


async def _anyone() -> None:
    pass


async def read_home(
    res: Resources,
    viewer: Viewer,
    *,
    below: int,
    limit: int,
    render: Render,
    look: Look | None = None,
    admit: Admission = _anyone,
) -> HomePage:
    """A page of the viewer's home feed: posts with ids below `below`.

    Args:
        res: the resources.
        viewer: whose feed.
        below: `MAX_ID` for the first page, else where the page before ended.
        limit: how many posts at most.
        render: how a post is sent.
        look: the first trip, if it was sent already.
        admit: says whether this read is worth the database's time.
    """
    me, sql = viewer.account_id, _Admitted(res, admit).sql
    look = look or await begin_read(res, me, below=below, limit=limit)
    rights = await _rights(res, me, look, sql)
    window = await _window(res, me, look, rights, sql)
    page = _Filling(res, me, rights, render, sql, below=below, limit=limit)
    source = _FROM_WINDOW
    if window is not None:
        await page.fill(window)
    if not page.is_done:
        source = _FROM_READ_AHEAD
        await page.fill(ReadAheadReader(res, me, rights, look.read_ahead if look else None, sql))
    if not page.is_done:
        source = _FROM_SQL
        await page.fill_from_sql()
    source.inc()
    shown = page.shown
    following = shown[limit - 1][0] if len(shown) > limit else page.rest
    return HomePage(shown[:limit], page.counts, page.marks, next=following)


async def materialise(res: Resources, account_id: int) -> None:
    """Have Redis hold the account's home feed, so that posts are pushed to it; nothing if it does already.

    Nor if a server is away: the first read does it then.
    """
    with contextlib.suppress(Unavailable):
        await feed_sources.rebuild(res, account_id, res.db.acquire)


class _Admitted(NamedTuple):
    """A read that may have to ask the database."""

    res: Resources
    admit: Admission

    @contextlib.asynccontextmanager
    async def sql(self) -> AsyncIterator[Connection]:
        """A connection, once the read is admitted."""
        await self.admit()
        async with self.res.db.acquire() as connection:
            yield connection


async def _rights(res: Resources, me: int, look: Look | None, sql: Sql) -> Rights:
    try:
        known = await res.rights.finish_look(look.rights) if look else None
    except RedisAway:
        known = None
    if known is not None:
        return Rights(known.celebrities, known.tags, known.name)
    return await feed_sources.rights_from_sql(res, me, sql)


async def _window(res: Resources, me: int, look: Look | None, rights: Rights, sql: Sql) -> WindowReader | None:
    """What Redis holds of the feed, rebuilt if it holds none; None if it is away or somebody else rebuilds it."""
    if look is None:
        return None
    try:
        window, whole = res.timelines.finish_read(await look.window), look.limit is None
        if window is not None and rights.sides is not None:
            # Its first answer may be older than what the database said: of somebody who was still a celebrity then.
            window = await res.timelines.read(me, limit=look.limit)
        if window is None:
            window, whole = await feed_sources.rebuild(res, me, sql), True
    except RedisAway:
        return None
    return WindowReader(res, me, rights, window, sql, whole=whole) if window else None


class _Filling:
    """A page while it is filled: with one post more than it shows, to know whether there is a next one."""

    def __init__(
        self, res: Resources, me: int, rights: Rights, render: Render, sql: Sql, *, below: int, limit: int
    ) -> None:
        self.shown: list[tuple[int, CachedPost]] = []
        self.counts: dict[int, Counts] = {}
        self.marks: dict[int, Marks] = {}
        self._position = below
        self._limit = limit
        self._ended = False
        self._res = res
        self._me = me
        self._rights = rights
        self._render = render
        self._sql = sql
        self._met_hidden = False

    @property
    def _wanted(self) -> int:
        return self._limit + 1 - len(self.shown)

    @property
    def is_done(self) -> bool:
        """Whether it is full, or the feed has ended."""
        return self._ended or self._wanted <= 0

    @property
    def rest(self) -> int | None:
        """What comes after it is below this; None if the feed has ended."""
        return None if self._ended else self._position

    async def fill(self, reader: "WindowReader | ReadAheadReader") -> None:
        """Fill it as far as `reader` knows what comes next."""
        for _ in range(_REFILLS):
            batch = None if self.is_done else await reader.batch(self._position, self._wanted)
            if batch is None:
                return
            await self._add_batch(batch)

    async def fill_from_sql(self) -> None:
        """Fill it by the feed's definition. Suspended authors are left out once there were hidden posts."""
        for _ in range(feed_sources.TURNS):
            if self.is_done:
                return
            sides, wanted = await self._sides(), self._wanted
            authors, tags = {self._me, *sides.authors}, self._rights.tags
            async with self._sql() as connection:
                if self._met_hidden:
                    authors -= await account_rows.suspended_among(connection, authors)
                batch = await feed_sources.authored(connection, authors, below=self._position, limit=wanted)
                if tags:
                    count = feed_sources.READ_AHEAD if self._met_hidden else wanted
                    batch = newest_of(
                        [batch, await feed_sources.tagged(connection, tags, below=self._position, limit=count)], count
                    )
            self._met_hidden = self._met_hidden or len(batch.ids) < wanted
            await self._add_batch(batch)

    async def _add_batch(self, batch: Window) -> None:
        """Go on with what is known of what comes next."""
        ids = batch.ids[: self._wanted]
        await self._add(ids)
        whole = len(ids) == len(batch.ids)
        self._position, self._ended = (batch.floor, batch.to_the_end) if whole else (ids[-1], False)

    async def _add(self, ids: list[int]) -> None:
        """Add those of the posts that the viewer may see now; `ids` in their order."""
        if not ids:
            return
        try:
            posts, sides, beside = await self._look_up(ids)
        except RedisAway:
            posts = self._rendered(await self._rows(ids))
            sides = await self._sides_from_sql()
            async with self._sql() as connection:
                beside = await reactions.from_sql(connection, self._me, ids)
        self.counts |= beside.counts
        self.marks |= beside.marks
        self._met_hidden = self._met_hidden or len(posts) < len(ids)
        self.shown += [
            (id_, post)
            for id_ in ids
            if (post := posts.get(id_)) is not None
            and (post.author_id in sides.authors or post.author_id == self._me or self._shown_by_tag(post, sides))
        ]

    def _shown_by_tag(self, post: CachedPost, sides: Sides) -> bool:
        return post.author_id not in sides.away and not post.tags.isdisjoint(self._rights.tags)

    async def _sides(self) -> Sides:
        if self._rights.sides is None:
            with contextlib.suppress(RedisAway):
                sides = await self._res.rights.members(self._me)
                if sides is not None:
                    return sides
        return await self._sides_from_sql()

    async def _look_up(self, ids: list[int]) -> tuple[dict[int, CachedPost], Sides, Reactions]:
        cache, rights, me = self._res.post_cache, self._res.rights, self._me
        away = bool(self._rights.tags)
        posts_asked = await cache.begin_look(ids)
        authors = posts_asked.authors
        rights_asked = await rights.begin_ask(me, [*authors], away=away) if self._rights.sides is None else None
        beside_asked = await reactions.begin_look(self._res, me, ids)
        found = await cache.finish_look(posts_asked)
        sides = self._rights.sides
        if rights_asked is not None:
            sides = rights.finish_ask(await rights_asked, authors)
        if found.missing:
            await self._fill(found)
        if found.gone:
            await self._res.timelines.remove(me, found.gone)
        if sides is not None and self._rights.sides is None:
            others = {post.author_id for post in found.posts.values()}.difference(authors)
            if others:
                more = rights.finish_ask(await (await rights.begin_ask(me, [*others], away=away)), others)
                sides = more and Sides({*sides.authors, *more.authors}, {*sides.away, *more.away})
        if sides is None:
            sides = await self._sides_from_sql()
        return found.posts, sides, await reactions.finish_look(self._res, me, beside_asked, self._sql)

    async def _fill(self, found: Found) -> None:
        """Add what is missing from the database, and put it into the cache too."""
        cache, ids = self._res.post_cache, found.missing
        fills = await cache.begin_fill(ids)
        rows = await self._rows(ids)
        posts = self._rendered(rows)
        # One that is not published yet will be: nothing is remembered of it.
        fills = [fill for fill in fills if (row := rows.get(fill.post_id)) is None or row.published_at is not None]
        authors = {id_: row.author.id for id_, row in rows.items()}
        seconds = {id_: self._seconds(rows[id_]) for id_ in posts}
        await cache.finish_fill(fills, authors, posts, seconds=seconds)
        found.posts.update(posts)
        found.gone.extend(id_ for id_ in ids if id_ not in rows)

    def _seconds(self, post: Post) -> int:
        """How long the post is shown as it is now: until the first of its URLs changes."""
        photos = [*(photo.renditions for photo in post.media), post.author.avatar]
        keys = [rendition.key for renditions in photos for rendition in renditions[:1]]
        return max(1, min(map(self._res.blobs.url_seconds_left, keys), default=_PLAIN_SECONDS))

    async def _rows(self, ids: list[int]) -> dict[int, Post]:
        async with self._sql() as connection:
            return await post_rows.get_many(connection, ids)

    def _rendered(self, rows: dict[int, Post]) -> dict[int, CachedPost]:
        return {
            id_: CachedPost(row.author.id, self._render(row), tags_in_feeds(row))
            for id_, row in rows.items()
            if shown_in_feeds(row)
        }

    async def _sides_from_sql(self) -> Sides:
        if self._rights.sides is None:
            self._rights = await feed_sources.rights_from_sql(self._res, self._me, self._sql)
        assert self._rights.sides is not None
        return self._rights.sides
