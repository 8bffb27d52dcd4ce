"""Telling accounts of what others do that concerns them.

What is told is judged when it is read (`activity.py`) or sent, since who sees whom, and who wants to hear of what, may change
at any time. So a verb tells whomever its act concerns, and hardly asks.
"""

from collections.abc import Iterable
from functools import partial

from instafeed.changes import Change, transact
from instafeed.ids import shard_of
from instafeed.models import ActivityKind, Audience, Channel, Preferences
from instafeed.resources import Resources
from instafeed.storage import activity as activity_rows
from instafeed.storage import follows as follow_rows
from instafeed.storage import mutes as mute_rows
from instafeed.storage import outbox, pushed
from instafeed.storage import posts as post_rows
from instafeed.storage.activity import EntryRow
from instafeed.storage.acts import DAY, MANY
from instafeed.storage.comments import CommentRow
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import FollowUp

_CHUNK = 1000
_SETTLED_SECONDS = 2
_BY_DAY = frozenset({ActivityKind.FOLLOW, ActivityKind.FOLLOW_REQUEST})


async def tell(
    change: Change, account_ids: Iterable[int], kind: ActivityKind, act_id: int, *, actor_id: int, subject_id: int = 0
) -> list[int]:
    """Tell accounts of an act, in the transaction that does it. Nobody is told of their own.

    The only place that tells anybody: what is to reach people elsewhere too is noted here.

    Args:
        change: the transaction.
        account_ids: whom, of any shards.
        kind: what was done.
        act_id: orders what is told: the id of the like, follow, request or comment, or one made for it. Not that of an act
            that was undone and is done again: nobody is told twice.
        actor_id: who did it.
        subject_id: the post that was liked, commented or published; the reply; the post or comment that mentions; else 0.

    Returns:
        who was told now: not who knew already, nor whose entry was moved by another act within a second. By what they are
        told two seconds later, all is said.
    """
    others = [id_ for id_ in account_ids if id_ != actor_id]
    if not others:
        return []
    entry = EntryRow(act_id, kind, subject_id, actor_id)
    if kind in MANY:
        subject = act_id - act_id % DAY if kind in _BY_DAY else subject_id
        entry = EntryRow(act_id, kind, subject, activity_rows.MANY)
        move = partial(activity_rows.move, change.connection, kind=kind, act_id=act_id, subject_id=subject)
        told = [id_ for id_ in others if await move(id_)]
    else:
        told = await activity_rows.add(
            change.connection, others, kind, act_id, subject_id=subject_id, actor_id=actor_id
        )
    await _push(change, told, entry)
    return told


async def _push(change: Change, account_ids: list[int], entry: EntryRow) -> None:
    """Note that the entry, which each of these accounts has, is to reach those of them elsewhere who can be reached."""
    if not account_ids:
        return
    mailed = Preferences().audience(entry.kind, Channel.MAIL) is not Audience.OFF
    reached = await pushed.reached_among(change.connection, account_ids, entry.kind, usually_mailed=mailed)
    if reached:
        payload = {
            "accounts": reached,
            "kind": entry.kind,
            "subject": entry.subject_id,
            "actor": entry.actor_id,
            "id": entry.id,
        }
        # An entry of many is pushed when others have moved it too who act in the same second.
        seconds = _SETTLED_SECONDS if entry.kind in MANY else 0
        await change.note(shard_of(reached[0]), Kind.PUSH, payload, seconds=seconds)


async def take_back(connection: Connection, account_id: int, kind: ActivityKind, *, actor_id: int) -> None:
    """Tell an account no more of what has no subject."""
    await activity_rows.remove(connection, account_id, kind, subject_id=0, actor_id=actor_id)


async def tell_of_comment(change: Change, comment: CommentRow, author_id: int, replied_to: int | None) -> None:
    """Tell of a new comment on a post of the author: whom it mentions, whose comment it replies to, or else whose post it is.

    Each of them is told once: of what concerns them most.
    """
    act_id, actor_id = comment.id, comment.author_id
    mentioned = {mention.account_id for mention in comment.mentions}
    await tell(change, mentioned, ActivityKind.MENTION, act_id, actor_id=actor_id, subject_id=act_id)
    if replied_to is None:
        others = {author_id} - mentioned
        await tell(change, others, ActivityKind.COMMENT, act_id, actor_id=actor_id, subject_id=comment.post_id)
    else:
        others = {replied_to} - mentioned
        await tell(change, others, ActivityKind.REPLY, act_id, actor_id=actor_id, subject_id=act_id)


async def notify(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: tell whom a post mentions, and then the subscribers of its author, but for those who mute it."""
    post_id, author_id = entry.payload["post"], entry.payload["author"]
    position: int | None = entry.position
    while position is not None:
        position = await _chunk(res, entry.id, post_id, author_id, position)
    return []


async def _chunk(res: Resources, entry_id: int, post_id: int, author_id: int, position: int) -> int | None:
    async def body(change: Change) -> int | None:
        connection = change.connection
        post = await post_rows.get_bare(connection, post_id)
        if post is None or post.published_at is None:
            return None
        mentioned = {mention.account_id for mention in post.mentions}
        act_id = res.ids.next(shard_of(author_id))
        if position == 0:
            await tell(change, mentioned, ActivityKind.MENTION, act_id, actor_id=author_id, subject_id=post_id)
        told = await follow_rows.subscribers(connection, author_id, above=position, limit=_CHUNK)
        muters = await mute_rows.muters_among(connection, author_id, told)
        wanted = [account_id for account_id in told if account_id not in muters and account_id not in mentioned]
        await tell(change, wanted, ActivityKind.POST, act_id, actor_id=author_id, subject_id=post_id)
        if len(told) < _CHUNK:
            return None
        await outbox.checkpoint(connection, entry_id, told[-1])
        return told[-1]

    return await transact(res, body)
