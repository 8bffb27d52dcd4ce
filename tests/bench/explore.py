"""Explore: what a ranking costs where a million posts are of the last weeks, and a page of it.

Likes are for posts as people like them: most of them for a few, and more for young ones.

By hand: `python -m tests.bench.explore [--runs 5]`.
"""

import random
import time
from statistics import median

from instafeed import explore
from instafeed.ids import MAX_ID, shard_of
from instafeed.resources import Resources, open_resources
from instafeed.storage import explore as explore_rows
from tests.bench.common import Options, Row, fresh_servers, progress, run_alone
from tests.bench.community import MINUTE, Loader, loading, new_accounts, spread_ids, viewer

POSTS = 1_000_000
LIKES = 1_000_000
ACCOUNTS = 100_000
FOLLOWEES = 200
WEEKS = 4
PAGES = 50


async def bench(options: Options) -> list[Row]:
    """The job, and the first page."""
    async with fresh_servers() as settings, open_resources(settings) as res, loading(settings) as load:
        accounts = await _site(load, options)
        me = viewer(accounts[0])
        rankings = []
        for _ in range(options.runs):
            began = time.perf_counter()
            await explore.rank(res)
            rankings.append((time.perf_counter() - began) * 1000)
        async with res.db.acquire() as connection:
            ranked = await explore_rows.newest(connection)
        assert ranked is not None
        await load.photos(ranked.post_ids)
        times = await _pages(res, me.account_id, options)
        return [
            Row(f"ranking {len(ranked.post_ids)} posts by the newest {explore.LIKES:,} likes", median(rankings), "ms"),
            Row("first page of explore, 30 posts", median(times), "ms"),
        ]


async def _site(load: Loader, options: Options) -> list[int]:
    posts, likes = options.size(POSTS, 20_000), options.size(LIKES, 20_000)
    progress(f"{posts:,} posts and {likes:,} likes")
    accounts = new_accounts(options.size(ACCOUNTS, 2000))
    await load.accounts(accounts)
    pick = random.Random(1)
    await load.follows([(accounts[0], other) for other in pick.sample(accounts[1:], FOLLOWEES)])
    ids = await load.posts(accounts, posts, step=WEEKS * 7 * 24 * 60 * MINUTE / posts)
    like_ids = spread_ids(step=WEEKS * 7 * 24 * 60 * MINUTE / likes, count=likes)
    found: dict[tuple[int, int], int] = {}
    for number in range(likes):
        # Of what is there by then: some way back, and seldom far.
        newest = max(1, posts * number // likes)
        at = max(0, newest - int(pick.paretovariate(0.3)))
        account = pick.choice(accounts)
        found[ids[at], account] = like_ids.next(shard_of(account))
    await load.copy(
        "likers",
        "shard post_id account_id id",
        ((shard_of(post), post, account, id_) for (post, account), id_ in found.items()),
    )
    await load.copy(
        "likes", "shard account_id post_id", ((shard_of(account), account, post) for post, account in found)
    )
    await load.connection.execute(
        "insert into counters (shard, subject_id, slot, likes)"
        " select shard, post_id, 0, count(*) from likers group by shard, post_id"
    )
    await load.analyze()
    return accounts


async def _pages(res: Resources, account_id: int, options: Options) -> list[float]:
    times = []
    for _ in range(options.size(PAGES, 5)):
        began = time.perf_counter()
        page = await explore.page(res, viewer(account_id), below=MAX_ID, limit=30)
        times.append((time.perf_counter() - began) * 1000)
        assert len(page.items) == 30
    return times


if __name__ == "__main__":
    run_alone(bench, __doc__)
