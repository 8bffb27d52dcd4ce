"""Following and unfollowing.

Whoever changes an edge between two accounts holds both of their rows locked, and decides by what is there then: follows,
requests, blocks and privacy never contradict each other, in whatever order they come.
"""

from functools import partial

from instafeed import access, notifications
from instafeed.changes import Change, transact
from instafeed.errors import Conflict, Invalid
from instafeed.ids import shard_of
from instafeed.models import ActivityKind, Listed, Page, Relation, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import follow_requests as request_rows
from instafeed.storage import follows as follow_rows
from instafeed.storage import relations as relation_rows
from instafeed.storage import undone
from instafeed.storage.outbox import Kind
from instafeed.visibility import posts_visible, profile_visible


async def follow(res: Resources, viewer: Viewer, account_id: int, *, notify: bool) -> Relation:
    """Follow an account, or ask a private one to be let follow it; or change whether one is told of its posts.

    The earlier posts of whom one follows come into one's feed.

    Raises:
        Invalid: nobody follows themselves.
        NotFound: there is no such account that the viewer may see.
        Conflict: the viewer blocks it.
    """
    me = viewer.account_id
    if account_id == me:
        raise Invalid("You cannot follow yourself.")

    async def body(change: Change) -> Relation:
        account, relation = await access.lock(change.connection, viewer, account_id, profile_visible)
        if relation.blocking:
            raise Conflict("You block this account.")
        if account.is_private and not relation.following:
            await _request(res, change, me, account_id, notify=notify)
        else:
            if relation.requested:
                await request_rows.delete(change.connection, requester=me, followee=account_id)
            await begin(res, change, follower=me, followee=account_id, notify=notify)
        return await relation_rows.get(change.connection, me, account_id)

    return await transact(res, body)


async def _request(res: Resources, change: Change, requester: int, followee: int, *, notify: bool) -> None:
    connection, kind = change.connection, ActivityKind.FOLLOW_REQUEST
    again = await undone.take(connection, followee, kind, actor_id=requester)
    request_id = again or res.ids.next(shard_of(requester))
    new = await request_rows.upsert(connection, request_id, requester=requester, followee=followee, notify=notify)
    if new and not again:
        await notifications.tell(change, [followee], kind, request_id, actor_id=requester)


async def begin(res: Resources, change: Change, *, follower: int, followee: int, notify: bool) -> None:
    """Make one account follow another, both locked and no request open; or change whether it is told of posts."""
    again = await undone.take(change.connection, followee, ActivityKind.FOLLOW, actor_id=follower)
    follow_id = again or res.ids.next(shard_of(follower))
    if await follow_rows.upsert(change.connection, follow_id, follower=follower, followee=followee, notify=notify):
        await account_rows.count(change.connection, {follower: (0, 0, 1), followee: (0, 1, 0)})
        if not again:
            await notifications.tell(change, [followee], ActivityKind.FOLLOW, follow_id, actor_id=follower)
        await _align(change, follower, followee)


async def end(change: Change, *, follower: int, followee: int) -> None:
    """End a follow, if there is one; both accounts are locked."""
    connection = change.connection
    follow_id = await follow_rows.delete(connection, follower=follower, followee=followee)
    if follow_id is not None:
        await undone.put(connection, follow_id, followee, ActivityKind.FOLLOW, actor_id=follower)
        await notifications.take_back(connection, follower, ActivityKind.REQUEST_ACCEPTED, actor_id=followee)
        await account_rows.count(change.connection, {follower: (0, 0, -1), followee: (0, -1, 0)})
        await _align(change, follower, followee)


async def _align(change: Change, follower: int, followee: int) -> None:
    await change.note(shard_of(follower), Kind.ALIGN, {"viewer": follower, "author": followee})
    await change.hold_rights(follower)


async def unfollow(res: Resources, viewer: Viewer, account_id: int) -> None:
    """Stop following, or withdraw a request; reads that begin after this show none of the account's posts in the feed.

    Raises:
        NotFound: there is no such account that the viewer may see.
    """

    async def body(change: Change) -> None:
        _, relation = await access.lock(change.connection, viewer, account_id)
        if relation.following:
            await end(change, follower=viewer.account_id, followee=account_id)
        if relation.requested:
            await withdraw(change, requester=viewer.account_id, followee=account_id)

    await transact(res, body)


async def withdraw(change: Change, *, requester: int, followee: int) -> None:
    """End a request, if there is one, which may be made again; both accounts are locked."""
    request = await request_rows.delete(change.connection, requester=requester, followee=followee)
    if request is not None:
        await undone.put(change.connection, request.id, followee, ActivityKind.FOLLOW_REQUEST, actor_id=requester)


async def remove_follower(res: Resources, viewer: Viewer, account_id: int) -> None:
    """Make an account follow the viewer no more; it is not told.

    Raises:
        NotFound: there is no such account that the viewer may see.
    """

    async def body(change: Change) -> None:
        _, relation = await access.lock(change.connection, viewer, account_id)
        if relation.followed_by:
            await end(change, follower=account_id, followee=viewer.account_id)

    await transact(res, body)


async def followers(res: Resources, viewer: Viewer, account_id: int, *, below: int, limit: int) -> Page[Listed]:
    """Who follows the account, newest first.

    Raises:
        NotFound: there is no such account whose followers the viewer may see.
    """
    async with res.db.acquire() as connection:
        await access.see(connection, viewer, account_id, posts_visible)
        fetch = partial(follow_rows.page_of_followers, connection, account_id)
        return await access.page(connection, viewer, fetch, below=below, limit=limit)


async def following(res: Resources, viewer: Viewer, account_id: int, *, below: int, limit: int) -> Page[Listed]:
    """Whom the account follows, newest first.

    Raises:
        NotFound: there is no such account of which the viewer may see that.
    """
    async with res.db.acquire() as connection:
        await access.see(connection, viewer, account_id, posts_visible)
        fetch = partial(follow_rows.page_of_following, connection, account_id)
        return await access.page(connection, viewer, fetch, below=below, limit=limit)
