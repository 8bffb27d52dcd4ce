"""Who blocks whom: each block is a row at the blocker's shard and one at the blocked account's."""

from instafeed.ids import shard_of
from instafeed.storage.database import Connection


async def insert(connection: Connection, block_id: int, *, blocker: int, blocked: int) -> None:
    """Make `blocker` block `blocked`, which it does not yet."""
    await connection.execute(
        "insert into blocks (shard, blocker_id, blocked_id, id) values ($1, $2, $3, $4)",
        shard_of(blocker),
        blocker,
        blocked,
        block_id,
    )
    await connection.execute(
        "insert into blocked_by (shard, blocked_id, blocker_id) values ($1, $2, $3)",
        shard_of(blocked),
        blocked,
        blocker,
    )


async def delete(connection: Connection, *, blocker: int, blocked: int) -> bool:
    """End a block; False if there is none."""
    gone = await connection.fetchval(
        "delete from blocks where shard = $1 and blocker_id = $2 and blocked_id = $3 returning true",
        shard_of(blocker),
        blocker,
        blocked,
    )
    await connection.execute(
        "delete from blocked_by where shard = $1 and blocked_id = $2 and blocker_id = $3",
        shard_of(blocked),
        blocked,
        blocker,
    )
    return bool(gone)


async def page(connection: Connection, account_id: int, *, below: int, limit: int) -> list[tuple[int, int]]:
    """(block id, account) of whom the account blocks, newest first, with ids below `below`."""
    records = await connection.fetch(
        "select id, blocked_id from blocks where shard = $1 and blocker_id = $2 and id < $3 order by id desc limit $4",
        shard_of(account_id),
        account_id,
        below,
        limit,
    )
    return [(record["id"], record["blocked_id"]) for record in records]
