"""Tags."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from instafeed import tags
from instafeed.api import present, schemas
from instafeed.api.dependencies import Page, Reader, Res
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["feeds"], route_class=JsonRoute)

TagPath = Annotated[
    schemas.TagName, Path(description="The tag, without `#`, in any of its variants of case and Unicode.")
]


@router.get("/v1/tags/{tag}", summary="How much a tag is used")
async def get_tag(res: Res, viewer: Reader, tag: TagPath) -> schemas.Tag:
    """The tag in its folded form, and how many of its posts you may see: counted if it has fewer than 500, else estimated.

    A tag that nobody uses is one with no posts.
    """
    return present.tag(await tags.get(res, viewer, tag))


@router.get("/v1/tags/{tag}/posts", summary="Posts with a tag")
async def list_tag_posts(
    request: Request, response: Response, res: Res, viewer: Reader, tag: TagPath, page: Page
) -> schemas.PostList:
    """The posts whose captions have the tag, newest first: those of public accounts, of those that you follow, and your own."""
    found = await tags.posts_of(res, viewer, tag, below=page.below, limit=page.limit)
    return present.posts(res, response, page, found)
