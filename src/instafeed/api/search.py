"""Searching accounts and tags."""

from typing import Annotated

from fastapi import APIRouter, Query

from instafeed import search, tags
from instafeed.api import present, schemas
from instafeed.api.dependencies import Limit, Reader, Res
from instafeed.api.strict_json import JsonRoute

router = APIRouter(route_class=JsonRoute)

DEFAULT_FOUND = 20


@router.get("/v1/search/accounts", tags=["accounts"], summary="Search for accounts")
async def search_accounts(
    res: Res,
    viewer: Reader,
    q: Annotated[schemas.SearchText, Query(description="How a name begins, from any of its words on.")],
    limit: Limit = DEFAULT_FOUND,
) -> schemas.AccountList:
    """Accounts by username and display name, without regard to case, accents and punctuation; the best on one page.

    First whose username it is, then whose names begin so, then whose do but for one slip in a word; among these first
    whom you follow, then by followers.
    """
    found = await search.accounts(res, viewer, q, limit=limit)
    return schemas.AccountList(
        items=[present.account(res, item.account, item.viewer) for item in found], next_cursor=None
    )


@router.get("/v1/search/tags", tags=["feeds"], summary="Search for tags")
async def search_tags(
    res: Res,
    viewer: Reader,
    q: Annotated[schemas.TagQuery, Query(description="How the tag begins, with or without `#`.")],
    limit: Limit = DEFAULT_FOUND,
) -> schemas.TagList:
    """Tags that begin so and have posts that you may see: the tag itself first, then the most used; the best on one page."""
    found = await tags.search(res, viewer, q, limit=limit)
    return schemas.TagList(items=[present.tag(tag) for tag in found], next_cursor=None)
