"""How alike two pictures look."""

import math

from PIL import Image

_SIDE, _SIGMA = 11, 1.5
_STABLE = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(one: Image.Image, other: Image.Image, step: int = 8) -> float:
    """The structural similarity of two pictures' luma, 1 for the same; of every `step`th window each way.

    Source: Wang, Bovik, Sheikh and Simoncelli, Image Quality Assessment, 2004; their window, Gaussian, 11 by 11.
    """
    width, height = one.size
    assert other.size == one.size
    a, b = one.convert("L").tobytes(), other.convert("L").tobytes()
    line = [math.exp(-((at - _SIDE // 2) ** 2) / (2 * _SIGMA**2)) for at in range(_SIDE)]
    weights = [x * y / sum(line) ** 2 for x in line for y in line]
    found = []
    for top in range(0, height - _SIDE + 1, step):
        for left in range(0, width - _SIDE + 1, step):
            starts = [(top + row) * width + left for row in range(_SIDE)]
            xs = b"".join(a[start : start + _SIDE] for start in starts)
            ys = b"".join(b[start : start + _SIDE] for start in starts)
            found.append(_of_window(weights, xs, ys))
    return sum(found) / len(found)


def _of_window(weights: list[float], xs: bytes, ys: bytes) -> float:
    x = y = xx = yy = xy = 0.0
    for weight, u, v in zip(weights, xs, ys, strict=True):
        wu, wv = weight * u, weight * v
        x += wu
        y += wv
        xx += wu * u
        yy += wv * v
        xy += wu * v
    means, spread = _STABLE
    return ((2 * x * y + means) * (2 * (xy - x * y) + spread)) / (
        (x * x + y * y + means) * (xx - x * x + yy - y * y + spread)
    )
