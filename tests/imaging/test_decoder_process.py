"""The decoder's process: what it hands back, what ends it, and that nothing of it stays."""

import asyncio
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from instafeed.imaging import process
from instafeed.imaging.process import DecoderFailed, Limits, Reason, Refused, Rendered, render

PHOTOS = Path(__file__).parents[3] / "shared" / "photos"
LIMITS = Limits()
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


def photo(path: Path, kind: str = "JPEG", size: tuple[int, int] = (64, 48)) -> Path:
    Image.linear_gradient("L").convert("RGB").resize(size).save(path, kind)
    return path


def slow_photo(path: Path) -> Path:
    """A small progressive JPEG that keeps a decoder busy for ten seconds: its last scan is repeated, which is allowed."""
    buffer = io.BytesIO()
    Image.new("L", (4000, 4000), 77).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    scan = content[content.rindex(b"\xff\xda") : -2]
    path.write_bytes(content[:-2] + scan * 1000 + b"\xff\xd9")
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file that never begins: reading it waits for a writer."""
    path = tmp_path / "endless"
    os.mkfifo(path)
    return path


def children(pid: int | str = "self") -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found.update(map(int, (task / "children").read_text().split()))
    return found


def alive(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def no_child_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


async def started(task: asyncio.Task[Rendered]) -> int:
    """The pid of the task's decoder, when it has bounded itself and waits for its photo."""
    before = children()
    while not (new := children() - before):
        assert not task.done()
        await asyncio.sleep(0.005)
    (pid,) = new
    while not any(Path(link).name == "endless" for link in open_or_opening(pid)):
        assert not task.done()
        await asyncio.sleep(0.005)
    return pid


def open_or_opening(pid: int) -> list[str]:
    """What a decoder blocks on; an open that waits shows in no list but this one."""
    waits = Path(f"/proc/{pid}/wchan").read_text()
    return ["endless"] if "fifo" in waits else []
