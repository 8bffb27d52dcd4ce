"""Posts."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from structlog.contextvars import bind_contextvars

from instafeed import errors, media, posts, scheduled
from instafeed.api import present, schemas
from instafeed.api.dependencies import Page, Reader, Res, Uploader, Writer
from instafeed.api.form import PhotoForm
from instafeed.api.media import UPLOAD_PROBLEMS, CameraFacts, ContentDigest
from instafeed.api.once import OnceOnly
from instafeed.api.openapi import problems
from instafeed.api.strict_json import JsonRoute
from instafeed.api.text import ALT_TEXT_MAX_CHARACTERS, CAPTION_MAX_CHARACTERS
from instafeed.models import PhotoOfPost, PostChanges

router = APIRouter(tags=["posts"], route_class=JsonRoute)

PostId = Annotated[schemas.IdIn, Path(description="The post's id.")]


@router.post(
    "/v1/posts",
    status_code=201,
    response_model=schemas.Post,
    summary="Post photos",
    responses=problems(errors.MediaUnusable, errors.Conflict),
)
async def create_post(body: schemas.NewPost, res: Res, viewer: Writer, once: OnceOnly) -> Response:
    """Make a post of your photos. You see it at once; your followers see it when its photos are ready, and not before its
    `publish_at`.
    """
    photos = [PhotoOfPost(photo.id, photo.alt_text) for photo in body.media]

    async def make(post_id: int) -> schemas.Post:
        bind_contextvars(post=str(post_id))  # the first line of its trace through the logs
        posted = await posts.create(
            res, viewer, post_id, caption=body.caption, photos=photos, publish_at=body.publish_at
        )
        return present.post(res, posted)

    return await once.create(make, account_id=viewer.account_id, location="/v1/posts/{id}")


@router.post(
    "/v1/posts/form",
    status_code=201,
    response_model=schemas.Post,
    summary="Post a photo in one call",
    responses=problems(errors.MalformedBody, errors.Conflict, *UPLOAD_PROBLEMS),
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
                            "publish_at": {
                                "type": "string",
                                "format": "date-time",
                                "examples": ["2026-11-22T18:00:00+01:00"],
                            },
                        },
                    }
                }
            },
        }
    },
)
async def create_post_from_form(
    request: Request,
    res: Res,
    viewer: Uploader,
    once: OnceOnly,
    _: ContentDigest = None,
    camera_facts: CameraFacts = False,
) -> Response:
    """Upload a photo and post it, for scripts: `curl -F photo=@sunset.jpg -F caption=Sunset`.

    `Content-Digest` is of the whole form, as it is sent.
    """
    form = PhotoForm(request)

    async def make(post_id: int) -> schemas.Post:
        bind_contextvars(post=str(post_id))  # the first line of its trace through the logs
        await form.begin()
        posted = await media.post(res, viewer, post_id, form.photo(), texts=form.texts, camera_facts=camera_facts)
        return present.post(res, posted)

    return await once.create(make, account_id=viewer.account_id, location="/v1/posts/{id}")


@router.get("/v1/posts/{post_id}", summary="A post")
async def get_post(res: Res, viewer: Reader, post_id: PostId) -> schemas.Post:
    """The post with this id. By the id of a scheduled post of yours you find it, and when its time has come, the post."""
    return present.post(res, await posts.get(res, viewer, post_id))


@router.patch("/v1/posts/{post_id}", summary="Edit a post")
async def update_post(body: schemas.PostPatch, res: Res, viewer: Writer, post_id: PostId) -> schemas.Post:
    """Change the caption of your post, what its photos show in words, or their order; or when it is published, if it is
    scheduled.
    """
    given = body.model_fields_set
    changes = PostChanges(
        caption=body.caption if "caption" in given else None,
        alt_texts=[PhotoOfPost(photo.id, photo.alt_text) for photo in body.alt_texts],
        media_ids=body.media_ids if "media_ids" in given else None,
        publish_at=body.publish_at,
        publish_now="publish_at" in given and body.publish_at is None,
    )
    return present.post(res, await posts.edit(res, viewer, post_id, changes))


@router.delete("/v1/posts/{post_id}", status_code=204, summary="Delete a post")
async def delete_post(res: Res, viewer: Writer, post_id: PostId) -> None:
    """Delete your post with its photos. Nobody sees it from now on."""
    await posts.delete(res, viewer, post_id)


@router.get("/v1/me/scheduled", summary="My scheduled posts")
async def list_scheduled_posts(
    request: Request, response: Response, res: Res, viewer: Reader, page: Page
) -> schemas.PostList:
    """Your posts that wait for their `publish_at`, soonest first. They are edited and deleted as posts."""
    return present.posts(res, response, page, await scheduled.page(res, viewer, above=page.above, limit=page.limit))
