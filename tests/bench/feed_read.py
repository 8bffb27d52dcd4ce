"""How fast the first page of a home feed is read, through one API process: against a process that answers the same bytes
without looking anything up.

By hand: `python -m tests.bench.feed_read [--seconds 3] [--runs 5]`.
"""

import argparse
import asyncio
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urlsplit

import httpx

from instafeed.dev.process import Child
from instafeed.ids import shard_of
from instafeed.models import Rendition
from instafeed.resources import open_resources
from instafeed.settings import Settings
from instafeed.storage import media as media_rows
from tests.bench.common import fresh_servers, show
from tests.client import Client, eventually
from tests.feeds.world import World, add_follows, add_posts
from tests.processes import running_api_process

AUTHORS = 50
POSTS = 1000
CONNECTIONS = 8

_PREBUILT = """
import sys, uvicorn
body = open(sys.argv[2], "rb").read()
head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode())]}
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send(head)
        await send({"type": "http.response.body", "body": body})
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, lifespan="off")
"""


async def fill(settings: Settings, reader: int) -> None:
    """Authors whom the reader follows, and posts with one ready photo each."""
    async with open_resources(settings) as res:
        world = World.of(res)
        authors = [await world.account(shard) for shard in range(1, AUTHORS + 1)]
        await add_follows(world, [(reader, author) for author in authors])
        posts = await add_posts(world, [authors[number % AUTHORS] for number in range(POSTS)])
        renditions = [
            Rendition(name, f"renditions/{'x' * 32}/{name}.{kind}", 1080, 720, f"image/{kind}", 100_000)
            for kind in ("jpeg", "webp")
            for name in ("1080", "640", "320", "150")
        ]
        async with res.db.acquire() as connection:
            for number, post in enumerate(posts):
                id_ = res.ids.next(shard_of(post))
                author = authors[number % AUTHORS]
                await media_rows.insert_pending(connection, id_, account_id=author, object_key="x")
                await connection.execute(
                    "update media set status = 'processing', post_id = $3, position = 1 where shard = $1 and id = $2",
                    shard_of(id_),
                    id_,
                    post,
                )
                await media_rows.mark_ready(
                    connection,
                    id_,
                    width=4000,
                    height=3000,
                    blurhash="LEHV6nWB2yk8pyo0adR*.7kCMdnj",
                    renditions=renditions,
                )
            await connection.execute("analyze")


@asynccontextmanager
async def prebuilt(body: bytes) -> AsyncIterator[str]:
    """A process that answers `body` to everything."""
    with tempfile.NamedTemporaryFile() as file, socket.socket() as free:
        Path(file.name).write_bytes(body)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        child = await Child.start([sys.executable, "-c", _PREBUILT, str(port), file.name], environ={})
        try:
            async with httpx.AsyncClient() as http:

                async def answers() -> bool:
                    try:
                        return (await http.get(f"http://127.0.0.1:{port}/")).is_success
                    except httpx.TransportError:
                        return False

                await eventually(answers)
            yield f"http://127.0.0.1:{port}"
        finally:
            await child.stop(signal.SIGTERM, seconds=5)


async def load(url: str, token: str, seconds: float) -> tuple[float, float]:
    """Requests a second over some connections, and the 99th percentile of their time in ms."""
    parts = urlsplit(url)
    request = f"GET /v1/feed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while (began := time.perf_counter()) < end:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head[:200]
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            times.append(time.perf_counter() - began)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return len(times) / seconds, quantiles(times, n=100)[98] * 1000


async def main(seconds: float, runs: int) -> None:
    """Measure, and print the table."""
    async with (
        fresh_servers(rate_limits="on") as settings,
        running_api_process(settings) as api,
        httpx.AsyncClient(base_url=api.url, timeout=30) as http,
    ):
        reader = await Client.sign_up(http)
        await fill(settings, int(reader.id))
        page = await http.get("/v1/feed", headers=reader.headers)
        assert len(page.json()["items"]) == 30
        figures: dict[str, list[tuple[float, float]]] = {"prebuilt": [], "first page": []}
        async with prebuilt(page.content) as plain:
            for _ in range(runs):
                figures["prebuilt"].append(await load(plain, reader.token, seconds))
                figures["first page"].append(await load(api.url, reader.token, seconds))
    rates = {name: median(rate for rate, _ in found) for name, found in figures.items()}
    show(
        f"first page of 30 posts ({len(page.content):,} bytes), {CONNECTIONS} connections, median of {runs}",
        ["way", "pages/s", "ratio", "p99 ms"],
        [
            [name, rates[name], rates[name] / rates["prebuilt"], median(p99 for _, p99 in found)]
            for name, found in figures.items()
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(main(options.seconds, options.runs))
