"""Accounts."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from instafeed import accounts, errors, posts, sessions
from instafeed.api import limits, present, schemas
from instafeed.api.dependencies import Page, Reader, Res, Writer
from instafeed.api.once import OnceOnly
from instafeed.api.openapi import problems
from instafeed.api.strict_json import JsonRoute
from instafeed.models import AccountChanges
from instafeed.resources import Resources
from instafeed.sessions import LogIn

router = APIRouter(tags=["accounts"], route_class=JsonRoute)

AccountId = Annotated[schemas.IdIn, Path(description="The account's id.")]


def present_log_in(res: Resources, log_in: LogIn) -> schemas.LogIn:
    """A fresh log-in, token included."""
    return schemas.LogIn(
        account=present.me(res, log_in.account, log_in.emails),
        token=log_in.token,
        session=present.session(log_in.session, current=True),
    )


@router.post(
    "/v1/accounts",
    status_code=201,
    response_model=schemas.LogIn,
    summary="Sign up",
    responses=problems(errors.UsernameTaken, errors.RateLimited, errors.Unavailable),
)
async def create_account(request: Request, body: schemas.NewAccount, res: Res, once: OnceOnly) -> Response:
    """Make an account and log it in. The token is shown only in this answer.

    To an e-mail address goes a mail with another token, which `POST /v1/emails/confirm` takes.
    """
    await limits.count(request, res, limits.SIGN_UP, limits.client_address(request, res.settings.trusted_proxies))
    if body.email:
        await limits.count(request, res, limits.EMAIL, body.email)

    async def make(account_id: int) -> schemas.LogIn:
        log_in = await accounts.sign_up(
            res,
            account_id=account_id,
            username=body.username,
            password=body.password,
            email=body.email,
            display_name=body.display_name,
            device_name=body.device_name,
            repeat_key=once.key,
        )
        return present_log_in(res, log_in)

    return await once.create(
        make, account_id=None, location="/v1/accounts/{id}", secret=partial(sessions.repeatable_secret, res)
    )


@router.get("/v1/me", summary="My account")
async def get_me(res: Res, viewer: Reader) -> schemas.Me:
    """The account that the token belongs to, with what nobody else is shown."""
    return present.me(res, *await accounts.get_own(res, viewer))


@router.patch("/v1/me", summary="Change my account", responses=problems(errors.UsernameTaken))
async def update_me(body: schemas.AccountPatch, res: Res, viewer: Writer) -> schemas.Me:
    """Change what you send, and nothing else. Going public approves everybody who asked to follow you, soon after."""
    changes = AccountChanges(**body.model_dump(exclude_unset=True))
    return present.me(res, *await accounts.update(res, viewer, changes))


@router.get("/v1/accounts/by-username/{username}", summary="An account by its username")
async def get_account_by_username(
    res: Res,
    viewer: Reader,
    username: Annotated[schemas.Username, Path(description="The account's username.")],
) -> schemas.Account:
    """The account with this username, in any of its variants of case and Unicode.

    One that it gave up finds it for 14 days, so that links go on working: the answer tells its name of now.
    """
    return present.account(res, *await accounts.get_by_username(res, viewer, username))


@router.get("/v1/accounts/{account_id}", summary="An account")
async def get_account(res: Res, viewer: Reader, account_id: AccountId) -> schemas.Account:
    """The account with this id."""
    return present.account(res, *await accounts.get(res, viewer, account_id))


@router.get("/v1/accounts/{account_id}/posts", summary="An account's posts")
async def list_account_posts(
    request: Request, response: Response, res: Res, viewer: Reader, account_id: AccountId, page: Page
) -> schemas.PostList:
    """The account's posts, newest first; your own also while their photos are made ready.

    A private account shows them to its followers only.
    """
    found = await posts.page_of_author(res, viewer, account_id, below=page.below, limit=page.limit)
    return present.posts(res, response, page, found)
