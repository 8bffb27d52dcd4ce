"""Leaving, and a copy of one's data to take along."""

from fastapi import APIRouter, Request

from instafeed import errors, leaving
from instafeed.api import limits, schemas
from instafeed.api.dependencies import Res, Writer
from instafeed.api.openapi import problems
from instafeed.api.strict_json import JsonRoute

router = APIRouter(route_class=JsonRoute)


@router.delete(
    "/v1/me",
    status_code=204,
    summary="Delete my account",
    tags=["accounts"],
    responses=problems(errors.WrongCredentials),
)
async def delete_me(request: Request, body: schemas.Farewell, res: Res, viewer: Writer) -> None:
    """Delete your account, for good. It is hidden at once, and you are logged out everywhere; everything that you posted, and
    whatever else is kept of you, is deleted within the hour. Nobody else gets your username.
    """
    await limits.count(request, res, limits.LOG_IN, limits.client_address(request, res.settings.trusted_proxies))
    await limits.count(request, res, limits.LOG_IN_NAME, str(viewer.account_id))
    await leaving.leave(res, viewer, password=body.password)
