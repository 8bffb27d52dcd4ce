"""What an upload through the API costs: against `curl -T` of the same bytes straight into the same S3, and against the
same API that receives and hashes, and drops what it has received. And what a signed URL costs, against botocore's.

By hand: `python -m tests.bench.upload [--runs 5]`; needs curl.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import botocore.session

from instafeed import cli
from instafeed.settings import Settings
from instafeed.storage.blobs import Blobs
from instafeed.storage.s3_signing import Signer
from tests.bench.common import Options, Row, fresh_servers, progress, run_alone
from tests.client import Client, http_client
from tests.photos import large_jpeg
from tests.processes import MIB, Api, running_api_process

MB = 1_000_000
SIZES = {"20 MB": 20 * MB, "200 KB": 200_000}
# How many are sent at once, and how often in one run: so often that the ticks of the CPU's clock (10 ms) do not matter.
MANY = 50
ROUNDS = {"20 MB": {1: 3, 16: 1}, "200 KB": {1: 40, 16: 8}}
URLS = 10_000


@dataclass
class Way:
    """A way to send a file: what curl is told, the process that is measured, and what each run took."""

    arguments: Callable[[], Sequence[str]]
    api: Api | None = None
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    """ms a MB."""
    memory: list[float] = field(default_factory=list)
    """MiB, at most, above what an idle process has that has taken photos before."""
    idle: int | None = None

    async def run(self, file: Path, size: str, at_once: int, rounds: int) -> None:
        """Send `file`, which has this size, `at_once` times, `rounds` times over."""
        used = self.api.cpu_seconds if self.api else 0.0
        if self.api:
            self.api.forget_peak()
        began = time.perf_counter()
        for _ in range(rounds):
            await asyncio.gather(*(curl(file, self.arguments()) for _ in range(at_once)))
        self.seconds.append((time.perf_counter() - began) / rounds)
        if self.api:
            self.cpu.append(1000 * (self.api.cpu_seconds - used) / (rounds * at_once * SIZES[size] / MB))
            self.memory.append((self.api.peak_memory - (self.idle or 0)) / MIB)

    def forget(self) -> None:
        """Begin anew."""
        self.seconds, self.cpu, self.memory = [], [], []
        if self.api and self.idle is None:
            self.idle = self.api.memory


async def curl(file: Path, arguments: Sequence[str]) -> None:
    """Send a file; again, as a client does, where the answer is 503."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "-f", "-o", "/dev/null", "--retry", "3", "-H", "Expect:", "-T", str(file)), *arguments
    )
    assert await process.wait() == 0, "curl failed"


async def bench(options: Options) -> list[Row]:
    """The figures that have targets."""
    async with fresh_servers() as settings:
        return [*await _uploads(settings, options), *_signing(settings)]


async def _uploads(settings: Settings, options: Options) -> list[Row]:
    rows: list[Row] = []
    async with (
        running_api_process(settings) as sized,
        running_api_process(settings) as chunked,
        running_api_process(settings, "-m", "tests.bench.upload", "--dropping") as dropping,
    ):
        async with http_client(base_url=sized.url) as http:
            author = await Client.sign_up(http)
        straight = Way(into_s3(settings))
        dropped, streamed = through(dropping, author), through(sized, author)
        unsized = through(chunked, author, "-H", "Transfer-Encoding: chunked")
        ways = straight, dropped, streamed, unsized
        with TemporaryDirectory() as folder:
            file = Path(folder, "photo.jpg")
            for size, counts in reversed(ROUNDS.items()):
                file.write_bytes(large_jpeg(SIZES[size]))
                for at_once, rounds in counts.items():
                    progress(f"{size}, {at_once} at once")
                    await _measure(ways, file, size, at_once, options.size(rounds, 1), options.runs)
                    rows += _rows(f"{size}, {at_once} at once", at_once, *ways)
            progress(f"20 MB, {MANY} at once")
            await _measure([streamed], file, "20 MB", MANY, 1, 1)
            rows.append(Row(f"20 MB, {MANY} at once, memory above idle", max(streamed.memory), "MiB", most=60))
    return rows


async def _measure(ways: Sequence[Way], file: Path, size: str, at_once: int, rounds: int, runs: int) -> None:
    for way in ways:  # the first one warms up
        await way.run(file, size, at_once, rounds)
        way.forget()
    for run in range(runs):
        # There and back: each leaves something for the next one, such as pages to be written.
        for way in ways if run % 2 == 0 else reversed(ways):
            await way.run(file, size, at_once, rounds)


def _rows(what: str, at_once: int, straight: Way, dropped: Way, streamed: Way, unsized: Way) -> list[Row]:
    memory = max(streamed.memory)

    def rate(way: Way) -> float:
        return 1 / median(way.seconds)

    return [
        Row(f"{what}, against curl into S3", rate(streamed), "rounds/s", rate(straight), least=0.85),
        Row(f"{what}, without a length", rate(unsized), "rounds/s", rate(straight)),
        Row(f"{what}, CPU against dropping", median(streamed.cpu), "ms/MB", median(dropped.cpu), most=2),
        Row(f"{what}, memory above idle", memory, "MiB"),
        Row(f"{what}, memory above idle without a length", max(unsized.memory), "MiB"),
        *([Row(f"{what}, memory of each", memory / at_once, "MiB", most=1)] if at_once > 1 else []),
    ]


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


def through(api: Api, author: Client, *more: str) -> Way:
    """Through an API."""
    arguments = ["-X", "POST", "-H", f"Authorization: Bearer {author.token}", *more, f"{api.url}/v1/media"]
    return Way(lambda: arguments, api)


def _signing(settings: Settings) -> list[Row]:
    sign = signer(settings)
    client = botocore.session.get_session().create_client(
        "s3",
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
    )

    def cost(way: Callable[[str], object]) -> float:
        began = time.process_time()
        for number in range(URLS):
            way(f"renditions/0123456789abcdef0123456789abcdef/{number}.webp")
        return 1e6 * (time.process_time() - began) / URLS

    ours = cost(lambda key: sign.url("GET", key, at=1_790_000_000, seconds=7200))
    theirs = cost(lambda key: client.generate_presigned_url("get_object", {"Bucket": "b", "Key": key}, 7200))
    return [
        Row("a signed URL", ours, "µs of CPU", most=10),
        Row("a signed URL, against botocore", ours, "µs of CPU", theirs),
    ]


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
    run_alone(bench, __doc__)
