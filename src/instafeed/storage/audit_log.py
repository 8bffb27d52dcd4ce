"""What admins and operators did. Rows are added and never change: the database refuses it."""

from asyncpg import Record

from instafeed.models import Action, AuditEntry, Subject
from instafeed.storage.database import Connection

_COLUMNS = "id, admin_id, operator, action, subject_kind, subject_id, account_id, case_id, note"


async def add(
    connection: Connection,
    entry_id: int,
    action: Action,
    subject: Subject,
    *,
    account_id: int,
    by: int | str,
    note: str,
    case_id: int | None = None,
) -> None:
    """Note an action, in the transaction that does it.

    Args:
        connection: in the transaction.
        entry_id: a new id.
        action: what was done.
        subject: to what.
        account_id: whose the subject is.
        by: the admin's id, or the name of the operator at the command line.
        note: why, in their words.
        case_id: the case of reports that it resolved.
    """
    await connection.execute(
        f"insert into audit_log ({_COLUMNS}) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        entry_id,
        by if isinstance(by, int) else None,
        by if isinstance(by, str) else None,
        action,
        subject.kind,
        subject.id,
        account_id,
        case_id,
        note,
    )


def _from_record(record: Record) -> AuditEntry:
    return AuditEntry(
        id=record["id"],
        admin_id=record["admin_id"],
        operator=record["operator"],
        action=record["action"],
        subject=Subject(record["subject_kind"], record["subject_id"]),
        account_id=record["account_id"],
        case_id=record["case_id"],
        note=record["note"],
    )


async def page(connection: Connection, *, below: int, limit: int) -> list[AuditEntry]:
    """Everything, newest first, with ids below `below`."""
    records = await connection.fetch(
        f"select {_COLUMNS} from audit_log where id < $1 order by id desc limit $2", below, limit
    )
    return [_from_record(record) for record in records]


async def page_of_account(connection: Connection, account_id: int, *, below: int, limit: int) -> list[AuditEntry]:
    """What concerns an account, newest first, with ids below `below`."""
    records = await connection.fetch(
        f"select {_COLUMNS} from audit_log where account_id = $1 and id < $2 order by id desc limit $3",
        account_id,
        below,
        limit,
    )
    return [_from_record(record) for record in records]
