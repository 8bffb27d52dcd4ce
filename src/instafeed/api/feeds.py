"""The home feed."""

from fastapi import APIRouter, Request, Response

from instafeed import feeds
from instafeed.api import present, schemas
from instafeed.api.dependencies import Page, Reader, Res

router = APIRouter(tags=["feeds"])


@router.get("/v1/feed", summary="My home feed")
async def get_feed(request: Request, response: Response, res: Res, viewer: Reader, page: Page) -> schemas.PostList:
    """The posts of the accounts that you follow and your own, newest first, to the very end."""
    found = await feeds.read_home(res, viewer, below=page.below, limit=page.limit)
    return schemas.PostList(
        items=[present.post(res, post) for post in found.items],
        next_cursor=page.next_cursor(request, response, found.next),
    )
