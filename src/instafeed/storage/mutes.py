"""Who mutes whom: rows at the muter's shard only."""

from collections.abc import Iterable

from instafeed.ids import shard_of
from instafeed.storage.database import Connection


async def insert(connection: Connection, mute_id: int, *, muter: int, muted: int) -> bool:
    """Make `muter` mute `muted`; False if it does already."""
    return bool(
        await connection.fetchval(
            "insert into mutes (shard, muter_id, muted_id, id) values ($1, $2, $3, $4)"
            " on conflict (shard, muter_id, muted_id) do nothing returning true",
            shard_of(muter),
            muter,
            muted,
            mute_id,
        )
    )


async def delete(connection: Connection, *, muter: int, muted: int) -> bool:
    """End a mute; False if there is none."""
    return bool(
        await connection.fetchval(
            "delete from mutes where shard = $1 and muter_id = $2 and muted_id = $3 returning true",
            shard_of(muter),
            muter,
            muted,
        )
    )


async def muters_among(connection: Connection, muted: int, candidates: Iterable[int]) -> set[int]:
    """Who of `candidates` mutes `muted`; `candidates` are of any shards."""
    wanted = list(candidates)
    records = await connection.fetch(
        "select muter_id from mutes where shard = any($1::smallint[]) and muter_id = any($2::bigint[]) and muted_id = $3",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
        muted,
    )
    return {record["muter_id"] for record in records}


async def page(connection: Connection, account_id: int, *, below: int, limit: int) -> list[tuple[int, int]]:
    """(mute id, account) of whom the account mutes, newest first, with ids below `below`."""
    records = await connection.fetch(
        "select id, muted_id from mutes where shard = $1 and muter_id = $2 and id < $3 order by id desc limit $4",
        shard_of(account_id),
        account_id,
        below,
        limit,
    )
    return [(record["id"], record["muted_id"]) for record in records]
