"""Who likes which post."""

from fastapi import APIRouter, Request, Response

from instafeed import likes
from instafeed.api import present, schemas
from instafeed.api.dependencies import Page, Reader, Res, Writer
from instafeed.api.posts import PostId
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["posts"], route_class=JsonRoute)


@router.put("/v1/posts/{post_id}/like", summary="Like a post")
async def like_post(res: Res, viewer: Writer, post_id: PostId) -> schemas.PostMarks:
    """Like it. Whoever sees the post sees that you do."""
    return present.post_marks(await likes.like(res, viewer, post_id))


@router.delete("/v1/posts/{post_id}/like", status_code=204, summary="Unlike a post")
async def unlike_post(res: Res, viewer: Writer, post_id: PostId) -> None:
    """Like it no more."""
    await likes.unlike(res, viewer, post_id)


@router.get("/v1/posts/{post_id}/likes", summary="Who likes a post")
async def list_likes(
    request: Request, response: Response, res: Res, viewer: Reader, post_id: PostId, page: Page
) -> schemas.AccountList:
    """Who likes the post, newest first. Accounts that you may not see are left out, though `like_count` counts them."""
    return present.accounts(
        res, response, page, await likes.page(res, viewer, post_id, below=page.below, limit=page.limit)
    )
