"""Activity: a page, and the count of what is unread, of an account with 100,000 entries; and likes on one post, told of against
not told of. PostgreSQL flushes to disk for the likes.

By hand: `python -m tests.bench.activity [--runs 5]`.
"""

import itertools
import time
from collections.abc import Awaitable, Callable
from statistics import median

from instafeed import activity
from instafeed.ids import MAX_ID, shard_of
from instafeed.models import ActivityKind
from instafeed.resources import open_resources
from instafeed.storage import activity as activity_rows
from instafeed.storage import counters, undone
from instafeed.storage.database import Connection
from tests.bench.common import Options, Row, fresh_servers, p99, progress, run_alone
from tests.bench.community import MINUTE, Loader, later, loading, new_accounts, viewer
from tests.bench.http import CONNECTIONS
from tests.bench.likes import SECONDS, Count, like_at_once

ENTRIES = 100_000
FANS = 1000
TIMES = 100
MOST_MS = 20


async def bench(options: Options) -> list[Row]:
    """Reading, and what telling costs."""
    return [*await _reading(options), *await _telling(options)]


async def _reading(options: Options) -> list[Row]:
    count = options.size(ENTRIES, 2000)
    async with fresh_servers() as settings, open_resources(settings) as res, loading(settings) as load:
        [me, *fans] = new_accounts(FANS + 1)
        progress(f"{count:,} entries")
        await _fill(load, me, fans, count)
        one = viewer(me)
        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "a page of 30": lambda: activity.page(res, one, below=MAX_ID, limit=30),
            "100 unread": lambda: activity.unread(res, one),
        }
        rows = []
        for what, read in ways.items():
            progress(what)
            times = []
            for _ in range(options.runs * options.size(TIMES, 10)):
                began = time.perf_counter()
                await read()
                times.append((time.perf_counter() - began) * 1000)
            name = f"activity of {count:,} entries: {what}"
            rows += [Row(f"{name}, median", median(times), "ms", most=MOST_MS), Row(f"{name}, p99", p99(times), "ms")]
        return rows


async def _fill(load: Loader, me: int, fans: list[int], count: int) -> None:
    """Posts that three fans like each; every fourth has two comments as well."""
    await load.accounts([me, *fans])
    posts = await load.posts([me], count * 4 // 5, step=MINUTE)
    await load.photos(posts[-200:])
    likers, comments, entries = [], [], []
    for number, post_id in enumerate(posts):
        shard, some = shard_of(me), [fans[(number + at) % len(fans)] for at in range(3)]
        likers += [(shard, post_id, fan, later(post_id, 1000 + at)) for at, fan in enumerate(some)]
        entries.append((shard, me, ActivityKind.LIKE, post_id, 0, likers[-1][-1]))
        if number % 4 == 0:
            comments += [(shard, later(post_id, 2000 + at), post_id, fan, "Nice") for at, fan in enumerate(some[:2])]
            entries.append((shard, me, ActivityKind.COMMENT, post_id, 0, comments[-1][1]))
    await load.copy("likers", "shard post_id account_id id", likers)
    await load.copy("comments", "shard id post_id author_id text", comments)
    await load.copy("activity", "shard account_id kind subject_id actor_id id", entries)
    await load.analyze()


async def _telling(options: Options) -> list[Row]:
    async with fresh_servers(durable=True) as settings, loading(settings) as load:
        [author] = new_accounts(1)
        posts = await load.posts([author], 2 * options.runs, step=5 * MINUTE)

        async def count_only(connection: Connection, _: int, post_id: int) -> None:
            await counters.add(connection, post_id, likes=1)

        async def tell(connection: Connection, like_id: int, post_id: int) -> None:
            kind = ActivityKind.LIKE
            await undone.take(connection, author, kind, actor_id=like_id, subject_id=post_id)
            await activity_rows.move(connection, author, kind, res.ids.next(shard_of(author)), subject_id=post_id)
            await counters.add(connection, post_id, likes=1)

        rates: dict[Count, list[float]] = {count_only: [], tell: []}
        async with open_resources(settings) as res:
            progress("likes on one post")
            for post_id, count in zip(posts, itertools.cycle(rates), strict=False):
                rates[count].append(await like_at_once(settings, post_id, count, seconds=options.size(SECONDS, 1)))
    without, told = (median(found) for found in rates.values())
    what = f"likes on one post over {CONNECTIONS} connections to PostgreSQL, told against not told"
    return [Row(what, told, "likes/s", without, least=0.5)]


if __name__ == "__main__":
    run_alone(bench, __doc__)
