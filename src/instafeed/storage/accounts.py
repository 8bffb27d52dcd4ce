"""Accounts and the names that are theirs."""

from collections.abc import Iterable

from asyncpg import Record

from instafeed.errors import EmailTaken, UsernameTaken
from instafeed.ids import shard_of
from instafeed.models import Account, Delivery
from instafeed.storage.database import Connection

COLUMNS = "id, username, display_name, bio, post_count, follower_count, following_count, is_private, suspended_at"


def from_record(record: Record) -> Account:
    """The account of a row that has `COLUMNS`."""
    return Account(
        id=record["id"],
        username=record["username"],
        display_name=record["display_name"],
        bio=record["bio"],
        post_count=record["post_count"],
        follower_count=record["follower_count"],
        following_count=record["following_count"],
        is_private=record["is_private"],
        suspended=record["suspended_at"] is not None,
    )


async def insert(
    connection: Connection, account_id: int, *, username: str, display_name: str, password_hash: str, email: str | None
) -> None:
    """Add an account.

    Raises:
        UsernameTaken, EmailTaken: another account has it.
    """
    claim = "insert into {0} ({1}, account_id) values ($1, $2) on conflict do nothing returning account_id"
    if await connection.fetchval(claim.format("usernames", "username"), username, account_id) is None:
        raise UsernameTaken("Somebody has this username already.")
    if email and await connection.fetchval(claim.format("emails", "email"), email, account_id) is None:
        raise EmailTaken("Another account has this e-mail address.")
    await connection.execute(
        "insert into accounts (shard, id, username, display_name, password_hash) values ($1, $2, $3, $4, $5)",
        shard_of(account_id),
        account_id,
        username,
        display_name,
        password_hash,
    )


async def get_many(connection: Connection, account_ids: Iterable[int]) -> dict[int, Account]:
    """The accounts that exist among `account_ids`."""
    wanted = list(set(account_ids))
    records = await connection.fetch(
        f"select {COLUMNS} from accounts where shard = any($1::smallint[]) and id = any($2::bigint[])",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
    )
    return {record["id"]: from_record(record) for record in records}


async def get(connection: Connection, account_id: int) -> Account | None:
    """One account."""
    record = await connection.fetchrow(
        f"select {COLUMNS} from accounts where shard = $1 and id = $2", shard_of(account_id), account_id
    )
    return from_record(record) if record else None


async def lock(connection: Connection, account_ids: Iterable[int]) -> dict[int, Account]:
    """The accounts that exist among `account_ids`, their rows locked until the transaction ends.

    Whoever decides by how two accounts stand to each other, and changes that, locks both first. They are locked in the
    order of their ids, so that two never wait for each other.
    """
    locked = {}
    for account_id in sorted(set(account_ids)):
        record = await connection.fetchrow(
            f"select {COLUMNS} from accounts where shard = $1 and id = $2 for update", shard_of(account_id), account_id
        )
        if record:
            locked[account_id] = from_record(record)
    return locked


async def update(connection: Connection, account: Account) -> None:
    """Set what its owner may change of an account."""
    await connection.execute(
        "update accounts set display_name = $3, bio = $4, is_private = $5 where shard = $1 and id = $2",
        shard_of(account.id),
        account.id,
        account.display_name,
        account.bio,
        account.is_private,
    )


async def set_suspended(connection: Connection, account_id: int, *, suspended: bool) -> bool:
    """Suspend an account, or end its suspension; False if it left: that is how it is hidden."""
    return bool(
        await connection.fetchval(
            "update accounts set suspended_at = case when $3 then now() end where shard = $1 and id = $2 and left_at is null"
            " returning true",
            shard_of(account_id),
            account_id,
            suspended,
        )
    )


async def leave(connection: Connection, account_id: int) -> None:
    """Hide an account for ever."""
    await connection.execute(
        "update accounts set left_at = now(), suspended_at = now() where shard = $1 and id = $2",
        shard_of(account_id),
        account_id,
    )


async def suspended_among(connection: Connection, account_ids: Iterable[int]) -> set[int]:
    """Which of `account_ids` are suspended."""
    wanted = list(account_ids)
    records = await connection.fetch(
        "select id from accounts where shard = any($1::smallint[]) and id = any($2::bigint[]) and suspended_at is not null",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
    )
    return {record["id"] for record in records}


async def id_of_username(connection: Connection, username: str) -> int | None:
    """Whose name it is."""
    found: int | None = await connection.fetchval("select account_id from usernames where username = $1", username)
    return found


async def password_hash(connection: Connection, account_id: int) -> str | None:
    """The argon2 hash of the account's password."""
    found: str | None = await connection.fetchval(
        "select password_hash from accounts where shard = $1 and id = $2", shard_of(account_id), account_id
    )
    return found


async def count(connection: Connection, changes: dict[int, tuple[int, int, int]]) -> None:
    """Add to (posts, followers, following) of each account, locked in the order of their ids so that two never wait
    for each other.
    """
    for account_id in sorted(changes):
        await connection.execute(
            "update accounts set post_count = post_count + $3, follower_count = follower_count + $4,"
            " following_count = following_count + $5 where shard = $1 and id = $2",
            shard_of(account_id),
            account_id,
            *changes[account_id],
        )


async def delivery(connection: Connection, account_id: int) -> tuple[Delivery, int]:
    """How the account's posts get to followers, and how many it has; (PUSHED, 0) if there is no such account."""
    record = await connection.fetchrow(
        "select delivery, follower_count from accounts where shard = $1 and id = $2", shard_of(account_id), account_id
    )
    return (Delivery(record["delivery"]), record["follower_count"]) if record else (Delivery.PUSHED, 0)


async def set_delivery(connection: Connection, account_id: int, *, old: Delivery, new: Delivery) -> bool:
    """Change how the account's posts get to followers; False if it was not `old`."""
    return bool(
        await connection.fetchval(
            "update accounts set delivery = $4 where shard = $1 and id = $2 and delivery = $3 returning true",
            shard_of(account_id),
            account_id,
            old,
            new,
        )
    )


async def celebrities_among(connection: Connection, account_ids: Iterable[int]) -> list[int]:
    """Those of the accounts whose posts are merged when a feed is read."""
    wanted = list(account_ids)
    records = await connection.fetch(
        "select id from accounts where shard = any($1::smallint[]) and id = any($2::bigint[]) and delivery > 0",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
    )
    return [record["id"] for record in records]
