"""Tokens that only a mail carries. Rows outlive their tokens, so that none comes back by a mail that is sent again late."""

from dataclasses import dataclass

from instafeed.ids import shard_of
from instafeed.storage.database import Connection
from instafeed.storage.pruning import delete_some

_KEPT_DAYS = 7


@dataclass(frozen=True, slots=True)
class Granted:
    """A token that can be used."""

    id: int
    token_hash: bytes
    email: str
    """The address that its mail went to."""


async def grant(
    connection: Connection, account_id: int, token_id: int, *, purpose: str, email: str, token_hash: bytes, hours: int
) -> bool:
    """Let a token count for some hours from now; False if it was used up."""
    return bool(
        await connection.fetchval(
            "insert into mail_tokens as known (shard, account_id, id, purpose, email, token_hash, expires_at)"
            " values ($1, $2, $3, $4, $5, $6, now() + make_interval(hours => $7))"
            " on conflict (shard, account_id, id) do update set email = excluded.email, expires_at = excluded.expires_at"
            " where known.used_at is null returning true",
            shard_of(account_id),
            account_id,
            token_id,
            purpose,
            email,
            token_hash,
            hours,
        )
    )


async def usable(connection: Connection, account_id: int, purpose: str) -> list[Granted]:
    """The tokens of an account that count."""
    records = await connection.fetch(
        "select id, token_hash, email from mail_tokens where shard = $1 and account_id = $2 and purpose = $3"
        " and used_at is null and expires_at > now()",
        shard_of(account_id),
        account_id,
        purpose,
    )
    return [Granted(record["id"], record["token_hash"], record["email"]) for record in records]


async def use_up(connection: Connection, account_id: int, purpose: str) -> None:
    """Let no token of an account count any more that was granted until now."""
    await connection.execute(
        "update mail_tokens set used_at = now() where shard = $1 and account_id = $2 and purpose = $3 and used_at is null",
        shard_of(account_id),
        account_id,
        purpose,
    )


async def forget_old(connection: Connection, *, limit: int) -> int:
    """Delete tokens, of all shards, that expired `_KEPT_DAYS` ago; returns how many."""
    old = "expires_at < now() - make_interval(days => $1)"
    return await delete_some(connection, "mail_tokens", ("shard", "account_id", "id"), old, _KEPT_DAYS, limit=limit)
