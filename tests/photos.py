"""Photos that the tests make themselves, and where the real ones are."""

import io
import random
from functools import cache
from pathlib import Path

from PIL import Image

REAL = Path(__file__).parents[2] / "shared" / "photos"
"""Real photos beside the checkout; tests that use them skip where they are absent."""


@cache
def jpeg(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """A small JPEG; another one for another seed."""
    colour = random.Random(seed).randbytes(3)
    out = io.BytesIO()
    Image.new("RGB", (width, height), (colour[0], colour[1], colour[2])).save(out, "JPEG")
    return out.getvalue()


def large_jpeg(size: int, seed: int = 0) -> bytes:
    """A valid JPEG of exactly `size` bytes: a small picture, and padding after its end."""
    picture = jpeg(seed=seed)
    return picture + random.Random(seed).randbytes(size - len(picture))


def jpeg_of_a_camera() -> bytes:
    """A small JPEG whose EXIF tells camera, settings, serial number, owner, time and place."""
    exif = Image.Exif()
    exif.update({0x010F: "Maker", 0x0110: "Model 1", 0x013B: "Somebody", 0x0132: "2026:01:02 03:04:05"})
    exif.get_ifd(0x8769).update(
        {0x829A: 0.008, 0x829D: 2.8, 0x8827: 400, 0x920A: 4.25, 0xA434: "Lens 1", 0xA431: "S/N 7"}
    )
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 12.0, 30.0)})
    out = io.BytesIO()
    Image.new("RGB", (64, 48), (30, 60, 90)).save(out, "JPEG", exif=exif)
    return out.getvalue()


@cache
def slow_jpeg() -> bytes:
    """A small progressive JPEG whose last scan comes a thousand times over: legal, and busy for many seconds."""
    buffer = io.BytesIO()
    Image.new("L", (4000, 4000), 77).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + scan * 1000 + b"\xff\xd9"
