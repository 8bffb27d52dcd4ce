"""What stands beside a post: how often it was liked and commented, and whether the viewer likes it or has saved it."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from instafeed import captions
from instafeed.errors import RedisAway
from instafeed.models import NO_MARKS, Counts, Marks, Post, PostView, Viewer
from instafeed.resources import Resources
from instafeed.storage import counters, marks
from instafeed.storage.count_cache import Look as CountLook
from instafeed.storage.database import Connection
from instafeed.storage.mark_cache import NEWEST

Sql = Callable[[], AbstractAsyncContextManager[Connection]]
"""Gives a connection."""


async def views(connection: Connection, viewer: Viewer, posts: Iterable[Post]) -> list[PostView]:
    """Posts as the viewer sees them, by what the database says."""
    shown = await captions.with_mentions(connection, viewer, list(posts))
    found = await from_sql(connection, viewer.account_id, [post.id for post in shown])
    return [PostView(post, found.counts[post.id], found.marks.get(post.id, NO_MARKS)) for post in shown]


class Reactions(NamedTuple):
    """Of some posts; those that the viewer has not marked are not among `marks`."""

    counts: dict[int, Counts]
    marks: dict[int, Marks]


class Look(NamedTuple):
    """A question to the caches under way."""

    post_ids: Sequence[int]
    counts: CountLook
    marks: "asyncio.Future[Any]"


async def from_sql(connection: Connection, account_id: int, post_ids: Collection[int]) -> Reactions:
    """What the database says of these posts."""
    if not post_ids:
        return Reactions({}, {})
    return Reactions(await counters.get_many(connection, post_ids), await marks.among(connection, account_id, post_ids))


async def begin_look(res: Resources, account_id: int, post_ids: Sequence[int]) -> Look:
    """Ask the caches for what stands beside these posts, for a viewer; raises `RedisAway`."""
    return Look(post_ids, await res.counts.begin_look(post_ids), await res.marks.begin_look(account_id, post_ids))


async def finish_look(res: Resources, account_id: int, look: Look, sql: Sql) -> Reactions:
    """What they answered, and what the database says of the rest, which goes into the caches too; raises `RedisAway`."""
    counts = await res.counts.finish_look(look.counts)
    known = res.marks.finish_look(await look.marks, look.post_ids)
    if len(counts) < len(look.post_ids):
        counts |= await _count(res, [id_ for id_ in look.post_ids if id_ not in counts], sql)
    found, floor = known or await _fill_marks(res, account_id, sql)
    if floor and (older := [id_ for id_ in look.post_ids if id_ < floor]):
        async with sql() as connection:
            found |= await marks.among(connection, account_id, older)
    return Reactions(counts, found)


async def _count(res: Resources, post_ids: Sequence[int], sql: Sql) -> dict[int, Counts]:
    fills = await res.counts.begin_fill(post_ids)
    async with sql() as connection:
        counts = await counters.get_many(connection, post_ids)
    with contextlib.suppress(RedisAway):
        await res.counts.finish_fill(fills, counts)
    return counts


async def _fill_marks(res: Resources, account_id: int, sql: Sql) -> tuple[dict[int, Marks], int]:
    fill = await res.marks.begin_fill(account_id)
    async with sql() as connection:
        found, floor = await marks.newest(connection, account_id, limit=NEWEST)
    if fill is not None:
        with contextlib.suppress(RedisAway):
            await res.marks.finish_fill(fill, found, floor)
    return found, floor
