"""Following and unfollowing."""

from instafeed.errors import Invalid, NotFound
from instafeed.ids import shard_of
from instafeed.models import Follow, Page, Relation, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import follows as follow_rows
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Kind
from instafeed.work import note


async def follow(res: Resources, viewer: Viewer, account_id: int, *, notify: bool) -> Relation:
    """Follow an account, or change whether one is told of its posts; its earlier posts come into the viewer's feed.

    Raises:
        Invalid: nobody follows themselves.
        NotFound: there is no such account that the viewer may see.
    """
    me = viewer.account_id
    if account_id == me:
        raise Invalid("You cannot follow yourself.")

    async def body(connection: Connection) -> tuple[int | None, Relation]:
        await _must_exist(connection, account_id)
        entry = None
        if await follow_rows.upsert(
            connection, res.ids.next(shard_of(me)), follower=me, followee=account_id, notify=notify
        ):
            await account_rows.count(connection, {me: (0, 0, 1), account_id: (0, 1, 0)})
            entry = await _note_align(res, connection, me, account_id)
        return entry, (await follow_rows.relations(connection, me, [account_id]))[account_id]

    entry, relation = await res.db.transact(body)
    if entry is not None:
        await res.queue.ring(Kind.ALIGN, entry)
    return relation


async def unfollow(res: Resources, viewer: Viewer, account_id: int) -> None:
    """Stop following; reads that begin after this show none of the account's posts in the viewer's feed.

    Raises:
        NotFound: there is no such account that the viewer may see.
    """
    me = viewer.account_id

    async def body(connection: Connection) -> int | None:
        await _must_exist(connection, account_id)
        if not await follow_rows.delete(connection, follower=me, followee=account_id):
            return None
        await account_rows.count(connection, {me: (0, 0, -1), account_id: (0, -1, 0)})
        return await _note_align(res, connection, me, account_id)

    entry = await res.db.transact(body)
    if entry is not None:
        await res.queue.ring(Kind.ALIGN, entry)


async def _note_align(res: Resources, connection: Connection, viewer: int, author: int) -> int:
    return await note(res, connection, shard_of(viewer), Kind.ALIGN, {"viewer": viewer, "author": author})


async def followers(res: Resources, viewer: Viewer, account_id: int, *, below: int, limit: int) -> Page[Follow]:
    """Who follows the account, newest first.

    Raises:
        NotFound: there is no such account that the viewer may see.
    """
    async with res.db.acquire() as connection:
        await _must_exist(connection, account_id)
        found = await follow_rows.page_of_followers(connection, account_id, below=below, limit=limit + 1)
        return await _page(connection, viewer, found, limit)


async def following(res: Resources, viewer: Viewer, account_id: int, *, below: int, limit: int) -> Page[Follow]:
    """Whom the account follows, newest first.

    Raises:
        NotFound: there is no such account that the viewer may see.
    """
    async with res.db.acquire() as connection:
        await _must_exist(connection, account_id)
        found = await follow_rows.page_of_following(connection, account_id, below=below, limit=limit + 1)
        return await _page(connection, viewer, found, limit)


async def _must_exist(connection: Connection, account_id: int) -> None:
    if await account_rows.get(connection, account_id) is None:
        raise NotFound


async def _page(connection: Connection, viewer: Viewer, found: list[tuple[int, int]], limit: int) -> Page[Follow]:
    shown = found[:limit]
    wanted = [account_id for _, account_id in shown]
    accounts = await account_rows.get_many(connection, wanted)
    relations = await follow_rows.relations(connection, viewer.account_id, wanted)
    items = [
        Follow(id_, accounts[account_id], None if account_id == viewer.account_id else relations[account_id])
        for id_, account_id in shown
        if account_id in accounts
    ]
    return Page(items, next=shown[-1][0] if len(found) > limit else None)
