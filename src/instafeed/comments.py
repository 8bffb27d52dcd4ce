"""Commenting on posts. Whoever sees a post sees its comments, but those of authors who are suspended or whom a block hides.

A comment replies to none or to one that replies to none. Whoever adds something to a post or a comment shares its lock, so
that nothing comes to what is being deleted.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from instafeed import access, captions, notifications
from instafeed.changes import Change, transact
from instafeed.errors import Invalid, NotFound
from instafeed.ids import shard_of
from instafeed.models import Account, Comment, Page, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import activity as activity_rows
from instafeed.storage import comments as comment_rows
from instafeed.storage import counters, locks
from instafeed.storage.comments import CommentRow
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import FollowUp

CHUNK = 500
"""How many replies are deleted at once."""


async def create(
    res: Resources, viewer: Viewer, comment_id: int, post_id: int, *, text: str, reply_to: int | None
) -> Comment:
    """Comment on a post.

    Args:
        res: the resources.
        viewer: its author.
        comment_id: the id to give it, on the post's shard; where the comment is there already, it is found again.
        post_id: which post.
        text: what it says.
        reply_to: the comment that it replies to, or a reply to that comment; None for none.

    Raises:
        NotFound: there is no such post that the viewer may see.
        Invalid: there is no such comment of the post that the viewer may see.
    """

    async def body(change: Change) -> None:
        connection = change.connection
        post = await access.join_post(connection, viewer, post_id)
        parent = await _lock_parent(connection, viewer, post_id, reply_to)
        parent_id = parent.id if parent else None
        mentions = await captions.mentions_in(connection, viewer, text)
        comment = CommentRow(comment_id, post_id, parent_id, viewer.account_id, text, mentions)
        if await comment_rows.insert(connection, comment):
            await notifications.tell_of_comment(change, comment, post.author.id, parent.author_id if parent else None)
            await _count(change, post_id, parent_id, 1)

    await transact(res, body)
    async with res.db.acquire() as connection:
        row = await comment_rows.get(connection, comment_id)
        shown = await _shown(connection, viewer, [(comment_id, row)]) if row else []
    if not shown:
        raise NotFound
    return shown[0][1]


async def _lock_parent(connection: Connection, viewer: Viewer, post_id: int, reply_to: int | None) -> CommentRow | None:
    """The comment that a reply to `reply_to` belongs to, which cannot be deleted until the transaction ends."""
    if reply_to is None:
        return None
    named = await comment_rows.get(connection, reply_to)
    parent_id = named.parent_id or named.id if named else reply_to
    await locks.share(connection, parent_id)
    rows = [await comment_rows.get(connection, id_) for id_ in (reply_to, parent_id)]
    of_post = [(row.id, row) for row in rows if row is not None and row.post_id == post_id]
    if len(await _shown(connection, viewer, of_post)) < len(rows):
        raise Invalid.at("/reply_to", "Not a comment of this post.")
    return rows[1]


async def _count(change: Change, post_id: int, parent_id: int | None, number: int) -> None:
    """Count comments of a post, which reply to this one or to none."""
    await change.recount(post_id)
    await counters.add(change.connection, post_id, comments=number)
    if parent_id is not None:
        await counters.add(change.connection, parent_id, comments=number)


async def page(res: Resources, viewer: Viewer, post_id: int, *, below: int, limit: int) -> Page[Comment]:
    """The comments of a post that reply to none, newest first.

    Raises:
        NotFound: there is no such post that the viewer may see.
    """
    async with res.db.acquire() as connection:
        await access.see_post(connection, viewer, post_id)

        async def fetch(position: int, size: int) -> list[tuple[int, CommentRow]]:
            rows = await comment_rows.page_of_post(connection, post_id, below=position, limit=size)
            return [(row.id, row) for row in rows]

        show = partial(_shown, connection, viewer)
        return await access.filled(fetch, show, position=below, limit=limit)


async def replies(res: Resources, viewer: Viewer, comment_id: int, *, above: int, limit: int) -> Page[Comment]:
    """The replies to a comment, oldest first.

    Raises:
        NotFound: there is no such comment that the viewer may see.
    """
    async with res.db.acquire() as connection:
        comment = await see(connection, viewer, comment_id)

        async def fetch(position: int, size: int) -> list[tuple[int, CommentRow]]:
            rows = await comment_rows.page_of_replies(
                connection, comment.post_id, comment_id, above=position, limit=size
            )
            return [(row.id, row) for row in rows]

        show = partial(_shown, connection, viewer)
        return await access.filled(fetch, show, position=above, limit=limit)


async def delete(res: Resources, viewer: Viewer, comment_id: int) -> None:
    """Delete the viewer's comment, or any comment of the viewer's post; its replies too. Nobody sees them from now on.

    Raises:
        NotFound: there is no such comment that the viewer may delete.
    """

    async def body(change: Change) -> None:
        comment = await _lock(change.connection, comment_id)
        if comment is None:
            raise NotFound
        post = await access.see_post(change.connection, viewer, comment.post_id)
        if viewer.account_id not in {comment.author_id, post.author.id}:
            raise NotFound
        if not await _delete(change, comment):
            raise NotFound

    await transact(res, body)


async def remove(change: Change, comment_id: int, author_id: int) -> bool:
    """Delete an author's comment with its replies, in the running transaction; False if there is no such comment."""
    comment = await _lock(change.connection, comment_id)
    return comment is not None and comment.author_id == author_id and await _delete(change, comment)


async def _lock(connection: Connection, comment_id: int) -> CommentRow | None:
    """A comment that is about to be deleted; until the transaction ends nobody replies to it or deletes its post."""
    comment = await comment_rows.get(connection, comment_id)
    if comment is not None:
        await locks.share(connection, comment.post_id)
        await locks.seize(connection, comment_id)
    return comment


async def _delete(change: Change, comment: CommentRow) -> bool:
    """Delete a locked comment with its replies; False if it was gone."""
    connection = change.connection
    if not await comment_rows.delete(connection, comment):
        return False
    gone = [(comment.author_id, comment.id)]
    if comment.parent_id is None:
        gone += await comment_rows.delete_replies(connection, comment.post_id, comment.id, limit=CHUNK)
        await counters.delete(connection, shard_of(comment.id), [comment.id])
    await activity_rows.forget_comments(connection, gone)
    if len(gone) > CHUNK:
        payload = {"post": comment.post_id, "comment": comment.id}
        await change.note(shard_of(comment.id), Kind.PRUNE_REPLIES, payload)
    await _count(change, comment.post_id, comment.parent_id, -len(gone))
    return True


async def prune_replies(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: delete the replies to a comment that is gone."""
    post_id, comment_id = entry.payload["post"], entry.payload["comment"]

    async def body(change: Change) -> bool:
        gone = await comment_rows.delete_replies(change.connection, post_id, comment_id, limit=CHUNK)
        if gone:
            await activity_rows.forget_comments(change.connection, gone)
            await _count(change, post_id, None, -len(gone))
        return len(gone) == CHUNK

    while await transact(res, body):
        pass
    return []


async def see(connection: Connection, viewer: Viewer, comment_id: int) -> CommentRow:
    """A comment.

    Raises:
        NotFound: there is none that the viewer may see.
    """
    comment = await comment_rows.get(connection, comment_id)
    if comment is None:
        raise NotFound
    await access.see_post(connection, viewer, comment.post_id)
    if not await _shown(connection, viewer, [(comment_id, comment)]):
        raise NotFound
    return comment


async def _shown(
    connection: Connection, viewer: Viewer, found: list[tuple[int, CommentRow]]
) -> list[tuple[int, Comment]]:
    """Those of a post's comments whose authors the viewer comes across."""
    seen = await access.among(connection, viewer, _named(row for _, row in found))
    accounts = {id_: account for id_, (account, _) in seen.items()}
    shown = [(id_, row) for id_, row in found if row.author_id in accounts]
    made = await _with_counts(connection, [row for _, row in shown], accounts)
    return [(id_, comment) for (id_, _), comment in zip(shown, made, strict=True)]


async def get_many(connection: Connection, comment_ids: Iterable[int]) -> dict[int, Comment]:
    """The comments that exist among `comment_ids`, whoever may see them."""
    rows = await comment_rows.get_many(connection, comment_ids)
    accounts = await account_rows.get_many(connection, _named(rows))
    there = [row for row in rows if row.author_id in accounts]
    return {comment.id: comment for comment in await _with_counts(connection, there, accounts)}


def _named(rows: Iterable[CommentRow]) -> set[int]:
    """Who wrote these comments, and whom they mention."""
    return {id_ for row in rows for id_ in (row.author_id, *(mention.account_id for mention in row.mentions))}


async def _with_counts(
    connection: Connection, rows: Sequence[CommentRow], accounts: Mapping[int, Account]
) -> list[Comment]:
    counts = await counters.get_many(connection, [row.id for row in rows])
    return [
        Comment(
            id=row.id,
            post_id=row.post_id,
            parent_id=row.parent_id,
            author=accounts[row.author_id],
            text=row.text,
            mentions=captions.among(row.mentions, accounts),
            reply_count=counts[row.id].comments,
        )
        for row in rows
    ]
