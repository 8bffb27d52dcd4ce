"""What accounts are told of."""

from collections.abc import Iterable

from instafeed.ids import shard_of
from instafeed.storage.database import Connection


async def add_post(connection: Connection, account_ids: Iterable[int], *, author_id: int, post_id: int) -> None:
    """Tell each account of a post, once however often this is called."""
    await _add(connection, "post", account_ids, author_id=author_id, post_id=post_id)


async def add_mentions(connection: Connection, account_ids: Iterable[int], *, author_id: int, post_id: int) -> None:
    """Tell each account that a post mentions it, once however often this is called."""
    await _add(connection, "mention", account_ids, author_id=author_id, post_id=post_id)


async def remove_mentions(connection: Connection, account_ids: Iterable[int], *, author_id: int, post_id: int) -> None:
    """Take back that a post mentions these accounts."""
    gone = list(account_ids)
    await connection.execute(
        "delete from activity where shard = any($1::smallint[]) and account_id = any($2::bigint[]) and kind = 'mention'"
        " and subject_id = $3 and actor_id = $4",
        [shard_of(id_) for id_ in gone],
        gone,
        post_id,
        author_id,
    )


async def _add(connection: Connection, kind: str, account_ids: Iterable[int], *, author_id: int, post_id: int) -> None:
    told = list(account_ids)
    await connection.execute(
        "insert into activity (shard, account_id, kind, subject_id, actor_id)"
        " select shard, account_id, $5, $3, $4 from unnest($1::smallint[], $2::bigint[]) as told (shard, account_id)"
        " on conflict do nothing",
        [shard_of(id_) for id_ in told],
        told,
        post_id,
        author_id,
        kind,
    )
