"""What others did that concerns an account: read, counted, and marked as read.

An entry tells of one act, or of all acts of a kind on a subject. What it tells is judged anew with each read: an act that was
undone, somebody whom the viewer does not see or hear any more, or who is not heard by the preferences, are left out at once.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from instafeed import access
from instafeed.errors import Invalid
from instafeed.ids import MAX_ID, lowest_at
from instafeed.models import (
    NO_MARKS,
    Account,
    Act,
    Activity,
    ActivityKind,
    Audience,
    Channel,
    Inbox,
    Page,
    Post,
    Relation,
    Viewer,
)
from instafeed.resources import Resources
from instafeed.storage import activity as activity_rows
from instafeed.storage import acts as act_rows
from instafeed.storage import comments as comment_rows
from instafeed.storage import counters, marks
from instafeed.storage import inboxes as inbox_rows
from instafeed.storage import media as media_rows
from instafeed.storage import posts as post_rows
from instafeed.storage.activity import EntryRow
from instafeed.storage.comments import CommentRow
from instafeed.storage.database import Connection
from instafeed.visibility import heard, visible

MOST_UNREAD = 100
"""More unread entries are not counted."""
_ACTORS = 3
"""How many actors an entry shows."""
_FEW = 20
"""Acts of an entry that are looked at. What is beyond them is counted, whoever did it."""
_SOME = 500
"""Acts that are looked at where it matters who did them, or where the first few do not tell."""
_BATCH = 50
"""Entries that are looked at at once where the first ones told too little."""
_COUNTED = 1000
"""Acts whose actors are counted; likes all are."""
_CLOCKS_DIFFER_SECONDS = 60.0
_OF_COMMENTS = frozenset({ActivityKind.COMMENT, ActivityKind.REPLY, ActivityKind.MENTION})
_NO_POST = (None, Relation())
_OF_POSTS = frozenset({ActivityKind.LIKE, ActivityKind.COMMENT, ActivityKind.MENTION, ActivityKind.POST})


async def page(res: Resources, viewer: Viewer, *, below: int, limit: int) -> Page[Activity]:
    """The viewer's activity, newest first."""
    async with res.db.acquire() as connection:
        inbox = await inbox_rows.get(connection, viewer.account_id)
        fetch = partial(_fetch, connection, viewer, inbox, 0)
        show = partial(_shown, connection, viewer, inbox)
        found = await access.filled(fetch, show, position=below, limit=limit, batch=_BATCH)
        photos = await media_rows.of_posts(connection, {item.post.id for item in found.items if item.post})
    items = [
        replace(item, photo=photos[item.post.id][0]) if item.post and item.post.id in photos else item
        for item in found.items
    ]
    # Entries stand within a second of their newest acts, and do not move down: what is shown goes by the acts.
    return Page(sorted(items, key=lambda item: item.id, reverse=True), next=found.next)


async def unread(res: Resources, viewer: Viewer) -> int:
    """How many entries have an act that the viewer has not seen; at most `MOST_UNREAD`."""
    async with res.db.acquire() as connection:
        return await count_unread(connection, viewer)


async def count_unread(connection: Connection, viewer: Viewer) -> int:
    """What `unread` answers."""
    inbox = await inbox_rows.get(connection, viewer.account_id)

    async def show(found: list[tuple[int, EntryRow]]) -> list[tuple[int, Activity]]:
        return [(at, item) for at, item in await _shown(connection, viewer, inbox, found) if item.unread]

    fetch = partial(_fetch, connection, viewer, inbox, max(inbox.read_id - activity_rows.STILL, 0))
    return len((await access.filled(fetch, show, position=MAX_ID, limit=MOST_UNREAD, batch=_BATCH)).items)


async def mark_read(res: Resources, viewer: Viewer, up_to: int) -> None:
    """Mark what happened up to the act with this id as read, on all of the viewer's devices; what was read stays so.

    Raises:
        Invalid: nothing has happened with such an id yet.
    """
    if up_to >= lowest_at(time.time() + _CLOCKS_DIFFER_SECONDS):
        raise Invalid.at("/id", "Not the id of an entry.")

    async def body(connection: Connection) -> None:
        await access.lock_self(connection, viewer)
        await inbox_rows.set_read(connection, viewer.account_id, up_to)

    await res.db.transact(body)


async def _fetch(
    connection: Connection, viewer: Viewer, inbox: Inbox, above: int, position: int, size: int
) -> list[tuple[int, EntryRow]]:
    audience = inbox.preferences.audience
    without = [kind for kind in ActivityKind if audience(kind, Channel.ACTIVITY) is Audience.OFF]
    rows = await activity_rows.page(
        connection, viewer.account_id, below=position, limit=size, above=above, without=without
    )
    return [(row.id, row) for row in rows]


async def _shown(
    connection: Connection, viewer: Viewer, inbox: Inbox, found: list[tuple[int, EntryRow]]
) -> list[tuple[int, Activity]]:
    told = await entries(connection, viewer, inbox, [row for _, row in found], channel=Channel.ACTIVITY)
    return [(at, told[row]) for at, row in found if row in told]


async def entries(
    connection: Connection, viewer: Viewer, inbox: Inbox, rows: Iterable[EntryRow], *, channel: Channel
) -> dict[EntryRow, Activity]:
    """What these entries of the viewer's tell now on a channel; those that tell nothing are left out. A bounded number of
    statements, however many there are.
    """
    audiences = {
        row: inbox.preferences.audience(row.kind, channel) for row in rows if row.kind is not ActivityKind.OTHER
    }
    wanted: dict[EntryRow, Audience] = {
        row: audience for row, audience in audiences.items() if audience is not Audience.OFF
    }
    acts = await _heard(connection, viewer, wanted)
    about = await _subjects(connection, viewer, acts)
    counts = await _counts(connection, viewer, wanted, acts)
    return {
        row: Activity(
            id=of_row.acts[0].id,
            kind=row.kind,
            actors=of_row.actors[:_ACTORS],
            count=counts[row],
            unread=of_row.acts[0].id > inbox.read_id,
            post=about[row].post,
            comment_id=comment.id if comment else None,
            text=comment.text if comment else None,
        )
        for row, of_row in acts.items()
        if row in about
        for comment in [about[row].comment]
    }


@dataclass(frozen=True, slots=True)
class _Heard:
    """What the viewer hears of an entry's newest acts."""

    acts: list[Act]
    actors: tuple[Account, ...]
    """Each once."""
    unheard: int
    """Accounts that did one of the acts that were looked at, and are left out."""
    is_all: bool
    """All acts of the entry were looked at."""


@dataclass(frozen=True, slots=True)
class _About:
    """What an entry is about, as far as the viewer sees it."""

    post: Post | None = None
    comment: CommentRow | None = None


async def _heard(connection: Connection, viewer: Viewer, wanted: dict[EntryRow, Audience]) -> dict[EntryRow, _Heard]:
    """Of which acts of these entries the viewer hears; entries of which it hears none are left out."""
    found = await _look(connection, viewer, wanted, limit=_FEW)
    further = {
        row: audience
        for row, audience in wanted.items()
        if not found[row].is_all and (audience is Audience.FOLLOWING or not found[row].acts)
    }
    if further:
        found |= await _look(connection, viewer, further, limit=_SOME)
    return {row: of_row for row, of_row in found.items() if of_row.acts}


async def _look(
    connection: Connection, viewer: Viewer, wanted: dict[EntryRow, Audience], *, limit: int
) -> dict[EntryRow, _Heard]:
    acts = {row: [Act(row.id, row.actor_id)] for row in wanted if row.kind not in act_rows.MANY}
    for kind, rows in _by_kind(wanted, act_rows.MANY).items():
        subjects = [row.subject_id for row in rows]
        newest = await act_rows.newest(connection, viewer.account_id, kind, subjects, limit=limit)
        acts |= {row: newest[row.subject_id] for row in rows}
    seen = await access.among(connection, viewer, {act.actor_id for of_row in acts.values() for act in of_row})
    return {
        row: _judge(viewer, acts[row], seen, audience, is_all=row.kind not in act_rows.MANY or len(acts[row]) < limit)
        for row, audience in wanted.items()
    }


def _judge(
    viewer: Viewer, acts: list[Act], seen: dict[int, tuple[Account, Relation]], audience: Audience, *, is_all: bool
) -> _Heard:
    told = [
        act
        for act in acts
        if act.actor_id in seen and heard(seen[act.actor_id][0], viewer.account_id, seen[act.actor_id][1], audience)
    ]
    actors = tuple(seen[id_][0] for id_ in dict.fromkeys(act.actor_id for act in told))
    return _Heard(told, actors, len({act.actor_id for act in acts}) - len(actors), is_all)


def _by_kind(rows: Iterable[EntryRow], kinds: Collection[ActivityKind]) -> dict[ActivityKind, list[EntryRow]]:
    found: dict[ActivityKind, list[EntryRow]] = defaultdict(list)
    for row in rows:
        if row.kind in kinds:
            found[row.kind].append(row)
    return found


async def _subjects(connection: Connection, viewer: Viewer, acts: dict[EntryRow, _Heard]) -> dict[EntryRow, _About]:
    """What these entries are about; those whose subject is gone, or not for the viewer's eyes, are left out."""
    named = {
        row: of_row.acts[0].id if row.kind is ActivityKind.COMMENT else row.subject_id
        for row, of_row in acts.items()
        if row.kind in _OF_COMMENTS
    }
    comments = await _comments(connection, named.values())
    on_posts = {comment.post_id for comment in comments.values()}
    posts = await _posts(connection, viewer, on_posts | {row.subject_id for row in acts if row.kind in _OF_POSTS})
    found = {}
    for row in acts:
        comment = comments.get(named[row]) if row in named else None
        post, relation = posts.get(comment.post_id if comment else row.subject_id, _NO_POST)
        if _is_there(row, viewer.account_id, post, comment, relation):
            found[row] = _About(post, comment)
    return found


def _is_there(row: EntryRow, me: int, post: Post | None, comment: CommentRow | None, relation: Relation) -> bool:
    """Whether an entry is still about something that the viewer sees, `relation` being that to the post's author."""
    if row.kind not in _OF_COMMENTS | _OF_POSTS:
        return True
    if post is None:
        return False
    match row.kind:
        case ActivityKind.COMMENT | ActivityKind.REPLY:
            return comment is not None
        case ActivityKind.MENTION:
            return any(mention.account_id == me for mention in (comment or post).mentions)
        case ActivityKind.POST:
            return relation.following
        case _:
            return True


async def _comments(connection: Connection, comment_ids: Iterable[int]) -> dict[int, CommentRow]:
    """The comments that exist; replies below one that is gone are gone too, though their rows may go later."""
    found = await comment_rows.get_many(connection, set(comment_ids))
    parents = {row.parent_id for row in found if row.parent_id is not None}
    there = {row.id for row in await comment_rows.get_many(connection, parents)} if parents else set()
    return {row.id: row for row in found if row.parent_id is None or row.parent_id in there}


async def _posts(connection: Connection, viewer: Viewer, post_ids: Collection[int]) -> dict[int, tuple[Post, Relation]]:
    """Those of the posts that the viewer sees, and how the viewer stands to their authors."""
    found = await post_rows.get_bare_many(connection, post_ids) if post_ids else {}
    seen = await access.among(connection, viewer, {post.author.id for post in found.values()})
    return {
        id_: (post, seen[post.author.id][1])
        for id_, post in found.items()
        if post.author.id in seen and visible(post, viewer.account_id, seen[post.author.id][1])
    }


async def _counts(
    connection: Connection, viewer: Viewer, wanted: dict[EntryRow, Audience], acts: dict[EntryRow, _Heard]
) -> dict[EntryRow, int]:
    """How many accounts did what each entry tells."""
    counts = {row: len(of_row.actors) for row, of_row in acts.items()}
    many = [row for row, of_row in acts.items() if not of_row.is_all and wanted[row] is Audience.EVERYONE]
    for kind, rows in _by_kind(many, act_rows.MANY).items():
        totals = await _totals(connection, viewer.account_id, kind, [row.subject_id for row in rows])
        counts |= {row: max(counts[row], totals[row.subject_id] - acts[row].unheard) for row in rows}
    return counts


async def _totals(
    connection: Connection, account_id: int, kind: ActivityKind, subject_ids: Sequence[int]
) -> dict[int, int]:
    if kind is not ActivityKind.LIKE:
        return await act_rows.actors(connection, account_id, kind, subject_ids, limit=_COUNTED)
    counted = await counters.get_many(connection, subject_ids)
    own = await marks.among(connection, account_id, subject_ids)
    return {id_: counts.likes - own.get(id_, NO_MARKS).liked for id_, counts in counted.items()}
