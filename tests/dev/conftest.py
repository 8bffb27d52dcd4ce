"""What the tests of `instafeed dev` need to know about processes."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def _parents() -> dict[int, int]:
    """The parent of each process; without those that have ended and were not taken notice of."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if state != "Z":
                found[int(entry.name)] = int(parent)
    return found


def _decodes(pid: int) -> bool:
    """Whether it decodes photos, for the workers of other tests."""
    try:
        return b"instafeed.imaging" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.fixture
def processes() -> Callable[[int], set[int]]:
    """Of a process id: all processes that descend from it, but those of what serves all tests."""
    shared = {pid for pid, parent in _parents().items() if parent == os.getpid()}

    def descendants(root: int) -> set[int]:
        parents = _parents()
        shared.update(pid for pid, parent in parents.items() if parent == os.getpid() and _decodes(pid))
        found: set[int] = set()
        generation = {root}
        while generation:
            generation = {pid for pid, parent in parents.items() if parent in generation} - shared
            found |= generation
        return found

    return descendants


@pytest.fixture
def gone() -> Callable[[set[int], float], bool]:
    """Whether all of these processes are gone before so many seconds have passed."""

    def wait(pids: set[int], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while pids & _parents().keys():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    return wait
