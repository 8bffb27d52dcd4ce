"""The home feed: delivering posts to it, keeping it in step with who follows whom, and reading it.

PostgreSQL is the truth: the feed of V is every published post of V and of whom V follows now, newest id first. Redis holds
a window of it (`storage/timelines.py`). A window may hold too much (a deleted post, an author unfollowed a moment ago),
which reading leaves out; it never lacks anything between its first entry and its last.
"""

from bisect import bisect_right

from instafeed import telemetry
from instafeed.errors import RedisAway
from instafeed.ids import MAX_ID, shard_of
from instafeed.models import EventType, Page, Post, Viewer
from instafeed.resources import Resources
from instafeed.storage import follows as follow_rows
from instafeed.storage import posts as post_rows
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry, Kind, checkpoint
from instafeed.storage.timelines import Window
from instafeed.visibility import in_home_feed
from instafeed.work import FollowUp

_SPARE = 10
"""Ids read beyond a page, so that a few that may not be shown cost no second trip."""
_REFILLS = 3
"""Times that a page is refilled from a window full of what may not be shown, before SQL takes over."""
_ALIGN_TRIES = 10


async def fan_out(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: push a post into the feeds of its author and of all followers; then have the subscribers notified."""
    post_id, author_id = entry.payload["post"], entry.payload["author"]
    async with res.db.acquire() as connection:
        published_at = await post_rows.published_at(connection, post_id)
    if published_at is None:
        return []
    await res.timelines.push_to(author_id, post_id)
    position = entry.position
    while True:
        async with res.db.acquire() as connection:
            followers, count, last = await follow_rows.packed_followers(
                connection,
                author_id,
                above=position,
                limit=res.settings.fan_out_chunk,
                buckets=res.timelines.buckets,
            )
        if not count:
            break
        await res.timelines.push(post_id, followers)
        telemetry.DELIVERIES.inc(count)
        position = last
        if count < res.settings.fan_out_chunk:
            break
        async with res.db.acquire() as connection:
            await checkpoint(connection, entry.id, position)
    telemetry.DELIVERY_DELAY.observe((telemetry.now() - published_at).total_seconds())
    await res.events.add(EventType.POST_CREATED, author_id=author_id, post_id=post_id)
    return [(Kind.NOTIFY, entry.payload)]


async def align(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: make a viewer's window agree with whether the viewer follows an author, whichever it is now.

    One job serves following and unfollowing, so that it does not matter in which order or how often jobs run. The
    state is read again after the window was changed: a change that was committed meanwhile has a job of its own, but
    that job may have run before this one wrote.
    """
    viewer_id, author_id = entry.payload["viewer"], entry.payload["author"]
    for _ in range(_ALIGN_TRIES):
        async with res.db.acquire() as connection:
            follows = await _follows(connection, viewer_id, author_id)
            if follows:
                # One more than the window holds: a list that takes them all in knows that there are older ones.
                ids = await post_rows.ids_of_author(
                    connection, author_id, below=MAX_ID, limit=res.timelines.window + 1, unpublished=False
                )
        if follows:
            await res.timelines.merge(viewer_id, ids)
        else:
            await _take_out(res, viewer_id, author_id)
        async with res.db.acquire() as connection:
            if await _follows(connection, viewer_id, author_id) == follows:
                return []
    raise RuntimeError("the follow changed faster than the feed could be aligned")


async def _follows(connection: Connection, viewer_id: int, author_id: int) -> bool:
    return bool(await follow_rows.feed_authors_among(connection, viewer_id, [author_id]))


async def _take_out(res: Resources, viewer_id: int, author_id: int) -> None:
    # A post carries its author's shard, which leaves few to ask the database about.
    shard = shard_of(author_id)
    candidates = [id_ for id_ in await res.timelines.entries(viewer_id) if shard_of(id_) == shard]
    if candidates:
        async with res.db.acquire() as connection:
            theirs = await post_rows.authored_by(connection, author_id, candidates)
        if theirs:
            await res.timelines.remove(viewer_id, theirs)


async def read_home(res: Resources, viewer: Viewer, *, below: int, limit: int) -> Page[Post]:
    """A page of the viewer's home feed, newest first, of posts with ids below `below`.

    In steps: ids from the window, or from SQL where there is none or it ends; the posts; what of them may be shown. It
    goes on until the page is full and one more is known, or the feed has ended.
    """
    window = await _window(res, viewer.account_id, first=limit + 1 + _SPARE if below == MAX_ID else None)
    shown: list[Post] = []
    position = below
    for _ in range(_REFILLS if window else 0):
        assert window is not None
        ids = _slice(window.ids, position, limit + 1 + _SPARE)
        if not ids:
            break
        shown += await _posts(res, viewer.account_id, ids)
        position = ids[-1]
        if len(shown) > limit:
            break
    ended = window is not None and window.to_the_end and (not window.ids or position <= window.ids[-1])
    telemetry.FEED_READS.labels("window" if len(shown) > limit or ended else "sql").inc()
    while len(shown) <= limit and not ended:
        wanted = limit + 1 - len(shown)
        async with res.db.acquire() as connection:
            ids = await _ids_from_sql(connection, viewer.account_id, below=position, limit=wanted)
        shown += await _posts(res, viewer.account_id, ids)
        ended = len(ids) < wanted
        position = ids[-1] if ids else position
    return Page(shown[:limit], next=shown[limit - 1].id if len(shown) > limit else None)


def _slice(ids: list[int], below: int, count: int) -> list[int]:
    """The first `count` of the descending `ids` that are below `below`."""
    start = bisect_right(ids, -below, key=lambda id_: -id_)
    return ids[start : start + count]


async def _window(res: Resources, viewer_id: int, *, first: int | None) -> Window | None:
    """What Redis holds of the feed, rebuilt if it holds none; None if Redis is away or somebody else rebuilds it."""
    try:
        return await res.timelines.read(viewer_id, limit=first) or await _rebuild(res, viewer_id)
    except RedisAway:
        return None


async def _rebuild(res: Resources, viewer_id: int) -> Window | None:
    # The list is created before the query: what is published later finds it and is pushed to it.
    marker = await res.timelines.begin_rebuild(viewer_id)
    if marker is None:
        return None
    async with res.db.acquire() as connection:
        ids = await _ids_from_sql(connection, viewer_id, below=MAX_ID, limit=res.timelines.window)
    window = Window(ids, to_the_end=len(ids) < res.timelines.window)
    if not await res.timelines.finish_rebuild(viewer_id, marker, ids, to_the_end=window.to_the_end):
        return None
    telemetry.FEED_REBUILDS.inc()
    return window


async def _ids_from_sql(connection: Connection, viewer_id: int, *, below: int, limit: int) -> list[int]:
    authors = [viewer_id, *await follow_rows.feed_authors(connection, viewer_id)]
    return await post_rows.published_ids(connection, authors, below=below, limit=limit)


async def _posts(res: Resources, viewer_id: int, ids: list[int]) -> list[Post]:
    """The posts of `ids`, in that order, that may be shown."""
    async with res.db.acquire() as connection:
        posts = await post_rows.get_many(connection, ids)
        followees = await follow_rows.feed_authors_among(
            connection, viewer_id, {post.author.id for post in posts.values()}
        )
    await _sweep(res, viewer_id, [id_ for id_ in ids if id_ not in posts])
    return [posts[id_] for id_ in ids if id_ in posts and in_home_feed(posts[id_], viewer_id, followees)]


async def _sweep(res: Resources, viewer_id: int, deleted: list[int]) -> None:
    """Take deleted posts out of the window. Only these: a post that may not be shown now may be shown again."""
    if deleted:
        try:
            await res.timelines.remove(viewer_id, deleted)
        except RedisAway:
            return
