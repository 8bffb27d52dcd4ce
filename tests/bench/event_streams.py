"""What open event streams cost one API process, and how soon each of them is told: memory a stream, delay and processor time an
event, and how long a small request takes meanwhile.

By hand: `python -m tests.bench.event_streams [--streams 5000] [--runs 5]`.
"""

import argparse
import asyncio
import gc
import hashlib
import json
import resource
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import cast
from urllib.parse import urlsplit

import uvloop

from instafeed.ids import shard_of
from instafeed.models import EventType
from instafeed.resources import open_resources
from instafeed.storage.database import Connection
from tests.bench.common import Options, Row, fresh_servers, show
from tests.feeds.world import World, add_follows, add_posts, add_rows
from tests.processes import Api, running_api_process

EVENTS = 10
"""Events of a run."""
PAUSE_SECONDS = 0.3
"""Between two events: each is measured alone."""
WARM_UP = 200
"""Streams that are opened and closed first: what the process allocates once is no stream's."""
OPENING = 32
"""Streams that are being opened at the same time."""
IDLE_SECONDS = 3.0

# In a process of its own: here a request would wait for the streams' client.
_PROBE = """
import json, socket, sys, time
address, times = (sys.argv[1], int(sys.argv[2])), []
request = b"GET /livez HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"
with socket.create_connection(address) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    end = time.monotonic() + float(sys.argv[3])
    while time.monotonic() < end:
        began = time.perf_counter()
        connection.sendall(request)
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        times.append(time.perf_counter() - began)
        time.sleep(0.002)
print(json.dumps(times))
"""


@dataclass
class Told:
    """When streams were told of what is awaited now."""

    post: bytes = b"-"
    times: list[float] = field(default_factory=list)
    count: int = 0
    all: asyncio.Event = field(default_factory=asyncio.Event)

    def expect(self, post: int, count: int) -> None:
        """Wait for this post on so many streams."""
        self.post, self.times, self.count = str(post).encode(), [], count
        self.all.clear()

    def add(self, when: float) -> None:
        """A stream has it."""
        self.times.append(when)
        if len(self.times) == self.count:
            self.all.set()


class Stream(asyncio.Protocol):
    """One client."""

    def __init__(self, told: Told, request: bytes) -> None:
        self._told = told
        self._request = request
        self._received = b""
        self.transport: asyncio.Transport
        self.begun = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        if not self.begun.done():
            self._received += data
            if b"id: " in self._received:
                self.begun.set_result(None)
        elif self._told.post in data:
            self._told.add(now)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.begun.done():
            self.begun.set_exception(ConnectionError(self._received))


async def followers(world: World, author: int, count: int) -> list[str]:
    """Accounts that follow the author; returns a token of each."""
    ids = [world.res.ids.next(number % 8192) for number in range(count)]
    found = [(id_, secrets.token_urlsafe(32)) for id_ in ids]
    await add_rows(
        world,
        "accounts",
        [{"shard": shard_of(id_), "id": id_, "username": f"u{id_}", "password_hash": ""} for id_ in ids],
    )
    await add_rows(
        world,
        "sessions",
        [
            {
                "shard": shard_of(id_),
                "id": world.res.ids.next(shard_of(id_)),
                "account_id": id_,
                "token_hash": hashlib.sha256(secret.encode()).digest(),
                "device_name": "",
            }
            for id_, secret in found
        ],
    )
    await add_follows(world, [(id_, author) for id_ in ids])
    return [f"{id_}.{secret}" for id_, secret in found]


@asynccontextmanager
async def streams(api: Api, told: Told, tokens: list[str]) -> AsyncIterator[None]:
    """An open stream for each token, while the block runs."""
    parts = urlsplit(api.url)
    host, port = str(parts.hostname), parts.port or 80
    loop = asyncio.get_running_loop()
    opened: list[Stream] = []
    slots = asyncio.Semaphore(OPENING)

    async def open_one(token: str) -> None:
        # What a phone's library sends.
        head = (
            f"GET /v1/feed/events HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
            "Accept: text/event-stream\r\nAccept-Encoding: gzip\r\nCache-Control: no-cache\r\nUser-Agent: bench/1\r\n\r\n"
        )
        async with slots:
            _, stream = await loop.create_connection(lambda: Stream(told, head.encode()), host, port)
            opened.append(stream)
            await asyncio.wait_for(stream.begun, 20)

    try:
        await asyncio.gather(*map(open_one, tokens))
        yield
    finally:
        for stream in opened:
            stream.transport.abort()
        await asyncio.sleep(1)


@asynccontextmanager
async def probing(api: Api, seconds: float, times: list[float]) -> AsyncIterator[None]:
    """Small requests, one after the other, for some seconds; their times in seconds are put into `times` at the end."""
    parts = urlsplit(api.url)
    arguments = [sys.executable, "-c", _PROBE, str(parts.hostname), str(parts.port), str(seconds)]
    probe = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    yield
    output, _ = await probe.communicate()
    times += json.loads(output)


async def tell(world: World, author: int, told: Told, count: int) -> list[float]:
    """One event; returns when each stream had it, in seconds after it began to be logged."""
    [post] = await add_posts(world, [author])
    told.expect(post, count)
    began = time.perf_counter()
    await world.res.events.add(EventType.POST_CREATED, author_id=author, post_id=post)
    async with asyncio.timeout(20):
        await told.all.wait()
    return sorted(when - began for when in told.times)


def milliseconds(times: list[float]) -> Iterator[float]:
    """Median, 99th percentile and maximum."""
    yield median(times) * 1000
    yield quantiles(times, n=100, method="inclusive")[98] * 1000
    yield max(times) * 1000


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured: memory in bytes, times in seconds."""

    before: int
    after: int
    loaded: int
    closed: int
    opened: float
    idle: float
    spent: float
    first: list[float]
    middle: list[float]
    last: list[float]
    everyone: list[float]
    quiet: list[float]
    busy: list[float]


async def measure(count: int, runs: int) -> Found:
    """Open so many streams, and tell them of events."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with (
        fresh_servers(rate_limits="on") as settings,
        running_api_process(settings) as api,
        open_resources(settings) as res,
    ):
        world = World.of(res)
        author = await world.account()
        tokens = await followers(world, author, count)

        async def analyze(connection: Connection) -> None:
            await connection.execute("analyze")

        await res.db.transact(analyze)
        told = Told()
        async with streams(api, told, tokens[:WARM_UP]):
            await tell(world, author, told, min(WARM_UP, count))
        before = api.memory
        began = time.perf_counter()
        async with streams(api, told, tokens):
            opened = time.perf_counter() - began
            after = api.memory
            gc.collect()
            gc.freeze()  # a pause of ours would count as delay
            cpu = api.cpu_seconds
            await asyncio.sleep(IDLE_SECONDS)
            idle = (api.cpu_seconds - cpu) / IDLE_SECONDS
            first, middle, last, everyone = [], [], [], []
            spent = 0.0
            for _ in range(runs * EVENTS):
                cpu, began = api.cpu_seconds, time.perf_counter()
                times = await tell(world, author, told, count)
                spent += api.cpu_seconds - cpu - (time.perf_counter() - began) * idle
                first.append(times[0])
                middle.append(median(times))
                last.append(times[-1])
                everyone += times
                await asyncio.sleep(PAUSE_SECONDS)
            # Apart: the probe takes processor time from those above.
            quiet, busy = list[float](), list[float]()
            async with probing(api, IDLE_SECONDS, quiet):
                await asyncio.sleep(IDLE_SECONDS)
            async with probing(api, runs * EVENTS * PAUSE_SECONDS, busy):
                for _ in range(runs * EVENTS):
                    began = time.perf_counter()
                    await tell(world, author, told, count)
                    await asyncio.sleep(max(0.0, PAUSE_SECONDS - (time.perf_counter() - began)))
            loaded = api.memory
        closed = api.memory
    return Found(before, after, loaded, closed, opened, idle, spent, first, middle, last, everyone, quiet, busy)


async def bench(options: Options) -> list[Row]:
    """The figures that have targets."""
    count = options.size(5000, 500)
    found = await measure(count, 1 if options.quick else options.runs)
    return [
        Row(f"{count:,} event streams: memory of each", (found.after - found.before) / count / 1024, "KiB", most=40),
        Row(
            f"{count:,} event streams: memory of each after events", (found.loaded - found.before) / count / 1024, "KiB"
        ),
        Row(f"{count:,} event streams: an event reaches the median one", median(found.everyone) * 1000, "ms"),
        Row(f"{count:,} event streams: an event reaches the last one", median(found.last) * 1000, "ms", most=100),
    ]


async def main(count: int, runs: int) -> None:
    """Measure, and print the tables."""
    found = await measure(count, runs)
    show(
        f"{count:,} open streams",
        ["what", "figure"],
        [
            ["KiB of memory a stream", (found.after - found.before) / count / 1024],
            ["KiB a stream after the events", (found.loaded - found.before) / count / 1024],
            ["MiB of the process before", found.before / 2**20],
            ["MiB with the streams", found.after / 2**20],
            ["MiB when they are closed", found.closed / 2**20],
            ["ms to open one", found.opened / count * 1000],
            ["% of a core while nothing happens", found.idle * 100],
            ["µs of processor an event and stream", found.spent / runs / EVENTS / count * 1e6],
        ],
    )
    show(
        f"ms from logging an event to its arrival, {runs} runs of {EVENTS} events",
        ["who", "median", "p99", "max"],
        [
            ["the first stream", *milliseconds(found.first)],
            ["the middle stream", *milliseconds(found.middle)],
            ["the last stream", *milliseconds(found.last)],
            ["all streams", *milliseconds(found.everyone)],
        ],
    )
    show(
        "ms of GET /livez",
        ["while", "median", "p99", "max"],
        [["nothing happens", *milliseconds(found.quiet)], ["events are told", *milliseconds(found.busy)]],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    uvloop.run(main(options.streams, options.runs))  # a lighter client
