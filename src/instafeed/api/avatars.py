"""Avatars."""

from fastapi import APIRouter

from instafeed import avatars, errors
from instafeed.api import present, schemas
from instafeed.api.dependencies import Res, Writer
from instafeed.api.openapi import problems
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["accounts"], route_class=JsonRoute)


@router.put("/v1/me/avatar", summary="Change my avatar", responses=problems(errors.MediaUnusable))
async def put_avatar(body: schemas.Avatar, res: Res, viewer: Writer) -> schemas.Me:
    """Be shown with a photo that you sent by `POST /v1/media`, which cannot be posted then; the one before is deleted.

    It need not be ready yet: you are shown with it as soon as it is.
    """
    return present.me(res, *await avatars.put(res, viewer, body.media_id))


@router.delete("/v1/me/avatar", status_code=204, summary="Take my avatar away")
async def delete_avatar(res: Res, viewer: Writer) -> None:
    """Be shown without a photo. The one that you were shown with is deleted."""
    await avatars.remove(res, viewer)
