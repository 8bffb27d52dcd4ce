"""What the benches share: their options, the rows that they return, settings of fresh servers, and how figures are shown.

With `REDIS_SERVER=<program>` Redis is that program, in place of the embedded server: their scripts' speeds differ by half.

A bench is a module with `async def bench(options)`, which returns rows. `python -m tests.bench` runs all of them, and each by
itself is run with `python -m tests.bench.<name>`. Programs are started with `tests.processes`. What is compared is
measured in turn, A B A B, and medians are taken: other programs of the machine slow both.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from unittest.mock import patch

from instafeed.dev import servers
from instafeed.dev.embedded import EmbeddedServers
from instafeed.settings import Settings
from instafeed.storage import migrations
from tests.conftest import make_settings


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly to measure."""

    runs: int = 5
    quick: bool = False
    """Little data: only to see that a bench works."""
    huge: bool = False
    """Up to ten million posts."""

    def size(self, full: int, quick: int) -> int:
        """How much data to take."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, or a comparison of two: `figure / base` is the ratio.

    `least` and `most` are the target; it is for the ratio, or where there is no base, for the figure.
    """

    what: str
    figure: float
    unit: str
    base: float | None = None
    """The same of a limit or a peer, measured in the same run."""
    least: float | None = None
    most: float | None = None

    @property
    def ratio(self) -> float | None:
        """How the figure compares."""
        return None if self.base is None else self.figure / self.base

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None if there is none."""
        if self.least is None and self.most is None:
            return None
        judged = self.figure if self.ratio is None else self.ratio
        return (self.least is None or judged >= self.least) and (self.most is None or judged <= self.most)

    @property
    def target(self) -> str:
        """The target in words."""
        of = "" if self.ratio is None else " times"
        parts = [f"≥ {self.least:g}{of}"] if self.least is not None else []
        return " ".join([*parts, *([f"≤ {self.most:g}{of}"] if self.most is not None else [])])


Bench = Callable[[Options], Coroutine[Any, Any, list[Row]]]


@asynccontextmanager
async def fresh_servers(*, durable: bool = False, **values: Any) -> AsyncIterator[Settings]:
    """Empty, migrated servers of the bench's own; yields their settings, with `values` over the tests' defaults."""
    program = os.environ.get("REDIS_SERVER")
    replaced = patch.object(servers, "valkey", lambda: Path(program)) if program else contextlib.nullcontext()
    with replaced, tempfile.TemporaryDirectory(prefix="instafeed-bench-") as folder:
        async with EmbeddedServers(Path(folder), durable=durable) as started:
            url = started.endpoints.database_url
            await migrations.migrate(url)
            yield make_settings(started.endpoints, url, redis_number=0, **values)


def progress(text: str) -> None:
    """Say what happens now."""
    print(f"  {time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def p99(values: Iterable[float]) -> float:
    """The 99th percentile."""
    return quantiles(values, n=100, method="inclusive")[98]


def milliseconds(times: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile of times in seconds."""
    return median(times) * 1000, p99(times) * 1000


def show_rows(title: str, rows: Sequence[Row]) -> None:
    """Print what was measured."""
    if not rows:
        return
    header = ["what", "figure", "unit", "base", "ratio", "target", "met"]
    words = {True: "yes", False: "NO", None: ""}
    show(
        title,
        header,
        [
            [row.what, row.figure, row.unit, *_optional(row.base), *_optional(row.ratio), row.target, words[row.met]]
            for row in rows
        ],
    )


def _optional(value: float | None) -> list[object]:
    return [_Blank() if value is None else value]


class _Blank:
    def __str__(self) -> str:
        return ""


def run_alone(bench: Bench, description: str | None) -> None:
    """The program of one bench."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    rows = asyncio.run(bench(options_of(parser.parse_args())))
    show_rows("", rows)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that all benches take."""
    parser.add_argument("--runs", type=int, default=5, help="how often what is compared is measured")
    parser.add_argument("--quick", action="store_true", help="little data: only to see that the benches work")
    parser.add_argument("--huge", action="store_true", help="up to ten million posts")


def options_of(parsed: argparse.Namespace) -> Options:
    """What was asked for."""
    return Options(runs=parsed.runs, quick=parsed.quick, huge=parsed.huge)


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers stand to the right."""
    cells = [list(header), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [not isinstance(cell, str) for cell in rows[0]]
    print(f"\n{title}")
    for number, row in enumerate(cells):
        print("  ".join(f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in zip(row, widths, right, strict=True)).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def _text(cell: object) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.3g}"
