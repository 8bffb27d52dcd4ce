"""What accounts have saved: each save is a row at the account's shard and one at the post's."""

from instafeed.ids import shard_of
from instafeed.storage.database import Connection


async def insert(connection: Connection, save_id: int, *, account_id: int, post_id: int) -> bool:
    """Save the post for the account; False if it has it already."""
    new = await connection.fetchval(
        "insert into saves (shard, account_id, post_id, id) values ($1, $2, $3, $4)"
        " on conflict (shard, account_id, post_id) do nothing returning true",
        shard_of(account_id),
        account_id,
        post_id,
        save_id,
    )
    if new:
        await connection.execute(
            "insert into savers (shard, post_id, account_id) values ($1, $2, $3)",
            shard_of(post_id),
            post_id,
            account_id,
        )
    return bool(new)


async def delete(connection: Connection, *, account_id: int, post_id: int) -> bool:
    """End a save; False if there is none."""
    gone = await connection.fetchval(
        "delete from saves where shard = $1 and account_id = $2 and post_id = $3 returning true",
        shard_of(account_id),
        account_id,
        post_id,
    )
    if gone:
        await connection.execute(
            "delete from savers where shard = $1 and post_id = $2 and account_id = $3",
            shard_of(post_id),
            post_id,
            account_id,
        )
    return bool(gone)


async def page(connection: Connection, account_id: int, *, below: int, limit: int) -> list[tuple[int, int]]:
    """(save id, post) of what the account has saved, last saved first, with ids below `below`."""
    records = await connection.fetch(
        "select id, post_id from saves where shard = $1 and account_id = $2 and id < $3 order by id desc limit $4",
        shard_of(account_id),
        account_id,
        below,
        limit,
    )
    return [(record["id"], record["post_id"]) for record in records]


async def delete_some(connection: Connection, post_id: int, *, limit: int) -> int:
    """Delete up to so many saves of a post that is gone; returns how many."""
    records = await connection.fetch(
        "delete from savers where shard = $1 and post_id = $2 and account_id = any(array("
        "select account_id from savers where shard = $1 and post_id = $2 limit $3)) returning account_id",
        shard_of(post_id),
        post_id,
        limit,
    )
    accounts = [record["account_id"] for record in records]
    await connection.execute(
        "delete from saves using unnest($1::smallint[], $2::bigint[]) as gone (shard, account_id)"
        " where saves.shard = gone.shard and saves.account_id = gone.account_id and saves.post_id = $3",
        [shard_of(id_) for id_ in accounts],
        accounts,
        post_id,
    )
    return len(accounts)
