"""What the benches share: settings of fresh servers, and how figures are shown.

A bench is run by hand, `python -m tests.bench.<name>`, and starts its programs with `tests.processes`.
"""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from instafeed.dev.embedded import EmbeddedServers
from instafeed.settings import Settings
from instafeed.storage import migrations
from tests.conftest import make_settings


@asynccontextmanager
async def fresh_servers(**values: Any) -> AsyncIterator[Settings]:
    """Empty, migrated servers of the bench's own; yields their settings, with `values` over the tests' defaults."""
    with tempfile.TemporaryDirectory(prefix="instafeed-bench-") as folder:
        async with EmbeddedServers(Path(folder), durable=False) as servers:
            url = servers.endpoints.database_url
            await migrations.migrate(url)
            yield make_settings(servers.endpoints, url, redis_number=0, **values)


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
