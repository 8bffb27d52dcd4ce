"""Tags: the posts that have one, how many these are, tags that begin so, and following them.

What a viewer is told of a tag is made of posts that the viewer may see: a tag that only others' hidden posts have is one that
nobody uses.
"""

from functools import partial

from instafeed import access, reactions
from instafeed.changes import Change, transact
from instafeed.errors import TooManyTags
from instafeed.ids import MAX_ID, shard_of
from instafeed.models import Page, PostView, TagView, Viewer
from instafeed.resources import Resources
from instafeed.storage import followed_tags as followed_rows
from instafeed.storage import posts as post_rows
from instafeed.storage import tags as tag_rows
from instafeed.storage.database import Connection
from instafeed.storage.tags import Tag
from instafeed.visibility import posts_visible

FOLLOWED_MAX = 100
"""Tags that one account may follow: the home feed asks for each of them."""
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


async def get(res: Resources, viewer: Viewer, tag: str) -> TagView:
    """How many posts with a folded tag the viewer may see, and whether the viewer follows it."""
    async with res.db.acquire() as connection:
        following = bool(await followed_rows.among(connection, viewer.account_id, [tag]))
        found = await tag_rows.get(connection, tag)
        return await _count(connection, viewer, found, sample=_SAMPLE, following=following)


async def search(res: Resources, viewer: Viewer, prefix: str, *, limit: int) -> list[TagView]:
    """Tags of posts that the viewer may see, beginning with a folded prefix: itself first, then the most used first."""
    found: list[TagView] = []
    async with res.db.acquire() as connection:
        # Twice as many: some may have no post left, or none that the viewer may see.
        tags = await tag_rows.beginning_with(connection, prefix, limit=2 * limit)
        followed = await followed_rows.among(connection, viewer.account_id, [tag.name for tag in tags])
        for tag in tags:
            following = tag.name in followed
            counted = await _count(connection, viewer, tag, sample=_SAMPLE_IN_SEARCH, following=following)
            if not counted.posts and not counted.exact:
                counted = await _count(connection, viewer, tag, sample=_SAMPLE, following=following)
            if counted.posts:
                found.append(counted)
            if len(found) == limit:
                break
    return found


async def follow(res: Resources, viewer: Viewer, tag: str) -> None:
    """Follow a folded tag, used or not; its posts that the viewer may see come into the viewer's home feed.

    Raises:
        TooManyTags: the viewer follows `FOLLOWED_MAX` others.
    """
    me = viewer.account_id

    async def body(change: Change) -> None:
        await access.lock_self(change.connection, viewer)
        if not await followed_rows.insert(change.connection, res.ids.next(shard_of(me)), account_id=me, tag=tag):
            return
        if len(await followed_rows.of_account(change.connection, me)) > FOLLOWED_MAX:
            raise TooManyTags(f"At most {FOLLOWED_MAX} tags can be followed. Unfollow one.")
        await change.hold_rights(me)

    await transact(res, body)


async def unfollow(res: Resources, viewer: Viewer, tag: str) -> None:
    """Follow a folded tag no more; reads that begin after this show no post in the home feed only because of it."""
    me = viewer.account_id

    async def body(change: Change) -> None:
        await access.lock_self(change.connection, viewer)
        if await followed_rows.delete(change.connection, account_id=me, tag=tag):
            await change.hold_rights(me)

    await transact(res, body)


async def followed(res: Resources, viewer: Viewer, *, below: int, limit: int) -> Page[TagView]:
    """The tags that the viewer follows, last followed first, those without posts too."""
    async with res.db.acquire() as connection:
        found = await followed_rows.page(connection, viewer.account_id, below=below, limit=limit + 1)
        items = [
            await _count(
                connection, viewer, await tag_rows.get(connection, tag), sample=_SAMPLE_IN_SEARCH, following=True
            )
            for _, tag in found[:limit]
        ]
    return Page(items, next=found[limit - 1][0] if len(found) > limit else None)


async def _count(connection: Connection, viewer: Viewer, tag: Tag, *, sample: int, following: bool) -> TagView:
    """Counted, if there are fewer than the sample; else estimated by how much of it the viewer may see."""
    newest = await tag_rows.newest(connection, tag.name, below=MAX_ID, limit=sample)
    authors = await access.among(connection, viewer, {author_id for _, author_id in newest}, posts_visible)
    seen = sum(author_id in authors for _, author_id in newest)
    if len(newest) < sample:
        return TagView(tag.name, seen, exact=True, following=following)
    return TagView(tag.name, max(seen, _rounded(tag.uses * seen // sample)), exact=False, following=following)


def _rounded(estimate: int) -> int:
    """To two digits, which is more than the estimate is worth."""
    unit: int = 10 ** max(0, len(str(estimate)) - 2)
    return estimate // unit * unit
