"""What was reported. All reports of a subject that nobody has resolved yet are one case."""

from asyncpg import Record

from instafeed.ids import shard_of
from instafeed.models import Action, Case, Report, Subject
from instafeed.storage.database import Connection

_COLUMNS = "id, subject_kind, subject_id, account_id, report_count, reasons, resolution, resolved_by, resolved_at"


def _from_record(record: Record) -> Case:
    return Case(
        id=record["id"],
        subject=Subject(record["subject_kind"], record["subject_id"]),
        account_id=record["account_id"],
        report_count=record["report_count"],
        reasons=tuple(record["reasons"]),
        resolution=record["resolution"],
        resolved_by=record["resolved_by"],
        resolved_at=record["resolved_at"],
    )


async def get(connection: Connection, report_id: int, *, reporter_id: int, subject_id: int) -> Report | None:
    """One report of a subject, whether its case is open or not."""
    record = await connection.fetchrow(
        "select id, reporter_id, reason, detail from reports where shard = $1 and reporter_id = $2 and id = $3",
        shard_of(subject_id),
        reporter_id,
        report_id,
    )
    return Report(**record) if record else None


async def open_case(connection: Connection, case_id: int, subject: Subject, *, account_id: int) -> int:
    """The open case of the subject, which is made under `case_id` if there is none. It stays open until the transaction
    ends: whoever would resolve it waits.
    """
    found: int = await connection.fetchval(
        "insert into report_cases as found (shard, id, subject_kind, subject_id, account_id) values ($1, $2, $3, $4, $5)"
        " on conflict (shard, subject_kind, subject_id) where resolved_at is null"
        " do update set report_count = found.report_count returning id",
        shard_of(case_id),
        case_id,
        subject.kind,
        subject.id,
        account_id,
    )
    return found


async def add(connection: Connection, case_id: int, report: Report) -> Report:
    """Add a report to an open case, and count it; or find what its reporter said before."""
    added = await connection.fetchval(
        "insert into reports (shard, case_id, reporter_id, id, reason, detail) values ($1, $2, $3, $4, $5, $6)"
        " on conflict (shard, case_id, reporter_id) do nothing returning true",
        shard_of(case_id),
        case_id,
        report.reporter_id,
        report.id,
        report.reason,
        report.detail,
    )
    if not added:
        found = await connection.fetchrow(
            "select id, reporter_id, reason, detail from reports where shard = $1 and case_id = $2 and reporter_id = $3",
            shard_of(case_id),
            case_id,
            report.reporter_id,
        )
        assert found is not None  # nobody deletes reports, and the case is locked
        return Report(**found)
    await connection.execute(
        "update report_cases set report_count = report_count + 1,"
        " reasons = case when $3 = any(reasons) then reasons else reasons || $3 end where shard = $1 and id = $2",
        shard_of(case_id),
        case_id,
        report.reason,
    )
    return report


async def page(connection: Connection, case_id: int, *, below: int, limit: int) -> list[Report]:
    """The reports of a case, newest first, with ids below `below`."""
    records = await connection.fetch(
        "select id, reporter_id, reason, detail from reports where shard = $1 and case_id = $2 and id < $3"
        " order by id desc limit $4",
        shard_of(case_id),
        case_id,
        below,
        limit,
    )
    return [Report(**record) for record in records]


async def get_case(connection: Connection, case_id: int) -> Case | None:
    """One case."""
    record = await connection.fetchrow(
        f"select {_COLUMNS} from report_cases where shard = $1 and id = $2", shard_of(case_id), case_id
    )
    return _from_record(record) if record else None


async def open_cases(connection: Connection, *, above: int, limit: int) -> list[Case]:
    """The open cases of all shards, oldest first, with ids above `above`. Names no shard: only admins ask."""
    records = await connection.fetch(
        f"select {_COLUMNS} from report_cases where resolved_at is null and id > $1 order by id limit $2", above, limit
    )
    return [_from_record(record) for record in records]


async def resolve(connection: Connection, case_id: int, action: Action, *, admin_id: int) -> Case | None:
    """Close a case and return it; None if it is not open."""
    record = await connection.fetchrow(
        "update report_cases set resolution = $3, resolved_by = $4, resolved_at = now()"
        f" where shard = $1 and id = $2 and resolved_at is null returning {_COLUMNS}",
        shard_of(case_id),
        case_id,
        action,
        admin_id,
    )
    return _from_record(record) if record else None
