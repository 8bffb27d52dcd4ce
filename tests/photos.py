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


@cache
def slow_jpeg() -> bytes:
    """A small progressive JPEG whose last scan comes a thousand times over: legal, and busy for many seconds."""
    buffer = io.BytesIO()
    Image.new("L", (4000, 4000), 77).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + scan * 1000 + b"\xff\xd9"
