"""What proves who somebody is."""

from fastapi import APIRouter, Request

from instafeed import credentials, errors
from instafeed.api import limits, schemas
from instafeed.api.dependencies import Res, Writer
from instafeed.api.openapi import problems
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["accounts"], route_class=JsonRoute)


@router.put("/v1/me/password", status_code=204, summary="Change my password", responses=problems(errors.WrongPassword))
async def change_password(request: Request, body: schemas.PasswordChange, res: Res, viewer: Writer) -> None:
    """Take another password. You stay logged in here, and are logged out everywhere else."""
    await limits.count(request, res, limits.PASSWORD, str(viewer.account_id))
    await credentials.change_password(res, viewer, current=body.current_password, new=body.new_password)
