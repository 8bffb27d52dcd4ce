"""Saving posts, for oneself: nobody else is told."""

from functools import partial

from instafeed import access, reactions
from instafeed.changes import Change, transact
from instafeed.ids import shard_of
from instafeed.models import Marks, Page, PostView, Viewer
from instafeed.resources import Resources
from instafeed.storage import marks
from instafeed.storage import saves as save_rows


async def save(res: Resources, viewer: Viewer, post_id: int) -> Marks:
    """Save a post.

    Raises:
        NotFound: there is no such post that the viewer may see.
    """
    me = viewer.account_id

    async def body(change: Change) -> Marks:
        connection = change.connection
        await access.join_post(connection, viewer, post_id)
        if await save_rows.insert(connection, res.ids.next(shard_of(me)), account_id=me, post_id=post_id):
            await change.hold_save(me, post_id, saved=True)
        return (await marks.among(connection, me, [post_id]))[post_id]

    return await transact(res, body)


async def unsave(res: Resources, viewer: Viewer, post_id: int) -> None:
    """Save a post no more.

    Raises:
        NotFound: there is no such post that the viewer may see.
    """
    me = viewer.account_id

    async def body(change: Change) -> None:
        await access.join_post(change.connection, viewer, post_id)
        if await save_rows.delete(change.connection, account_id=me, post_id=post_id):
            await change.hold_save(me, post_id, saved=False)

    await transact(res, body)


async def page(res: Resources, viewer: Viewer, *, below: int, limit: int) -> Page[PostView]:
    """What the viewer has saved and may still see, last saved first."""
    async with res.db.acquire() as connection:
        fetch = partial(save_rows.page, connection, viewer.account_id)
        found = await access.page_of_posts(connection, viewer, fetch, below=below, limit=limit)
        return Page(await reactions.views(connection, viewer, found.items), found.next)
