"""A 12-megapixel JPEG to all renditions: on one core against libvips in the same process, and from uploaded to ready.

libvips is installed by whoever runs this, away from our own packages; without it that comparison is skipped:

    pip install --target <folder> 'pyvips[binary]'
    PEERS=<folder> python -m tests.bench.photos [--runs 5]
"""

import importlib
import io
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, cast

import httpx
from PIL import Image, ImageChops

from instafeed.imaging import render
from instafeed.imaging.process import Decoder, Encodings, Limits
from tests.bench.common import Options, Row, fresh_servers, milliseconds, progress, run_alone
from tests.client import Client
from tests.processes import running_api_process, running_worker

WIDTH, HEIGHT = 4000, 3000
UPLOADS = 20
ENCODINGS = Encodings()

Renderer = Callable[[str, str], object]


async def bench(options: Options) -> list[Row]:
    """Both."""
    with TemporaryDirectory(prefix="instafeed-bench-") as folder:
        photo = Path(folder) / "photo.jpg"
        photo.write_bytes(a_photo())
        return await _one_core(photo, options) + await _until_ready(photo, options)


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
    ours, forked, theirs = list[float](), list[float](), list[float]()
    try:
        vips = _libvips()
        for _ in range(options.runs + 1):
            ours.append(_timed(_render, photo))
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
        Row("photos: the same in a forked decoder", 1 / median(forked[1:]), "/s", 1 / median(ours[1:])),
    ]


def _timed(renderer: Renderer, photo: Path) -> float:
    with TemporaryDirectory() as out:
        began = time.perf_counter()
        renderer(str(photo), out)
        return time.perf_counter() - began


def _render(source: str, out: str) -> None:
    render.render_photo(source, out, Limits().max_pixels, cast("render.Encodings", asdict(ENCODINGS)))


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
        httpx.AsyncClient(base_url=api.url, timeout=30) as http,
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


if __name__ == "__main__":
    run_alone(bench, __doc__)
