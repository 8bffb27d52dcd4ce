"""Tags: the posts that have one, how many these are, and tags that begin so.

What a viewer is told of a tag is made of posts that the viewer may see: a tag that only others' hidden posts have is one that
nobody uses.
"""

from functools import partial

from instafeed import access, reactions
from instafeed.ids import MAX_ID
from instafeed.models import Page, PostView, TagCount, Viewer
from instafeed.resources import Resources
from instafeed.storage import posts as post_rows
from instafeed.storage import tags as tag_rows
from instafeed.storage.database import Connection
from instafeed.storage.tags import Tag
from instafeed.visibility import posts_visible

_SAMPLE = 500
"""Fewer posts of a tag are counted; more are estimated from the newest."""
_SAMPLE_IN_SEARCH = 50
"""It is taken of many tags; where the viewer may see none of it, the other is."""


async def posts_of(res: Resources, viewer: Viewer, tag: str, *, below: int, limit: int) -> Page[PostView]:
    """The published posts with a folded tag that the viewer may see, newest first; of none, an empty page."""
    async with res.db.acquire() as connection:
        fetch = partial(tag_rows.newest, connection, tag)
        page = await access.page(connection, viewer, fetch, below=below, limit=limit, rule=posts_visible)
        posts = await post_rows.get_many(connection, [item.id for item in page.items])
        # One may have been deleted in between.
        shown = [posts[item.id] for item in page.items if item.id in posts]
        return Page(await reactions.views(connection, viewer, shown), next=page.next)


async def get(res: Resources, viewer: Viewer, tag: str) -> TagCount:
    """How many posts with a folded tag the viewer may see."""
    async with res.db.acquire() as connection:
        return await _count(connection, viewer, await tag_rows.get(connection, tag), sample=_SAMPLE)


async def search(res: Resources, viewer: Viewer, prefix: str, *, limit: int) -> list[TagCount]:
    """Tags of posts that the viewer may see, beginning with a folded prefix: itself first, then the most used first."""
    found: list[TagCount] = []
    async with res.db.acquire() as connection:
        # Twice as many: some may have no post left, or none that the viewer may see.
        for tag in await tag_rows.beginning_with(connection, prefix, limit=2 * limit):
            counted = await _count(connection, viewer, tag, sample=_SAMPLE_IN_SEARCH)
            if not counted.posts and not counted.exact:
                counted = await _count(connection, viewer, tag, sample=_SAMPLE)
            if counted.posts:
                found.append(counted)
            if len(found) == limit:
                break
    return found


async def _count(connection: Connection, viewer: Viewer, tag: Tag, *, sample: int) -> TagCount:
    """Counted, if there are fewer than the sample; else estimated by how much of it the viewer may see."""
    newest = await tag_rows.newest(connection, tag.name, below=MAX_ID, limit=sample)
    authors = await access.among(connection, viewer, {author_id for _, author_id in newest}, posts_visible)
    seen = sum(author_id in authors for _, author_id in newest)
    if len(newest) < sample:
        return TagCount(tag.name, seen, exact=True)
    return TagCount(tag.name, max(seen, _rounded(tag.uses * seen // sample)), exact=False)


def _rounded(estimate: int) -> int:
    """To two digits, which is more than the estimate is worth."""
    unit: int = 10 ** max(0, len(str(estimate)) - 2)
    return estimate // unit * unit
