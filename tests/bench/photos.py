"""A 12-megapixel JPEG to all renditions: on one core against libvips in the same process, and from uploaded to ready. A burst of
small photos: what it takes of memory, and what a fan-out amid it.

libvips is installed by whoever runs this, away from our own packages; without it that comparison is skipped:

    pip install --target <folder> 'pyvips[binary]'
    PEERS=<folder> python -m tests.bench.photos [--runs 5]
"""

import asyncio
import contextlib
import importlib
import io
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast

from PIL import Image, ImageChops

from instafeed.imaging import render
from instafeed.imaging.process import Decoder, Encodings, Limits
from instafeed.resources import Resources, open_resources
from tests.bench.common import Options, Row, fresh_servers, milliseconds, progress, run_alone
from tests.client import Client, http_client
from tests.photos import jpeg
from tests.processes import running_api_process, running_worker

WIDTH, HEIGHT = 4000, 3000
UPLOADS = 20
BURST = 1000
POSTS = 10
ENCODINGS = Encodings()

Renderer = Callable[[str, str], object]


async def bench(options: Options) -> list[Row]:
    """All."""
    with TemporaryDirectory(prefix="instafeed-bench-") as folder:
        photo = Path(folder) / "photo.jpg"
        photo.write_bytes(a_photo())
        return await _one_core(photo, options) + await _until_ready(photo, options) + await _burst(options)


def a_photo() -> bytes:
    """Detail of every size in every colour, as in nature."""

    def plane() -> Image.Image:
        found = Image.new("L", (WIDTH, HEIGHT), 128)
        for cells in (4, 16, 64, 256, 1024):
            noise = Image.effect_noise((cells, cells * HEIGHT // WIDTH), 60)
            large = noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            found = ImageChops.add(found, large, scale=1, offset=-128)
        return found

    out = io.BytesIO()
    Image.merge("RGB", [plane(), plane(), plane()]).save(out, "JPEG", quality=90)
    return out.getvalue()


async def _one_core(photo: Path, options: Options) -> list[Row]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    decoder = Decoder()
    ours, with_avif, forked, theirs = list[float](), list[float](), list[float](), list[float]()
    try:
        vips = _libvips()
        for _ in range(options.runs + 1):
            ours.append(_timed(_render, photo))
            with_avif.append(_timed(_render_avif_too, photo))
            if vips:
                theirs.append(_timed(vips, photo))
            with TemporaryDirectory() as out:
                began = time.perf_counter()
                await decoder.render(photo, Path(out), limits=Limits(), encodings=ENCODINGS)
                forked.append(time.perf_counter() - began)
    finally:
        await decoder.close()
        os.sched_setaffinity(0, cores)
    # The first run warms up.
    base = 1 / median(theirs[1:]) if theirs else None
    least = 1.0 if theirs else None
    return [
        Row(
            "photos: 12 megapixels to 4 JPEG and 4 WebP, against libvips", 1 / median(ours[1:]), "/s", base, least=least
        ),
        Row("photos: the same and 4 AVIF", 1 / median(with_avif[1:]), "/s", 1 / median(ours[1:])),
        Row("photos: 4 JPEG and 4 WebP in a forked decoder", median(forked[1:]) * 1000, "ms p50"),
    ]


def _timed(renderer: Renderer, photo: Path) -> float:
    """Seconds of processor time: whoever else is at work on the core does not matter."""
    with TemporaryDirectory() as out:
        began = time.process_time()
        renderer(str(photo), out)
        return time.process_time() - began


def _render(source: str, out: str, encodings: Encodings = ENCODINGS) -> None:
    render.render_photo(source, out, Limits().max_pixels, cast("render.Encodings", asdict(encodings)))


def _render_avif_too(source: str, out: str) -> None:
    _render(source, out, replace(ENCODINGS, avif=True))


def _libvips() -> Renderer | None:
    folder = os.environ.get("PEERS")
    if folder is None or not Path(folder, "pyvips").is_dir():
        progress("no libvips: PEERS names no folder with pyvips, see tests/bench/photos.py")
        return None
    os.environ["VIPS_CONCURRENCY"] = "1"
    sys.path.append(folder)
    pyvips: Any = importlib.import_module("pyvips")
    pyvips.cache_set_max(0)

    def render_by_libvips(source: str, out: str) -> None:
        # As we do it: one decode at the least size that will do, each rendition from the one before.
        picture = pyvips.Image.thumbnail(source, 1080, height=1080, size="down").copy_memory()
        pictures = {"1080": picture, "150": picture.thumbnail_image(150, height=150, crop="centre")}
        for bound in (640, 320):
            picture = picture.thumbnail_image(bound, height=bound, size="down").copy_memory()
            pictures[str(bound)] = picture
        for name, made in pictures.items():
            made.jpegsave(
                f"{out}/{name}.jpg",
                Q=ENCODINGS.jpeg_quality,
                interlace=True,
                optimize_coding=True,
                subsample_mode="on",
                keep="none",
            )
            made.webpsave(f"{out}/{name}.webp", Q=ENCODINGS.webp_quality, effort=2, keep="none")

    return render_by_libvips


async def _until_ready(photo: Path, options: Options) -> list[Row]:
    content = photo.read_bytes()
    async with (
        fresh_servers() as settings,
        running_api_process(settings) as api,
        running_worker(settings, "media"),
        http_client(base_url=api.url) as http,
    ):
        author = await Client.sign_up(http)
        took = []
        for _ in range(options.size(UPLOADS, 3) + 1):
            taken = await author.upload(content)
            began = time.perf_counter()
            assert (await author.ready(taken["id"]))["status"] == "ready"
            took.append(time.perf_counter() - began)
    p50, p99 = milliseconds(took[1:])
    return [
        Row("photos: uploaded to ready, 12 megapixels, idle", p50, "ms p50", most=1200),
        Row("photos: the same", p99, "ms p99"),
    ]


async def _burst(options: Options) -> list[Row]:
    burst = options.size(BURST, 60)
    async with (
        fresh_servers() as settings,
        open_resources(settings) as res,
        running_api_process(settings) as api,
        http_client(base_url=api.url) as http,
    ):
        author, other = await Client.sign_up(http), await Client.sign_up(http)
        async with running_worker(settings):
            ready = [(await author.ready((await author.upload())["id"]))["id"] for _ in range(2 * POSTS)]
            idle = await _until_fanned_out(res, author, ready[:POSTS])
        for number in range(burst):
            last = await other.upload(jpeg(640, 480, seed=number))
        decoders, memory = 0, 0
        async with running_worker(settings) as worker:
            posting = asyncio.create_task(_until_fanned_out(res, author, ready[POSTS:]))
            began = time.perf_counter()
            while not posting.done() or await _waiting(res):
                below = _descendants(worker.child.pid)
                decoders = max(decoders, len(below) - 1)  # one is the template
                memory = max(memory, worker.memory + sum(map(_own_memory, below)))
                assert time.perf_counter() - began < 60 + burst, "the burst does not end"
                await asyncio.sleep(0.02)
            assert (await other.ready(last["id"]))["status"] == "ready"
    what = f"photos: burst of {burst:,}"
    return [
        Row(f"{what}, decoders at once", decoders, "", most=2),
        Row(f"{what}, most memory of worker, template and decoders", memory / (1 << 20), "MiB"),
        Row(f"{what}, a post until it is fanned out amid it", await posting, "ms p50", idle),
    ]


async def _until_fanned_out(res: Resources, author: Client, media_ids: list[str]) -> float:
    took = []
    for media_id in media_ids:
        began = time.perf_counter()
        post = await author.call("POST", "/v1/posts", 201, json={"caption": "", "media": [{"id": media_id}]})
        done = "select exists (select from outbox where kind = 'fan_out' and payload->'post' = to_jsonb($1::bigint)"
        async with res.db.acquire() as connection:
            while not await connection.fetchval(f"{done} and done_at is not null)", int(post["id"])):  # noqa: ASYNC110 -- no event comes from another process
                await asyncio.sleep(0.002)
        took.append(time.perf_counter() - began)
    return median(took) * 1000


async def _waiting(res: Resources) -> bool:
    async with res.db.acquire() as connection:
        return bool(
            await connection.fetchval("select exists (select from outbox where kind = 'render' and done_at is null)")
        )


def _descendants(pid: int) -> set[int]:
    found = set[int]()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found |= {child} | _descendants(child)
    return found


def _own_memory(pid: int) -> int:
    """What it does not share with the template, in bytes."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return 0


if __name__ == "__main__":
    run_alone(bench, __doc__)
