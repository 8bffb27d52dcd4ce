"""Who asks to follow a private account."""

from fastapi import APIRouter, Request, Response

from instafeed import follow_requests
from instafeed.api import present, schemas
from instafeed.api.accounts import AccountId
from instafeed.api.dependencies import Page, Reader, Res, Writer
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["graph"], route_class=JsonRoute)


@router.get("/v1/me/follow-requests", summary="Who asks to follow me")
async def list_follow_requests(
    request: Request, response: Response, res: Res, viewer: Reader, page: Page
) -> schemas.AccountList:
    """Who asks to follow you while your account is private, newest first."""
    found = await follow_requests.page(res, viewer, below=page.below, limit=page.limit)
    return present.accounts(res, response, page, found)


@router.put("/v1/me/follow-requests/{account_id}", status_code=204, summary="Approve a request to follow me")
async def approve_follow_request(res: Res, viewer: Writer, account_id: AccountId) -> None:
    """Let the account follow you. It is not found if it does not ask any more."""
    await follow_requests.approve(res, viewer, account_id)


@router.delete("/v1/me/follow-requests/{account_id}", status_code=204, summary="Refuse a request to follow me")
async def refuse_follow_request(res: Res, viewer: Writer, account_id: AccountId) -> None:
    """Take the request away. The account is not told, and may ask again."""
    await follow_requests.refuse(res, viewer, account_id)
