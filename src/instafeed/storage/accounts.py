"""Accounts and the names that are theirs."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta

from asyncpg import Record

from instafeed.errors import UsernameTaken
from instafeed.ids import shard_of
from instafeed.models import Account, Delivery, Rendition
from instafeed.storage import search
from instafeed.storage.database import Connection

HELD_DAYS = 14
COLUMNS = "id, username, display_name, bio, website, post_count, follower_count, following_count, is_private, suspended_at, avatar"


def from_record(record: Record) -> Account:
    """The account of a row that has `COLUMNS`."""
    return Account(
        id=record["id"],
        username=record["username"],
        display_name=record["display_name"],
        bio=record["bio"],
        website=record["website"],
        post_count=record["post_count"],
        follower_count=record["follower_count"],
        following_count=record["following_count"],
        is_private=record["is_private"],
        suspended=record["suspended_at"] is not None,
        avatar=tuple(Rendition(**rendition) for rendition in record["avatar"] or ()),
    )


async def insert(
    connection: Connection, account_id: int, *, username: str, display_name: str, password_hash: str
) -> None:
    """Add an account.

    Raises:
        UsernameTaken: somebody else has it, or had it until lately.
    """
    await _claim_username(connection, account_id, username)
    await connection.execute(
        "insert into accounts (shard, id, username, display_name, password_hash) values ($1, $2, $3, $4, $5)",
        shard_of(account_id),
        account_id,
        username,
        display_name,
        password_hash,
    )


async def _claim_username(connection: Connection, account_id: int, username: str) -> None:
    claimed = await connection.fetchval(
        "insert into usernames as held (username, account_id) values ($1, $2) on conflict (username) do update"
        " set account_id = excluded.account_id, held_until = null"
        " where held.held_until < now() or (held.held_until is not null and held.account_id = excluded.account_id)"
        " returning account_id",
        username,
        account_id,
    )
    if claimed is None:
        raise UsernameTaken("Somebody has this username already.")


async def rename(connection: Connection, account: Account, username: str) -> None:
    """Give an account, whose row is locked, another name; its own is held for it for `HELD_DAYS`.

    Raises:
        UsernameTaken: somebody else has it, or had it until lately.
    """
    await connection.execute(
        "update usernames set held_until = now() + make_interval(days => $2) where username = $1",
        account.username,
        HELD_DAYS,
    )
    await _claim_username(connection, account.id, username)
    await connection.execute(
        "update accounts set username = $3 where shard = $1 and id = $2", shard_of(account.id), account.id, username
    )


async def names_held(connection: Connection, account_id: int) -> list[timedelta]:
    """For how long the former names of an account are held still, the one that is free first at the head."""
    records = await connection.fetch(
        "select held_until - now() as rest from usernames where account_id = $1 and held_until > now() order by held_until",
        account_id,
    )
    return [record["rest"] for record in records]


async def forget_names(connection: Connection, *, limit: int) -> int:
    """Let go of the names that are held no more; returns of how many."""
    records = await connection.fetch(
        "delete from usernames where username = any(array(select username from usernames where held_until < now() limit $1))"
        " and held_until < now() returning 1",
        limit,
    )
    return len(records)


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
        "update accounts set display_name = $3, bio = $4, website = $5, is_private = $6 where shard = $1 and id = $2",
        shard_of(account.id),
        account.id,
        account.display_name,
        account.bio,
        account.website,
        account.is_private,
    )


async def avatar_id(connection: Connection, account_id: int) -> int | None:
    """The photo that an account is shown with."""
    found: int | None = await connection.fetchval(
        "select avatar_id from accounts where shard = $1 and id = $2", shard_of(account_id), account_id
    )
    return found


async def set_avatar(
    connection: Connection, account_id: int, media_id: int | None, renditions: Iterable[Rendition]
) -> None:
    """Show an account with a photo, or None, that has these renditions."""
    await connection.execute(
        "update accounts set avatar_id = $3, avatar = $4 where shard = $1 and id = $2",
        shard_of(account_id),
        account_id,
        media_id,
        [asdict(rendition) for rendition in renditions] if media_id else None,
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
    """Hide an account for ever; its name is held as one that it gave up."""
    await connection.execute(
        "update usernames set held_until = now() + make_interval(days => $2) where account_id = $1 and held_until is null",
        account_id,
        HELD_DAYS,
    )
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


async def public_among(connection: Connection, account_ids: Iterable[int]) -> set[int]:
    """Which of `account_ids` show their posts to everybody who is not on the other side of a block."""
    wanted = list(account_ids)
    records = await connection.fetch(
        "select id from accounts where shard = any($1::smallint[]) and id = any($2::bigint[]) and suspended_at is null"
        " and not is_private",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
    )
    return {record["id"] for record in records}


async def id_of_username(connection: Connection, username: str) -> int | None:
    """Whose name it is, or was and is held still."""
    found: int | None = await connection.fetchval(
        "select account_id from usernames where username = $1 and (held_until is null or held_until > now())", username
    )
    return found


async def ids_of_usernames(connection: Connection, usernames: Iterable[str]) -> dict[str, int]:
    """Whose names these are, or were until lately, without those that are nobody's."""
    records = await connection.fetch(
        "select username, account_id from usernames where username = any($1::text[])"
        " and (held_until is null or held_until > now())",
        list(usernames),
    )
    return {record["username"]: record["account_id"] for record in records}


async def password_hash(connection: Connection, account_id: int) -> str | None:
    """The argon2 hash of the account's password."""
    found: str | None = await connection.fetchval(
        "select password_hash from accounts where shard = $1 and id = $2", shard_of(account_id), account_id
    )
    return found


async def set_password(connection: Connection, account_id: int, password_hash: str) -> None:
    """Give an account another password."""
    await connection.execute(
        "update accounts set password_hash = $3 where shard = $1 and id = $2",
        shard_of(account_id),
        account_id,
        password_hash,
    )


async def count(connection: Connection, changes: dict[int, tuple[int, int, int]]) -> None:
    """Add to (posts, followers, following) of each account, locked in the order of their ids so that two never wait
    for each other.
    """
    for account_id in sorted(changes):
        followers = await connection.fetchval(
            "update accounts set post_count = post_count + $3, follower_count = follower_count + $4,"
            " following_count = following_count + $5 where shard = $1 and id = $2 returning follower_count",
            shard_of(account_id),
            account_id,
            *changes[account_id],
        )
        if followers is not None and search.level(followers) != search.level(followers - changes[account_id][1]):
            await search.set_level(connection, account_id, followers=followers)


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
