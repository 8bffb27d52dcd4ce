"""What proves who somebody is."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from instafeed import credentials, digests, emails, errors
from instafeed.api import limits, present, schemas
from instafeed.api.dependencies import Res, Writer, count_stranger
from instafeed.api.openapi import problems
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["accounts"], route_class=JsonRoute)


@router.put("/v1/me/password", status_code=204, summary="Change my password", responses=problems(errors.WrongPassword))
async def change_password(request: Request, body: schemas.PasswordChange, res: Res, viewer: Writer) -> None:
    """Take another password. You stay logged in here, and are logged out everywhere else."""
    await limits.count(request, res, limits.PASSWORD, str(viewer.account_id))
    await credentials.change_password(res, viewer, current=body.current_password, new=body.new_password)


@router.put("/v1/me/email", summary="Change my e-mail address", responses=problems(errors.WrongPassword))
async def change_email(request: Request, body: schemas.EmailChange, res: Res, viewer: Writer) -> schemas.Me:
    """Give your e-mail address, or another one, or null for none.

    A mail with a token goes to a new address, which counts once `POST /v1/emails/confirm` got the token; until then the one
    before goes on counting. The same address once more sends another mail.
    """
    await limits.count(request, res, limits.PASSWORD, str(viewer.account_id))
    if body.email:
        await limits.count(request, res, limits.EMAIL, body.email)
    return present.me(res, *await emails.give(res, viewer, address=body.email, password=body.current_password))


@router.post(
    "/v1/emails/confirm",
    status_code=204,
    summary="Confirm an e-mail address",
    responses=problems(errors.TokenUnusable, errors.EmailTaken, errors.RateLimited, errors.Unavailable),
)
async def confirm_email(request: Request, body: schemas.EmailConfirmation, res: Res) -> None:
    """Let an address count by the token that its mail carried; it works once, for 24 hours, on any device."""
    await count_stranger(request, res)
    await emails.confirm(res, body.token)


@router.post(
    "/v1/password-resets",
    status_code=202,
    response_class=Response,
    summary="Ask for a new password",
    responses=problems(errors.RateLimited, errors.Unavailable),
)
async def create_password_reset(request: Request, body: schemas.PasswordReset, res: Res) -> None:
    """Have a mail sent with a token for `POST /v1/password-resets/confirm`, if there is such an account and it has a
    confirmed e-mail address. The answer is the same if not.
    """
    await limits.count(request, res, limits.RESET, limits.client_address(request, res.settings.trusted_proxies))
    await limits.count(request, res, limits.RESET_NAME, body.name)
    await credentials.request_reset(res, body.name)


@router.post(
    "/v1/password-resets/confirm",
    status_code=204,
    summary="Choose a new password",
    responses=problems(errors.TokenUnusable, errors.RateLimited, errors.Unavailable),
)
async def confirm_password_reset(request: Request, body: schemas.PasswordResetConfirmation, res: Res) -> None:
    """Take a new password by the token that a mail carried; it works once, for an hour. You are logged out everywhere."""
    await count_stranger(request, res)
    await credentials.reset(res, body.token, new=body.new_password)


@router.post(
    "/v1/mails/unsubscribe/{token}",
    status_code=204,
    summary="Get no more mails",
    responses=problems(errors.TokenUnusable, errors.RateLimited, errors.Unavailable),
)
async def unsubscribe(
    request: Request,
    res: Res,
    token: Annotated[
        schemas.MailToken, Path(description="What the mail carried.", examples=[schemas.EXAMPLE_MAIL_TOKEN])
    ],
) -> None:
    """Send no more mails of what happens to the account that got the mail: what mail programs do by its `List-Unsubscribe`.
    Whatever the body says, it is not read.
    """
    await count_stranger(request, res)
    await digests.unsubscribe(res, token)
