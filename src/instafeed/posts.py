"""Posting, editing posts, and taking them back."""

from collections.abc import Container, Sequence
from dataclasses import replace
from datetime import datetime

from structlog.contextvars import bind_contextvars

from instafeed import access, captions, notifications, reactions, scheduled
from instafeed.changes import Change, transact
from instafeed.errors import FieldError, Invalid, MediaUnusable, NotFound, Unavailable
from instafeed.ids import shard_of
from instafeed.models import ActivityKind, EventType, Media, Page, PhotoOfPost, PostChanges, PostView, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import activity as activity_rows
from instafeed.storage import comments as comment_rows
from instafeed.storage import counters, locks, outbox
from instafeed.storage import likes as like_rows
from instafeed.storage import media as media_rows
from instafeed.storage import posts as post_rows
from instafeed.storage import relations as relation_rows
from instafeed.storage import saves as save_rows
from instafeed.storage import scheduled_posts as scheduled_rows
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry, Kind
from instafeed.storage.scheduled_posts import ScheduledPost
from instafeed.visibility import posts_visible, visible
from instafeed.work import FollowUp, note

_CHUNK = 500
"""How many likes, saves and comments of a post that is gone are deleted at once."""
_CHUNKS = 50
"""Times that one job does so; another one goes on."""


async def create(
    res: Resources,
    viewer: Viewer,
    post_id: int,
    *,
    caption: str,
    photos: list[PhotoOfPost],
    publish_at: datetime | None = None,
) -> PostView:
    """Make a post of the viewer's photos. It is published at once if they are ready, else as soon as they are.

    Args:
        res: the resources.
        viewer: its author.
        post_id: the id to give it; where the author's post is there already, it is found again.
        caption: may be empty.
        photos: 1 to 10, in their order.
        publish_at: when to publish it, under another id; it is its author's alone until then.

    Raises:
        MediaUnusable: a photo is missing, failed, somebody else's, another post's, or there twice; says which.
        Invalid: the time is past, or too far away.
        Conflict: too many posts of the viewer's wait for their time.
    """

    async def body(connection: Connection) -> tuple[int | None, PostView]:
        return await add(res, connection, viewer, post_id, caption=caption, photos=photos, publish_at=publish_at)

    entry, view = await res.db.transact(body)
    if entry is not None:
        await res.queue.ring(Kind.FAN_OUT, entry)
    return view


async def add(
    res: Resources,
    connection: Connection,
    viewer: Viewer,
    post_id: int,
    *,
    caption: str,
    photos: list[PhotoOfPost],
    publish_at: datetime | None = None,
) -> tuple[int | None, PostView]:
    """What `create` does, in the running transaction; returns the fan-out to ring for, if it is published at once, and what it
    made, for after the commit nothing may fail any more.
    """
    await access.lock_self(connection, viewer)
    if publish_at is not None:
        new = await scheduled.add(res, connection, viewer, post_id, caption=caption, publish_at=publish_at)
    elif new := await post_rows.insert(connection, post_id, author_id=viewer.account_id, caption=caption):
        await captions.write(connection, viewer, post_id, caption)
    entry = None
    if new:
        await _claim(connection, viewer, post_id, photos)
        entry = await publish_when_ready(res, connection, post_id)
    return entry, await _view(connection, viewer, post_id)


async def _claim(connection: Connection, viewer: Viewer, post_id: int, photos: list[PhotoOfPost]) -> None:
    claimed = await media_rows.claim(connection, post_id, viewer.account_id, photos)
    ids = [photo.media_id for photo in photos]
    unusable = tuple(
        FieldError(f"/media/{index}/id", "Not a photo of yours that can still be posted.")
        for index, id_ in enumerate(ids)
        if id_ not in claimed or id_ in ids[:index]
    )
    if unusable:
        raise MediaUnusable("A post takes photos that you uploaded and have not posted.", errors=unusable)


async def publish_when_ready(res: Resources, connection: Connection, post_id: int) -> int | None:
    """Publish the post in the running transaction if all of its photos are ready; returns the fan-out to ring for. One that
    waits for its time is none yet.
    """
    author_id = await post_rows.publish_if_ready(connection, post_id)
    if author_id is None:
        return None
    await captions.publish(connection, author_id, post_id)
    await account_rows.count(connection, {author_id: (1, 0, 0)})
    payload = {"post": post_id, "author": author_id}
    return await note(res, connection, shard_of(author_id), Kind.FAN_OUT, payload)


async def publish_scheduled(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: publish a post whose time has come."""

    async def body(connection: Connection) -> int | None:
        waiting = await scheduled_rows.get(connection, entry.payload["scheduled"])
        if waiting is None or not await account_rows.lock(connection, [waiting.author_id]):
            return None
        waiting = await scheduled_rows.get(connection, waiting.id)
        # It may have been published, or got another time, for which another entry waits.
        if waiting is None or waiting.post_id is not None or waiting.entry_id != entry.id:
            return None
        return await _publish(res, connection, waiting)

    fan_out = await res.db.transact(body)
    if fan_out is not None:
        await res.queue.ring(Kind.FAN_OUT, fan_out)
    return []


async def _publish(res: Resources, connection: Connection, waiting: ScheduledPost) -> int | None:
    """Make a post of one that waits and is locked, as if it were posted now; returns the fan-out to ring for."""
    post_id = res.ids.next(shard_of(waiting.author_id))
    bind_contextvars(post=str(post_id))  # the first line of its trace through the logs
    if not await post_rows.insert(connection, post_id, author_id=waiting.author_id, caption=waiting.caption):
        raise Unavailable("Ask again in a moment.", retry_after=1)  # two processes made the same id
    await captions.write(connection, Viewer.of(waiting.author_id), post_id, waiting.caption)
    await media_rows.hand_over(connection, waiting.id, post_id)
    await scheduled_rows.update(connection, replace(waiting, post_id=post_id))
    return await publish_when_ready(res, connection, post_id)


async def get(res: Resources, viewer: Viewer, post_id: int) -> PostView:
    """A post; by the id under which it waited for its time too, for its author.

    Raises:
        NotFound: there is none that the viewer may see.
    """
    async with res.db.acquire() as connection:
        return await _view(connection, viewer, post_id)


async def _view(connection: Connection, viewer: Viewer, post_id: int) -> PostView:
    post = (await post_rows.get_many(connection, [post_id])).get(post_id)
    if post is None:
        post = await scheduled.find(connection, viewer, post_id)
    if post is None:
        raise NotFound
    relation = await relation_rows.get(connection, viewer.account_id, post.author.id)
    if not visible(post, viewer.account_id, relation):
        raise NotFound
    return (await reactions.views(connection, viewer, [post]))[0]


async def edit(res: Resources, viewer: Viewer, post_id: int, changes: PostChanges) -> PostView:
    """Change the texts of the viewer's post, the order of its photos, or the time for which it waits; no read that begins
    after this shows what was before.

    Raises:
        NotFound: the viewer has no such post.
        Invalid: a photo is not the post's, or is there twice, or is missing in the order; or the post cannot have the time.
    """

    async def body(change: Change) -> tuple[int | None, PostView]:
        connection, fan_out = change.connection, None
        waiting = await scheduled.lock(connection, viewer, post_id)
        if waiting is not None and waiting.post_id is None:
            fan_out = await _edit_scheduled(res, connection, waiting, changes)
        else:
            await _edit(res, change, viewer, (waiting and waiting.post_id) or post_id, changes)
        return fan_out, await _view(connection, viewer, post_id)

    fan_out, view = await transact(res, body)
    if fan_out is not None:
        await res.queue.ring(Kind.FAN_OUT, fan_out)
    return view


async def _edit(res: Resources, change: Change, viewer: Viewer, post_id: int, changes: PostChanges) -> None:
    connection = change.connection
    if not await post_rows.lock(connection, post_id, viewer.account_id):
        raise NotFound
    post = (await post_rows.get_many(connection, [post_id]))[post_id]
    edited = _photos_edited(changes, post.media)
    if changes.publish_at is not None:
        raise Invalid.at("/publish_at", "Only a post that waits for its time can get another one.")
    if edited == list(post.media) and changes.caption in {None, post.caption}:
        return
    await change.hold_posts(post_id)
    if changes.caption is not None:
        added = await captions.write(connection, viewer, post_id, changes.caption)
        entry_id, me = res.ids.next(shard_of(post_id)), viewer.account_id
        await notifications.tell(
            change, added.accounts, ActivityKind.MENTION, entry_id, actor_id=me, subject_id=post_id
        )
        if added.tags:
            await change.note(shard_of(post_id), Kind.TAG, {"author": me, "above": post_id - 1, "up_to": post_id})
    await post_rows.edit(connection, post_id, caption=post.caption if changes.caption is None else changes.caption)
    await media_rows.arrange(connection, post_id, edited)


async def _edit_scheduled(
    res: Resources, connection: Connection, waiting: ScheduledPost, changes: PostChanges
) -> int | None:
    photos = (await media_rows.of_posts(connection, [waiting.id])).get(waiting.id, ())
    await media_rows.arrange(connection, waiting.id, _photos_edited(changes, photos))
    if changes.caption is not None:
        waiting = replace(waiting, caption=changes.caption)
        await scheduled_rows.update(connection, waiting)
    if changes.publish_at is not None:
        await scheduled.move(res, connection, waiting, changes.publish_at)
    if changes.publish_now:
        await outbox.cancel(connection, waiting.entry_id)
        return await _publish(res, connection, waiting)
    return None


def _photos_edited(changes: PostChanges, photos: Sequence[Media]) -> list[Media]:
    """The photos of a post with their new texts, in their new order."""
    own = {photo.id: photo for photo in photos}
    order = list(own) if changes.media_ids is None else changes.media_ids
    named = [photo.media_id for photo in changes.alt_texts]
    wrong = _not_its_photos("/alt_texts/{}/id", named, own) + _not_its_photos("/media_ids/{}", order, own)
    if len(order) < len(own):
        wrong += (FieldError("/media_ids", "Must have all photos of the post."),)
    if wrong:
        raise Invalid(errors=wrong)
    own |= {photo.media_id: replace(own[photo.media_id], alt_text=photo.alt_text) for photo in changes.alt_texts}
    return [own[id_] for id_ in order]


def _not_its_photos(pointer: str, ids: list[int], own: Container[int]) -> tuple[FieldError, ...]:
    return tuple(
        FieldError(pointer.format(index), "Not a photo of this post, or one that was named before.")
        for index, id_ in enumerate(ids)
        if id_ not in own or id_ in ids[:index]
    )


async def delete(res: Resources, viewer: Viewer, post_id: int) -> None:
    """Delete the viewer's post with its photos; no read that begins after this shows it.

    Raises:
        NotFound: the viewer has no such post.
    """

    async def body(change: Change) -> None:
        waiting = await scheduled.lock(change.connection, viewer, post_id)
        if waiting is not None and waiting.post_id is None:
            await scheduled.drop(change.connection, waiting)
            await _discard_photos(change, viewer.account_id, post_id, published=False)
        elif not await remove(change, (waiting and waiting.post_id) or post_id, viewer.account_id):
            raise NotFound

    await transact(res, body)


async def remove(change: Change, post_id: int, author_id: int) -> bool:
    """Delete an author's post with its photos, in the running transaction; False if there is no such post."""
    connection = change.connection
    if not await post_rows.lock(connection, post_id, author_id):
        return False
    await locks.seize(connection, post_id)
    await captions.erase(connection, author_id, post_id)
    for kind in (ActivityKind.LIKE, ActivityKind.COMMENT):
        await activity_rows.remove(connection, author_id, kind, subject_id=post_id, actor_id=activity_rows.MANY)
    published = await post_rows.delete(connection, post_id, author_id)
    await change.hold_posts(post_id)
    await scheduled_rows.delete_of_post(connection, post_id)
    if published:
        await account_rows.count(connection, {author_id: (-1, 0, 0)})
    await _discard_photos(change, author_id, post_id, published=bool(published))
    return True


async def _discard_photos(change: Change, author_id: int, post_id: int, *, published: bool) -> None:
    keys = await media_rows.delete_of_post(change.connection, post_id)
    payload = {"post": post_id, "author": author_id, "object_keys": keys, "published": published}
    await change.note(shard_of(post_id), Kind.RETRACT, payload)


async def retract(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: tell who is connected that a post is gone, and delete its photos' objects; then what hung on it."""
    if entry.payload["published"]:
        await res.events.add(EventType.POST_DELETED, author_id=entry.payload["author"], post_id=entry.payload["post"])
    for object_key in entry.payload["object_keys"]:
        await res.blobs.delete_photo(object_key)
    return [(Kind.PRUNE, {"post": entry.payload["post"], "author": entry.payload["author"]})]


async def prune(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: delete the likes, saves and comments of a post that is gone, what it and they told, and its counts after all of them."""
    post_id: int = entry.payload["post"]
    author_id: int = entry.payload.get("author", 0)  # the release before this one noted none

    async def body(connection: Connection) -> int:
        likes = await like_rows.delete_some(connection, post_id, limit=_CHUNK)
        saves = await save_rows.delete_some(connection, post_id, limit=_CHUNK)
        comments = await comment_rows.delete_some(connection, post_id, limit=_CHUNK)
        await activity_rows.forget_comments(connection, comments)
        told = await activity_rows.forget_post(connection, author_id, post_id, limit=_CHUNK)
        await counters.delete(connection, shard_of(post_id), [post_id, *(comment_id for _, comment_id in comments)])
        return likes + saves + told + len(comments)

    for _ in range(_CHUNKS):
        if not await res.db.transact(body):
            return []
    return [(Kind.PRUNE, entry.payload)]


async def page_of_author(res: Resources, viewer: Viewer, author_id: int, *, below: int, limit: int) -> Page[PostView]:
    """An author's posts, newest first; their own unpublished ones too.

    Raises:
        NotFound: there is no such account whose posts the viewer may see.
    """
    async with res.db.acquire() as connection:
        _, relation = await access.see(connection, viewer, author_id, posts_visible)
        ids = await post_rows.ids_of_author(
            connection, author_id, below=below, limit=limit + 1, unpublished=author_id == viewer.account_id
        )
        shown = ids[:limit]
        posts = await post_rows.get_many(connection, shown)
        items = [posts[id_] for id_ in shown if id_ in posts and visible(posts[id_], viewer.account_id, relation)]
        views = await reactions.views(connection, viewer, items)
    return Page(views, next=shown[-1] if len(ids) > limit else None)
