"""Tags."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from instafeed import errors, tags
from instafeed.api import present, schemas
from instafeed.api.dependencies import Page, Reader, Res, Writer
from instafeed.api.openapi import problems
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


@router.put("/v1/tags/{tag}/follow", summary="Follow a tag", responses=problems(errors.TooManyTags))
async def follow_tag(res: Res, viewer: Writer, tag: TagPath) -> schemas.TagRelation:
    """Its posts by public accounts, earlier ones too, come into your home feed, but for those of whom you mute.

    Nobody is told. `GET /v1/limits` says how many tags you may follow.
    """
    await tags.follow(res, viewer, tag)
    return schemas.TagRelation(following=True)


@router.delete("/v1/tags/{tag}/follow", status_code=204, summary="Unfollow a tag")
async def unfollow_tag(res: Res, viewer: Writer, tag: TagPath) -> None:
    """What only this tag brought into your home feed is not in it from now on."""
    await tags.unfollow(res, viewer, tag)


@router.get("/v1/me/followed-tags", summary="The tags that I follow")
async def list_followed_tags(
    request: Request, response: Response, res: Res, viewer: Reader, page: Page
) -> schemas.TagList:
    """The tags that you follow, last followed first, with how many of their posts you may see: counted if fewer than 50."""
    found = await tags.followed(res, viewer, below=page.below, limit=page.limit)
    return schemas.TagList(
        items=[present.tag(tag) for tag in found.items], next_cursor=page.next_cursor(response, found.next)
    )
