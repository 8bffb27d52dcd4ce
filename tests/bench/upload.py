"""What an upload through the API costs: against `curl -T` of the same bytes straight into the same S3, and against the
same API that receives and hashes, and drops what it has received.

By hand: `python -m tests.bench.upload [--runs 7]`.
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
AT_ONCE = {"20 MB": {1: 3, 16: 1}, "200 KB": {1: 40, 16: 8}}

Target = Callable[[], Sequence[str]]
"""Gives the arguments with which curl sends a file somewhere."""


@dataclass
class Figures:
    """Medians of one way, size and concurrency."""

    seconds: float
    cpu_ms_per_mb: float
    memory_mib: float


async def curl(file: Path, target: Sequence[str]) -> None:
    """Send a file."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "-f", "-o", "/dev/null", "-H", "Expect:", "-T", str(file)), *target
    )
    assert await process.wait() == 0, "curl failed"


async def measure(
    file: Path, size: str, at_once: int, runs: int, target: Target, api: Api | None = None, idle: int = 0
) -> Figures:
    """Send `file` `at_once` times, again and again; `idle` is the API's memory before all of it."""
    rounds = AT_ONCE[size][at_once]
    seconds, cpu, memory = [], [], []
    for _ in range(runs + 1):
        used = 0.0
        if api:
            api.forget_peak()
            used = api.cpu_seconds
        began = time.perf_counter()
        for _ in range(rounds):
            await asyncio.gather(*(curl(file, target()) for _ in range(at_once)))
        seconds.append((time.perf_counter() - began) / rounds)
        if api:
            cpu.append(1000 * (api.cpu_seconds - used) / (rounds * at_once * SIZES[size] / MB))
            memory.append((api.peak_memory - idle) / MIB)
    # The first run warms up.
    return Figures(median(seconds[1:]), median(cpu[1:] or [0]), max(memory[1:] or [0]))


async def run(runs: int) -> None:
    """Measure all ways, and print one table."""
    rows: list[list[object]] = []
    with TemporaryDirectory() as folder:
        files = {size: Path(folder, size.replace(" ", "")) for size in SIZES}
        for size, file in files.items():
            file.write_bytes(large_jpeg(SIZES[size]))
        async with (
            fresh_servers() as settings,
            running_api_process(settings) as api,
            running_api_process(settings, "-m", "tests.bench.upload", "--dropping") as dropping,
        ):
            async with httpx.AsyncClient(base_url=api.url) as http:
                author = await Client.sign_up(http)
                await asyncio.gather(*(author.upload() for _ in range(16)))
            idle = api.memory
            straight = directly(settings)
            sized = through(api, author)
            chunked = through(api, author, "-H", "Transfer-Encoding: chunked")
            dropped = through(dropping, author)
            for size, file in files.items():
                for at_once in AT_ONCE[size]:
                    base = await measure(file, size, at_once, runs, straight)
                    drop = await measure(file, size, at_once, runs, dropped, dropping, dropping.memory)
                    rows.append([size, at_once, "curl -T into S3", base.seconds, 1.0, "", "", ""])
                    for name, target in (("through the API", sized), ("the same, in chunks", chunked)):
                        found = await measure(file, size, at_once, runs, target, api, idle)
                        rows.append(
                            [
                                *(size, at_once, name, found.seconds, found.seconds / base.seconds),
                                *(found.cpu_ms_per_mb, found.cpu_ms_per_mb / drop.cpu_ms_per_mb, found.memory_mib),
                            ]
                        )
                    rows.append(
                        [
                            *(size, at_once, "received, hashed, dropped", drop.seconds, drop.seconds / base.seconds),
                            *(drop.cpu_ms_per_mb, 1.0, drop.memory_mib),
                        ]
                    )
    header = ["size", "at once", "way", "seconds", "to S3 = 1", "CPU ms/MB", "dropping = 1", "MiB above idle"]
    show(f"Uploads: medians of {runs} runs, memory the most of all", header, rows)


def directly(settings: Settings) -> Target:
    """Into S3."""
    assert settings.s3_endpoint
    signer = Signer(
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        bucket=settings.s3_bucket,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
    )
    numbers = iter(range(1_000_000))
    return lambda: [signer.url("PUT", f"bench/{next(numbers)}", at=time.time(), seconds=600)]


def through(api: Api, author: Client, *more: str) -> Target:
    """Through an API."""
    return lambda: ["-X", "POST", "-H", f"Authorization: Bearer {author.token}", *more, f"{api.url}/v1/media"]


def serve_dropping() -> int:
    """The same API, but what has passed through it goes nowhere."""

    async def drop(_: Blobs, __: str, body: AsyncIterator[bytes], **___: object) -> None:
        async for _piece in body:
            pass

    Blobs.put = drop  # type: ignore[method-assign, assignment]
    return cli.main(sys.argv[2:])


if __name__ == "__main__":
    if "--dropping" in sys.argv:
        sys.exit(serve_dropping())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    asyncio.run(run(parser.parse_args().runs))
