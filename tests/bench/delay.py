"""How soon a post is in the feeds of all its followers, API and worker being processes of their own: on an idle system, and
behind a backlog of large authors' posts; and what another client of Redis waits while fan-out runs flat out.

By hand: `python -m tests.bench.delay [--runs 5]`.
"""

import asyncio
import json
import sys
import time
from statistics import median
from urllib.parse import urlsplit

from instafeed import posts
from instafeed.ids import IdMaker, shard_of
from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from instafeed.storage import posts as post_rows
from instafeed.storage.database import Connection
from instafeed.storage.follows import PackedFollowers
from instafeed.storage.outbox import Kind
from instafeed.storage.redis import Script
from tests.bench.common import Options, Row, fresh_servers, milliseconds, progress, run_alone
from tests.bench.community import fill_feeds, loading, new_accounts, packed, with_ids
from tests.bench.fan_out import Ahead, push, with_followers
from tests.processes import running_api_process, running_worker

FOLLOWERS = 10_000
POSTS = 100
LARGE = 100_000
BACKLOG = 10
POLL_SECONDS = 0.001

# KEYS: lists. ARGV: a post. Whether all have it at their head.
_ALL_HAVE = Script("""
for i = 1, #KEYS do if redis.call('LINDEX', KEYS[i], 0) ~= ARGV[1] then return 0 end end
return 1
""")

# In a process of its own: here a probe would wait for the pushes' client.
_PROBE = """
import json, socket, sys, time
host, port, password, key, seconds = sys.argv[1:]
times = []
def pack(*words): return b"*%d\\r\\n" % len(words) + b"".join(b"$%d\\r\\n%b\\r\\n" % (len(w), w) for w in words)
with socket.create_connection((host, int(port))) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answers = connection.makefile("rb")
    connection.sendall(pack(b"AUTH", password.encode()))
    assert answers.readline() == b"+OK\\r\\n"
    request = pack(b"LRANGE", key.encode(), b"0", b"30")
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        began = time.perf_counter()
        connection.sendall(request)
        for _ in range(2 * int(answers.readline()[1:])): answers.readline()
        times.append(time.perf_counter() - began)
        time.sleep(0.001)
print(json.dumps(times))
"""


async def bench(options: Options) -> list[Row]:
    """All three."""
    return [*await _bystander(options), *await _idle(options), *await _behind(options)]


async def _probe(settings: Settings, key: str, seconds: float) -> list[float]:
    url = urlsplit(settings.redis_url.get_secret_value())
    arguments = (str(url.hostname), str(url.port), str(url.password), key, str(seconds))
    probe = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROBE, *arguments), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await probe.communicate()
    times: list[float] = json.loads(output)
    return times


async def _bystander(options: Options) -> list[Row]:
    count = options.size(50_000, 4000)
    async with fresh_servers() as settings, open_resources(settings) as opened:
        res = with_ids(opened, IdMaker(clock=Ahead()))
        accounts = new_accounts(count)
        await fill_feeds(res, accounts, entries=res.timelines.window)
        followers, key = packed(res.timelines, accounts), res.timelines._key(accounts[0])
        progress("another client while fan-out runs flat out")
        seconds, idle, busy = options.size(3, 1), list[float](), list[float]()
        for _ in range(options.runs):
            idle += await _probe(settings, key, seconds)
            probe = asyncio.create_task(_probe(settings, key, seconds))
            while not probe.done():
                await push(res, followers, res.ids.next(7))
            busy += await probe
    return [
        Row("LRANGE of another client: idle", milliseconds(idle)[1], "ms p99"),
        Row("LRANGE of another client: fan-out flat out", milliseconds(busy)[1], "ms p99", most=2),
        Row("LRANGE of another client: fan-out flat out", milliseconds(busy)[0], "ms median"),
    ]


async def publish(res: Resources, author: int, lasts: list[str]) -> float:
    """A post becomes ready; returns the seconds from the commit until all these lists have it at their head."""
    post = res.ids.next(shard_of(author))

    async def draft(connection: Connection) -> None:
        await post_rows.insert(connection, post, author_id=author, caption="")

    async def body(connection: Connection) -> int:
        entry = await posts.publish_when_ready(res, connection, post)
        assert entry is not None
        return entry

    await res.db.transact(draft)
    entry = await res.db.transact(body)
    began = time.perf_counter()
    await res.queue.ring(Kind.FAN_OUT, entry)
    async with asyncio.timeout(30):
        while not await res.redis.run(_ALL_HAVE, lasts, post):  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(POLL_SECONDS)
    return time.perf_counter() - began


def last_keys(res: Resources, accounts: list[int]) -> list[str]:
    """The list of each bucket that is pushed to last."""

    def key(some: PackedFollowers) -> str:
        return some.keys[-some.width :]

    return [key(some) for some in packed(res.timelines, accounts)]


async def _idle(options: Options) -> list[Row]:
    rows = []
    async with (
        fresh_servers() as settings,
        open_resources(settings) as res,
        loading(settings) as load,
        running_api_process(settings),
        running_worker(settings),
    ):
        for count in (100, options.size(FOLLOWERS, 3000)):
            author, *accounts = new_accounts(1 + count)
            await load.accounts([author])
            await load.followers([(account, author) for account in accounts])
            await load.analyze()
            # Above ids of now the lists would take posts as late ones: they end some minutes before.
            await fill_feeds(res, accounts, entries=res.timelines.window)
            lasts = last_keys(res, accounts)
            progress(f"posts to {count:,} followers, one by one")
            times = []
            for _ in range(options.size(POSTS, 10)):
                times.append(await publish(res, author, lasts))
                await asyncio.sleep(0.05)
            middle, late = milliseconds(times)
            what = f"post ready → last of {count:,} followers, idle"
            rows += [Row(what, middle, "ms median"), Row(what, late, "ms p99", most=100)]
    return rows


async def _behind(options: Options) -> list[Row]:
    large = options.size(LARGE, 20_000)
    async with (
        fresh_servers(celebrity_followers=2 * LARGE) as settings,
        open_resources(settings) as res,
        loading(settings) as load,
        running_worker(settings),
    ):
        author = await with_followers(load, res, large, entries=8)
        small, *accounts = new_accounts(101)
        await load.accounts([small])
        await load.followers([(account, small) for account in accounts])
        await fill_feeds(res, accounts, entries=8)
        lasts = last_keys(res, accounts)
        times, waiting = [], []
        for number in range(options.runs):
            progress(f"a small author behind {BACKLOG} posts of {large:,} followers: {number + 1} of {options.runs}")
            for _ in range(BACKLOG):
                await _ready(res, author)
            await asyncio.sleep(0.2)
            times.append(await publish(res, small, lasts))
            waiting.append(await _undone(res))
            while await _undone(res):  # noqa: ASYNC110 - another process works
                await asyncio.sleep(0.2)
    assert min(waiting), "the backlog was gone before the small author's post"
    what = f"a small author's post behind {BACKLOG * large:,} deliveries"
    return [Row(what, median(times), "s", most=1), Row(f"{what}: the slowest", max(times), "s")]


async def _ready(res: Resources, author: int) -> None:
    post = res.ids.next(shard_of(author))

    async def body(connection: Connection) -> int | None:
        await post_rows.insert(connection, post, author_id=author, caption="")
        return await posts.publish_when_ready(res, connection, post)

    entry = await res.db.transact(body)
    assert entry is not None
    await res.queue.ring(Kind.FAN_OUT, entry)


async def _undone(res: Resources) -> int:
    async with res.db.acquire() as connection:
        count: int = await connection.fetchval(
            "select count(*) from outbox where done_at is null and kind in ('fan_out', 'deliver')"
        )
    return count


if __name__ == "__main__":
    run_alone(bench, __doc__)
