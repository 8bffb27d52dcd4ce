"""How often a post was liked and commented, and a comment replied to.

A counter is the sum of its slots. Whoever counts takes a slot that is free, and makes another one where none is: what few
count has one slot, and many who count at once seldom wait for each other. A slot may be below zero.
"""

from collections.abc import Iterable

from instafeed.ids import shard_of
from instafeed.models import Counts
from instafeed.storage.database import Connection

_SLOTS = 64


async def add(connection: Connection, subject_id: int, *, likes: int = 0, comments: int = 0) -> None:
    """Count for a post or a comment; best at the end of a transaction, until which the slot is taken."""
    counted = await connection.fetchval(
        "with free as materialized (select slot from counters where shard = $1 and subject_id = $2"
        " limit 1 for update skip locked)"
        " update counters set likes = likes + $3, comments = comments + $4 from free"
        " where shard = $1 and subject_id = $2 and counters.slot = free.slot returning true",
        shard_of(subject_id),
        subject_id,
        likes,
        comments,
    )
    if not counted:
        await connection.execute(
            "insert into counters as counter (shard, subject_id, slot, likes, comments)"
            " values ($1, $2, floor(random() * $5::integer), $3, $4) on conflict (shard, subject_id, slot)"
            " do update set likes = counter.likes + excluded.likes, comments = counter.comments + excluded.comments",
            shard_of(subject_id),
            subject_id,
            likes,
            comments,
            _SLOTS,
        )


async def get_many(connection: Connection, subject_ids: Iterable[int]) -> dict[int, Counts]:
    """The counts of each; of what nothing was ever counted for, zeros."""
    found = dict.fromkeys(subject_ids, Counts(0, 0))
    wanted = list(found)
    records = await connection.fetch(
        "select subject_id, sum(likes)::integer as likes, sum(comments)::integer as comments from counters"
        " where shard = any($1::smallint[]) and subject_id = any($2::bigint[]) group by subject_id",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
    )
    found |= {record["subject_id"]: Counts(record["likes"], record["comments"]) for record in records}
    return found


async def delete(connection: Connection, shard: int, subject_ids: Iterable[int]) -> None:
    """Forget the counts of what is gone from this shard."""
    await connection.execute(
        "delete from counters where shard = $1 and subject_id = any($2::bigint[])", shard, list(subject_ids)
    )
