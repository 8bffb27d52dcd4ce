"""Blocking: two accounts do not exist for each other any more."""

from functools import partial

from instafeed import access, follows
from instafeed.changes import Change, transact
from instafeed.errors import Invalid
from instafeed.ids import shard_of
from instafeed.models import Listed, Page, Viewer
from instafeed.resources import Resources
from instafeed.storage import blocks as block_rows
from instafeed.storage import follow_requests as request_rows
from instafeed.visibility import profile_visible


async def block(res: Resources, viewer: Viewer, account_id: int) -> None:
    """Block an account: neither sees the other any more, and follows and requests between them end.

    Who blocks first has blocked: the other one finds nobody there to block.

    Raises:
        Invalid: nobody blocks themselves.
        NotFound: there is no such account that the viewer may see.
    """
    me = viewer.account_id
    if account_id == me:
        raise Invalid("You cannot block yourself.")

    async def body(change: Change) -> None:
        _, relation = await access.lock(change.connection, viewer, account_id, profile_visible)
        if relation.blocking:
            return
        await block_rows.insert(change.connection, res.ids.next(shard_of(me)), blocker=me, blocked=account_id)
        for one, other in ((me, account_id), (account_id, me)):
            await follows.end(change, follower=one, followee=other)
            await request_rows.delete(change.connection, requester=one, followee=other)
        await change.hold_rights(me, account_id)

    await transact(res, body)


async def unblock(res: Resources, viewer: Viewer, account_id: int) -> None:
    """End a block, if there is one; what it ended does not come back.

    Raises:
        NotFound: there is no such account that the viewer may see.
    """

    async def body(change: Change) -> None:
        await access.lock(change.connection, viewer, account_id, profile_visible)
        if await block_rows.delete(change.connection, blocker=viewer.account_id, blocked=account_id):
            await change.hold_rights(viewer.account_id, account_id)

    await transact(res, body)


async def page(res: Resources, viewer: Viewer, *, below: int, limit: int) -> Page[Listed]:
    """Whom the viewer blocks, newest first."""
    async with res.db.acquire() as connection:
        fetch = partial(block_rows.page, connection, viewer.account_id)
        return await access.page(connection, viewer, fetch, below=below, limit=limit, rule=profile_visible)
