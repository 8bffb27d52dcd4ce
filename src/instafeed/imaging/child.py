"""The decoder's process: bounds itself, renders one photo, prints one JSON document and ends. Started by process.py."""

import ctypes
import json
import os
import resource
import signal
import sys
import traceback

from instafeed.imaging.refusals import Refused
from instafeed.imaging.render import render_photo

_MIB = 1 << 20
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Arguments: source, directory for the renditions, pixels, bytes of memory, seconds of CPU, the parent's pid.

    Prints `{"rendered": Document}`, `{"refused": reason}`, or `{"failed": cause}` where the photo is not to blame.
    """
    source, out, pixels, memory, cpu, parent = sys.argv[1:]
    _die_with(int(parent))
    _limit(memory_bytes=int(memory), cpu_seconds=int(cpu))
    document: dict[str, object]
    try:
        document = {"rendered": render_photo(source, out, int(pixels))}
    except Refused as refusal:
        document = {"refused": refusal.reason.value}
    except Exception as error:
        document = {"failed": _cause(error)}
    print(json.dumps(document))  # noqa: T201 -- that is what it is for


def _die_with(parent: int) -> None:
    """A worker that is killed leaves no decoder behind (strictly: the end of the thread that runs its loop)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # killed before the kernel was told
        raise SystemExit(1)


def _limit(*, memory_bytes: int, cpu_seconds: int) -> None:
    """Set here, not before the start: between fork and exec a process with threads may not run Python."""
    # The signal at the soft limit tells the parent why.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * _MIB, 16 * _MIB))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _cause(error: Exception) -> str:
    """For a log: says what and where, but nothing of the photo and no path."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    what = error.strerror if isinstance(error, OSError) else "unexpected"
    return f"{type(error).__name__}: {what} (in {place.name}, line {place.lineno})"
