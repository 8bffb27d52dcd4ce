"""What is read from PostgreSQL, for an account that follows 1,000 others among a million posts: rebuilding its window, and pages
below it against the first page; what a feed costs in memory.

By hand: `python -m tests.bench.history [--runs 5]`.
"""

import random
import time
from statistics import mean, median

from instafeed import feeds
from instafeed.resources import open_resources
from tests.bench.common import Options, Row, fresh_servers, p99, progress, run_alone
from tests.bench.community import a_site, cursor, fill_feeds, loading, new_accounts
from tests.bench.http import ask, pages
from tests.processes import running_api_process

AUTHORS = 20_000
POSTS = 1_000_000
FOLLOWEES = 1000
READERS = 20
DEPTHS = ("just below the window", "at 10 % of history", "at 90 % of history")
PAGES = 30


async def bench(options: Options) -> list[Row]:
    """Rebuilds, pages and memory."""
    async with (
        fresh_servers() as settings,
        open_resources(settings) as res,
        loading(settings) as load,
        running_api_process(settings) as api,
    ):
        authors, posts = await a_site(load, options.size(AUTHORS, 2000), options.size(POSTS, 50_000))
        readers = new_accounts(READERS)
        await load.accounts(readers)
        chosen = {reader: random.Random(reader).sample(authors, FOLLOWEES) for reader in readers}
        await load.follows([(reader, author) for reader, some in chosen.items() for author in some])
        reader = readers[0]
        records = await load.connection.fetch(
            "select id from posts where author_id = any($1::bigint[]) order by id desc", chosen[reader]
        )
        theirs = [record["id"] for record in records]
        starts = [res.timelines.window + 30, len(theirs) // 10, len(theirs) * 9 // 10]
        seen = [id_ for start in [0, *starts] for id_ in theirs[start : start + 30 * PAGES + 31]]
        await load.photos(list(set(seen)))
        [token] = await load.tokens([reader])
        await load.analyze()

        progress("rebuilding windows")
        rebuilds = []
        for _ in range(options.runs):
            for account in readers:
                key = res.timelines._key(account)
                await res.redis.call(key, "DEL", key)
                began = time.perf_counter()
                await feeds.materialise(res, account)
                rebuilds.append((time.perf_counter() - began) * 1000)
                assert await res.timelines.read(account, limit=None) is not None
        what = f"rebuild of a window: {FOLLOWEES:,} followees, {len(posts):,} posts"
        rows = [Row(what, median(rebuilds), "ms median", most=50), Row(what, p99(rebuilds), "ms p99")]

        await pages(api.url, [token])
        progress("pages below the window")
        for depth, start in zip(DEPTHS, starts, strict=True):
            paths = [f"/v1/feed?cursor={cursor(settings, reader, theirs[start + 30 * page])}" for page in range(PAGES)]
            cold, _ = await ask(api.url, paths, token)
            key = f"{res.timelines._key(reader)}:ahead"
            warm, below, means = [], [], []
            for _ in range(options.runs):
                warm += (await ask(api.url, ["/v1/feed"] * PAGES, token))[0]
                # Nothing was read ahead: the first of these pages asks SQL, and so does every sixteenth from there.
                await res.redis.call(key, "DEL", key)
                times, _ = await ask(api.url, paths, token)
                below += times
                means.append(mean(times))
            base = median(warm) * 1000
            rows += [
                Row(f"a page {depth}, its posts cached, against the first", median(below) * 1000, "ms", base, most=3),
                Row(f"the same on average of {PAGES} pages, SQL and all", median(means) * 1000, "ms", base),
                Row(f"a page {depth}, its posts not cached, against the first", median(cold) * 1000, "ms", base),
            ]
        accounts = new_accounts(1000)
        await fill_feeds(res, accounts, entries=res.timelines.window, alike=True)
        sizes = [
            await res.redis.call(key, "MEMORY", "USAGE", key, "SAMPLES", 0) for key in map(res.timelines._key, accounts)
        ]
    entry = sum(sizes) / len(sizes) / res.timelines.window
    return [*rows, Row(f"memory of an entry of a feed of {res.timelines.window}", entry, "bytes", most=12)]


if __name__ == "__main__":
    run_alone(bench, __doc__)
