"""Acts that were undone lately, at the shards of those whom they concerned."""

import time

from instafeed.ids import lowest_at, shard_of
from instafeed.models import ActivityKind
from instafeed.storage.database import Connection
from instafeed.storage.pruning import delete_some

_KEPT_DAYS = 7
"""After the act."""


async def put(
    connection: Connection, act_id: int, account_id: int, kind: ActivityKind, *, actor_id: int, subject_id: int = 0
) -> None:
    """Remember that the actor undid an act, the only one of its kind on this subject."""
    await connection.execute(
        "insert into undone (shard, account_id, kind, subject_id, actor_id, id) values ($1, $2, $3, $4, $5, $6)"
        " on conflict do nothing",
        shard_of(account_id),
        account_id,
        kind,
        subject_id,
        actor_id,
        act_id,
    )


async def take(
    connection: Connection, account_id: int, kind: ActivityKind, *, actor_id: int, subject_id: int = 0
) -> int | None:
    """The id of the act that the actor undid and does again, which is remembered no more; None if there is none."""
    act_id: int | None = await connection.fetchval(
        "delete from undone where shard = $1 and account_id = $2 and kind = $3 and subject_id = $4 and actor_id = $5"
        " returning id",
        shard_of(account_id),
        account_id,
        kind,
        subject_id,
        actor_id,
    )
    return act_id


async def forget_old(connection: Connection, *, limit: int) -> int:
    """Forget acts that are older than some days, of all shards; returns how many."""
    key = ("shard", "account_id", "kind", "subject_id", "actor_id")
    below = lowest_at(time.time() - _KEPT_DAYS * 86_400)
    return await delete_some(connection, "undone", key, "id < $1", below, limit=limit)
