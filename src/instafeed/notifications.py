"""Telling subscribers of a post."""

from instafeed.resources import Resources
from instafeed.storage import activity, outbox, posts
from instafeed.storage import follows as follow_rows
from instafeed.storage import mutes as mute_rows
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry
from instafeed.work import FollowUp

_CHUNK = 1000


async def notify(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: give every subscriber of the author an activity entry, but for those who mute it."""
    post_id, author_id = entry.payload["post"], entry.payload["author"]
    position: int | None = entry.position
    while position is not None:
        position = await _chunk(res, entry.id, post_id, author_id, position)
    return []


async def _chunk(res: Resources, entry_id: int, post_id: int, author_id: int, position: int) -> int | None:
    async def body(connection: Connection) -> int | None:
        if await posts.published(connection, post_id) is None:
            return None
        told = await follow_rows.subscribers(connection, author_id, above=position, limit=_CHUNK)
        muters = await mute_rows.muters_among(connection, author_id, told)
        wanted = [account_id for account_id in told if account_id not in muters]
        await activity.add_post(connection, wanted, author_id=author_id, post_id=post_id)
        if len(told) < _CHUNK:
            return None
        await outbox.checkpoint(connection, entry_id, told[-1])
        return told[-1]

    return await res.db.transact(body)
