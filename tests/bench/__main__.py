"""All benches: `python -m tests.bench`.

Prints one table of what was measured, against what, and with which target; writes it to `tests/bench/results/`. With
`--picture` it draws the curves of growth into `docs/feed-growth.svg`. Needs curl, redis-cli and wrk, and for the comparison with
Django what `tests/bench/django_join.py` says; what is missing is skipped.
"""

import argparse
import asyncio
import json
import os
import platform
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import (
    activity,
    delay,
    django_join,
    event_streams,
    explore,
    fan_out,
    feed_read,
    growth,
    history,
    likes,
    photos,
    picture,
    search,
    upload,
)
from tests.bench.common import Bench, Options, Row, add_options, options_of, progress, show_rows

BENCHES: dict[str, Bench] = {
    "fan_out": fan_out.bench,
    "delay": delay.bench,
    "feed_read": feed_read.bench,
    "history": history.bench,
    "django_join": django_join.bench,
    "growth": growth.bench,
    "event_streams": event_streams.bench,
    "upload": upload.bench,
    "photos": photos.bench,
    "search": search.bench,
    "likes": likes.bench,
    "activity": activity.bench,
    "explore": explore.bench,
}
RESULTS = Path(__file__).parent / "results"
PICTURE = Path(__file__).parents[2] / "docs" / "feed-growth.svg"


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    parser.add_argument("--only", action="append", choices=BENCHES, metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--picture", action="store_true", help="draw the curves of growth")
    parsed = parser.parse_args()
    options = options_of(parsed)
    found: dict[str, list[Row]] = {}
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    for name in parsed.only or BENCHES:
        progress(f"{name} …")
        found[name] = asyncio.run(BENCHES[name](options))
        _write(file, found, options)
        show_rows(name, found[name])
    rows = [row for some in found.values() for row in some]
    loaded = " ".join(f"{load:.1f}" for load in os.getloadavg())
    show_rows(f"medians of {options.runs}, {os.cpu_count()} processors, load average {loaded} at the end", rows)
    judged = [row.met for row in rows if row.met is not None]
    print(f"\n{sum(judged)} of {len(judged)} targets met; written to {file}")
    if parsed.picture and "growth" in found:
        PICTURE.write_text(picture.draw(found["growth"]))
        print(f"drawn to {PICTURE}")


def _write(file: Path, found: dict[str, list[Row]], options: Options) -> None:
    result = {
        "at": datetime.now(UTC).isoformat(),
        "options": asdict(options),
        "machine": {"processors": os.cpu_count(), "load": os.getloadavg(), "python": platform.python_version()},
        "rows": [
            {"bench": name, **asdict(row), "ratio": row.ratio, "met": row.met}
            for name, rows in found.items()
            for row in rows
        ],
    }
    file.write_text(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
