"""Asking private accounts to be let follow them, and what these answer."""

from functools import partial

from instafeed import access, follows, notifications
from instafeed.changes import Change, transact
from instafeed.errors import NotFound
from instafeed.ids import MAX_ID, shard_of
from instafeed.models import ActivityKind, Listed, Page, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import follow_requests as request_rows
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import FollowUp

_CHUNK = 500
"""Requests that one job approves, well within its time."""


async def page(res: Resources, viewer: Viewer, *, below: int, limit: int) -> Page[Listed]:
    """Who asks to follow the viewer, newest first."""
    async with res.db.acquire() as connection:
        fetch = partial(request_rows.page, connection, viewer.account_id)
        return await access.page(connection, viewer, fetch, below=below, limit=limit)


async def approve(res: Resources, viewer: Viewer, account_id: int) -> None:
    """Let an account follow the viewer that asked to; nothing happens if it follows already.

    Raises:
        NotFound: there is no such account that the viewer may see, or it does not ask (any more).
    """

    async def body(change: Change) -> None:
        _, relation = await access.lock(change.connection, viewer, account_id)
        if not await _grant(res, change, account_id, viewer.account_id) and not relation.followed_by:
            raise NotFound

    await transact(res, body)


async def refuse(res: Resources, viewer: Viewer, account_id: int) -> None:
    """Take an account's request away, if there is one; it is not told, and may ask again.

    Raises:
        NotFound: there is no such account that the viewer may see.
    """

    async def body(change: Change) -> None:
        await access.lock(change.connection, viewer, account_id)
        await follows.withdraw(change, requester=account_id, followee=viewer.account_id)

    await transact(res, body)


async def _grant(res: Resources, change: Change, requester: int, followee: int) -> bool:
    """Turn a request into a follow; False if there is none. Both rows are locked."""
    request = await request_rows.delete(change.connection, requester=requester, followee=followee)
    if request is None:
        return False
    await follows.begin(res, change, follower=requester, followee=followee, notify=request.notify)
    entry_id = res.ids.next(shard_of(requester))
    await notifications.tell(change, [requester], ActivityKind.REQUEST_ACCEPTED, entry_id, actor_id=followee)
    return True


async def approve_all(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: approve what was asked of an account that went public, unless it is private again.

    Each request is a transaction of its own and is gone after it, so a job that is run again goes on where it stopped.
    """
    account_id: int = entry.payload["account"]
    async with res.db.acquire() as connection:
        found = await request_rows.page(connection, account_id, below=MAX_ID, limit=_CHUNK)
    for _, requester in found:
        if not await _grant_if_public(res, requester, account_id):
            return []
    return [(Kind.APPROVE, entry.payload)] if len(found) == _CHUNK else []


async def _grant_if_public(res: Resources, requester: int, followee: int) -> bool:
    """Grant a request if it is still open; False if the account is not public."""

    async def body(change: Change) -> bool:
        locked = await account_rows.lock(change.connection, [requester, followee])
        if followee not in locked or locked[followee].is_private:
            return False
        if requester in locked:
            await _grant(res, change, requester, followee)
        else:
            await request_rows.delete(change.connection, requester=requester, followee=followee)
        return True

    return await transact(res, body)
