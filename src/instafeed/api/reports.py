"""Reporting what should not be there, and being warned."""

from fastapi import APIRouter, Response

from instafeed import moderation, reports
from instafeed.api import present, schemas
from instafeed.api.dependencies import Page, Reader, Reporter, Res
from instafeed.api.once import OnceOnly
from instafeed.api.strict_json import JsonRoute
from instafeed.models import Reason, Subject, SubjectKind

router = APIRouter(tags=["trust"], route_class=JsonRoute)


@router.post("/v1/reports", status_code=201, response_model=schemas.Report, summary="Report something")
async def create_report(body: schemas.NewReport, res: Res, viewer: Reporter, once: OnceOnly) -> Response:
    """Tell the admins of an account or a post that you can see. Who is reported is not told.

    While they have not decided about it, you have one report of it: another one finds the first as it was.
    """
    kind, subject_id = SubjectKind(body.subject.kind), body.subject.id

    async def make(report_id: int) -> schemas.Report:
        report = await reports.create(
            res, viewer, report_id, kind=kind, subject_id=subject_id, reason=Reason(body.reason), detail=body.detail
        )
        return present.report(report, Subject(kind, subject_id))

    return await once.create(make, account_id=viewer.account_id)


@router.get("/v1/me/warnings", summary="What I was warned of")
async def list_warnings(response: Response, res: Res, viewer: Reader, page: Page) -> schemas.AccountWarningList:
    """What admins told you about something of yours, newest first."""
    found = await moderation.warnings(res, viewer, below=page.below, limit=page.limit)
    return schemas.AccountWarningList(
        items=[present.warning(item) for item in found.items], next_cursor=page.next_cursor(response, found.next)
    )
