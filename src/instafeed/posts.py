"""Posting, editing posts, and taking them back."""

from collections.abc import Container

from instafeed import access, captions, notifications, reactions
from instafeed.changes import Change, transact
from instafeed.errors import FieldError, Invalid, MediaUnusable, NotFound
from instafeed.ids import shard_of
from instafeed.models import ActivityKind, EventType, Page, PhotoOfPost, PostView, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import activity as activity_rows
from instafeed.storage import comments as comment_rows
from instafeed.storage import counters, locks
from instafeed.storage import likes as like_rows
from instafeed.storage import media as media_rows
from instafeed.storage import posts as post_rows
from instafeed.storage import relations as relation_rows
from instafeed.storage import saves as save_rows
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry, Kind
from instafeed.visibility import posts_visible, visible
from instafeed.work import FollowUp, note

_CHUNK = 500
"""How many likes, saves and comments of a post that is gone are deleted at once."""
_CHUNKS = 50
"""Times that one job does so; another one goes on."""


async def create(res: Resources, viewer: Viewer, post_id: int, *, caption: str, photos: list[PhotoOfPost]) -> PostView:
    """Make a post of the viewer's photos. It is published at once if they are ready, else as soon as they are.

    Args:
        res: the resources.
        viewer: its author.
        post_id: the id to give it; where the author's post is there already, it is found again.
        caption: may be empty.
        photos: 1 to 10, in their order.

    Raises:
        MediaUnusable: a photo is missing, failed, somebody else's, another post's, or there twice; says which.
    """

    async def body(connection: Connection) -> int | None:
        return await add(res, connection, viewer, post_id, caption=caption, photos=photos)

    entry = await res.db.transact(body)
    if entry is not None:
        await res.queue.ring(Kind.FAN_OUT, entry)
    return await get(res, viewer, post_id)


async def add(
    res: Resources, connection: Connection, viewer: Viewer, post_id: int, *, caption: str, photos: list[PhotoOfPost]
) -> int | None:
    """What `create` does, in the running transaction; returns the fan-out to ring for, if it is published at once."""
    await access.lock_self(connection, viewer)
    if not await post_rows.insert(connection, post_id, author_id=viewer.account_id, caption=caption):
        return None
    await captions.write(connection, viewer, post_id, caption)
    claimed = await media_rows.claim(connection, post_id, viewer.account_id, photos)
    ids = [photo.media_id for photo in photos]
    unusable = tuple(
        FieldError(f"/media/{index}/id", "Not a photo of yours that can still be posted.")
        for index, id_ in enumerate(ids)
        if id_ not in claimed or id_ in ids[:index]
    )
    if unusable:
        raise MediaUnusable("A post takes photos that you uploaded and have not posted.", errors=unusable)
    return await publish_when_ready(res, connection, post_id)


async def publish_when_ready(res: Resources, connection: Connection, post_id: int) -> int | None:
    """Publish the post in the running transaction if all of its photos are ready; returns the fan-out to ring for."""
    author_id = await post_rows.publish_if_ready(connection, post_id)
    if author_id is None:
        return None
    await captions.publish(connection, author_id, post_id)
    await account_rows.count(connection, {author_id: (1, 0, 0)})
    payload = {"post": post_id, "author": author_id}
    return await note(res, connection, shard_of(author_id), Kind.FAN_OUT, payload)


async def get(res: Resources, viewer: Viewer, post_id: int) -> PostView:
    """A post.

    Raises:
        NotFound: there is none that the viewer may see.
    """
    async with res.db.acquire() as connection:
        post = (await post_rows.get_many(connection, [post_id])).get(post_id)
        if post is None:
            raise NotFound
        relation = await relation_rows.get(connection, viewer.account_id, post.author.id)
        if not visible(post, viewer.account_id, relation):
            raise NotFound
        return (await reactions.views(connection, viewer, [post]))[0]


async def edit(
    res: Resources, viewer: Viewer, post_id: int, *, caption: str | None, alt_texts: list[PhotoOfPost]
) -> PostView:
    """Change the texts of the viewer's post; no read that begins after this shows the old ones.

    Args:
        res: the resources.
        viewer: its author.
        post_id: which post.
        caption: None to leave it as it is.
        alt_texts: those of its photos that get another text.

    Raises:
        NotFound: the viewer has no such post.
        Invalid: a photo is not the post's, or is there twice; says which.
    """

    async def body(change: Change) -> None:
        connection = change.connection
        if not await post_rows.lock(connection, post_id, viewer.account_id):
            raise NotFound
        post = (await post_rows.get_many(connection, [post_id]))[post_id]
        texts = {photo.id: photo.alt_text for photo in post.media}
        _must_be_its_photos(alt_texts, texts)
        edited = [photo for photo in alt_texts if texts[photo.media_id] != photo.alt_text]
        if not edited and caption in {None, post.caption}:
            return
        await change.hold_posts(post_id)
        if caption is not None:
            added = await captions.write(connection, viewer, post_id, caption)
            entry_id, me = res.ids.next(shard_of(post_id)), viewer.account_id
            await notifications.tell(
                change, added.accounts, ActivityKind.MENTION, entry_id, actor_id=me, subject_id=post_id
            )
            if added.tags:
                payload = {"author": me, "above": post_id - 1, "up_to": post_id}
                await change.note(shard_of(post_id), Kind.TAG, payload)
        await post_rows.edit(connection, post_id, caption=post.caption if caption is None else caption)
        await media_rows.set_alt_texts(connection, post_id, edited)

    await transact(res, body)
    return await get(res, viewer, post_id)


def _must_be_its_photos(given: list[PhotoOfPost], own: Container[int]) -> None:
    ids = [photo.media_id for photo in given]
    wrong = tuple(
        FieldError(f"/alt_texts/{index}/id", "Not a photo of this post, or one that was named before.")
        for index, id_ in enumerate(ids)
        if id_ not in own or id_ in ids[:index]
    )
    if wrong:
        raise Invalid("Some fields are not valid.", errors=wrong)


async def delete(res: Resources, viewer: Viewer, post_id: int) -> None:
    """Delete the viewer's post with its photos; no read that begins after this shows it.

    Raises:
        NotFound: the viewer has no such post.
    """

    async def body(change: Change) -> None:
        if not await remove(change, post_id, viewer.account_id):
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
    keys = await media_rows.delete_of_post(connection, post_id)
    if published:
        await account_rows.count(connection, {author_id: (-1, 0, 0)})
    payload = {"post": post_id, "author": author_id, "object_keys": keys, "published": published}
    await change.note(shard_of(post_id), Kind.RETRACT, payload)
    return True


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
