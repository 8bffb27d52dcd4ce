"""Who blocks whom."""

from fastapi import APIRouter, Request, Response

from instafeed import blocks
from instafeed.api import present, schemas
from instafeed.api.accounts import AccountId
from instafeed.api.dependencies import Page, Reader, Res, Writer
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["graph"], route_class=JsonRoute)


@router.put("/v1/accounts/{account_id}/block", status_code=204, summary="Block an account")
async def block_account(res: Res, viewer: Writer, account_id: AccountId) -> None:
    """Neither of you sees the other any more; follows and requests to follow between you end. It is not told.

    You still see its profile, and it among those whom you block.
    """
    await blocks.block(res, viewer, account_id)


@router.delete("/v1/accounts/{account_id}/block", status_code=204, summary="Unblock an account")
async def unblock_account(res: Res, viewer: Writer, account_id: AccountId) -> None:
    """You see each other again. Follows that the block ended do not come back."""
    await blocks.unblock(res, viewer, account_id)


@router.get("/v1/me/blocks", summary="Whom I block")
async def list_blocks(
    request: Request, response: Response, res: Res, viewer: Reader, page: Page
) -> schemas.AccountList:
    """Whom you block, newest first."""
    found = await blocks.page(res, viewer, below=page.below, limit=page.limit)
    return present.accounts(res, response, page, found)
