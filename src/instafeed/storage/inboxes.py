"""How accounts read their activity: how far, and of whom they want to hear. An account that never said anything has no row."""

from collections.abc import Iterable, Mapping
from typing import Any

from asyncpg import Record

from instafeed.ids import shard_of
from instafeed.models import ActivityKind, Audience, Channel, Inbox, Preferences
from instafeed.storage.database import Connection


def _from_record(record: Record) -> Inbox:
    return Inbox(record["read_id"], _preferences(record["preferences"]))


def _preferences(value: Mapping[str, Mapping[str, str]]) -> Preferences:
    return Preferences(
        {
            ActivityKind(kind): {Channel(channel): Audience(audience) for channel, audience in said.items()}
            for kind, said in value.items()
        }
    )


def _column(preferences: Preferences) -> dict[str, Any]:
    return {kind: dict(said) for kind, said in preferences.said.items()}


async def get_many(connection: Connection, account_ids: Iterable[int]) -> dict[int, Inbox]:
    """How each of these accounts reads its activity."""
    found = dict.fromkeys(account_ids, Inbox())
    wanted = list(found)
    records = await connection.fetch(
        "select account_id, read_id, preferences from inboxes"
        " where shard = any($1::smallint[]) and account_id = any($2::bigint[])",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
    )
    return found | {record["account_id"]: _from_record(record) for record in records}


async def get(connection: Connection, account_id: int) -> Inbox:
    """How the account reads its activity."""
    return (await get_many(connection, [account_id]))[account_id]


async def set_read(connection: Connection, account_id: int, read_id: int) -> None:
    """Note that everything up to this id was seen; what was seen stays so."""
    await connection.execute(
        "insert into inboxes as inbox (shard, account_id, read_id) values ($1, $2, $3) on conflict (shard, account_id)"
        " do update set read_id = greatest(inbox.read_id, excluded.read_id)",
        shard_of(account_id),
        account_id,
        read_id,
    )


async def set_preferences(connection: Connection, account_id: int, preferences: Preferences) -> None:
    """Keep of whose acts the account wants to be told."""
    await connection.execute(
        "insert into inboxes (shard, account_id, preferences) values ($1, $2, $3) on conflict (shard, account_id)"
        " do update set preferences = excluded.preferences",
        shard_of(account_id),
        account_id,
        _column(preferences),
    )
