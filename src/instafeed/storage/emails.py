"""E-mail addresses: whose they are, and which of them wait to be confirmed."""

from instafeed.errors import EmailTaken
from instafeed.ids import shard_of
from instafeed.models import Emails
from instafeed.storage.database import Connection


async def get(connection: Connection, account_id: int) -> Emails:
    """The addresses of an account."""
    record = await connection.fetchrow(
        "select email, pending_email from accounts where shard = $1 and id = $2", shard_of(account_id), account_id
    )
    return Emails(record["email"], record["pending_email"]) if record else Emails()


async def put(connection: Connection, account_id: int, *, before: Emails, after: Emails) -> None:
    """Give an account, whose row is locked, other addresses.

    Raises:
        EmailTaken: another account confirmed the one that is confirmed now.
    """
    if before.confirmed and before.confirmed != after.confirmed:
        await connection.execute(
            "delete from emails where email = $1 and account_id = $2", before.confirmed, account_id
        )
    if after.confirmed and before.confirmed != after.confirmed:
        await _claim(connection, account_id, after.confirmed)
    await connection.execute(
        "update accounts set email = $3, pending_email = $4 where shard = $1 and id = $2",
        shard_of(account_id),
        account_id,
        after.confirmed,
        after.pending,
    )


async def _claim(connection: Connection, account_id: int, address: str) -> None:
    claimed = await connection.fetchval(
        "insert into emails as known (email, account_id, confirmed_at) values ($1, $2, now())"
        " on conflict (email) do update set account_id = excluded.account_id, confirmed_at = excluded.confirmed_at"
        " where known.confirmed_at is null returning account_id",
        address,
        account_id,
    )
    if claimed is None:
        raise EmailTaken("Another account has this e-mail address.")


async def owner(connection: Connection, address: str) -> int | None:
    """Which account confirmed an address."""
    found: int | None = await connection.fetchval(
        "select account_id from emails where email = $1 and confirmed_at is not null", address
    )
    return found
