"""Muting: an account's posts stay away from one's feed, events and activity. The account cannot tell."""

from functools import partial

from instafeed import access
from instafeed.changes import Change, transact
from instafeed.errors import Invalid
from instafeed.ids import shard_of
from instafeed.models import Listed, Page, Viewer
from instafeed.resources import Resources
from instafeed.storage import mutes as mute_rows
from instafeed.storage.outbox import Kind


async def mute(res: Resources, viewer: Viewer, account_id: int) -> None:
    """Mute an account; reads that begin after this show none of its posts in the viewer's feed.

    Raises:
        Invalid: nobody mutes themselves.
        NotFound: there is no such account that the viewer may see.
    """
    me = viewer.account_id
    if account_id == me:
        raise Invalid("You cannot mute yourself.")

    async def body(change: Change) -> None:
        await access.lock_self(change.connection, viewer)
        _, relation = await access.see(change.connection, viewer, account_id)
        if await mute_rows.insert(change.connection, res.ids.next(shard_of(me)), muter=me, muted=account_id):
            await _align(change, me, account_id, follows=relation.following)

    await transact(res, body)


async def unmute(res: Resources, viewer: Viewer, account_id: int) -> None:
    """Mute an account no more; its posts come back into the viewer's feed, if the viewer follows it.

    Raises:
        NotFound: there is no such account that the viewer may see.
    """
    me = viewer.account_id

    async def body(change: Change) -> None:
        await access.lock_self(change.connection, viewer)
        _, relation = await access.see(change.connection, viewer, account_id)
        if await mute_rows.delete(change.connection, muter=me, muted=account_id):
            await _align(change, me, account_id, follows=relation.following)

    await transact(res, body)


async def _align(change: Change, viewer_id: int, author_id: int, *, follows: bool) -> None:
    if follows:
        await change.note(shard_of(viewer_id), Kind.ALIGN, {"viewer": viewer_id, "author": author_id})
    await change.hold_rights(viewer_id)


async def page(res: Resources, viewer: Viewer, *, below: int, limit: int) -> Page[Listed]:
    """Whom the viewer mutes, newest first."""
    async with res.db.acquire() as connection:
        fetch = partial(mute_rows.page, connection, viewer.account_id)
        return await access.page(connection, viewer, fetch, below=below, limit=limit)
