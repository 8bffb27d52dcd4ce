"""Who follows which tags: rows at the account's shard only. Nobody asks who follows a tag."""

from collections.abc import Iterable

from instafeed.ids import shard_of
from instafeed.storage.database import Connection


async def insert(connection: Connection, follow_id: int, *, account_id: int, tag: str) -> bool:
    """Make the account follow a tag; False if it does already."""
    return bool(
        await connection.fetchval(
            "insert into followed_tags (shard, account_id, tag, id) values ($1, $2, $3, $4)"
            " on conflict (shard, account_id, tag) do nothing returning true",
            shard_of(account_id),
            account_id,
            tag,
            follow_id,
        )
    )


async def delete(connection: Connection, *, account_id: int, tag: str) -> bool:
    """Make the account follow a tag no more; False if it does not."""
    return bool(
        await connection.fetchval(
            "delete from followed_tags where shard = $1 and account_id = $2 and tag = $3 returning true",
            shard_of(account_id),
            account_id,
            tag,
        )
    )


async def of_account(connection: Connection, account_id: int) -> list[str]:
    """All tags that the account follows, in their alphabet's order."""
    records = await connection.fetch(
        "select tag from followed_tags where shard = $1 and account_id = $2 order by tag",
        shard_of(account_id),
        account_id,
    )
    return [record["tag"] for record in records]


async def among(connection: Connection, account_id: int, tags: Iterable[str]) -> set[str]:
    """Which of `tags` the account follows."""
    records = await connection.fetch(
        "select tag from followed_tags where shard = $1 and account_id = $2 and tag = any($3::text[])",
        shard_of(account_id),
        account_id,
        list(tags),
    )
    return {record["tag"] for record in records}


async def page(connection: Connection, account_id: int, *, below: int, limit: int) -> list[tuple[int, str]]:
    """(follow id, tag) of the account, newest first, with follow ids below `below`."""
    records = await connection.fetch(
        "select id, tag from followed_tags where shard = $1 and account_id = $2 and id < $3 order by id desc limit $4",
        shard_of(account_id),
        account_id,
        below,
        limit,
    )
    return [(record["id"], record["tag"]) for record in records]
