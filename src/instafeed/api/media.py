"""Photos."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.types import Scope, Send

from instafeed import errors, media
from instafeed.api import limits, present, schemas
from instafeed.api.ahead import Serve
from instafeed.api.dependencies import Reader, Res, Uploader, admit, resources
from instafeed.api.once import KEY_CHARACTERS, AlreadyThere, OnceOnly, once
from instafeed.api.openapi import problems
from instafeed.errors import FieldError, Invalid, MediaIncomplete, UploadTooSlow

router = APIRouter(tags=["media"])

PATH = "/v1/media"

UPLOAD_PROBLEMS = (
    errors.MediaIncomplete,
    errors.MediaTooLarge,
    errors.MediaUnsupported,
    errors.DigestMismatch,
    errors.UploadTooSlow,
)

_DIGEST_CHARACTERS = 1000
_BOUNDED = {b"content-digest": _DIGEST_CHARACTERS, b"idempotency-key": KEY_CHARACTERS}
_SHA256 = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*(?=,|$)")

ContentDigest = Annotated[
    str | None,
    Header(
        alias="Content-Digest",
        description="RFC 9530. Refused if the bytes do not match, or if not just one `sha-256` is among the digests: what"
        " you want checked is checked.",
        max_length=_DIGEST_CHARACTERS,
        examples=["sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"],
    ),
]


CameraFacts = Annotated[
    bool,
    Query(
        description="Keep what the camera wrote of itself and its settings (never place, time or serial numbers), and show"
        " it to all who see the photo."
    ),
]


def sent_length(request: Request) -> int | None:
    """The Content-Length; None for a body that comes in chunks."""
    sent = request.headers.get("content-length")
    return int(sent) if sent is not None and sent.isascii() and sent.isdigit() else None


async def sent_bytes(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        MediaIncomplete: the client went away.
        UploadTooSlow: it makes us wait; how long others (S3) make it wait is not held against it.
    """
    settings = resources(request).settings
    connection = request.scope["state"]["connection"]
    clock = asyncio.get_running_loop().time
    patience, more = settings.upload_grace_seconds, True
    while more:
        began = clock()
        if connection.has_piece:
            message = await request.receive()  # a timer would cost more
        else:
            try:
                async with asyncio.timeout(min(patience, settings.upload_silence_seconds)):
                    message = await request.receive()
            except TimeoutError:
                raise UploadTooSlow(
                    f"Send at least {settings.upload_min_bytes_per_second} bytes a second, and something every"
                    f" {settings.upload_silence_seconds:g} seconds."
                ) from None
        if message["type"] == "http.disconnect":
            raise MediaIncomplete("The upload broke off.")
        piece, more = message["body"], message["more_body"]
        patience += len(piece) / settings.upload_min_bytes_per_second - (clock() - began)
        if piece:
            yield piece
    if connection.is_closing:
        # What came after the announced length was refused as no request, and the connection closed.
        raise MediaIncomplete("More came than was announced, or the client is gone.")


def sent_digest(request: Request) -> bytes | None:
    """The SHA-256 in what Content-Digest headers there are; None if there are none.

    Raises:
        Invalid: there is none in them, or several.
    """
    sent = request.headers.getlist("content-digest")
    if not sent:
        return None
    found = set(_SHA256.findall(",".join(sent)))
    if len(found) != 1:
        detail = "Send one sha-256=:<base64>: (RFC 9530)."
        raise Invalid("The request is not valid.", errors=(FieldError("Content-Digest", detail),))
    return base64.b64decode(found.pop())


@router.post(
    PATH,
    status_code=201,
    response_model=schemas.Media,
    summary="Upload a photo",
    responses={
        200: {"model": schemas.Media, "description": "You sent this photo before; it was not read again."},
        **problems(*UPLOAD_PROBLEMS),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The photo's bytes: JPEG, PNG, WebP, HEIC, AVIF or GIF.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_media(
    request: Request,
    res: Res,
    viewer: Uploader,
    once_only: OnceOnly,
    _: ContentDigest = None,
    camera_facts: CameraFacts = False,
) -> Response:
    """Stream a photo in. It is `processing` until its renditions are made; a post may have it at once.

    With `Content-Digest` and `Expect: 100-continue`, a photo that you sent before is answered with 200 before its bytes
    are asked for.
    """
    sha256 = sent_digest(request)
    asks_first = request.headers.get("expect", "").lower() == "100-continue"

    async def make(media_id: int) -> schemas.Media | AlreadyThere:
        if sha256 is not None and asks_first:
            there = await media.known(res, viewer, media_id, sha256, camera_facts=camera_facts)
            if there is not None:
                return AlreadyThere(present.media(res, there))
        taken = await media.receive(
            res,
            viewer,
            media_id,
            sent_bytes(request),
            size=sent_length(request),
            sha256=sha256,
            camera_facts=camera_facts,
        )
        return present.media(res, taken)

    answer = await once_only.create(make, account_id=viewer.account_id, location="/v1/media/{id}")
    if asks_first and answer.status_code == 200:
        # Whether the client now sends the body or another request cannot be told apart.
        answer.headers["Connection"] = "close"
    return answer


def ahead(scope: Scope) -> Serve | None:
    """A small photo takes less time than the framework. None where there are parameters, or a header is too long."""
    if scope["query_string"] or any(len(value) > _BOUNDED.get(name, len(value)) for name, value in scope["headers"]):
        return None
    return _serve_upload


async def _serve_upload(request: Request, send: Send) -> None:
    res = resources(request)
    viewer = await admit(request, res, limits.UPLOAD)
    once_only = await once(request, res, request.headers.get("idempotency-key"))
    response = await upload_media(request, res, viewer, once_only)
    await response(request.scope, request.receive, send)


@router.get("/v1/media/{media_id}", summary="A photo of mine")
async def get_media(
    res: Res, viewer: Reader, media_id: Annotated[schemas.IdIn, Path(description="The photo's id.")]
) -> schemas.Media:
    """How far one of your photos is, and its renditions."""
    return present.media(res, await media.get(res, viewer, media_id))
