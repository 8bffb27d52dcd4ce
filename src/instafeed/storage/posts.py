"""Posts."""

import time
from collections.abc import Iterable
from datetime import datetime

from asyncpg import Record

from instafeed import ids
from instafeed.ids import shard_of
from instafeed.models import Media, MediaStatus, Post
from instafeed.storage import accounts, captions, media
from instafeed.storage.database import Connection

_FIRST_SPAN = ids.span(hours=24)
_WIDEST_STEP = 64
_CLOCKS_DIFFER_SECONDS = 60


async def insert(connection: Connection, post_id: int, *, author_id: int, caption: str) -> bool:
    """Add a post that is not published yet; False if it is there already."""
    return bool(
        await connection.fetchval(
            "insert into posts (shard, id, author_id, caption) values ($1, $2, $3, $4)"
            " on conflict (shard, id) do nothing returning true",
            shard_of(post_id),
            post_id,
            author_id,
            caption,
        )
    )


async def publish_if_ready(connection: Connection, post_id: int) -> int | None:
    """Publish the post if all of its photos are ready; returns its author if that happened now.

    The post's row is locked first: of two photos that become ready at once, the later one sees the earlier.
    """
    locked = await connection.fetchval(
        "select true from posts where shard = $1 and id = $2 and published_at is null for update",
        shard_of(post_id),
        post_id,
    )
    if not locked:
        return None
    author: int | None = await connection.fetchval(
        "update posts set published_at = now() where shard = $1 and id = $2 and not exists"
        " (select from media where shard = $1 and post_id = $2 and status <> 'ready') returning author_id",
        shard_of(post_id),
        post_id,
    )
    return author


async def delete(connection: Connection, post_id: int, author_id: int) -> bool | None:
    """Delete the author's post; returns whether it was published, None if there is no such post."""
    record = await connection.fetchrow(
        "delete from posts where shard = $1 and id = $2 and author_id = $3 returning published_at is not null as published",
        shard_of(post_id),
        post_id,
        author_id,
    )
    return record["published"] if record else None


async def lock(connection: Connection, post_id: int, author_id: int) -> bool:
    """Lock the author's post until the transaction ends; False if there is no such post."""
    return bool(
        await connection.fetchval(
            "select true from posts where shard = $1 and id = $2 and author_id = $3 for update",
            shard_of(post_id),
            post_id,
            author_id,
        )
    )


async def edit(connection: Connection, post_id: int, *, caption: str) -> None:
    """Set a post's caption, and note that it was edited now."""
    await connection.execute(
        "update posts set caption = $3, edited_at = now() where shard = $1 and id = $2",
        shard_of(post_id),
        post_id,
        caption,
    )


async def author(connection: Connection, post_id: int) -> int | None:
    """Whose post it is; None if there is no such post."""
    found: int | None = await connection.fetchval(
        "select author_id from posts where shard = $1 and id = $2", shard_of(post_id), post_id
    )
    return found


async def published(connection: Connection, post_id: int) -> tuple[datetime, list[str]] | None:
    """When the post was published, and its tags; None if it is not, or is gone."""
    record = await connection.fetchrow(
        "select published_at, tags from posts where shard = $1 and id = $2 and published_at is not null",
        shard_of(post_id),
        post_id,
    )
    return (record["published_at"], record["tags"]) if record else None


async def tagged_of_author(
    connection: Connection, author_id: int, *, above: int, up_to: int, limit: int
) -> list[tuple[int, list[str]]]:
    """(post, tags) of the author's next published posts that have any, in the order of their ids, with ids above the one, up to
    the other.
    """
    records = await connection.fetch(
        "select id, tags from posts where shard = $1 and author_id = $2 and id > $3 and id <= $4"
        " and published_at is not null and tags <> '{}' order by id limit $5",
        shard_of(author_id),
        author_id,
        above,
        up_to,
        limit,
    )
    return [(record["id"], record["tags"]) for record in records]


async def published_among(connection: Connection, post_ids: Iterable[int]) -> set[int]:
    """Which of `post_ids` are published posts, of authors who are not suspended."""
    wanted = list(post_ids)
    records = await connection.fetch(
        "select post.id from posts post join accounts author on author.shard = post.shard and author.id = post.author_id"
        " where post.shard = any($1::smallint[]) and post.id = any($2::bigint[]) and post.published_at is not null"
        " and author.shard = any($1::smallint[]) and author.suspended_at is null",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
    )
    return {record["id"] for record in records}


_WITH_AUTHOR = (
    "select post.id as post_id, post.caption, post.published_at, post.edited_at, post.tags, post.mentions, "
    + ", ".join(f"author.{column}" for column in accounts.COLUMNS.split(", "))
    + " from posts post join accounts author on author.shard = post.shard and author.id = post.author_id"
)


def _from_record(record: Record, photos: tuple[Media, ...] = ()) -> Post:
    return Post(
        id=record["post_id"],
        author=accounts.from_record(record),
        caption=record["caption"],
        published_at=record["published_at"],
        edited_at=record["edited_at"],
        media=photos,
        tags=tuple(record["tags"]),
        mentions=captions.mentions_from(record["mentions"]),
    )


async def get_bare(connection: Connection, post_id: int) -> Post | None:
    """The post with its author, but without its photos: enough to know who may see it."""
    record = await connection.fetchrow(
        f"{_WITH_AUTHOR} where post.shard = $1 and post.id = $2 and author.shard = $1", shard_of(post_id), post_id
    )
    return _from_record(record) if record else None


async def get_bare_many(connection: Connection, post_ids: Iterable[int]) -> dict[int, Post]:
    """The posts that exist among `post_ids`, with authors, but without photos."""
    wanted = list(post_ids)
    records = await connection.fetch(
        f"{_WITH_AUTHOR}"
        " where post.shard = any($1::smallint[]) and post.id = any($2::bigint[]) and author.shard = any($1::smallint[])",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
    )
    return {record["post_id"]: _from_record(record) for record in records}


async def get_many(connection: Connection, post_ids: Iterable[int]) -> dict[int, Post]:
    """The posts that exist among `post_ids`, with authors and photos."""
    wanted = list(set(post_ids))
    shards = list({shard_of(id_) for id_ in wanted})
    # Photos first: of a post that is deleted in between, nothing is seen then, rather than a post without photos.
    photos = await media.of_posts(connection, wanted)
    records = await connection.fetch(
        f"{_WITH_AUTHOR}"
        " where post.shard = any($1::smallint[]) and post.id = any($2::bigint[]) and author.shard = any($1::smallint[])",
        shards,
        wanted,
    )
    # Of a post that was published in between, the photos were seen too early: now they are ready.
    unready = {
        id_ for id_, of_post in photos.items() if any(photo.status is not MediaStatus.READY for photo in of_post)
    }
    published = {record["post_id"] for record in records if record["published_at"] is not None}
    if unready & published:
        photos |= await media.of_posts(connection, unready & published)
    return {record["post_id"]: _from_record(record, photos.get(record["post_id"], ())) for record in records}


async def ids_of_author(
    connection: Connection, author_id: int, *, below: int, limit: int, unpublished: bool
) -> list[int]:
    """The author's posts, newest first, with ids below `below`; `unpublished` ones too if asked."""
    records = await connection.fetch(
        "select id from posts where shard = $1 and author_id = $2 and id < $3 and (published_at is not null or $5)"
        " order by id desc limit $4",
        shard_of(author_id),
        author_id,
        below,
        limit,
        unpublished,
    )
    return [record["id"] for record in records]


async def authored_by(connection: Connection, author_id: int, post_ids: Iterable[int]) -> list[int]:
    """Which of `post_ids` are the author's."""
    records = await connection.fetch(
        "select id from posts where shard = $1 and author_id = $2 and id = any($3::bigint[])",
        shard_of(author_id),
        author_id,
        list(post_ids),
    )
    return [record["id"] for record in records]


async def published_ids(connection: Connection, author_ids: Iterable[int], *, below: int, limit: int) -> list[int]:
    """The published posts of all these authors, newest first, with ids below `below`: the home feed in SQL.

    Sorting all that many authors ever posted would take seconds. Ids are times, so that the newest are looked for within a
    span, which is widened by what was found in it until it holds enough: twice or three times as a rule. Each author is
    looked up in the one partition that has it; with arrays in the condition, every partition would be searched for all.
    """
    authors = list(author_ids)
    newest = min(below, ids.lowest_at(time.time() + _CLOCKS_DIFFER_SECONDS))
    span = _FIRST_SPAN
    while True:
        oldest = max(newest - span, 0)
        records = await connection.fetch(
            "select post.id from unnest($1::smallint[], $2::bigint[]) as author (shard, id)"
            " join posts post on post.shard = author.shard and post.author_id = author.id"
            " where post.id < $3 and post.id >= $4 and post.published_at is not null"
            " order by post.id desc limit $5",
            [shard_of(id_) for id_ in authors],
            authors,
            below,
            oldest,
            limit,
        )
        if len(records) >= limit or oldest == 0:
            return [record["id"] for record in records]
        span *= max(2, min(_WIDEST_STEP, 2 * limit // max(1, len(records))))


async def published_since(
    connection: Connection, author_ids: Iterable[int], *, since: datetime, limit: int
) -> list[tuple[int, int]]:
    """(post, author) of those of these authors who are not suspended, published at or after `since`, oldest first."""
    authors = list(author_ids)
    records = await connection.fetch(
        "select post.id, post.author_id from posts post"
        " join accounts author on author.shard = post.shard and author.id = post.author_id"
        " where post.shard = any($1::smallint[]) and post.author_id = any($2::bigint[]) and post.published_at >= $3"
        " and author.shard = any($1::smallint[]) and author.suspended_at is null order by post.published_at limit $4",
        list({shard_of(id_) for id_ in authors}),
        authors,
        since,
        limit,
    )
    return [(record["id"], record["author_id"]) for record in records]
