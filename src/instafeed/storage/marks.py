"""Which posts a viewer likes and has saved: rows at the viewer's shard."""

from collections.abc import Iterable

from instafeed.ids import shard_of
from instafeed.models import Marks
from instafeed.storage.database import Connection

_AMONG = (
    "select 'liked' as mark, post_id from likes where shard = $1 and account_id = $2 and post_id = any($3::bigint[])"
    " union all"
    " select 'saved', post_id from saves where shard = $1 and account_id = $2 and post_id = any($3::bigint[])"
)
_NEWEST = (
    "select 'liked' as mark, post_id from ("
    "select post_id from likes where shard = $1 and account_id = $2 order by post_id desc limit $3) as liked"
    " union all select 'saved', post_id from ("
    "select post_id from saves where shard = $1 and account_id = $2 order by post_id desc limit $3) as saved"
)


async def among(connection: Connection, account_id: int, post_ids: Iterable[int]) -> dict[int, Marks]:
    """How the account has marked these posts; those that it has not are left out."""
    return (await _read(connection, _AMONG, account_id, list(post_ids)))[0]


async def newest(connection: Connection, account_id: int, *, limit: int) -> tuple[dict[int, Marks], int]:
    """How the account has marked posts, the newest of them, and the id from which on none is left out."""
    found, ids = await _read(connection, _NEWEST, account_id, limit)
    return found, max((min(of_kind) for of_kind in ids.values() if len(of_kind) == limit), default=0)


async def _read(
    connection: Connection, statement: str, account_id: int, argument: object
) -> tuple[dict[int, Marks], dict[str, list[int]]]:
    ids: dict[str, list[int]] = {"liked": [], "saved": []}
    for record in await connection.fetch(statement, shard_of(account_id), account_id, argument):
        ids[record["mark"]].append(record["post_id"])
    liked, saved = set(ids["liked"]), set(ids["saved"])
    return {id_: Marks(id_ in liked, id_ in saved) for id_ in liked | saved}, ids
