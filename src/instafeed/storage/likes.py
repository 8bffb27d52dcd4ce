"""Who likes which post: each like is a row at the account's shard and one at the post's."""

from instafeed.ids import shard_of
from instafeed.storage.database import Connection


async def insert(connection: Connection, like_id: int, *, account_id: int, post_id: int) -> bool:
    """Make the account like the post; False if it does already."""
    new = await connection.fetchval(
        "insert into likes (shard, account_id, post_id) values ($1, $2, $3)"
        " on conflict (shard, account_id, post_id) do nothing returning true",
        shard_of(account_id),
        account_id,
        post_id,
    )
    if new:
        await connection.execute(
            "insert into likers (shard, post_id, account_id, id) values ($1, $2, $3, $4)",
            shard_of(post_id),
            post_id,
            account_id,
            like_id,
        )
    return bool(new)


async def delete(connection: Connection, *, account_id: int, post_id: int) -> int | None:
    """End a like; returns its id, None if there is none."""
    gone = await connection.fetchval(
        "delete from likes where shard = $1 and account_id = $2 and post_id = $3 returning true",
        shard_of(account_id),
        account_id,
        post_id,
    )
    if not gone:
        return None
    like_id: int = await connection.fetchval(
        "delete from likers where shard = $1 and post_id = $2 and account_id = $3 returning id",
        shard_of(post_id),
        post_id,
        account_id,
    )
    return like_id


async def page(connection: Connection, post_id: int, *, below: int, limit: int) -> list[tuple[int, int]]:
    """(like id, account) of who likes the post, newest first, with ids below `below`."""
    records = await connection.fetch(
        "select id, account_id from likers where shard = $1 and post_id = $2 and id < $3 order by id desc limit $4",
        shard_of(post_id),
        post_id,
        below,
        limit,
    )
    return [(record["id"], record["account_id"]) for record in records]


async def posts_of_account(connection: Connection, account_id: int, *, above: int, limit: int) -> list[int]:
    """The posts that the account likes with ids above `above`, lowest first."""
    records = await connection.fetch(
        "select post_id from likes where shard = $1 and account_id = $2 and post_id > $3 order by post_id limit $4",
        shard_of(account_id),
        account_id,
        above,
        limit,
    )
    return [record["post_id"] for record in records]


async def delete_some(connection: Connection, post_id: int, *, limit: int) -> int:
    """Delete up to so many likes of a post that is gone; returns how many."""
    records = await connection.fetch(
        "delete from likers where shard = $1 and post_id = $2 and account_id = any(array("
        "select account_id from likers where shard = $1 and post_id = $2 limit $3)) returning account_id",
        shard_of(post_id),
        post_id,
        limit,
    )
    accounts = [record["account_id"] for record in records]
    await connection.execute(
        "delete from likes using unnest($1::smallint[], $2::bigint[]) as gone (shard, account_id)"
        " where likes.shard = gone.shard and likes.account_id = gone.account_id and likes.post_id = $3",
        [shard_of(id_) for id_ in accounts],
        accounts,
        post_id,
    )
    return len(accounts)
