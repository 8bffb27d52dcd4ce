"""The devices that pushes go to."""

from collections.abc import Iterable

from asyncpg import Record

from instafeed.ids import shard_of
from instafeed.models import Device, Platform
from instafeed.storage.database import Connection

_COLUMNS = "devices.account_id, devices.name, devices.id, session_id, platform, address, p256dh, auth, endpoint_arn"
# Of a session that goes on, of an account that is not suspended: a session that idled too long has its row still.
_OPEN = (
    "exists (select from sessions where sessions.shard = devices.shard and sessions.id = session_id"
    " and used_at > now() - make_interval(days => $1)) and exists (select from accounts"
    " where accounts.shard = devices.shard and accounts.id = devices.account_id and suspended_at is null)"
)


def _from_record(record: Record) -> Device:
    return Device(
        account_id=record["account_id"],
        name=record["name"],
        id=record["id"],
        session_id=record["session_id"],
        platform=Platform(record["platform"]),
        address=record["address"],
        p256dh=record["p256dh"],
        auth=record["auth"],
        endpoint_arn=record["endpoint_arn"],
    )


async def put(connection: Connection, device: Device) -> None:
    """Register a device in the place of the one that its account calls the same, and take its address from all others.

    Call it with the session's row locked.
    """
    # Of two who register one address at the same time the second finds the first one's row.
    await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", device.address)
    await connection.execute("delete from devices where address = $1", device.address)
    await connection.execute(
        "insert into devices (shard, account_id, name, id, session_id, platform, address, p256dh, auth)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict (shard, account_id, name) do update set id = excluded.id,"
        " session_id = excluded.session_id, platform = excluded.platform, address = excluded.address,"
        " p256dh = excluded.p256dh, auth = excluded.auth, endpoint_arn = null",
        shard_of(device.account_id),
        device.account_id,
        device.name,
        device.id,
        device.session_id,
        device.platform,
        device.address,
        device.p256dh,
        device.auth,
    )


async def keep_newest(connection: Connection, account_id: int, *, limit: int) -> None:
    """Delete an account's devices but for those that registered last."""
    await connection.execute(
        "delete from devices where shard = $1 and account_id = $2 and id = any(array(select id from devices"
        " where shard = $1 and account_id = $2 order by id desc offset $3))",
        shard_of(account_id),
        account_id,
        limit,
    )


async def delete(connection: Connection, account_id: int, name: str) -> bool:
    """Forget a device; False if there is none of this name."""
    return bool(
        await connection.fetchval(
            "delete from devices where shard = $1 and account_id = $2 and name = $3 returning true",
            shard_of(account_id),
            account_id,
            name,
        )
    )


async def page(connection: Connection, account_id: int, *, below: int, limit: int) -> list[Device]:
    """An account's devices, the one that registered last first, with ids below `below`."""
    records = await connection.fetch(
        f"select {_COLUMNS} from devices where shard = $1 and account_id = $2 and id < $3 order by id desc limit $4",
        shard_of(account_id),
        account_id,
        below,
        limit,
    )
    return [_from_record(record) for record in records]


async def of_accounts(connection: Connection, account_ids: Iterable[int], *, idle_days: int) -> list[Device]:
    """The devices of these accounts, of sessions that go on."""
    wanted = list(account_ids)
    records = await connection.fetch(
        f"select {_COLUMNS} from devices where shard = any($2::smallint[]) and account_id = any($3::bigint[]) and {_OPEN}",
        idle_days,
        list({shard_of(id_) for id_ in wanted}),
        wanted,
    )
    return [_from_record(record) for record in records]


async def forget(connection: Connection, gone: Iterable[Device]) -> None:
    """Delete devices that are out of reach; one that has registered again meanwhile stays."""
    devices = list(gone)
    await connection.execute(
        "delete from devices using unnest($1::smallint[], $2::bigint[], $3::text[], $4::bigint[])"
        " as gone (shard, account_id, name, id) where devices.shard = gone.shard"
        " and devices.account_id = gone.account_id and devices.name = gone.name and devices.id = gone.id",
        [shard_of(device.account_id) for device in devices],
        [device.account_id for device in devices],
        [device.name for device in devices],
        [device.id for device in devices],
    )


async def set_endpoint(connection: Connection, device: Device, endpoint_arn: str) -> None:
    """Note what Amazon SNS calls a device, unless it has registered again meanwhile."""
    await connection.execute(
        "update devices set endpoint_arn = $5 where shard = $1 and account_id = $2 and name = $3 and id = $4",
        shard_of(device.account_id),
        device.account_id,
        device.name,
        device.id,
        endpoint_arn,
    )
