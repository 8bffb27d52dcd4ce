"""Telling admins of what should not be there."""

from collections.abc import Awaitable, Callable

from instafeed import access, comments
from instafeed.errors import FieldError, Invalid
from instafeed.ids import shard_of
from instafeed.models import Reason, Report, Subject, SubjectKind, Viewer
from instafeed.resources import Resources
from instafeed.storage import reports as report_rows
from instafeed.storage.database import Connection
from instafeed.visibility import profile_visible


async def _account(res: Resources, viewer: Viewer, account_id: int) -> int:
    async with res.db.acquire() as connection:
        await access.see(connection, viewer, account_id, profile_visible)
    return account_id


async def _post(res: Resources, viewer: Viewer, post_id: int) -> int:
    async with res.db.acquire() as connection:
        return (await access.see_post(connection, viewer, post_id)).author.id


async def _comment(res: Resources, viewer: Viewer, comment_id: int) -> int:
    async with res.db.acquire() as connection:
        return (await comments.see(connection, viewer, comment_id)).author_id


_OWNER: dict[SubjectKind, Callable[[Resources, Viewer, int], Awaitable[int]]] = {
    SubjectKind.ACCOUNT: _account,
    SubjectKind.POST: _post,
    SubjectKind.COMMENT: _comment,
}
"""Of each kind: whose the subject is; raises `NotFound` where there is none that the viewer may see."""


async def create(
    res: Resources, viewer: Viewer, report_id: int, *, kind: SubjectKind, subject_id: int, reason: Reason, detail: str
) -> Report:
    """Report something that the viewer sees; whose open report of it is found again, as it was.

    Args:
        res: the resources.
        viewer: who reports; somebody whom they block can be reported too.
        report_id: the id to give the report; where it is there already, it is found again, whatever was decided about it.
        kind: of the subject.
        subject_id: what is reported.
        reason: why.
        detail: may be empty.

    Raises:
        NotFound: there is no such thing that the viewer may see.
        Invalid: it is the viewer's own.
    """
    account_id = await _OWNER[kind](res, viewer, subject_id)
    if account_id == viewer.account_id:
        own = FieldError("/subject/id", "Is yourself, or something of yours.")
        raise Invalid("You cannot report yourself.", errors=(own,))
    report = Report(report_id, viewer.account_id, reason, detail)

    async def body(connection: Connection) -> Report:
        await access.lock_self(connection, viewer)
        found = await report_rows.get(connection, report_id, reporter_id=viewer.account_id, subject_id=subject_id)
        if found is not None:
            return found
        new_id = res.ids.next(shard_of(subject_id))
        case_id = await report_rows.open_case(connection, new_id, Subject(kind, subject_id), account_id=account_id)
        return await report_rows.add(connection, case_id, report)

    return await res.db.transact(body)
