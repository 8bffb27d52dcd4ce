"""What admins do: the queue of reports, what becomes of them, and the log of it all.

Who acts has their own account's row locked, and is an admin then: somebody who was demoted or suspended a moment ago does
nothing more. Of two who resolve a case one does, and the other is told.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from instafeed import accounts, comments, posts, reactions
from instafeed.changes import Change, transact
from instafeed.errors import Conflict, FieldError, Invalid, NotFound
from instafeed.ids import shard_of
from instafeed.models import (
    Account,
    AccountWarning,
    Action,
    AuditEntry,
    Case,
    Comment,
    Page,
    PostView,
    Report,
    Subject,
    SubjectKind,
    Viewer,
)
from instafeed.resources import Resources
from instafeed.storage import account_warnings as warning_rows
from instafeed.storage import accounts as account_rows
from instafeed.storage import admins as admin_rows
from instafeed.storage import audit_log as audit_rows
from instafeed.storage import posts as post_rows
from instafeed.storage import reports as report_rows
from instafeed.storage.database import Connection

_REMOVE: dict[str, Callable[[Change, int, int], Awaitable[bool]]] = {
    SubjectKind.POST: posts.remove,
    SubjectKind.COMMENT: comments.remove,
}
"""How what is of each kind is removed, by its id and whose it is; false where it is gone already."""
_AT_ACCOUNT = frozenset({Action.WARN, Action.SUSPEND})


@dataclass(frozen=True, slots=True)
class CaseFile:
    """A case with what it is about, as much of it as still exists: admins see it whoever else may."""

    case: Case
    account: Account | None
    """Whose the subject is, or the subject itself."""
    post: PostView | None
    """The subject, if it is a post."""
    comment: Comment | None
    """The subject, if it is a comment."""
    resolver: Account | None


@dataclass(frozen=True, slots=True)
class Statement:
    """A report, and by whom."""

    report: Report
    reporter: Account | None


@dataclass(frozen=True, slots=True)
class Logged:
    """An action, by whom (None: an operator at the command line, or somebody who is gone), and whom it concerns."""

    entry: AuditEntry
    admin: Account | None
    account: Account | None


async def is_admin(res: Resources, viewer: Viewer) -> bool:
    """Whether the viewer is an admin now."""
    async with res.db.acquire() as connection:
        return await admin_rows.is_admin(connection, viewer.account_id)


async def queue(res: Resources, viewer: Viewer, *, above: int, limit: int) -> Page[CaseFile]:
    """The open cases with ids above `above`, oldest first."""
    async with res.db.acquire() as connection:
        found = await report_rows.open_cases(connection, above=above, limit=limit + 1)
        files = await _files(connection, viewer, found[:limit])
    return Page(files, next=files[-1].case.id if len(found) > limit else None)


async def get_case(res: Resources, viewer: Viewer, case_id: int) -> CaseFile:
    """A case, open or not.

    Raises:
        NotFound: there is none.
    """
    async with res.db.acquire() as connection:
        case = await report_rows.get_case(connection, case_id)
        if case is None:
            raise NotFound
        return (await _files(connection, viewer, [case]))[0]


async def _files(connection: Connection, viewer: Viewer, cases: Iterable[Case]) -> list[CaseFile]:
    found = list(cases)
    people = await account_rows.get_many(
        connection, [case.account_id for case in found] + [case.resolved_by for case in found if case.resolved_by]
    )
    there = await post_rows.get_many(connection, _subjects(found, SubjectKind.POST))
    shown = {view.post.id: view for view in await reactions.views(connection, viewer, there.values())}
    said = await comments.get_many(connection, _subjects(found, SubjectKind.COMMENT))
    return [
        CaseFile(
            case,
            account=people.get(case.account_id),
            post=shown.get(case.subject.id),
            comment=said.get(case.subject.id),
            resolver=people.get(case.resolved_by or 0),
        )
        for case in found
    ]


def _subjects(cases: Iterable[Case], kind: SubjectKind) -> list[int]:
    return [case.subject.id for case in cases if case.subject.kind == kind]


async def statements(res: Resources, case_id: int, *, below: int, limit: int) -> Page[Statement]:
    """What the reporters of a case said, newest first.

    Raises:
        NotFound: there is no such case.
    """
    async with res.db.acquire() as connection:
        if await report_rows.get_case(connection, case_id) is None:
            raise NotFound
        found = await report_rows.page(connection, case_id, below=below, limit=limit + 1)
        shown = found[:limit]
        people = await account_rows.get_many(connection, [report.reporter_id for report in shown])
    items = [Statement(report, people.get(report.reporter_id)) for report in shown]
    return Page(items, next=shown[-1].id if len(found) > limit else None)


async def resolve(res: Resources, viewer: Viewer, case_id: int, action: Action, *, note: str, message: str) -> CaseFile:
    """Do something about what a case is about, and close it. Whoever did so already, and so, finds it done.

    Args:
        res: the resources.
        viewer: an admin.
        case_id: which case.
        action: dismiss; or remove what was reported, or warn or suspend whose it is. What is done already is not done twice.
        note: why, for the audit log.
        message: what to tell who is warned; empty otherwise.

    Raises:
        NotFound: there is no such case, or the viewer is no admin.
        Invalid: a subject of this kind is not removed, or the message is missing, or not for this action.
        Conflict: it was resolved by somebody else, or in another way; or the account is gone.
        RedisAway: it goes on: the account's sessions could not be ended everywhere.
    """
    if (action is Action.WARN) != bool(message):
        wrong = FieldError("/message", "Is what to tell who is warned, and for nobody else.")
        raise Invalid("A warning has a message.", errors=(wrong,))

    async def body(change: Change) -> None:
        connection = change.connection
        case = await report_rows.get_case(connection, case_id)
        if case is None:
            raise NotFound
        if action is Action.REMOVE and case.subject.kind not in _REMOVE:
            wrong = FieldError("/action", "Is not for a subject of this kind.")
            raise Invalid("This can only be warned or suspended.", errors=(wrong,))
        await _lock(connection, viewer, *([case.account_id] if action in _AT_ACCOUNT else []))
        if await report_rows.resolve(connection, case_id, action, admin_id=viewer.account_id):
            await _act(res, change, case, action, message)
            await _log(res, connection, viewer, action, case.subject, case.account_id, note, case_id=case_id)
            return
        done = await report_rows.get_case(connection, case_id)
        if done is None or (done.resolution, done.resolved_by) != (action, viewer.account_id):
            raise Conflict("The case was resolved otherwise, or by somebody else.")

    await transact(res, body)
    return await get_case(res, viewer, case_id)


async def _lock(connection: Connection, viewer: Viewer, *account_ids: int) -> None:
    """Lock the viewer, who must be an admin, and these accounts until the transaction ends."""
    await account_rows.lock(connection, [viewer.account_id, *account_ids])
    if not await admin_rows.is_admin(connection, viewer.account_id):
        raise NotFound


async def _act(res: Resources, change: Change, case: Case, action: Action, message: str) -> None:
    if action is Action.REMOVE:
        await _REMOVE[case.subject.kind](change, case.subject.id, case.account_id)
    elif action in _AT_ACCOUNT:
        if await account_rows.get(change.connection, case.account_id) is None:
            raise Conflict("The account is gone.")
        if action is Action.WARN:
            warning = AccountWarning(res.ids.next(shard_of(case.account_id)), case.subject, message)
            await warning_rows.insert(change.connection, warning, account_id=case.account_id)
        else:
            await accounts.set_suspended(change, case.account_id, suspended=True)


async def _log(
    res: Resources,
    connection: Connection,
    viewer: Viewer,
    action: Action,
    subject: Subject,
    account_id: int,
    note: str,
    *,
    case_id: int | None = None,
) -> None:
    entry_id = res.ids.next(shard_of(account_id))
    await audit_rows.add(
        connection, entry_id, action, subject, account_id=account_id, by=viewer.account_id, note=note, case_id=case_id
    )


async def get_account(res: Resources, account_id: int) -> Account:
    """An account, suspended or not.

    Raises:
        NotFound: there is none.
    """
    async with res.db.acquire() as connection:
        account = await account_rows.get(connection, account_id)
    if account is None:
        raise NotFound
    return account


async def set_suspended(res: Resources, viewer: Viewer, account_id: int, *, suspended: bool, note: str) -> None:
    """Suspend an account, or bring it back; one that is so already stays so, and nothing is logged.

    Raises:
        NotFound: there is no such account, or the viewer is no admin.
        RedisAway: it goes on: its sessions could not be ended everywhere.
    """

    async def body(change: Change) -> None:
        await _lock(change.connection, viewer, account_id)
        if await account_rows.get(change.connection, account_id) is None:
            raise NotFound
        if await accounts.set_suspended(change, account_id, suspended=suspended):
            action = Action.SUSPEND if suspended else Action.UNSUSPEND
            subject = Subject(SubjectKind.ACCOUNT, account_id)
            await _log(res, change.connection, viewer, action, subject, account_id, note)

    await transact(res, body)


async def remove_post(res: Resources, viewer: Viewer, post_id: int, *, note: str) -> None:
    """Delete somebody's post, as its author would; no read that begins after this shows it.

    Raises:
        NotFound: there is no such post, or the viewer is no admin.
    """

    async def body(change: Change) -> None:
        await _lock(change.connection, viewer)
        author_id = await post_rows.author(change.connection, post_id)
        if author_id is None or not await posts.remove(change, post_id, author_id):
            raise NotFound
        subject = Subject(SubjectKind.POST, post_id)
        await _log(res, change.connection, viewer, Action.REMOVE, subject, author_id, note)

    await transact(res, body)


async def audit_log(res: Resources, *, account_id: int | None = None, below: int, limit: int) -> Page[Logged]:
    """What was done by admins and operators, newest first: to one account and what is its, or to all."""
    async with res.db.acquire() as connection:
        if account_id is None:
            found = await audit_rows.page(connection, below=below, limit=limit + 1)
        else:
            found = await audit_rows.page_of_account(connection, account_id, below=below, limit=limit + 1)
        shown = found[:limit]
        people = await account_rows.get_many(
            connection, [entry.account_id for entry in shown] + [entry.admin_id for entry in shown if entry.admin_id]
        )
    items = [Logged(entry, people.get(entry.admin_id or 0), people.get(entry.account_id)) for entry in shown]
    return Page(items, next=shown[-1].id if len(found) > limit else None)


async def warnings(res: Resources, viewer: Viewer, *, below: int, limit: int) -> Page[AccountWarning]:
    """What the viewer was warned of, newest first."""
    async with res.db.acquire() as connection:
        found = await warning_rows.page(connection, viewer.account_id, below=below, limit=limit + 1)
    shown = found[:limit]
    return Page(shown, next=shown[-1].id if len(found) > limit else None)
