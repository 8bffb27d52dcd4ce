"""The devices that are logged in."""

from asyncpg import Record

from instafeed.ids import shard_of
from instafeed.models import Session
from instafeed.storage.database import Connection


def _from_record(record: Record) -> Session:
    return Session(id=record["id"], device_name=record["device_name"], used_at=record["used_at"])


async def insert(
    connection: Connection, session_id: int, *, account_id: int, token_hash: bytes, device_name: str
) -> None:
    """Add a log-in, once: a second call with the same id changes nothing."""
    await connection.execute(
        "insert into sessions (shard, id, account_id, token_hash, device_name) values ($1, $2, $3, $4, $5)"
        " on conflict (shard, id) do nothing",
        shard_of(account_id),
        session_id,
        account_id,
        token_hash,
        device_name,
    )


async def get(connection: Connection, account_id: int, session_id: int) -> Session | None:
    """One session of the account."""
    record = await connection.fetchrow(
        "select id, device_name, used_at from sessions where shard = $1 and id = $2 and account_id = $3",
        shard_of(account_id),
        session_id,
        account_id,
    )
    return _from_record(record) if record else None


async def share(connection: Connection, account_id: int, session_id: int) -> bool:
    """Let nobody end a session of the account until the transaction ends; False if it has ended."""
    return bool(
        await connection.fetchval(
            "select true from sessions where shard = $1 and id = $2 and account_id = $3 for key share",
            shard_of(account_id),
            session_id,
            account_id,
        )
    )


async def use(connection: Connection, account_id: int, token_hash: bytes, *, idle_days: int) -> int | None:
    """The id of the session with this token, marked as used now; None if there is none, it idled too long, or the
    account is suspended.
    """
    found: int | None = await connection.fetchval(
        "update sessions set used_at = now() where shard = $1 and account_id = $2 and token_hash = $3"
        " and used_at > now() - make_interval(days => $4)"
        " and exists (select from accounts where shard = $1 and id = $2 and suspended_at is null) returning id",
        shard_of(account_id),
        account_id,
        token_hash,
        idle_days,
    )
    return found


async def page(connection: Connection, account_id: int, *, below: int, limit: int, idle_days: int) -> list[Session]:
    """The account's sessions that did not idle too long, newest first, with ids below `below`."""
    records = await connection.fetch(
        "select id, device_name, used_at from sessions where shard = $1 and account_id = $2 and id < $3"
        " and used_at > now() - make_interval(days => $5) order by id desc limit $4",
        shard_of(account_id),
        account_id,
        below,
        limit,
        idle_days,
    )
    return [_from_record(record) for record in records]


async def delete(connection: Connection, account_id: int, session_id: int) -> bytes | None:
    """End a session of the account; returns its token's hash, None if there is no such session."""
    token_hash: bytes | None = await connection.fetchval(
        "delete from sessions where shard = $1 and account_id = $2 and id = $3 returning token_hash",
        shard_of(account_id),
        account_id,
        session_id,
    )
    return token_hash


async def delete_others(connection: Connection, account_id: int, session_id: int) -> list[bytes]:
    """End all sessions of the account but this one (0: all of them); returns their tokens' hashes."""
    records = await connection.fetch(
        "delete from sessions where shard = $1 and account_id = $2 and id <> $3 returning token_hash",
        shard_of(account_id),
        account_id,
        session_id,
    )
    return [record["token_hash"] for record in records]
