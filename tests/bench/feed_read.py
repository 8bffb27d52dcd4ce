"""How fast the first page of a home feed is read, authenticated and rate-limited, through one API process: against the
framework answering the same bytes prebuilt, and for comparison against a bare server without it; a reader who follows 50
celebrities against one who follows none; and readers who follow 10 and 100 tags against one who follows none.

By hand: `python -m tests.bench.feed_read [--runs 5]`; needs wrk.
"""

from statistics import median

from instafeed.ids import shard_of
from tests.bench.common import Options, Row, fresh_servers, progress, run_alone
from tests.bench.community import MINUTE, loading, new_accounts
from tests.bench.http import CONNECTIONS, Load, has_wrk, pages, prebuilt, sql_so_far, wrk
from tests.processes import running_api_process

AUTHORS = 50
TAGS = (10, 100)
SECONDS = 3
HALF = 0.5
"""Of what one process can do at most: the load at which times are compared."""


async def bench(options: Options) -> list[Row]:
    """Pages of two sizes."""
    if not has_wrk():
        return []
    rows = []
    for renditions in (8, 1):
        rows += await _first_page(options, renditions)
    return rows + await _celebrities(options) + await _tags(options)


async def _first_page(options: Options, renditions: int) -> list[Row]:
    async with (
        fresh_servers(rate_limits="on") as settings,
        loading(settings) as load,
        running_api_process(settings) as api,
    ):
        accounts = new_accounts(AUTHORS + options.size(300, 20))
        authors, readers = accounts[:AUTHORS], accounts[AUTHORS:]
        await load.accounts(accounts)
        posts = await load.posts(authors, 2000, step=5 * MINUTE)
        await load.photos(posts[-200:], renditions=renditions)
        await load.follows([(reader, author) for reader in readers for author in authors])
        tokens = await load.tokens(readers)
        await load.analyze()
        body = await pages(api.url, tokens)
        name = f"first page of {len(body) / 1000:.0f} kB ({renditions} rendition{'s' * (renditions > 1)} a photo)"
        progress(name)
        ours, plain, bare, ours_at_half, plain_at_half = (list[Load]() for _ in range(5))
        async with prebuilt(body) as limit, prebuilt(body, bare=True) as server:
            asked = await sql_so_far(api)
            seconds = options.size(SECONDS, 1)
            for _ in range(options.runs):
                plain.append(await wrk(limit, tokens, seconds=seconds))
                ours.append(await wrk(api, tokens, seconds=seconds))
                bare.append(await wrk(server, tokens, seconds=seconds))
            rate = median(load.rate for load in ours)
            pause = round(CONNECTIONS / (rate * HALF) * 1000)
            for _ in range(options.runs):
                plain_at_half.append(await wrk(limit, tokens, seconds=seconds, pause=pause))
                ours_at_half.append(await wrk(api, tokens, seconds=seconds, pause=pause))
            asked = await sql_so_far(api) - asked
    half = f"{median(load.rate for load in ours_at_half):,.0f}/s"
    return [
        Row(f"{name}, against prebuilt", rate, "pages/s", median(load.rate for load in plain), least=0.35),
        Row(f"{name}, against prebuilt without a framework", rate, "pages/s", median(load.rate for load in bare)),
        Row(
            f"{name}, at {half} over {CONNECTIONS} connections",
            *(median(load.p99 for load in ours_at_half), "ms p99", median(load.p99 for load in plain_at_half)),
            most=3,
        ),
        Row(
            f"{name}, at full load",
            *(median(load.p99 for load in ours), "ms p99", median(load.p99 for load in plain)),
        ),
        Row(
            f"{name}: of the process itself",
            *(median(load.cpu for load in ours), "µs of CPU", median(load.cpu for load in plain)),
        ),
        Row(f"{name}: connections to PostgreSQL taken meanwhile", float(asked), "", most=0),
    ]


async def _celebrities(options: Options) -> list[Row]:
    async with (
        fresh_servers(rate_limits="on") as settings,
        loading(settings) as load,
        running_api_process(settings) as api,
    ):
        readers = options.size(100, 20)
        accounts = new_accounts(2 * AUTHORS + 2 * readers)
        authors, celebrities = accounts[:AUTHORS], accounts[AUTHORS : 2 * AUTHORS]
        without, with_them = accounts[2 * AUTHORS : -readers], accounts[-readers:]
        await load.accounts(accounts)
        posts = await load.posts(authors + celebrities, 4000, step=5 * MINUTE)
        await load.photos(posts[-400:])
        await load.connection.execute("update accounts set delivery = 2 where id = any($1::bigint[])", celebrities)
        await load.follows([(reader, author) for reader in without for author in authors])
        await load.follows([(reader, author) for reader in with_them for author in authors + celebrities])
        tokens, tokens_with = await load.tokens(without), await load.tokens(with_them)
        await load.analyze()
        await pages(api.url, tokens)
        await pages(api.url, tokens_with)
        progress("a reader of celebrities")
        one, other = list[Load](), list[Load]()
        for _ in range(options.runs):
            one.append(await wrk(api, tokens, seconds=options.size(SECONDS, 1)))
            other.append(await wrk(api, tokens_with, seconds=options.size(SECONDS, 1)))
    what = f"first page of who follows {AUTHORS} celebrities too, against none"
    return [
        Row(
            what,
            1e6 / median(load.rate for load in other),
            "µs a page",
            1e6 / median(load.rate for load in one),
            most=3,
        ),
        Row(
            f"{what}: of the process itself",
            *(median(load.cpu for load in other), "µs of CPU"),
            median(load.cpu for load in one),
        ),
    ]


async def _tags(options: Options) -> list[Row]:
    """Others post with tags as often as the authors whom all readers follow."""
    async with (
        fresh_servers(rate_limits="on") as settings,
        loading(settings) as load,
        running_api_process(settings) as api,
    ):
        readers = options.size(100, 20)
        accounts = new_accounts(2 * AUTHORS + (1 + len(TAGS)) * readers)
        authors, strangers, rest = accounts[:AUTHORS], accounts[AUTHORS : 2 * AUTHORS], accounts[2 * AUTHORS :]
        await load.accounts(accounts)
        posts = await load.posts(authors + strangers, 4000, step=5 * MINUTE)
        await load.photos(posts[-400:])
        shards = {shard_of(id_) for id_ in strangers}
        names = [f"tag{number}" for number in range(max(TAGS))]
        await load.tags([id_ for id_ in posts if shard_of(id_) in shards], names, each=5)
        await load.follows([(reader, author) for reader in rest for author in authors])
        tokens = {0: await load.tokens(rest[:readers])}
        for number, count in enumerate(TAGS, 1):
            some = rest[number * readers : (number + 1) * readers]
            await load.followed_tags(some, names[:count])
            tokens[count] = await load.tokens(some)
        await load.analyze()
        loads: dict[int, list[Load]] = {}
        for count, of_readers in tokens.items():
            progress(f"a reader of {count} tags")
            await pages(api.url, of_readers)
            loads[count] = []
        for _ in range(options.runs):
            for count, of_readers in tokens.items():
                loads[count].append(await wrk(api, of_readers, seconds=options.size(SECONDS, 1)))
    once = {count: 1e6 / median(load.rate for load in found) for count, found in loads.items()}
    cpu = {count: median(load.cpu for load in found) for count, found in loads.items()}
    rows = []
    for count in TAGS:
        what = f"first page of who follows {count} tags too, against none"
        rows.append(Row(what, once[count], "µs a page", once[0], most=3))
        rows.append(Row(f"{what}: of the process itself", cpu[count], "µs of CPU", cpu[0]))
    return rows


if __name__ == "__main__":
    run_alone(bench, __doc__)
