"""What grows with the site: the first page with the number of posts and of accounts followed, fan-out with the followers.

By hand: `python -m tests.bench.growth [--runs 5] [--huge]`; needs wrk. Pages are told against a process that answers the same
bytes prebuilt, because sizes cannot be measured in turn, and the machine is not always equally fast.
"""

import itertools
import random
import time
from statistics import median

from instafeed.ids import EPOCH_MS, IdMaker
from instafeed.resources import open_resources
from instafeed.storage.database import Connection
from tests.bench.common import Options, Row, fresh_servers, progress, run_alone
from tests.bench.community import MINUTE, fill_feeds, loading, new_accounts, with_ids
from tests.bench.fan_out import MANY, SHORT, Ahead, whole_job, working
from tests.bench.http import Load, has_wrk, pages, prebuilt, wrk
from tests.processes import running_api_process

STRANGERS = 10_000
FRIENDS = 10
THEIRS = 500
READERS = 20
SECONDS = 2
FLAT = 1.15


async def bench(options: Options) -> list[Row]:
    """The three curves."""
    return [*(await _pages(options) if has_wrk() else []), *await _fan_out(options)]


async def _pages(options: Options) -> list[Row]:
    top = 7 if options.huge else 4 if options.quick else 6
    sizes = [10**power for power in range(3, top + 1)]
    seconds = options.size(SECONDS, 1)
    async with (
        fresh_servers() as settings,
        loading(settings) as load,
        running_api_process(settings) as api,
    ):
        numbers = (FRIENDS, 100, 1000, 5000)
        accounts = new_accounts(STRANGERS + FRIENDS + READERS * len(numbers))
        strangers, friends = accounts[:STRANGERS], accounts[STRANGERS : STRANGERS + FRIENDS]
        readers = accounts[STRANGERS + FRIENDS :]
        groups = {number: readers[at * READERS : (at + 1) * READERS] for at, number in enumerate(numbers)}
        await load.accounts(accounts)
        # The newest of all, so that every page shows the same posts, whomever else its reader follows.
        posts = await load.posts(friends, THEIRS, step=MINUTE)
        await load.photos(posts)
        for number, some in groups.items():
            pairs = [
                (reader, author)
                for reader in some
                for author in [*friends, *random.Random(reader).sample(strangers, number - FRIENDS)]
            ]
            await load.follows(pairs)
        tokens = {number: await load.tokens(some) for number, some in groups.items()}
        rows = []
        there = THEIRS
        old = (time.time() * 1000 - EPOCH_MS) - (THEIRS + 60) * MINUTE
        by_size, by_number = dict[int, float](), dict[int, list[float]]()
        async with prebuilt(await pages(api.url, tokens[FRIENDS][:1])) as limit:
            for size in sizes:
                progress(f"first pages among {size:,} posts")
                await _strangers_post(load.connection, strangers, size - there, old)
                there = size
                await load.analyze()
                await pages(api.url, tokens[FRIENDS])
                ours, plain = list[Load](), list[Load]()
                for _ in range(options.runs):
                    plain.append(await wrk(limit, tokens[FRIENDS], seconds=seconds))
                    ours.append(await wrk(api, tokens[FRIENDS], seconds=seconds))
                by_size[size] = median(load.rate for load in plain) / median(load.rate for load in ours)
                rows.append(
                    Row(
                        f"growth: first page, {size:,} posts",
                        *(1e6 / median(load.rate for load in ours), "µs a page"),
                        1e6 / median(load.rate for load in plain),
                    )
                )
            for log_ins in tokens.values():
                await pages(api.url, log_ins)
            progress("first pages by followees")
            for _ in range(options.runs):
                for number, log_ins in tokens.items():
                    by_number.setdefault(number, []).append(1e6 / (await wrk(api, log_ins, seconds=seconds)).rate)
    times = {number: median(found) for number, found in by_number.items()}
    rows += [Row(f"growth: first page, {number:,} followees", took, "µs a page") for number, took in times.items()]
    return [
        *rows,
        Row(f"first page, {sizes[0]:,} … {sizes[-1]:,} posts: growth", _growth(by_size), "times", most=FLAT),
        Row(f"first page, {numbers[0]:,} … {numbers[-1]:,} followees: growth", _growth(times), "times", most=FLAT),
    ]


async def _strangers_post(connection: Connection, strangers: list[int], count: int, old: float) -> None:
    """Older posts by others, evenly over the year."""
    await connection.execute(
        "insert into posts (shard, id, author_id, caption, published_at)"
        " select (author >> 10 & 8191)::smallint,"
        # Of PostgreSQL's bit operators none binds closer than another.
        " (made << 23) | ((author >> 10 & 8191) << 10) | (number % 1024), author, 'x',"
        " to_timestamp((made + $4) / 1000.0) from (select number, ($1::bigint[])[1 + floor(random() * $5)::int] as author,"
        " floor(number * $3::float8 / $2 + random() * 1000)::bigint as made from generate_series(1, $2::int) as number) post"
        " on conflict do nothing",
        *(strangers, count, old, EPOCH_MS, len(strangers)),
    )


async def _fan_out(options: Options) -> list[Row]:
    sizes = [10**power for power in range(2, 5 if options.quick else 7)]
    async with (
        fresh_servers(celebrity_followers=2 * MANY) as settings,
        open_resources(settings) as opened,
        loading(settings) as load,
    ):
        res = with_ids(opened, IdMaker(clock=Ahead()))
        progress(f"loading {sizes[-1]:,} followers")
        accounts = new_accounts(sizes[-1] + len(sizes))
        followers, authors = accounts[: sizes[-1]], accounts[sizes[-1] :]
        await load.accounts(authors)
        for size, author in zip(sizes, authors, strict=True):
            await load.followers([(follower, author) for follower in random.Random(1).sample(followers, size)])
        await load.analyze()
        await fill_feeds(res, followers, entries=SHORT)
        progress("fan-out by followers")
        times: dict[int, list[float]] = {size: [] for size in sizes}
        async with working(res) as reader:
            for number in range(options.runs + 1):
                for size, author in zip(sizes, authors, strict=True):
                    took, _ = await whole_job(res, reader, author)
                    if number:
                        times[size].append(took / size * 1e6)
    found = {size: median(some) for size, some in times.items()}
    rows = [Row(f"growth: fan-out, {size:,} followers", took, "µs each") for size, took in found.items()]
    name = f"fan-out, {sizes[0]:,} … {sizes[-1]:,} followers"
    most, least = max(found.values()), min(found.values())
    return [
        *rows,
        Row(f"{name}, each: growth", _growth(found), "times", most=FLAT),
        Row(f"{name}, each: most against least", most, "µs each", least),
    ]


def _growth(figures: dict[int, float]) -> float:
    """How many times as much as at a smaller size something takes at a larger one, at most; figures by ascending size."""
    return max(larger / smaller for smaller, larger in itertools.combinations(figures.values(), 2))


if __name__ == "__main__":
    run_alone(bench, __doc__)
