"""Who mutes whom."""

from fastapi import APIRouter, Request, Response

from instafeed import mutes
from instafeed.api import present, schemas
from instafeed.api.accounts import AccountId
from instafeed.api.dependencies import Page, Reader, Res, Writer
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["graph"], route_class=JsonRoute)


@router.put("/v1/accounts/{account_id}/mute", status_code=204, summary="Mute an account")
async def mute_account(res: Res, viewer: Writer, account_id: AccountId) -> None:
    """Keep its posts out of your feed, your events and your activity, whether you follow it or not. It cannot tell."""
    await mutes.mute(res, viewer, account_id)


@router.delete("/v1/accounts/{account_id}/mute", status_code=204, summary="Unmute an account")
async def unmute_account(res: Res, viewer: Writer, account_id: AccountId) -> None:
    """Mute it no more. If you follow it, its posts are in your feed again."""
    await mutes.unmute(res, viewer, account_id)


@router.get("/v1/me/mutes", summary="Whom I mute")
async def list_mutes(request: Request, response: Response, res: Res, viewer: Reader, page: Page) -> schemas.AccountList:
    """Whom you mute, newest first."""
    found = await mutes.page(res, viewer, below=page.below, limit=page.limit)
    return present.accounts(res, response, page, found)
