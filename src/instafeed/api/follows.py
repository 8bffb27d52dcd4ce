"""Who follows whom."""

from fastapi import APIRouter, Request, Response

from instafeed import follows, models
from instafeed.api import present, schemas
from instafeed.api.accounts import AccountId
from instafeed.api.dependencies import Page, PageRequest, Reader, Res, Writer
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["graph"], route_class=JsonRoute)


@router.put("/v1/accounts/{account_id}/follow", summary="Follow an account")
async def follow_account(
    res: Res, viewer: Writer, account_id: AccountId, body: schemas.FollowOptions | None = None
) -> schemas.Relation:
    """Follow, or change whether you are told of new posts. The account's earlier posts come into your feed."""
    options = body or schemas.FollowOptions()
    return present.relation(await follows.follow(res, viewer, account_id, notify=options.notify))


@router.delete("/v1/accounts/{account_id}/follow", status_code=204, summary="Unfollow an account")
async def unfollow_account(res: Res, viewer: Writer, account_id: AccountId) -> None:
    """Stop following. None of its posts are in your feed from now on."""
    await follows.unfollow(res, viewer, account_id)


@router.get("/v1/accounts/{account_id}/followers", summary="An account's followers")
async def list_followers(
    request: Request, response: Response, res: Res, viewer: Reader, account_id: AccountId, page: Page
) -> schemas.AccountList:
    """Who follows the account, newest first."""
    found = await follows.followers(res, viewer, account_id, below=page.below, limit=page.limit)
    return _present(request, response, page, found)


@router.get("/v1/accounts/{account_id}/following", summary="Whom an account follows")
async def list_following(
    request: Request, response: Response, res: Res, viewer: Reader, account_id: AccountId, page: Page
) -> schemas.AccountList:
    """Whom the account follows, newest first."""
    found = await follows.following(res, viewer, account_id, below=page.below, limit=page.limit)
    return _present(request, response, page, found)


def _present(
    request: Request, response: Response, page: PageRequest, found: models.Page[models.Follow]
) -> schemas.AccountList:
    return schemas.AccountList(
        items=[present.account(follow.account, follow.viewer) for follow in found.items],
        next_cursor=page.next_cursor(request, response, found.next),
    )
