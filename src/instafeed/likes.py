"""Liking posts. A like is counted in the transaction that makes it, and nothing likes a post that is gone."""

from functools import partial

from instafeed import access, notifications
from instafeed.changes import Change, transact
from instafeed.ids import shard_of
from instafeed.models import ActivityKind, Listed, Marks, Page, Viewer
from instafeed.resources import Resources
from instafeed.storage import counters, marks, undone
from instafeed.storage import likes as like_rows


async def like(res: Resources, viewer: Viewer, post_id: int) -> Marks:
    """Like a post; reads that begin after this show that the viewer does.

    Raises:
        NotFound: there is no such post that the viewer may see.
    """
    me = viewer.account_id

    async def body(change: Change) -> Marks:
        connection = change.connection
        post = await access.join_post(connection, viewer, post_id)
        again = await undone.take(connection, post.author.id, ActivityKind.LIKE, actor_id=me, subject_id=post_id)
        like_id = again or res.ids.next(shard_of(me))
        if await like_rows.insert(connection, like_id, account_id=me, post_id=post_id):
            if not again:
                author = [post.author.id]
                await notifications.tell(change, author, ActivityKind.LIKE, like_id, actor_id=me, subject_id=post_id)
            await _count(change, me, post_id, liked=True)
        return (await marks.among(connection, me, [post_id]))[post_id]

    return await transact(res, body)


async def unlike(res: Resources, viewer: Viewer, post_id: int) -> None:
    """Like a post no more.

    Raises:
        NotFound: there is no such post that the viewer may see.
    """
    me = viewer.account_id

    async def body(change: Change) -> None:
        connection = change.connection
        post = await access.join_post(connection, viewer, post_id)
        like_id = await like_rows.delete(connection, account_id=me, post_id=post_id)
        if like_id is not None:
            await undone.put(connection, like_id, post.author.id, ActivityKind.LIKE, actor_id=me, subject_id=post_id)
            await _count(change, me, post_id, liked=False)

    await transact(res, body)


async def _count(change: Change, me: int, post_id: int, *, liked: bool) -> None:
    await change.hold_like(me, post_id, liked=liked)
    await change.recount(post_id)
    await counters.add(change.connection, post_id, likes=1 if liked else -1)


async def page(res: Resources, viewer: Viewer, post_id: int, *, below: int, limit: int) -> Page[Listed]:
    """Who likes the post, newest first.

    Raises:
        NotFound: there is no such post that the viewer may see.
    """
    async with res.db.acquire() as connection:
        await access.see_post(connection, viewer, post_id)
        fetch = partial(like_rows.page, connection, post_id)
        return await access.page(connection, viewer, fetch, below=below, limit=limit)
