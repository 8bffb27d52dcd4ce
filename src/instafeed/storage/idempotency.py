"""First replies of creating requests, by the key that the client chose.

The id of what a request creates is reserved with its key, before anything happens. A request that is sent again after a
crash therefore creates the same row, and the primary key says that it is there already.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from instafeed.ids import SHARDS, shard_of
from instafeed.storage.database import Connection
from instafeed.storage.pruning import delete_some

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
class Hold:
    """A key that this request holds. Should it hold it for too long, another one takes it over, and this one's hand is
    off it: `locked_until` tells them apart.
    """

    owner: Owner
    key: str
    resource_id: int
    locked_until: datetime

    @property
    def row(self) -> tuple[int, int, str, datetime]:
        """What names the key's row for as long as it is held."""
        return self.owner.shard(self.key), self.owner.account_id, self.key, self.locked_until


@dataclass(frozen=True, slots=True)
class Found:
    """A key that was used before; `status` is None while it is still worked on."""

    fingerprint: bytes
    resource_id: int
    status: int | None
    headers: dict[str, str]
    body: bytes


async def reserve(
    connection: Connection, owner: Owner, key: str, *, fingerprint: bytes, resource_id: int
) -> Hold | Found:
    """Hold `key` for `LOCK_SECONDS`, or find what came of it."""
    while True:
        held = await connection.fetchrow(
            "insert into idempotency_keys as held (shard, account_id, key, fingerprint, resource_id, locked_until)"
            " values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))"
            " on conflict (shard, account_id, key) do update set locked_until = excluded.locked_until"
            " where held.status is null and held.locked_until < now() and held.fingerprint = excluded.fingerprint"
            " returning resource_id, locked_until",
            owner.shard(key),
            owner.account_id,
            key,
            fingerprint,
            resource_id,
            LOCK_SECONDS,
        )
        if held is not None:
            return Hold(owner, key, held["resource_id"], held["locked_until"])
        found = await connection.fetchrow(
            "select fingerprint, resource_id, status, headers, body from idempotency_keys"
            " where shard = $1 and account_id = $2 and key = $3",
            owner.shard(key),
            owner.account_id,
            key,
        )
        # It may have been forgotten in between.
        if found is not None:
            return Found(
                fingerprint=found["fingerprint"],
                resource_id=found["resource_id"],
                status=found["status"],
                headers=found["headers"] or {},
                body=found["body"] or b"",
            )


_HELD = "where shard = $1 and account_id = $2 and key = $3 and locked_until = $4"


async def keep(connection: Connection, hold: Hold, *, status: int, headers: dict[str, str], body: bytes) -> None:
    """Keep the reply."""
    await connection.execute(
        f"update idempotency_keys set status = $5, headers = $6, body = $7 {_HELD}", *hold.row, status, headers, body
    )


async def unlock(connection: Connection, hold: Hold) -> None:
    """Nobody works on it any more and what came of it is unknown: another try may, under the same reserved id."""
    await connection.execute(
        f"update idempotency_keys set locked_until = now() - interval '1 second' {_HELD}", *hold.row
    )


async def forget(connection: Connection, hold: Hold) -> None:
    """Nothing was created: the key may be used for something else."""
    await connection.execute(f"delete from idempotency_keys {_HELD}", *hold.row)


async def forget_old(connection: Connection, *, limit: int) -> int:
    """Delete keys of more than `KEPT_HOURS` ago, of all shards; returns how many."""
    old = "created_at < now() - make_interval(hours => $1)"
    key = ("shard", "account_id", "key")
    return await delete_some(connection, "idempotency_keys", key, old, KEPT_HOURS, limit=limit)
