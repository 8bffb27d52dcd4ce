"""Tags, and searching them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from instafeed import tags
from instafeed.api import present, schemas
from instafeed.api.dependencies import Limit, Page, Reader, Res
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["feeds"], route_class=JsonRoute)

DEFAULT_FOUND = 10

TagPath = Annotated[
    schemas.TagName, Path(description="The tag, without `#`, in any of its variants of case and Unicode.")
]


@router.get("/v1/tags/{tag}", summary="How much a tag is used")
async def get_tag(res: Res, viewer: Reader, tag: TagPath) -> schemas.Tag:
    """The tag in its folded form, and how many of its posts you may see: up to 500 counted, more estimated.

    A tag that nobody uses is one with no posts.
    """
    return present.tag(await tags.get(res, viewer, tag))


@router.get("/v1/tags/{tag}/posts", summary="Posts with a tag")
async def list_tag_posts(
    request: Request, response: Response, res: Res, viewer: Reader, tag: TagPath, page: Page
) -> schemas.PostList:
    """The posts whose captions have the tag, newest first: those of public accounts, of those that you follow, and your own."""
    found = await tags.posts_of(res, viewer, tag, below=page.below, limit=page.limit)
    return schemas.PostList(
        items=[present.post(res, post) for post in found.items],
        next_cursor=page.next_cursor(response, found.next),
    )


@router.get("/v1/search/tags", summary="Search for tags")
async def search_tags(
    res: Res,
    viewer: Reader,
    q: Annotated[schemas.TagQuery, Query(description="How the tag begins, with or without `#`.")],
    limit: Limit = DEFAULT_FOUND,
) -> schemas.TagList:
    """Tags that begin so and have posts that you may see: the tag itself first, then the most used first; one page."""
    found = await tags.search(res, viewer, q, limit=limit)
    return schemas.TagList(items=[present.tag(tag) for tag in found], next_cursor=None)
