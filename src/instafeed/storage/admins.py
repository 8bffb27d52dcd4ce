"""Who is an admin."""

from instafeed.ids import shard_of
from instafeed.storage.database import Connection


async def is_admin(connection: Connection, account_id: int) -> bool:
    """Whether the account is an admin's, and not suspended."""
    return bool(
        await connection.fetchval(
            "select true from admins join accounts account on account.id = admins.account_id"
            " where admins.account_id = $2 and account.shard = $1 and account.id = $2 and account.suspended_at is null",
            shard_of(account_id),
            account_id,
        )
    )


async def insert(connection: Connection, account_id: int) -> bool:
    """Make the account, which is locked, an admin's; False if it is one already."""
    return bool(
        await connection.fetchval(
            "insert into admins (account_id) values ($1) on conflict do nothing returning true", account_id
        )
    )


async def delete(connection: Connection, account_id: int) -> bool:
    """Make the account, which is locked, an admin's no more; False if it is none."""
    return bool(await connection.fetchval("delete from admins where account_id = $1 returning true", account_id))
