"""Delivering posts to home feeds and to the lists of their tags, and keeping these in step with who follows whom.

A post of an author with few followers is pushed by its fan-out job itself. One with many is delivered in chunks that are
outbox entries of their own, on a queue of their own: any worker takes them, a killed worker's are taken up by others, and no
small author waits behind them. The posts of celebrities are not pushed to followers, but merged when a feed is read. So are
those that come into a feed by a tag: each tag has one list, and who follows it makes no difference to a fan-out.

Everything here may run twice, late, out of order, and at the same time.
"""

import asyncio
from typing import Any

from instafeed import telemetry
from instafeed.changes import Change, transact
from instafeed.ids import MAX_ID, shard_of
from instafeed.models import Delivery, EventType
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import follows as follow_rows
from instafeed.storage import outbox
from instafeed.storage import posts as post_rows
from instafeed.storage import tags as tag_rows
from instafeed.storage.database import Connection
from instafeed.storage.follows import Packed
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import FollowUp, Outcome, Parts

_AT_ONCE = 2000
"""Followers that a fan-out job serves by itself while others wait."""
_FIRST_PIECE = 4000
"""Followers that are packed while Redis has nothing to do yet."""
_GROWTH = 3
"""A piece may be so many times the one before: so much faster, or nearly, does the database pack them than Redis takes them."""
_ALIGN_TRIES = 10
_MERGE_CHUNK = 500
_TAG_CHUNK = 200
_NO_CELEBRITY_BELOW = 0.8
"""An account is a celebrity until it has fewer followers than this part of the setting, so that it does not change to and fro."""


async def fan_out(res: Resources, entry: Entry) -> Outcome:
    """Job: bring a post into the feeds of its author and of all followers; then have the subscribers notified."""
    post_id, author_id = entry.payload["post"], entry.payload["author"]
    async with res.db.acquire() as connection:
        post = await post_rows.published(connection, post_id)
    if post is None:
        return []
    published_at, tags = post
    if entry.position > outbox.PARTS_DONE:
        return Parts()
    if entry.position < outbox.PARTS_DONE:
        way, count = await _way(res, author_id)
        await res.recents.push_to([author_id], post_id, again=entry.again)
        await _push_to_tags(res, author_id, [(post_id, tags)] if tags else [], again=entry.again)
        await res.timelines.push_to([author_id], post_id, again=entry.again)
        if way is not Delivery.MERGED:
            # With nobody waiting, a whole chunk is served at once: that saves the way through another queue.
            most = res.settings.fan_out_chunk if await res.queue.is_idle("fanout") else _AT_ONCE
            if count > most:
                # Of a fan-out that is done again, chunks may have been delivered.
                marks = {"again": True} if entry.again else {}
                return Parts(Kind.DELIVER, [chunk | marks for chunk in await _chunks(res, post_id, author_id)])
            await _push(res, entry)
    telemetry.DELIVERY_DELAY.observe((telemetry.now() - published_at).total_seconds(), {"post": str(post_id)})
    await res.events.add(EventType.POST_CREATED, author_id=author_id, post_id=post_id)
    return [(Kind.NOTIFY, {"post": post_id, "author": author_id})]


async def deliver(res: Resources, entry: Entry) -> Outcome:
    """Job: push a post into the feeds of one chunk of its author's followers."""
    async with res.db.acquire() as connection:
        post = await post_rows.published(connection, entry.payload["post"])
    if post is not None:
        await _push(res, entry, above=entry.payload["above"], up_to=entry.payload["up_to"])
    return []


async def _chunks(res: Resources, post_id: int, author_id: int) -> list[dict[str, Any]]:
    async with res.db.acquire() as connection:
        chunks = await follow_rows.chunks_of_followers(connection, author_id, size=res.settings.fan_out_chunk)
    return [{"post": post_id, "author": author_id, "above": above, "up_to": up_to} for above, up_to in chunks]


async def _push(res: Resources, entry: Entry, *, above: int = 0, up_to: int = MAX_ID) -> None:
    """Push the entry's post into the feeds of its author's followers with ids above the one, up to the other.

    The database packs a piece of them while Redis takes the one before. The first one is small, so that Redis has not long to
    wait, and each is larger than the last: the more are packed at once, the fewer calls they are.
    """
    size = _FIRST_PIECE
    piece = await _packed(res, entry, above, up_to, size)
    while True:
        following: asyncio.Task[Packed] | None = None
        async with asyncio.TaskGroup() as group:
            group.create_task(res.timelines.push(entry.payload["post"], piece.followers, again=entry.again))
            if piece.count == size:
                size *= _GROWTH
                following = group.create_task(_packed(res, entry, piece.last, up_to, size))
        telemetry.DELIVERIES.inc(piece.count)
        if following is None:
            return
        piece = following.result()


async def _packed(res: Resources, entry: Entry, above: int, up_to: int, limit: int) -> Packed:
    async with res.db.acquire() as connection:
        return await follow_rows.packed_followers(
            connection,
            entry.payload["author"],
            above=above,
            up_to=up_to,
            limit=limit,
            buckets=res.timelines.buckets,
            key_parts=res.timelines.key_parts,
        )


async def _way(res: Resources, author_id: int) -> tuple[Delivery, int]:
    """How this author's posts get to followers from now on, and how many these are: changed here, when an account has become
    a celebrity or is one no longer.

    No reader may miss a post on the way. Upward: first readers merge, all of them, and only then pushing stops. Downward:
    first pushing begins again, then what was not pushed is, and only then readers stop merging.
    """
    limit = res.settings.celebrity_followers
    async with res.db.acquire() as connection:
        way, followers = await account_rows.delivery(connection, author_id)
    if way is Delivery.PUSHED and followers > limit:
        way = await _change_way(res, author_id, way, Delivery.BOTH)
    if way is Delivery.BOTH and followers > limit:
        way = await _change_way(res, author_id, way, Delivery.MERGED)
    if way is Delivery.MERGED and followers < limit * _NO_CELEBRITY_BELOW:
        way = await _change_way(res, author_id, way, Delivery.BOTH, then=Kind.PUSH_AGAIN)
    return way, followers


async def _change_way(
    res: Resources, author_id: int, old: Delivery, new: Delivery, *, then: Kind | None = None
) -> Delivery:
    """Change it, unless somebody else did, and note what follows from it; returns what it is now."""

    async def body(change: Change) -> Delivery:
        changed = await account_rows.set_delivery(change.connection, author_id, old=old, new=new)
        if changed and new is Delivery.MERGED:
            # With the row locked: whoever asks from now on finds BOTH until the commit, and nobody has been asking since
            # a time when it was PUSHED.
            await res.rights.renew_celebrities()
        if changed and then is not None:
            await change.note(shard_of(author_id), then, {"author": author_id})
        return (await account_rows.delivery(change.connection, author_id))[0]

    return await transact(res, body)


async def tag(res: Resources, entry: Entry) -> Outcome:
    """Job: bring an author's posts in a range of ids into the lists of their tags: one that got other tags, or all of somebody
    who shows them to everybody again.
    """
    author_id, up_to = entry.payload["author"], entry.payload["up_to"]
    position = max(entry.position, entry.payload["above"])
    while True:
        async with res.db.acquire() as connection:
            found = await post_rows.tagged_of_author(
                connection, author_id, above=position, up_to=up_to, limit=_TAG_CHUNK
            )
        await _push_to_tags(res, author_id, found, again=True)
        if len(found) < _TAG_CHUNK:
            return []
        position = found[-1][0]
        async with res.db.acquire() as connection:
            await outbox.checkpoint(connection, entry.id, position)


async def _push_to_tags(res: Resources, author_id: int, posts: list[tuple[int, list[str]]], *, again: bool) -> None:
    """Push posts of an author to the lists of their tags, if everybody may see them.

    What these lists hold too much is left out by who reads them, so that nobody takes anything out. They may lack nothing:
    whatever lets a post be found by a tag, or an author's posts be seen, has this done after its commit.
    """
    if posts:
        async with res.db.acquire() as connection:
            if not await account_rows.public_among(connection, [author_id]):
                return
    for post_id, tags in posts:
        await res.recents.push_to(map(tag_rows.list_id, tags), post_id, again=again)


async def push_again(res: Resources, entry: Entry) -> Outcome:
    """Job: bring the posts of somebody who is no celebrity any more into the followers' feeds, and stop merging them.

    When it is done again, because Redis may have forgotten, nothing is merged any more, but must still be there.
    """
    author_id, position = entry.payload["author"], entry.position
    async with res.db.acquire() as connection:
        way, _ = await account_rows.delivery(connection, author_id)
        ids = await _window_of(res, connection, author_id)
    if way is Delivery.MERGED:
        return []  # a celebrity again: the next one's
    while True:
        async with res.db.acquire() as connection:
            followers = await follow_rows.follower_ids(connection, author_id, above=position, limit=_MERGE_CHUNK)
        for follower in followers:
            await res.timelines.merge(follower, ids)
        if len(followers) < _MERGE_CHUNK:
            break
        position = followers[-1]
        async with res.db.acquire() as connection:
            await outbox.checkpoint(connection, entry.id, position)

    async def stop_merging(connection: Connection) -> None:
        await account_rows.lock(connection, [author_id])
        # If it was a celebrity once more meanwhile, the posts of that time are for the next job.
        if not await outbox.is_overtaken(connection, entry):
            await account_rows.set_delivery(connection, author_id, old=Delivery.BOTH, new=Delivery.PUSHED)

    await res.db.transact(stop_merging)
    await res.rights.renew_celebrities()
    return []


async def align(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: make a viewer's window agree with whether the viewer's feed takes an author's posts, whichever it is now.

    One job serves following and unfollowing, muting and unmuting, so that it does not matter in which order or how often
    jobs run. The state is read again after the window was changed: a change that was committed meanwhile has a job of its
    own, but that job may have run before this one wrote.
    """
    viewer_id, author_id = entry.payload["viewer"], entry.payload["author"]
    for _ in range(_ALIGN_TRIES):
        async with res.db.acquire() as connection:
            takes = await _takes(connection, viewer_id, author_id)
            ids = await _window_of(res, connection, author_id) if takes else []
        if takes:
            await res.timelines.merge(viewer_id, ids)
        else:
            await _take_out(res, viewer_id, author_id)
        async with res.db.acquire() as connection:
            if await _takes(connection, viewer_id, author_id) == takes:
                return []
    raise RuntimeError("the follow changed faster than the feed could be aligned")


async def _takes(connection: Connection, viewer_id: int, author_id: int) -> bool:
    return bool(await follow_rows.feed_authors_among(connection, viewer_id, [author_id]))


async def _window_of(res: Resources, connection: Connection, author_id: int) -> list[int]:
    """The author's newest posts: one more than a window holds, so that a list that takes them all in knows of older ones."""
    return await post_rows.ids_of_author(
        connection, author_id, below=MAX_ID, limit=res.timelines.window + 1, unpublished=False
    )


async def _take_out(res: Resources, viewer_id: int, author_id: int) -> None:
    # A post carries its author's shard, which leaves few to ask the database about.
    shard = shard_of(author_id)
    candidates = [id_ for id_ in await res.timelines.entries(viewer_id) if shard_of(id_) == shard]
    if candidates:
        async with res.db.acquire() as connection:
            theirs = await post_rows.authored_by(connection, author_id, candidates)
        if theirs:
            await res.timelines.remove(viewer_id, theirs)
