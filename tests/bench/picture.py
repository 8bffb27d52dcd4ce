"""Draws how the feed engine grows, as SVG."""

import math
import re
from collections.abc import Sequence

from tests.bench.common import Row

_WIDTH, _HEIGHT, _MARGIN, _TOP = 300, 220, 56, 44
_CURVES = (
    ("first page, by posts of the site", r"growth: first page, ([\d,]+) posts"),
    ("first page, by accounts followed", r"growth: first page, ([\d,]+) followees"),
    ("fan-out a follower, by followers", r"growth: fan-out, ([\d,]+) followers"),
)


def draw(rows: Sequence[Row]) -> str:
    """The curves that these rows of `tests.bench.growth` describe."""
    parts = []
    for number, (title, pattern) in enumerate(_CURVES):
        points = [
            (int(found[1].replace(",", "")), row.figure) for row in rows if (found := re.fullmatch(pattern, row.what))
        ]
        if len(points) > 1:
            parts.append(f'<g transform="translate({number * _WIDTH} 0)">{_curve(title, points)}</g>')
    size = f'width="{_WIDTH * len(_CURVES)}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH * len(_CURVES)} {_HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _curve(title: str, points: Sequence[tuple[int, float]]) -> str:
    left, right, bottom = _MARGIN, _WIDTH - 16, _HEIGHT - 36
    lowest, highest = math.log10(points[0][0]), math.log10(points[-1][0])
    top = _round_up(max(y for _, y in points) * 1.1)

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - lowest) / (highest - lowest)
        return left + across * (right - left), bottom - y / top * (bottom - _TOP)

    lines = [f'<text x="{left}" y="20" font-size="12" font-weight="bold">{title}</text>']
    for part in (0.0, 0.5, 1.0):
        _, y = place(points[0][0], part * top)
        lines += [
            f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/>',
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{part * top:,.4g} µs</text>',
        ]
    for x, _ in points:
        lines.append(f'<text x="{place(x, 0)[0]:.1f}" y="{bottom + 18}" text-anchor="middle">{_short(x)}</text>')
    path = "L".join("{:.1f} {:.1f}".format(*place(x, y)) for x, y in points)
    lines.append(f'<path d="M{path}" fill="none" stroke="#1668b8" stroke-width="2"/>')
    lines += ['<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="#1668b8"/>'.format(*place(x, y)) for x, y in points]
    return "".join(lines)


def _round_up(value: float) -> float:
    unit = 10.0 ** math.floor(math.log10(value))
    return next(step * unit for step in (1, 2, 5, 10) if step * unit >= value)


def _short(number: int) -> str:
    for size, letter in ((10**6, "M"), (1000, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return str(number)
