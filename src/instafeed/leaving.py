"""Leaving: an account is hidden at once, and everything of it is deleted within the hour.

It is hidden as a suspended one is, for ever. A job then deletes what `storage/belongings.py` lists, in chunks that are
transactions of their own; what is left says how far it is, so that it goes on wherever it was stopped. Whoever adds something
of an account has its row locked and finds out that it left, so that nothing comes any more once its row is gone: that happens
when everything else is counted and nothing is left. What is added without that lock (an activity row of a job that was
under way, a kept reply) is found by a second look some minutes later, which counts again, in the bucket too.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial

from instafeed import comments, credentials, posts, scheduled, telemetry
from instafeed.changes import Change, transact
from instafeed.ids import MAX_ID, shard_of
from instafeed.models import Viewer
from instafeed.resources import Resources
from instafeed.sessions import end_all
from instafeed.storage import accounts as account_rows
from instafeed.storage import belongings, counters, locks, outbox
from instafeed.storage import comments as comment_rows
from instafeed.storage import posts as post_rows
from instafeed.storage import scheduled_posts as scheduled_rows
from instafeed.storage.belongings import Departure, Edges, Rows
from instafeed.storage.blobs import original_key, rendition_prefix
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import FollowUp, note

_EDGES = 100
_POSTS = 20
_ROWS = 500
_OBJECTS = 50
_RUN_SECONDS = 25.0
"""How long one job goes on; the next one takes it up."""
_SECOND_LOOK_SECONDS = 300.0
"""Longer than any transaction, or request without a photo, that was under way when the account's row went."""
_ROUNDS = 10

_log = telemetry.logger()

Step = Callable[[Resources, int], Awaitable[bool]]
"""Deletes some of what an account has; false when nothing is left of it."""


async def leave(res: Resources, viewer: Viewer, *, password: str) -> None:
    """Delete the viewer's account: no read or log-in that begins after this finds it, and nothing brings it back.

    Raises:
        WrongPassword: it is not the account's password.
        RedisAway: it stays: its sessions could not be ended everywhere.
    """
    me = viewer.account_id
    kept = await credentials.check(res, viewer, password)

    async def body(change: Change) -> None:
        await credentials.lock(change, viewer, kept)
        await change.hold_author(me)
        await change.hold_rights(me)
        await account_rows.leave(change.connection, me)
        await end_all(change, me)
        await change.note(shard_of(me), Kind.ERASE, {"account": me})

    await transact(res, body)


async def departures(res: Resources) -> list[tuple[Departure, dict[str, int]]]:
    """The accounts that are being deleted, and how many rows each of them has left."""
    async with res.db.acquire() as connection:
        found = await belongings.departures(connection)
        return [(departure, await belongings.left(connection, departure.account_id)) for departure in found]


async def erase(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: delete everything of an account that left; then its own row; and, by a second entry, look once more."""
    account_id: int = entry.payload["account"]
    until = time.monotonic() + _RUN_SECONDS
    for _ in range(_ROUNDS):
        for step in _STEPS:
            while await step(res, account_id):
                if time.monotonic() > until:
                    return [(Kind.ERASE, entry.payload)]
                async with res.db.acquire() as connection:
                    await outbox.checkpoint(connection, entry.id, entry.position)
        for lists in (res.timelines, res.recents):
            await lists.forget(account_id)
        await res.rights.release(await res.rights.hold([account_id]))
        await res.marks.forget(account_id)
        left = await res.db.transact(partial(_finish, res, account_id))
        if not left:
            return await _look_again(res, entry, account_id, until) if entry.payload.get("again") else []
    raise RuntimeError(f"more and more came of an account that left: {left}")


async def _finish(res: Resources, account_id: int, connection: Connection) -> dict[str, int]:
    """Delete the account's own row if nothing else is left of it; returns what is."""
    await account_rows.lock(connection, [account_id])
    left = {name: count for name, count in (await belongings.left(connection, account_id)).items() if count}
    if not left and await belongings.delete_account(connection, account_id):
        entry_id = res.ids.next(shard_of(account_id))
        payload = {"account": account_id, "again": True}
        await outbox.add(connection, entry_id, Kind.ERASE, payload, seconds=_SECOND_LOOK_SECONDS)
    return left


async def _look_again(res: Resources, entry: Entry, account_id: int, until: float) -> list[FollowUp]:
    """Look whether the bucket has anything of the account; what came late goes, and is looked for once more."""
    looked: int = entry.payload.get("looked", 0)
    async with res.db.acquire() as connection:
        keys = await belongings.object_keys(connection, account_id)
    for object_key in keys[looked:]:
        if time.monotonic() > until:
            return [(Kind.ERASE, entry.payload | {"looked": looked})]
        while await _stored(res, object_key):
            await res.blobs.abort_uploads(original_key(object_key))
            await res.blobs.delete_photo(object_key)
        looked += 1
    async with res.db.acquire() as connection:
        rows = await belongings.left(connection, account_id)
        exported = await belongings.export_keys(connection, account_id)
    for key in exported:
        while await res.blobs.size(key) is not None:
            await res.blobs.delete([key])
    _log.info("account deleted", account=str(account_id), rows_left=sum(rows.values()), tables=len(rows), photos=looked)
    return []


async def _stored(res: Resources, object_key: str) -> bool:
    original = await res.blobs.size(original_key(object_key))
    return original is not None or bool(await res.blobs.keys(rendition_prefix(object_key)))


async def _follows(edges: Edges, res: Resources, account_id: int) -> bool:
    """End follows, counted at the other end too, and take the account's posts out of followers' windows."""
    are_followers = edges.other == "follower_id"
    async with res.db.acquire() as connection:
        others = await belongings.others(connection, edges, account_id, limit=_EDGES)
        post_ids = await post_rows.ids_of_author(
            connection, account_id, below=MAX_ID, limit=res.timelines.window + 1, unpublished=False
        )
    if not others:
        return False
    mine, theirs = ((0, -1, 0), (0, 0, -1)) if are_followers else ((0, 0, -1), (0, -1, 0))

    async def body(change: Change) -> None:
        await account_rows.lock(change.connection, [account_id, *others])
        ended = await belongings.delete_edges(change.connection, edges, account_id, others)
        counts = dict.fromkeys(ended, theirs)
        counts[account_id] = (0, mine[1] * len(ended), mine[2] * len(ended))
        await account_rows.count(change.connection, counts)
        if are_followers:
            # Reading leaves them out, whatever a push that is late puts back. While they are still known whose they are.
            await change.hold_rights(*ended)
            for follower in ended if post_ids else ():
                await res.timelines.remove(follower, post_ids)

    await transact(res, body)
    return True


async def _edges(edges: Edges, res: Resources, account_id: int) -> bool:
    async with res.db.acquire() as connection:
        others = await belongings.others(connection, edges, account_id, limit=_EDGES)

    async def body(connection: Connection) -> None:
        await account_rows.lock(connection, [account_id, *others])
        await belongings.delete_edges(connection, edges, account_id, others)

    if others:
        await res.db.transact(body)
    return bool(others)


async def _likes(res: Resources, account_id: int) -> bool:
    async with res.db.acquire() as connection:
        post_ids = await belongings.others(connection, belongings.LIKES, account_id, limit=_EDGES)

    async def body(change: Change) -> None:
        for post_id in sorted(post_ids):
            await locks.share(change.connection, post_id)  # or it is being deleted, with its counters
        for post_id in await belongings.delete_edges(change.connection, belongings.LIKES, account_id, post_ids):
            await change.recount(post_id)
            await counters.add(change.connection, post_id, likes=-1)

    if post_ids:
        await transact(res, body)
    return bool(post_ids)


async def _comments(res: Resources, account_id: int) -> bool:
    async with res.db.acquire() as connection:
        found = await comment_rows.ids_of_author(connection, account_id, above=0, limit=_POSTS)

    async def body(change: Change) -> None:
        for comment_id in found:
            await comments.remove(change, comment_id, account_id)

    if found:
        await transact(res, body)
    return bool(found)


async def _posts(res: Resources, account_id: int) -> bool:
    async with res.db.acquire() as connection:
        found = await post_rows.ids_of_author(connection, account_id, below=MAX_ID, limit=_POSTS, unpublished=True)

    async def body(change: Change) -> None:
        for post_id in found:
            await posts.remove(change, post_id, account_id)

    if found:
        await transact(res, body)
    return bool(found)


async def _scheduled(res: Resources, account_id: int) -> bool:
    async def body(connection: Connection) -> int:
        await account_rows.lock(connection, [account_id])
        waiting = await scheduled_rows.of_author(connection, account_id, limit=_POSTS)
        for one in waiting:
            await scheduled.drop(connection, one)
        return len(waiting)

    return bool(await res.db.transact(body))


async def _stored_in(table: str, kind: Kind, res: Resources, account_id: int) -> bool:
    """Forget photos that no post has, uploads or exports; whoever is still making one finds its row gone."""

    async def body(connection: Connection) -> list[int]:
        found = await belongings.delete_stored(connection, table, account_id, limit=_OBJECTS)
        payloads = [{"key": key, "account": account_id, "export": id_} for id_, key in found]
        return [await note(res, connection, shard_of(account_id), kind, payload) for payload in payloads]

    entries = await res.db.transact(body)
    for entry in entries:
        await res.queue.ring(kind, entry)
    return bool(entries)


async def _reports(res: Resources, account_id: int) -> bool:
    return bool(await res.db.transact(lambda found: belongings.delete_reports(found, account_id, limit=_EDGES)))


async def _open_cases(res: Resources, account_id: int) -> bool:
    return await res.db.transact(lambda found: belongings.delete_open_case(found, account_id, limit=_ROWS))


async def _rows(rows: Rows, res: Resources, account_id: int) -> bool:
    async with res.db.acquire() as connection:
        return bool(await belongings.delete_rows(connection, rows, account_id, limit=_ROWS))


_STEPS: tuple[Step, ...] = (
    *(partial(_follows, edges) for edges in belongings.FOLLOWS),  # first: whose windows have which posts is known still
    *(partial(_edges, edges) for edges in belongings.EDGES),
    _likes,
    _comments,
    _posts,
    _scheduled,  # their photos go with those that no post has
    partial(_stored_in, "uploads", Kind.DISCARD),  # before the photos that they become
    partial(_stored_in, "media", Kind.DISCARD),
    partial(_stored_in, "exports", Kind.EXPORT),
    _reports,
    _open_cases,
    *(partial(_rows, rows) for rows in belongings.ROWS),
)
