"""Posts that one has saved."""

from fastapi import APIRouter, Request, Response

from instafeed import saves
from instafeed.api import present, schemas
from instafeed.api.dependencies import Page, Reader, Res, Writer
from instafeed.api.posts import PostId
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["posts"], route_class=JsonRoute)


@router.put("/v1/posts/{post_id}/save", summary="Save a post")
async def save_post(res: Res, viewer: Writer, post_id: PostId) -> schemas.PostMarks:
    """Save it for yourself. Nobody else is told."""
    return present.post_marks(await saves.save(res, viewer, post_id))


@router.delete("/v1/posts/{post_id}/save", status_code=204, summary="Unsave a post")
async def unsave_post(res: Res, viewer: Writer, post_id: PostId) -> None:
    """Save it no more."""
    await saves.unsave(res, viewer, post_id)


@router.get("/v1/me/saves", summary="What I have saved")
async def list_saves(request: Request, response: Response, res: Res, viewer: Reader, page: Page) -> schemas.PostList:
    """The posts that you have saved, last saved first, but for those that you may not see any more."""
    return present.posts(res, response, page, await saves.page(res, viewer, below=page.below, limit=page.limit))
