"""What an upload through the API costs: against `curl -T` of the same bytes straight into the same S3, and against the
same API that receives and hashes, and drops what it has received. And what a signed URL costs, against botocore's.

By hand: `python -m tests.bench.upload [--runs 5]`.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import botocore.session
import httpx

from instafeed import cli
from instafeed.settings import Settings
from instafeed.storage.blobs import Blobs
from instafeed.storage.s3_signing import Signer
from tests.bench.common import fresh_servers, show
from tests.client import Client
from tests.photos import large_jpeg
from tests.processes import MIB, Api, running_api_process

MB = 1_000_000
SIZES = {"20 MB": 20 * MB, "200 KB": 200_000}
# How many are sent at once, and how often in one run: so often that the ticks of the CPU's clock (10 ms) do not matter.
ROUNDS = {"20 MB": {1: 3, 16: 1}, "200 KB": {1: 40, 16: 8}}
URLS = 10_000


@dataclass
class Way:
    """A way to send a file: what curl is told, and the process that is measured."""

    name: str
    arguments: Callable[[], Sequence[str]]
    api: Api | None = None
    idle: int = 0
    """The process's memory before all of it."""


@dataclass
class Figures:
    """What a way took: medians, but of the memory the most."""

    seconds: float
    cpu_ms_per_mb: float
    memory_mib: float


async def curl(file: Path, arguments: Sequence[str]) -> None:
    """Send a file."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "-f", "-o", "/dev/null", "-H", "Expect:", "-T", str(file)), *arguments
    )
    assert await process.wait() == 0, "curl failed"


async def measure(way: Way, file: Path, size: str, at_once: int, runs: int) -> Figures:
    """Send `file` `at_once` times, again and again."""
    rounds = ROUNDS[size][at_once]
    seconds, cpu, memory = [], [], []
    for _ in range(runs + 1):
        used = way.api.cpu_seconds if way.api else 0.0
        if way.api:
            way.api.forget_peak()
        began = time.perf_counter()
        for _ in range(rounds):
            await asyncio.gather(*(curl(file, way.arguments()) for _ in range(at_once)))
        seconds.append((time.perf_counter() - began) / rounds)
        if way.api:
            cpu.append(1000 * (way.api.cpu_seconds - used) / (rounds * at_once * SIZES[size] / MB))
            memory.append((way.api.peak_memory - way.idle) / MIB)
    # The first run warms up.
    return Figures(median(seconds[1:]), median(cpu[1:] or [0.0]), max(memory[1:] or [0.0]))


async def measure_uploads(settings: Settings, runs: int) -> None:
    """Measure all ways, and print a table."""
    header = ["size", "at once", "way", "seconds", "to S3 = 1", "CPU ms/MB", "dropped = 1", "MiB above idle"]
    rows: list[list[object]] = []
    async with (
        running_api_process(settings) as sized,
        running_api_process(settings) as chunked,
        running_api_process(settings, "-m", "tests.bench.upload", "--dropping") as dropping,
    ):
        async with httpx.AsyncClient(base_url=sized.url) as http:
            author = await Client.sign_up(http)
        ways = [
            Way("curl -T into S3", into_s3(settings)),
            through(dropping, author, "received, hashed, dropped"),
            through(sized, author, "through the API"),
            through(chunked, author, "the same, without a length", "-H", "Transfer-Encoding: chunked"),
        ]
        with TemporaryDirectory() as folder:
            file = Path(folder, "photo.jpg")
            for size, rounds in ROUNDS.items():
                file.write_bytes(large_jpeg(SIZES[size]))
                for at_once in rounds:
                    found = [await measure(way, file, size, at_once, runs) for way in ways]
                    straight, dropped = found[:2]
                    rows += [
                        [
                            *(size, at_once, way.name, figures.seconds, figures.seconds / straight.seconds),
                            *(figures.cpu_ms_per_mb, figures.cpu_ms_per_mb / dropped.cpu_ms_per_mb, figures.memory_mib),
                        ]
                        for way, figures in zip(ways, found, strict=True)
                    ]
    show(f"Uploads: medians of {runs} runs, memory the most of all", header, rows)


def signer(settings: Settings) -> Signer:
    """Signs for the settings' bucket."""
    assert settings.s3_endpoint
    return Signer(
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        bucket=settings.s3_bucket,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
    )


def into_s3(settings: Settings) -> Callable[[], Sequence[str]]:
    """Straight into S3."""
    sign, numbers = signer(settings), iter(range(1_000_000))
    return lambda: [sign.url("PUT", f"bench/{next(numbers)}", at=time.time(), seconds=600)]


def through(api: Api, author: Client, name: str, *more: str) -> Way:
    """Through an API."""
    arguments = ["-X", "POST", "-H", f"Authorization: Bearer {author.token}", *more, f"{api.url}/v1/media"]
    return Way(name, lambda: arguments, api, api.memory)


def measure_signing(settings: Settings) -> None:
    """Sign many URLs, and print a table."""
    sign = signer(settings)
    client = botocore.session.get_session().create_client(
        "s3",
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
    )
    ways: dict[str, Callable[[str], object]] = {
        "ours": lambda key: sign.url("GET", key, at=1_790_000_000, seconds=7200),
        "botocore": lambda key: client.generate_presigned_url("get_object", {"Bucket": "b", "Key": key}, 7200),
    }
    rows: list[list[object]] = []
    for name, way in ways.items():
        began = time.process_time()
        for number in range(URLS):
            way(f"renditions/0123456789abcdef0123456789abcdef/{number}.webp")
        rows.append([name, 1e6 * (time.process_time() - began) / URLS])
    show("A signed URL", ["by", "CPU µs"], rows)


def serve_dropping() -> int:
    """The same API, but what has passed through it goes nowhere."""

    async def drop(_: Blobs, __: str, body: AsyncIterator[bytes], **___: object) -> None:
        async for _piece in body:
            pass

    Blobs.put = drop  # type: ignore[method-assign, assignment]
    return cli.main(sys.argv[2:])


async def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    async with fresh_servers() as settings:
        measure_signing(settings)
        await measure_uploads(settings, runs)


if __name__ == "__main__":
    if "--dropping" in sys.argv:
        sys.exit(serve_dropping())
    asyncio.run(main())
