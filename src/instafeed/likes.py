"""Liking posts. A like is counted in the transaction that makes it, and nothing likes a post that is gone."""

from functools import partial

from instafeed import access
from instafeed.changes import Change, transact
from instafeed.ids import shard_of
from instafeed.models import Listed, Marks, Page, Viewer
from instafeed.resources import Resources
from instafeed.storage import counters, marks
from instafeed.storage import likes as like_rows


async def like(res: Resources, viewer: Viewer, post_id: int) -> Marks:
    """Like a post; reads that begin after this show that the viewer does.

    Raises:
        NotFound: there is no such post that the viewer may see.
    """
    me = viewer.account_id

    async def body(change: Change) -> Marks:
        connection = change.connection
        await access.join_post(connection, viewer, post_id)
        if await like_rows.insert(connection, res.ids.next(shard_of(me)), account_id=me, post_id=post_id):
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
        await access.join_post(change.connection, viewer, post_id)
        if await like_rows.delete(change.connection, account_id=me, post_id=post_id):
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
