"""How a viewer stands to accounts. Every edge has a row at the viewer's shard, so one statement there tells it all."""

from collections.abc import Iterable

from instafeed.ids import shard_of
from instafeed.models import Relation
from instafeed.storage.database import Connection

_EDGES = (
    "select 'following' as edge, followee_id as other, notify from following"
    " where shard = $1 and follower_id = $2 and followee_id = any($3::bigint[])"
    " union all select 'requested', followee_id, false from requesting"
    " where shard = $1 and requester_id = $2 and followee_id = any($3::bigint[])"
    " union all select 'followed_by', follower_id, false from followers"
    " where shard = $1 and followee_id = $2 and follower_id = any($3::bigint[])"
    " union all select 'blocking', blocked_id, false from blocks"
    " where shard = $1 and blocker_id = $2 and blocked_id = any($3::bigint[])"
    " union all select 'blocked_by', blocker_id, false from blocked_by"
    " where shard = $1 and blocked_id = $2 and blocker_id = any($3::bigint[])"
    " union all select 'muting', muted_id, false from mutes"
    " where shard = $1 and muter_id = $2 and muted_id = any($3::bigint[])"
)


async def get_many(connection: Connection, viewer: int, account_ids: Iterable[int]) -> dict[int, Relation]:
    """How `viewer` stands to each of `account_ids`."""
    found: dict[int, dict[str, bool]] = {id_: {} for id_ in account_ids}
    others = [id_ for id_ in found if id_ != viewer]
    for record in await connection.fetch(_EDGES, shard_of(viewer), viewer, others) if others else []:
        edges = found[record["other"]]
        edges[record["edge"]] = True
        if record["edge"] == "following":
            edges["notify"] = record["notify"]
    return {id_: Relation(**edges) for id_, edges in found.items()}


async def kept_away(connection: Connection, viewer: int) -> set[int]:
    """Whom `viewer` mutes or blocks, and who blocks it."""
    records = await connection.fetch(
        "select muted_id as other from mutes where shard = $1 and muter_id = $2"
        " union all select blocked_id from blocks where shard = $1 and blocker_id = $2"
        " union all select blocker_id from blocked_by where shard = $1 and blocked_id = $2",
        shard_of(viewer),
        viewer,
    )
    return {record["other"] for record in records}


async def get(connection: Connection, viewer: int, account_id: int) -> Relation:
    """How `viewer` stands to one account."""
    return (await get_many(connection, viewer, [account_id]))[account_id]
