"""What accounts are told of."""

from instafeed.ids import shard_of
from instafeed.storage.database import Connection


async def add_post(connection: Connection, account_ids: list[int], *, author_id: int, post_id: int) -> None:
    """Tell each account of a post, once however often this is called."""
    await connection.execute(
        "insert into activity (shard, account_id, kind, subject_id, actor_id)"
        " select shard, account_id, 'post', $3, $4 from unnest($1::smallint[], $2::bigint[]) as told (shard, account_id)"
        " on conflict do nothing",
        [shard_of(id_) for id_ in account_ids],
        account_ids,
        post_id,
        author_id,
    )
