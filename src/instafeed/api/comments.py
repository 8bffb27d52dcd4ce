"""Comments of posts."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from instafeed import comments
from instafeed.api import present, schemas
from instafeed.api.dependencies import Page, Reader, Res, Writer
from instafeed.api.once import OnceOnly
from instafeed.api.posts import PostId
from instafeed.api.strict_json import JsonRoute
from instafeed.ids import shard_of

router = APIRouter(tags=["posts"], route_class=JsonRoute)

CommentId = Annotated[schemas.IdIn, Path(description="The comment's id.")]


@router.post(
    "/v1/posts/{post_id}/comments", status_code=201, response_model=schemas.Comment, summary="Comment on a post"
)
async def create_comment(
    body: schemas.NewComment, res: Res, viewer: Writer, post_id: PostId, once: OnceOnly
) -> Response:
    """Comment on a post, or reply to one of its comments. Whoever sees the post sees it."""

    async def make(comment_id: int) -> schemas.Comment:
        made = await comments.create(res, viewer, comment_id, post_id, text=body.text, reply_to=body.reply_to)
        return present.comment(res, made)

    return await once.create(make, account_id=viewer.account_id, shard=shard_of(post_id))


@router.get("/v1/posts/{post_id}/comments", summary="A post's comments")
async def list_comments(
    request: Request, response: Response, res: Res, viewer: Reader, post_id: PostId, page: Page
) -> schemas.CommentList:
    """The comments of the post that reply to none, newest first; each says how many replies it has.

    Comments by accounts that you may not see are left out, though `comment_count` counts them.
    """
    found = await comments.page(res, viewer, post_id, below=page.below, limit=page.limit)
    return present.comments(res, response, page, found)


@router.get("/v1/comments/{comment_id}/replies", summary="The replies to a comment")
async def list_replies(
    request: Request, response: Response, res: Res, viewer: Reader, comment_id: CommentId, page: Page
) -> schemas.CommentList:
    """The replies to the comment, oldest first."""
    found = await comments.replies(res, viewer, comment_id, above=page.above, limit=page.limit)
    return present.comments(res, response, page, found)


@router.delete("/v1/comments/{comment_id}", status_code=204, summary="Delete a comment")
async def delete_comment(res: Res, viewer: Writer, comment_id: CommentId) -> None:
    """Delete your comment, or any comment of your post, with its replies. Nobody sees them from now on."""
    await comments.delete(res, viewer, comment_id)
