"""Photos that come in parts, so that a phone that lost its network goes on where it was."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BeforeValidator, Field

from instafeed import errors, media, uploads
from instafeed.api import present, schemas
from instafeed.api.dependencies import PartUploader, Reader, Res, Uploader, Writer, number
from instafeed.api.media import ContentDigest, sent_bytes, sent_digest, sent_length
from instafeed.api.once import AlreadyThere, OnceOnly
from instafeed.api.openapi import problems
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["media"], route_class=JsonRoute)

UploadId = Annotated[schemas.IdIn, Path(description="The upload's id.")]
PartNumber = Annotated[int, Field(ge=1), BeforeValidator(number), Path(description="Which part; the first is 1.")]


@router.post(
    "/v1/media/uploads",
    status_code=201,
    response_model=schemas.Upload,
    summary="Begin a resumable upload",
    responses={
        200: {"model": schemas.Media, "description": "You sent this photo before: nothing needs to be sent."},
        **problems(errors.MediaTooLarge, errors.TooManyUploads),
    },
)
async def create_upload(body: schemas.NewUpload, res: Res, viewer: Uploader, once: OnceOnly) -> Response:
    """Announce a photo that comes in parts, each through us or straight to the photo store. Then complete the upload."""

    async def make(upload_id: int) -> schemas.Upload | AlreadyThere:
        there = await media.known(res, viewer, upload_id, body.sha256, camera_facts=body.camera_facts)
        if there is not None:
            return AlreadyThere(present.media(res, there))
        begun = await uploads.begin(
            res, viewer, upload_id, size=body.size, sha256=body.sha256, camera_facts=body.camera_facts
        )
        return present.upload(res, begun, ())

    return await once.create(make, account_id=viewer.account_id, location="/v1/media/uploads/{id}")


@router.get("/v1/media/uploads/{upload_id}", summary="Which parts have arrived")
async def get_upload(res: Res, viewer: Reader, upload_id: UploadId) -> schemas.Upload:
    """Your upload, with fresh URLs for the parts that are missing. It is not found once it is completed, or has expired."""
    return present.upload(res, *await uploads.get(res, viewer, upload_id))


@router.put(
    "/v1/media/uploads/{upload_id}/parts/{part_number}",
    status_code=204,
    summary="Upload a part",
    responses=problems(errors.MediaIncomplete, errors.DigestMismatch, errors.UploadTooSlow),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The part's bytes.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_part(
    request: Request,
    res: Res,
    viewer: PartUploader,
    upload_id: UploadId,
    part_number: PartNumber,
    _: ContentDigest = None,
) -> None:
    """Stream a part in. Sent again, it takes the place of the one before; if that fails, the one before stays."""
    sha256, size = sent_digest(request), sent_length(request)
    await uploads.put_part(res, viewer, upload_id, part_number, sent_bytes(request), size=size, sha256=sha256)


@router.post(
    "/v1/media/uploads/{upload_id}/complete",
    status_code=201,
    response_model=schemas.Media,
    summary="Complete an upload",
    responses={
        200: {"model": schemas.Media, "description": "It was completed before."},
        **problems(errors.MediaIncomplete, errors.DigestMismatch, errors.MediaUnsupported),
    },
)
async def complete_upload(res: Res, viewer: Writer, upload_id: UploadId, response: Response) -> schemas.Media:
    """Make a photo of the parts, which must all have arrived. May be sent again: a photo with the upload's id is answered.

    If it is not the photo that was announced, the upload is gone. If a part is missing or a server is away, it stays open.
    """
    made, is_new = await uploads.complete(res, viewer, upload_id)
    response.status_code = 201 if is_new else 200
    if is_new:
        response.headers["Location"] = f"/v1/media/{made.id}"
    return present.media(res, made)


@router.delete("/v1/media/uploads/{upload_id}", status_code=204, summary="Drop an upload")
async def delete_upload(res: Res, viewer: Writer, upload_id: UploadId) -> None:
    """Drop your upload with its parts, if it is open. A photo that it has become stays."""
    await uploads.delete(res, viewer, upload_id)
