"""Posts."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from instafeed import errors, media, posts
from instafeed.api import present, schemas
from instafeed.api.dependencies import Reader, Res, Uploader, Writer
from instafeed.api.form import PhotoForm
from instafeed.api.media import UPLOAD_PROBLEMS, CameraFacts
from instafeed.api.once import OnceOnly
from instafeed.api.openapi import problems
from instafeed.api.strict_json import JsonRoute
from instafeed.api.text import ALT_TEXT_MAX_CHARACTERS, CAPTION_MAX_CHARACTERS
from instafeed.models import PhotoOfPost

router = APIRouter(tags=["posts"], route_class=JsonRoute)

PostId = Annotated[schemas.IdIn, Path(description="The post's id.")]


@router.post(
    "/v1/posts",
    status_code=201,
    response_model=schemas.Post,
    summary="Post photos",
    responses=problems(errors.MediaUnusable),
)
async def create_post(body: schemas.NewPost, res: Res, viewer: Writer, once: OnceOnly) -> Response:
    """Make a post of your photos. You see it at once; your followers see it when its photos are ready."""
    photos = [PhotoOfPost(photo.id, photo.alt_text) for photo in body.media]

    async def make(post_id: int) -> schemas.Post:
        return present.post(res, await posts.create(res, viewer, post_id, caption=body.caption, photos=photos))

    return await once.create(make, account_id=viewer.account_id, location="/v1/posts/{id}")


@router.post(
    "/v1/posts/form",
    status_code=201,
    response_model=schemas.Post,
    summary="Post a photo in one call",
    responses=problems(errors.MalformedBody, *UPLOAD_PROBLEMS),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["photo"],
                        "properties": {
                            "photo": {"type": "string", "format": "binary"},
                            "caption": {
                                "type": "string",
                                "maxLength": CAPTION_MAX_CHARACTERS,
                                "examples": ["Evening at the harbour"],
                            },
                            "alt_text": {
                                "type": "string",
                                "maxLength": ALT_TEXT_MAX_CHARACTERS,
                                "examples": ["A lighthouse at dusk"],
                            },
                        },
                    }
                }
            },
        }
    },
)
async def create_post_from_form(
    request: Request, res: Res, viewer: Uploader, once: OnceOnly, camera_facts: CameraFacts = False
) -> Response:
    """Upload a photo and post it, for scripts: `curl -F photo=@sunset.jpg -F caption=Sunset`."""
    form = PhotoForm(request)

    async def make(post_id: int) -> schemas.Post:
        await form.begin()
        posted = await media.post(res, viewer, post_id, form.photo(), texts=form.texts, camera_facts=camera_facts)
        return present.post(res, posted)

    return await once.create(make, account_id=viewer.account_id, location="/v1/posts/{id}")


@router.get("/v1/posts/{post_id}", summary="A post")
async def get_post(res: Res, viewer: Reader, post_id: PostId) -> schemas.Post:
    """The post with this id."""
    return present.post(res, await posts.get(res, viewer, post_id))


@router.patch("/v1/posts/{post_id}", summary="Edit a post")
async def update_post(body: schemas.PostPatch, res: Res, viewer: Writer, post_id: PostId) -> schemas.Post:
    """Change the caption of your post, or what its photos show in words."""
    caption = body.caption if "caption" in body.model_fields_set else None
    alt_texts = [PhotoOfPost(photo.id, photo.alt_text) for photo in body.alt_texts]
    return present.post(res, await posts.edit(res, viewer, post_id, caption=caption, alt_texts=alt_texts))


@router.delete("/v1/posts/{post_id}", status_code=204, summary="Delete a post")
async def delete_post(res: Res, viewer: Writer, post_id: PostId) -> None:
    """Delete your post with its photos. Nobody sees it from now on."""
    await posts.delete(res, viewer, post_id)
