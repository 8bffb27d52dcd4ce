"""Leaving, and a copy of one's data to take along."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from instafeed import errors, exports, leaving
from instafeed.api import limits, present, schemas
from instafeed.api.dependencies import Reader, Res, Writer
from instafeed.api.once import AlreadyThere, OnceOnly
from instafeed.api.openapi import problems
from instafeed.api.strict_json import JsonRoute

router = APIRouter(route_class=JsonRoute)


@router.delete(
    "/v1/me",
    status_code=204,
    summary="Delete my account",
    tags=["accounts"],
    responses=problems(errors.WrongPassword),
)
async def delete_me(request: Request, body: schemas.Farewell, res: Res, viewer: Writer) -> None:
    """Delete your account, for good. It is hidden at once, and you are logged out everywhere; everything that you posted, and
    whatever else is kept of you, is deleted within the hour. Nobody else gets your username for 14 days.
    """
    await limits.count(request, res, limits.PASSWORD, str(viewer.account_id))
    await leaving.leave(res, viewer, password=body.password)


@router.post(
    "/v1/me/export",
    status_code=201,
    response_model=schemas.Export,
    summary="Ask for a copy of my data",
    tags=["trust"],
    responses={200: {"model": schemas.Export, "description": "One is being made, or was made within a day: that one."}},
)
async def create_export(res: Res, viewer: Writer, once: OnceOnly) -> Response:
    """Have a ZIP made of all that is kept of you: your photos as you sent them, and JSON files of your account, posts, likes,
    saves, comments, lists of people, preferences, devices, warnings and reports. Read the export until it is ready.
    """

    async def make(export_id: int) -> schemas.Export | AlreadyThere:
        export, new = await exports.begin(res, viewer, export_id)
        shown = present.export(res, export)
        return shown if new else AlreadyThere(shown)

    return await once.create(make, account_id=viewer.account_id, location="/v1/me/exports/{id}")


@router.get("/v1/me/exports/{export_id}", summary="A copy of my data", tags=["trust"])
async def get_export(
    res: Res, viewer: Reader, export_id: Annotated[schemas.IdIn, Path(description="The export's id.")]
) -> schemas.Export:
    """How far your copy is, and where to fetch it."""
    return present.export(res, await exports.get(res, viewer, export_id))
