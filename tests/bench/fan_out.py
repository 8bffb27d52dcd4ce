"""How fast a post gets into its followers' feeds: our push against `redis-cli --pipe` with the same commands to feeds that are
alike, and the whole job, from the outbox to the event that tells of it, against our push alone.

By hand: `python -m tests.bench.fan_out [--runs 5]`; needs redis-cli.
"""

import asyncio
import gc
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from instafeed import telemetry, work
from instafeed.ids import IdMaker, shard_of
from instafeed.jobs.worker import run
from instafeed.models import Event
from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from instafeed.storage.event_log import EventReader
from instafeed.storage.follows import PackedFollowers
from instafeed.storage.outbox import Kind
from tests.bench.common import Options, Row, fresh_servers, progress, run_alone
from tests.bench.community import MINUTE, Loader, fill_feeds, later, loading, new_accounts, packed, with_ids

FOLLOWERS = 50_000
MANY = 1_000_000
SHORT = 8
QUEUES = ("fanout", "bulk")


class Ahead:
    """A clock that begins where the feeds end, and steps on by minutes."""

    def __init__(self) -> None:
        self._now = time.time() * 1000

    def __call__(self) -> int:
        """The time."""
        self._now += 5 * MINUTE
        return int(self._now)


@asynccontextmanager
async def working(res: Resources, queues: Sequence[str] = QUEUES) -> AsyncIterator[EventReader]:
    """One worker in this process; yields what tells when it is done."""
    stop = asyncio.Event()
    telemetry.set_up(res.settings, process="bench")
    async with res.events.reader() as reader:
        running = asyncio.create_task(run(res, queues, stop))
        try:
            await asyncio.sleep(0.3)
            yield reader
        finally:
            stop.set()
            await running


async def publish(res: Resources, author: int) -> tuple[int, int]:
    """A new post of the author, whose fan-out nobody has been called to; returns it and the outbox entry."""
    post = res.ids.next(shard_of(author))
    async with res.db.acquire() as connection, connection.transaction():
        await connection.execute(
            "insert into posts (shard, id, author_id, caption, published_at) values ($1, $2, $3, '', now())",
            *(shard_of(author), post, author),
        )
        payload = {"post": post, "author": author}
        return post, await work.note(res, connection, shard_of(author), Kind.FAN_OUT, payload)


async def told(reader: EventReader, post: int, last: str) -> Event:
    """The event that follows the last push of a post."""
    while True:
        for event in await reader.wait(last, milliseconds=500):
            last = event.id
            if event.post_id == post:
                return event


async def whole_job(res: Resources, reader: EventReader, author: int) -> tuple[float, float]:
    """Seconds from the bell until all are served and told, and of this process's processor time."""
    last = await res.events.last_id()
    post, entry = await publish(res, author)
    cpu, began = time.process_time(), time.perf_counter()
    await res.queue.ring(Kind.FAN_OUT, entry)
    await told(reader, post, last)
    return time.perf_counter() - began, time.process_time() - cpu


async def pipe(settings: Settings, keys: Sequence[str], post: int, window: int) -> float:
    """Seconds that redis-cli takes to push a post into these lists, and to trim them."""
    url = urlsplit(settings.redis_url.get_secret_value())
    with TemporaryDirectory() as folder:
        file = Path(folder, "commands")
        file.write_text("".join(f"LPUSHX {key} {post}\r\nLTRIM {key} 0 {window - 1}\r\n" for key in keys))
        began = time.perf_counter()
        with file.open("rb") as commands:  # noqa: ASYNC230 - a moment, and not measured
            process = await asyncio.create_subprocess_exec(
                *("redis-cli", "-h", url.hostname or "", "-p", str(url.port), "--pipe"),
                stdin=commands,
                stdout=asyncio.subprocess.DEVNULL,
                env={"REDISCLI_AUTH": url.password or ""},
            )
            assert await process.wait() == 0
        return time.perf_counter() - began


async def push(res: Resources, followers: Sequence[PackedFollowers], post: int, *, again: bool = False) -> float:
    """Seconds that our push takes."""
    began = time.perf_counter()
    await res.timelines.push(post, followers, again=again)
    return time.perf_counter() - began


async def keep_log(res: Resources) -> None:
    """Have Redis log its writes, and wait until the log is complete."""
    await res.redis.call("x", "CONFIG", "SET", "auto-aof-rewrite-percentage", 0)
    await res.redis.call("x", "CONFIG", "SET", "appendonly", "yes")
    while await _rewrites(res):  # noqa: ASYNC110 - Redis tells nobody
        await asyncio.sleep(0.2)


async def _rewrites(res: Resources) -> bool:
    info = await res.redis.call("x", "INFO", "persistence")
    return b"aof_rewrite_in_progress:1" in info or b"aof_rewrite_scheduled:1" in info


async def bench(options: Options) -> list[Row]:
    """Pushes, and the whole job, with and without a log of Redis's writes; then a million followers."""
    if shutil.which("redis-cli") is None:
        progress("skipped: redis-cli is missing (Debian's package redis-tools)")
        return []
    count = options.size(FOLLOWERS, 4000)
    rows: list[Row] = []
    async with (
        fresh_servers() as settings,
        open_resources(settings) as opened,
        loading(settings) as load,
    ):
        res = with_ids(opened, IdMaker(clock=Ahead()))
        author, *accounts = new_accounts(1 + 2 * count)
        # Apart, but alike: trimming each time and trimming now and then leave lists of different lengths.
        theirs, ours = accounts[::2], accounts[1::2]
        await load.accounts([author])
        await load.followers([(account, author) for account in ours])
        await load.analyze()
        progress(f"filling twice {count:,} feeds")
        window = res.timelines.window
        await fill_feeds(res, theirs, entries=window, alike=True)
        newest = (await fill_feeds(res, ours, entries=window))[20]
        keys, followers = [res.timelines._key(account) for account in sorted(theirs)], packed(res.timelines, ours)
        gc.collect()
        gc.freeze()
        for log in (False, True):
            if log:
                await keep_log(res)
            name = f"{count:,} full feeds{', AOF every second' * log}"
            progress(name)
            piped, pushed, jobs, cpus, late, again = (list[float]() for _ in range(6))
            for number in range(options.runs):
                piped.append(await pipe(settings, keys, res.ids.next(7), window))
                pushed.append(await push(res, followers, post := res.ids.next(7)))
                async with working(res) as reader:
                    seconds, cpu = await whole_job(res, reader, author)
                jobs.append(seconds)
                cpus.append(cpu)
                again.append(await push(res, followers, post, again=True))
                late.append(await push(res, followers, later(newest, 1000 * (number + 1) + log * 30_000)))
            base, rate = count / median(piped), count / median(pushed)
            rows += [
                Row(f"push, {name}, against redis-cli --pipe", rate, "/s", base, least=1.4 if log else 1.8),
                Row(
                    f"the whole job, {name}, against push",
                    count / median(jobs),
                    "/s",
                    rate,
                    least=None if log else 0.75,
                ),
                Row(
                    f"the whole job, {name}: Python",
                    median(cpus) / count * 1e6,
                    "µs of CPU each",
                    most=None if log else 0.4,
                ),
                Row(f"a late post, {name}, against push", count / median(late), "/s", rate),
                Row(f"a post pushed again, {name}, against push", count / median(again), "/s", rate),
            ]
        gc.unfreeze()
    return [*rows, *await _many(options)]


async def _many(options: Options) -> list[Row]:
    count = options.size(MANY, 100_000)
    async with (
        fresh_servers(celebrity_followers=2 * MANY) as settings,
        open_resources(settings) as opened,
        loading(settings) as load,
    ):
        res = with_ids(opened, IdMaker(clock=Ahead()))
        author = await with_followers(load, res, count, entries=SHORT)
        progress(f"{count:,} followers")
        async with working(res) as reader:
            await whole_job(res, reader, author)
            times, cpus = zip(*[await whole_job(res, reader, author) for _ in range(options.runs)], strict=True)
    what = f"the whole job, {count:,} followers with feeds of about {SHORT}, one worker"
    return [
        Row(what, median(times), "s", most=3),
        Row(f"{what}: Python", median(cpus) / count * 1e6, "µs of CPU each"),
    ]


async def with_followers(load: Loader, res: Resources, count: int, *, entries: int) -> int:
    """An author with so many followers, whose feeds hold about so many posts."""
    author, *accounts = new_accounts(1 + count)
    progress(f"loading {count:,} followers")
    await load.accounts([author])
    await load.followers([(account, author) for account in accounts])
    await load.analyze()
    await fill_feeds(res, accounts, entries=entries)
    return author


if __name__ == "__main__":
    run_alone(bench, __doc__)
