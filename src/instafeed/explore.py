"""Explore: posts that strangers like now. docs/explore.md tells the formula and its reasons."""

import math
import time
from collections import Counter

from instafeed import access, reactions, telemetry
from instafeed.ids import MAX_ID
from instafeed.models import Page, PostView, Viewer
from instafeed.resources import Resources
from instafeed.storage import explore as explore_rows
from instafeed.storage.explore import Candidate
from instafeed.visibility import explorable

GRAVITY = 1.5
HEAD_START_HOURS = 2
DAYS = 30
"""Older posts are not ranked."""
LIKES = 10_000
"""A ranking looks at the posts of so many newest likes, and at those of the ranking before."""
RANKED = 1000
PER_AUTHOR = 3
"""More posts of one author are not ranked."""
KEPT_SECONDS = 3600
"""Pages of a ranking can be asked for at least so long."""
_PLACES = 1024
"""Of a ranking, in a cursor."""
_AT_ONCE = 2000


def score(likes: int, hours: float) -> float:
    """How high a post stands that so many others like and that was published so many hours ago.

    Source: Hacker News, as Paul Graham published it with Arc in 2009, with another exponent.
    """
    return likes / math.pow(hours + HEAD_START_HOURS, GRAVITY)


async def rank(res: Resources) -> None:
    """Rank anew."""
    began = time.monotonic()
    async with res.db.acquire() as connection:
        before = await explore_rows.newest(connection)
        post_ids = await explore_rows.liked_lately(connection, limit=LIKES) | set(before.post_ids if before else ())
    found: list[Candidate] = []
    rest = sorted(post_ids)
    while rest:
        some, rest = rest[:_AT_ONCE], rest[_AT_ONCE:]
        async with res.db.acquire() as connection:
            found += await explore_rows.candidates(connection, some, days=DAYS)
    ranked = ranking(found)
    async with res.db.acquire() as connection:
        await explore_rows.add(connection, ranked, kept_seconds=KEPT_SECONDS)
    seconds = round(time.monotonic() - began, 3)
    telemetry.logger().info("explore ranked", candidates=len(found), ranked=len(ranked), seconds=seconds)


def ranking(candidates: list[Candidate]) -> list[int]:
    """The posts in their order, those that nobody but their author likes left out."""
    scores = {post: score(post.likes, post.seconds / 3600) for post in candidates if post.likes > 0}
    ranked: list[int] = []
    of_author: Counter[int] = Counter()
    for post in sorted(scores, key=lambda post: (scores[post], post.post_id), reverse=True):
        if of_author[post.author_id] < PER_AUTHOR and len(ranked) < RANKED:
            of_author[post.author_id] += 1
            ranked.append(post.post_id)
    return ranked


async def page(res: Resources, viewer: Viewer, *, below: int, limit: int) -> Page[PostView]:
    """A page of the newest ranking, or of the one that the page before was of, without what the viewer may not see or has in
    the home feed. Where that ranking is kept no more, the newest one is gone on with at the same place.
    """
    async with res.db.acquire() as connection:
        ranking_id, shown = (0, 0) if below == MAX_ID else divmod(below, _PLACES)
        found = await explore_rows.get(connection, ranking_id) or await explore_rows.newest(connection)
        if found is None:
            return Page()
        ids, first = found.post_ids, found.id * _PLACES

        async def fetch(*, below: int, limit: int) -> list[tuple[int, int]]:
            at = below - first
            return [(first + place, id_) for place, id_ in enumerate(ids[at : at + limit], start=at + 1)]

        posts = await access.page_of_posts(connection, viewer, fetch, below=first + shown, limit=limit, rule=explorable)
        return Page(await reactions.views(connection, viewer, posts.items), posts.next)
