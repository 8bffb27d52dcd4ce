"""Logging in and out."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from instafeed import errors, sessions
from instafeed.api import limits, present, schemas
from instafeed.api.accounts import present_log_in
from instafeed.api.dependencies import Page, Reader, Res, Writer
from instafeed.api.once import OnceOnly
from instafeed.api.openapi import problems
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["sessions"], route_class=JsonRoute)


@router.post(
    "/v1/sessions",
    status_code=201,
    response_model=schemas.LogIn,
    summary="Log in",
    responses=problems(errors.WrongCredentials, errors.RateLimited, errors.Unavailable),
)
async def create_session(request: Request, body: schemas.NewSession, res: Res, once: OnceOnly) -> Response:
    """Open a session on this device. The token is shown only in this answer."""
    await limits.count(request, res, limits.LOG_IN, limits.client_address(request, res.settings.trusted_proxies))
    await limits.count(request, res, limits.LOG_IN_NAME, body.username)

    async def make(session_id: int) -> schemas.LogIn:
        log_in = await sessions.log_in(
            res,
            username=body.username,
            password=body.password,
            device_name=body.device_name,
            session_id=session_id,
            repeat_key=once.key,
        )
        return present_log_in(res, log_in)

    return await once.create(make, account_id=None, secret=partial(sessions.repeatable_secret, res))


@router.get("/v1/sessions", summary="My devices")
async def list_sessions(
    request: Request, response: Response, res: Res, viewer: Reader, page: Page
) -> schemas.SessionList:
    """Where you are logged in, newest first."""
    found = await sessions.page(res, viewer, below=page.below, limit=page.limit)
    return schemas.SessionList(
        items=[present.session(session, current=session.id == viewer.session_id) for session in found.items],
        next_cursor=page.next_cursor(response, found.next),
    )


@router.delete("/v1/sessions/current", status_code=204, summary="Log out here")
async def delete_current_session(res: Res, viewer: Writer) -> None:
    """End the session of this token. Its requests and event streams end within a second."""
    await sessions.end(res, viewer, viewer.session_id)


@router.delete("/v1/sessions/{session_id}", status_code=204, summary="Log one device out")
async def delete_session(
    res: Res, viewer: Writer, session_id: Annotated[schemas.IdIn, Path(description="The session's id.")]
) -> None:
    """End one of your sessions."""
    await sessions.end(res, viewer, session_id)


@router.delete("/v1/sessions", status_code=204, summary="Log out everywhere else")
async def delete_other_sessions(res: Res, viewer: Writer) -> None:
    """End all of your sessions but this one."""
    await sessions.end_others(res, viewer)
