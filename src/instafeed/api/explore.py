"""Explore."""

from fastapi import APIRouter, Request, Response

from instafeed import explore
from instafeed.api import present, schemas
from instafeed.api.dependencies import Page, Reader, Res
from instafeed.api.strict_json import JsonRoute

router = APIRouter(tags=["feeds"], route_class=JsonRoute)


@router.get("/v1/explore", summary="What is popular")
async def list_explore(request: Request, response: Response, res: Res, viewer: Reader, page: Page) -> schemas.PostList:
    """Recent posts of public accounts that you do not follow, best first: by likes, which count less as a post grows older. It is
    ranked every minute; while you go on from page to page, nothing changes its place for an hour.
    """
    return present.posts(res, response, page, await explore.page(res, viewer, below=page.below, limit=page.limit))
