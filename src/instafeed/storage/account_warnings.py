"""What accounts were warned of."""

from instafeed.ids import shard_of
from instafeed.models import AccountWarning, Subject
from instafeed.storage.database import Connection


async def insert(connection: Connection, warning: AccountWarning, *, account_id: int) -> None:
    """Warn an account."""
    await connection.execute(
        "insert into warnings (shard, account_id, id, subject_kind, subject_id, message) values ($1, $2, $3, $4, $5, $6)",
        shard_of(account_id),
        account_id,
        warning.id,
        warning.subject.kind,
        warning.subject.id,
        warning.message,
    )


async def page(connection: Connection, account_id: int, *, below: int, limit: int) -> list[AccountWarning]:
    """The account's warnings, newest first, with ids below `below`."""
    records = await connection.fetch(
        "select id, subject_kind, subject_id, message from warnings where shard = $1 and account_id = $2 and id < $3"
        " order by id desc limit $4",
        shard_of(account_id),
        account_id,
        below,
        limit,
    )
    return [
        AccountWarning(record["id"], Subject(record["subject_kind"], record["subject_id"]), record["message"])
        for record in records
    ]
