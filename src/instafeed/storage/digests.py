"""How far accounts were told by mail of what is unread: columns of their inboxes."""

from collections.abc import Iterable

from instafeed.ids import shard_of
from instafeed.storage.database import Connection


async def begin(connection: Connection, account_ids: Iterable[int], *, pause: float) -> dict[int, float]:
    """Let a mail wait for each of these accounts that has an address; returns those for which none waited, and in how many
    seconds `pause` has passed since the last one.
    """
    wanted = list(account_ids)
    records = await connection.fetch(
        "insert into inboxes as inbox (shard, account_id, mail_waits) select shard, id, true from accounts"
        " where shard = any($1::smallint[]) and id = any($2::bigint[]) and email is not null order by id"
        " on conflict (shard, account_id) do update set mail_waits = true where not inbox.mail_waits"
        " returning account_id, greatest(coalesce(extract(epoch from mailed_at - now())::float8 + $3, 0), 0) as seconds",
        list({shard_of(id_) for id_ in wanted}),
        wanted,
        pause,
    )
    return {record["account_id"]: record["seconds"] for record in records}


async def lock(connection: Connection, account_id: int) -> int:
    """Where the newest entry stood that a mail told of."""
    mailed_id: int | None = await connection.fetchval(
        "select mailed_id from inboxes where shard = $1 and account_id = $2 for update",
        shard_of(account_id),
        account_id,
    )
    return mailed_id or 0


async def take(connection: Connection, account_id: int, *, sends: bool) -> None:
    """No mail waits any more: what comes now is for the next one. If it `sends` one, the pause begins."""
    await connection.execute(
        "update inboxes set mail_waits = false, mailed_at = case when $3 then now() else mailed_at end"
        " where shard = $1 and account_id = $2",
        shard_of(account_id),
        account_id,
        sends,
    )


async def mark(connection: Connection, account_id: int, up_to: int) -> None:
    """Remember where the newest entry stood that a mail told of."""
    await connection.execute(
        "update inboxes set mailed_id = greatest(mailed_id, $3) where shard = $1 and account_id = $2",
        shard_of(account_id),
        account_id,
        up_to,
    )
