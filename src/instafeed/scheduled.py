"""Posts that wait for their time: their author's alone until then, when they become posts (`posts.publish_scheduled`).

Whoever changes one locks its author's account first.
"""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from instafeed import access, captions, reactions
from instafeed.errors import Conflict, Invalid
from instafeed.ids import shard_of
from instafeed.models import Media, Page, Post, PostView, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import media as media_rows
from instafeed.storage import outbox
from instafeed.storage import posts as post_rows
from instafeed.storage import scheduled_posts as scheduled_rows
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Kind
from instafeed.storage.scheduled_posts import ScheduledPost

MOST = 100
"""An account has at most so many."""
DAYS = 365
"""A post waits at most so long."""


async def add(
    res: Resources, connection: Connection, viewer: Viewer, scheduled_id: int, *, caption: str, publish_at: datetime
) -> bool:
    """Let the viewer's post wait, in the running transaction; False if it does already, or is published.

    Raises:
        Invalid: the time is past, or too far away.
        Conflict: the viewer has `MOST` of them.
    """
    if await scheduled_rows.get(connection, scheduled_id) is not None:
        return False
    _must_be_near(publish_at)
    if await scheduled_rows.count(connection, viewer.account_id) >= MOST:
        raise Conflict(f"You have {MOST} scheduled posts, which is the most.")
    place = await scheduled_rows.free_place(connection, viewer.account_id, publish_at)
    entry_id = await _note(res, connection, scheduled_id, publish_at)
    await scheduled_rows.insert(connection, ScheduledPost(scheduled_id, viewer.account_id, caption, place, entry_id))
    return True


def _must_be_near(publish_at: datetime) -> None:
    now = datetime.now(UTC)
    if not now < publish_at <= now + timedelta(days=DAYS):
        raise Invalid.at("/publish_at", f"Must be in the future, and at most {DAYS} days away.")


async def _note(res: Resources, connection: Connection, scheduled_id: int, publish_at: datetime) -> int:
    entry_id = res.ids.next(shard_of(scheduled_id))
    seconds = publish_at.timestamp() - time.time()
    await outbox.add(connection, entry_id, Kind.PUBLISH, {"scheduled": scheduled_id}, seconds=seconds)
    return entry_id


async def lock(connection: Connection, viewer: Viewer, scheduled_id: int) -> ScheduledPost | None:
    """The viewer's scheduled post, whether it waits or is published; nobody else changes it until the transaction ends.

    Raises:
        Unauthenticated: the viewer was suspended a moment ago.
    """
    there = await scheduled_rows.get(connection, scheduled_id)
    if there is None or there.author_id != viewer.account_id:
        return None
    await access.lock_self(connection, viewer)
    return await scheduled_rows.get(connection, scheduled_id)


async def move(res: Resources, connection: Connection, scheduled: ScheduledPost, publish_at: datetime) -> ScheduledPost:
    """Let one that is locked wait for another time.

    Raises:
        Invalid: the time is past, or too far away.
    """
    _must_be_near(publish_at)
    await outbox.cancel(connection, scheduled.entry_id)
    moved = replace(
        scheduled,
        place=await scheduled_rows.free_place(connection, scheduled.author_id, publish_at),
        entry_id=await _note(res, connection, scheduled.id, publish_at),
    )
    await scheduled_rows.update(connection, moved)
    return moved


async def drop(connection: Connection, scheduled: ScheduledPost) -> None:
    """Forget one that is locked; its photos are left to whoever calls this."""
    await outbox.cancel(connection, scheduled.entry_id)
    await scheduled_rows.delete(connection, scheduled.id)


async def find(connection: Connection, viewer: Viewer, scheduled_id: int) -> Post | None:
    """The viewer's post that waits, or what it has become."""
    # Photos first: of a post that is published in between they are not missed.
    photos = await media_rows.of_posts(connection, [scheduled_id])
    scheduled = await scheduled_rows.get(connection, scheduled_id)
    if scheduled is None or scheduled.author_id != viewer.account_id:
        return None
    if scheduled.post_id is not None:
        return (await post_rows.get_many(connection, [scheduled.post_id])).get(scheduled.post_id)
    return next(iter(await _posts(connection, viewer, [scheduled], photos)), None)


async def page(res: Resources, viewer: Viewer, *, above: int, limit: int) -> Page[PostView]:
    """The viewer's posts that wait, soonest first."""
    async with res.db.acquire() as connection:
        found = await scheduled_rows.page(connection, viewer.account_id, above=above, limit=limit + 1)
        photos = await media_rows.of_posts(connection, [scheduled.id for scheduled in found[:limit]])
        views = await reactions.views(connection, viewer, await _posts(connection, viewer, found[:limit], photos))
    return Page(views, next=found[limit - 1].place if len(found) > limit else None)


async def _posts(
    connection: Connection, viewer: Viewer, waiting: list[ScheduledPost], photos: dict[int, tuple[Media, ...]]
) -> list[Post]:
    """As posts, without those whose photos are not theirs any more: they were published, or dropped, in between."""
    author = await account_rows.get(connection, viewer.account_id)
    posts = []
    for scheduled in waiting:
        if author is not None and scheduled.id in photos:
            named = await captions.named_in(connection, viewer, scheduled.caption)
            posts.append(
                Post(
                    scheduled.id,
                    author,
                    scheduled.caption,
                    published_at=None,
                    publish_at=scheduled.publish_at,
                    media=photos[scheduled.id],
                    tags=named.tags,
                    mentions=named.mentions,
                )
            )
    return posts
