"""Who follows whom."""

from fastapi import APIRouter, Request, Response

from instafeed import errors, follows
from instafeed.api import present, schemas
from instafeed.api.accounts import AccountId
from instafeed.api.dependencies import Page, Reader, Res, Writer
from instafeed.api.openapi import problems
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["graph"], route_class=JsonRoute)


@router.put("/v1/accounts/{account_id}/follow", summary="Follow an account", responses=problems(errors.Conflict))
async def follow_account(
    res: Res, viewer: Writer, account_id: AccountId, body: schemas.FollowOptions | None = None
) -> schemas.Relation:
    """Follow, or change whether you are told of new posts. The account's earlier posts come into your feed.

    A private account is asked first: `requested` is true until it answers. One that you block cannot be followed.
    """
    options = body or schemas.FollowOptions()
    return present.relation(await follows.follow(res, viewer, account_id, notify=options.notify))


@router.delete("/v1/accounts/{account_id}/follow", status_code=204, summary="Unfollow an account")
async def unfollow_account(res: Res, viewer: Writer, account_id: AccountId) -> None:
    """Stop following, or withdraw your request to. None of its posts are in your feed from now on."""
    await follows.unfollow(res, viewer, account_id)


@router.delete("/v1/me/followers/{account_id}", status_code=204, summary="Remove a follower")
async def remove_follower(res: Res, viewer: Writer, account_id: AccountId) -> None:
    """Let an account follow you no more. It is not told."""
    await follows.remove_follower(res, viewer, account_id)


@router.get("/v1/accounts/{account_id}/followers", summary="An account's followers")
async def list_followers(
    request: Request, response: Response, res: Res, viewer: Reader, account_id: AccountId, page: Page
) -> schemas.AccountList:
    """Who follows the account, newest first. Of a private account only its followers may know."""
    found = await follows.followers(res, viewer, account_id, below=page.below, limit=page.limit)
    return present.accounts(res, response, page, found)


@router.get("/v1/accounts/{account_id}/following", summary="Whom an account follows")
async def list_following(
    request: Request, response: Response, res: Res, viewer: Reader, account_id: AccountId, page: Page
) -> schemas.AccountList:
    """Whom the account follows, newest first. Of a private account only its followers may know."""
    found = await follows.following(res, viewer, account_id, below=page.below, limit=page.limit)
    return present.accounts(res, response, page, found)
