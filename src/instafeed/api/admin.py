"""What admins see and do."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.types import Receive, Scope, Send

from instafeed import errors, moderation
from instafeed.api import limits, present, schemas
from instafeed.api.accounts import AccountId
from instafeed.api.dependencies import (
    DEFAULT_LIMIT,
    Cursor,
    Limit,
    PageRequest,
    Res,
    authenticate,
    bearer,
    resources,
)
from instafeed.api.openapi import problems
from instafeed.api.posts import PostId
from instafeed.api.strict_json import JsonRoute
from instafeed.errors import NotFound
from instafeed.models import Action, Viewer


class AdminRoute(JsonRoute):
    """A route that is there for admins only: to others, whatever method and body they send, it answers like no route.

    Who is an admin is asked for with every request: whoever is demoted or suspended is none from the next one on.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an admin's request."""
        request = Request(scope)
        res = resources(request)
        viewer = await authenticate(request, res)
        policy = limits.READ if scope["method"] == "GET" else limits.WRITE
        await limits.count(request, res, policy, str(viewer.account_id))
        if not await moderation.is_admin(res, viewer):
            scope["state"].pop("headers", None)  # where there is no route, nothing is counted
            raise NotFound
        scope["state"]["viewer"] = viewer
        await super().handle(scope, receive, send)


async def _admin(request: Request, _: Annotated[object, Depends(bearer)]) -> Viewer:
    return cast("Viewer", request.scope["state"]["viewer"])


Admin = Annotated[Viewer, Depends(_admin)]
"""Who acts, as `AdminRoute` found out."""


async def _page_request(
    request: Request, res: Res, viewer: Admin, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> PageRequest:
    return PageRequest.of(res, viewer.account_id, request.url.path, limit=limit, cursor=cursor)


Page = Annotated[PageRequest, Depends(_page_request)]
CaseId = Annotated[schemas.IdIn, Path(description="The id of a case of reports.")]

router = APIRouter(tags=["admin"], route_class=AdminRoute)


@router.get("/v1/admin/reports", summary="What is reported")
async def list_cases(response: Response, res: Res, admin: Admin, page: Page) -> schemas.ReportCaseList:
    """What is reported and not resolved, oldest first. All reports of one thing are one case."""
    found = await moderation.queue(res, admin, above=page.above, limit=page.limit)
    return schemas.ReportCaseList(
        items=[present.case(res, item) for item in found.items], next_cursor=page.next_cursor(response, found.next)
    )


@router.get("/v1/admin/reports/{case_id}", summary="A case of reports")
async def get_case(res: Res, admin: Admin, case_id: CaseId) -> schemas.ReportCase:
    """A case, open or resolved, with what it is about as it is now, whoever else may see it."""
    return present.case(res, await moderation.get_case(res, admin, case_id))


@router.get("/v1/admin/reports/{case_id}/statements", summary="What reporters said")
async def list_statements(response: Response, res: Res, case_id: CaseId, page: Page) -> schemas.ReportStatementList:
    """The single reports of a case, newest first."""
    found = await moderation.statements(res, case_id, below=page.below, limit=page.limit)
    return schemas.ReportStatementList(
        items=[present.statement(res, item) for item in found.items], next_cursor=page.next_cursor(response, found.next)
    )


@router.post(
    "/v1/admin/reports/{case_id}/resolve",
    summary="Resolve a case of reports",
    responses=problems(errors.Conflict),
)
async def resolve_case(body: schemas.Resolution, res: Res, admin: Admin, case_id: CaseId) -> schemas.ReportCase:
    """Act, and close the case: whatever is reported later opens another one. Done again, it answers the same.

    Of two admins who resolve a case, one gets a `conflict`.
    """
    action = Action(body.action)
    file = await moderation.resolve(res, admin, case_id, action, note=body.note, message=body.message)
    return present.case(res, file)


@router.get("/v1/admin/accounts/{account_id}", summary="An account as admins see it")
async def get_account_as_admin(res: Res, admin: Admin, account_id: AccountId) -> schemas.ModeratedAccount:
    """An account, suspended or not, whoever blocks whom."""
    return present.moderated_account(res, await moderation.get_account(res, account_id))


@router.post("/v1/admin/accounts/{account_id}/suspend", status_code=204, summary="Suspend an account")
async def suspend_account(body: schemas.Justification, res: Res, admin: Admin, account_id: AccountId) -> None:
    """Hide an account everywhere and log it out. What it has stays as it is."""
    await moderation.set_suspended(res, admin, account_id, suspended=True, note=body.note)


@router.post("/v1/admin/accounts/{account_id}/unsuspend", status_code=204, summary="Bring a suspended account back")
async def unsuspend_account(body: schemas.Justification, res: Res, admin: Admin, account_id: AccountId) -> None:
    """Bring an account back as it was. It has to log in again."""
    await moderation.set_suspended(res, admin, account_id, suspended=False, note=body.note)


@router.post("/v1/admin/posts/{post_id}/remove", status_code=204, summary="Remove a post")
async def remove_post(body: schemas.Justification, res: Res, admin: Admin, post_id: PostId) -> None:
    """Delete somebody's post with its photos, as its author would. Nobody sees it from now on."""
    await moderation.remove_post(res, admin, post_id, note=body.note)


@router.get("/v1/admin/audit-log", summary="What admins did")
async def list_actions(response: Response, res: Res, page: Page) -> schemas.ModerationActionList:
    """Every action of admins and of operators at the command line, newest first."""
    found = await moderation.audit_log(res, below=page.below, limit=page.limit)
    return present.actions(res, response, page, found)


@router.get("/v1/admin/accounts/{account_id}/audit-log", summary="What admins did about an account")
async def list_actions_about_account(
    response: Response, res: Res, account_id: AccountId, page: Page
) -> schemas.ModerationActionList:
    """Every action that was about the account or something of its own, newest first."""
    found = await moderation.audit_log(res, account_id=account_id, below=page.below, limit=page.limit)
    return present.actions(res, response, page, found)
