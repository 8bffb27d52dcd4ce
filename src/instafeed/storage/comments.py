"""Comments: rows at the post's shard, and at the author's shard a row that says which are theirs."""

from collections.abc import Iterable
from dataclasses import dataclass

from asyncpg import Record

from instafeed.ids import shard_of
from instafeed.models import Mention
from instafeed.storage.captions import mentions_from, mentions_kept
from instafeed.storage.database import Connection


@dataclass(frozen=True, slots=True)
class CommentRow:
    """A comment as it is kept; `parent_id` is the comment that it replies to."""

    id: int
    post_id: int
    parent_id: int | None
    author_id: int
    text: str
    mentions: tuple[Mention, ...] = ()


_COLUMNS = "id, post_id, parent_id, author_id, text, mentions"


def _from_record(record: Record) -> CommentRow:
    return CommentRow(
        id=record["id"],
        post_id=record["post_id"],
        parent_id=record["parent_id"],
        author_id=record["author_id"],
        text=record["text"],
        mentions=mentions_from(record["mentions"]),
    )


async def insert(connection: Connection, comment: CommentRow) -> bool:
    """Add a comment; False if it is there already."""
    new = await connection.fetchval(
        "insert into comments (shard, id, post_id, parent_id, author_id, text, mentions) values ($1, $2, $3, $4, $5, $6, $7)"
        " on conflict (shard, id) do nothing returning true",
        shard_of(comment.id),
        comment.id,
        comment.post_id,
        comment.parent_id,
        comment.author_id,
        comment.text,
        mentions_kept(comment.mentions),
    )
    if new:
        await connection.execute(
            "insert into commented (shard, account_id, comment_id) values ($1, $2, $3)",
            shard_of(comment.author_id),
            comment.author_id,
            comment.id,
        )
    return bool(new)


async def get_many(connection: Connection, comment_ids: Iterable[int]) -> list[CommentRow]:
    """The comments that exist among `comment_ids`, in no order."""
    wanted = list(comment_ids)
    records = await connection.fetch(
        f"select {_COLUMNS} from comments where shard = any($1::smallint[]) and id = any($2::bigint[])",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
    )
    return [_from_record(record) for record in records]


async def get(connection: Connection, comment_id: int) -> CommentRow | None:
    """The comment with this id."""
    record = await connection.fetchrow(
        f"select {_COLUMNS} from comments where shard = $1 and id = $2", shard_of(comment_id), comment_id
    )
    return _from_record(record) if record else None


async def ids_of_author(connection: Connection, account_id: int, *, above: int, limit: int) -> list[int]:
    """The comments by an account with ids above `above`, lowest first."""
    records = await connection.fetch(
        "select comment_id from commented where shard = $1 and account_id = $2 and comment_id > $3"
        " order by comment_id limit $4",
        shard_of(account_id),
        account_id,
        above,
        limit,
    )
    return [record["comment_id"] for record in records]


async def delete(connection: Connection, comment: CommentRow) -> bool:
    """Delete one comment; False if it is gone already."""
    gone = await connection.fetchval(
        "delete from comments where shard = $1 and id = $2 returning true", shard_of(comment.id), comment.id
    )
    if gone:
        await _delete_authored(connection, [(comment.author_id, comment.id)])
    return bool(gone)


async def page_of_post(connection: Connection, post_id: int, *, below: int, limit: int) -> list[CommentRow]:
    """The comments of a post that reply to none, newest first, with ids below `below`."""
    records = await connection.fetch(
        f"select {_COLUMNS} from comments where shard = $1 and post_id = $2 and parent_id is null and id < $3"
        " order by parent_id desc, id desc limit $4",  # the very order of the index, or all would be sorted
        shard_of(post_id),
        post_id,
        below,
        limit,
    )
    return list(map(_from_record, records))


async def page_of_replies(
    connection: Connection, post_id: int, parent_id: int, *, above: int, limit: int
) -> list[CommentRow]:
    """The replies to a comment of this post, oldest first, with ids above `above`."""
    records = await connection.fetch(
        f"select {_COLUMNS} from comments where shard = $1 and post_id = $2 and parent_id = $3 and id > $4"
        " order by id limit $5",
        shard_of(post_id),
        post_id,
        parent_id,
        above,
        limit,
    )
    return list(map(_from_record, records))


async def delete_replies(connection: Connection, post_id: int, parent_id: int, *, limit: int) -> list[tuple[int, int]]:
    """Delete up to so many replies to a comment that is gone; returns (author, reply) of each."""
    records = await connection.fetch(
        "delete from comments where shard = $1 and id = any(array("
        "select id from comments where shard = $1 and post_id = $2 and parent_id = $3 limit $4)) returning author_id, id",
        shard_of(post_id),
        post_id,
        parent_id,
        limit,
    )
    return await _delete_authored(connection, [(record["author_id"], record["id"]) for record in records])


async def delete_some(connection: Connection, post_id: int, *, limit: int) -> list[tuple[int, int]]:
    """Delete up to so many comments of a post that is gone, replies too; returns (author, comment) of each."""
    records = await connection.fetch(
        "delete from comments where shard = $1 and id = any(array("
        "select id from comments where shard = $1 and post_id = $2 limit $3)) returning author_id, id",
        shard_of(post_id),
        post_id,
        limit,
    )
    return await _delete_authored(connection, [(record["author_id"], record["id"]) for record in records])


async def _delete_authored(connection: Connection, gone: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Delete the authors' rows of comments (author, comment), and return these."""
    authors, comments = [author_id for author_id, _ in gone], [comment_id for _, comment_id in gone]
    await connection.execute(
        "delete from commented using unnest($1::smallint[], $2::bigint[], $3::bigint[]) as gone (shard, account_id, id)"
        " where commented.shard = gone.shard and commented.account_id = gone.account_id and comment_id = gone.id",
        [shard_of(id_) for id_ in authors],
        authors,
        comments,
    )
    return gone
