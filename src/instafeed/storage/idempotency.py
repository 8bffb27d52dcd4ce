"""First replies of creating requests, by the key that the client chose.

The id of what a request creates is reserved with its key, before anything happens. A request that is sent again after a
crash therefore creates the same row, and the primary key says that it is there already.
"""

import hashlib
from dataclasses import dataclass

from instafeed.ids import SHARDS, shard_of
from instafeed.storage.database import Connection

LOCK_SECONDS = 60.0
KEPT_HOURS = 24


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose keys: an account, or (id 0) everybody without a session, spread over shards by key."""

    account_id: int

    def shard(self, key: str) -> int:
        """The shard of `key`."""
        if self.account_id:
            return shard_of(self.account_id)
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:2]) % SHARDS


@dataclass(frozen=True, slots=True)
class Reservation:
    """A key as it was found: `mine` if this request holds it now."""

    fingerprint: bytes
    resource_id: int
    mine: bool
    status: int | None
    headers: dict[str, str] | None
    body: bytes | None


async def reserve(
    connection: Connection, owner: Owner, key: str, *, fingerprint: bytes, resource_id: int
) -> Reservation:
    """Hold `key` for `LOCK_SECONDS`, or find who holds it, or what was answered."""
    record = await connection.fetchrow(
        "insert into idempotency_keys as held (shard, account_id, key, fingerprint, resource_id, locked_until)"
        " values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6)) on conflict (shard, account_id, key) do update"
        " set locked_until = case when held.status is null and held.locked_until < now() and held.fingerprint = $4"
        " then excluded.locked_until else held.locked_until end"
        " returning fingerprint, resource_id, status, headers, body, locked_until = now() + make_interval(secs => $6) as mine",
        owner.shard(key),
        owner.account_id,
        key,
        fingerprint,
        resource_id,
        LOCK_SECONDS,
    )
    assert record is not None
    return Reservation(
        fingerprint=record["fingerprint"],
        resource_id=record["resource_id"],
        mine=record["mine"] and record["status"] is None,
        status=record["status"],
        headers=record["headers"],
        body=record["body"],
    )


async def keep(
    connection: Connection, owner: Owner, key: str, *, status: int, headers: dict[str, str], body: bytes
) -> None:
    """Keep the reply."""
    await connection.execute(
        "update idempotency_keys set status = $4, headers = $5, body = $6 where shard = $1 and account_id = $2 and key = $3",
        owner.shard(key),
        owner.account_id,
        key,
        status,
        headers,
        body,
    )


async def unlock(connection: Connection, owner: Owner, key: str) -> None:
    """Nobody works on it any more and what came of it is unknown: another try may, under the same reserved id."""
    await connection.execute(
        "update idempotency_keys set locked_until = now() - interval '1 second' where shard = $1 and account_id = $2 and key = $3",
        owner.shard(key),
        owner.account_id,
        key,
    )


async def forget(connection: Connection, owner: Owner, key: str) -> None:
    """Nothing was created: the key may be used for something else."""
    await connection.execute(
        "delete from idempotency_keys where shard = $1 and account_id = $2 and key = $3",
        owner.shard(key),
        owner.account_id,
        key,
    )


async def forget_old(connection: Connection) -> None:
    """Delete keys of more than `KEPT_HOURS` ago, of all shards."""
    await connection.execute(
        "delete from idempotency_keys where created_at < now() - make_interval(hours => $1)", KEPT_HOURS
    )
