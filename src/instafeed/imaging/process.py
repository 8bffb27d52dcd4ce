"""Runs the decoder in a process that can be killed, so that no photo takes a worker down with it."""

import asyncio
import contextlib
import functools
import importlib.util
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from instafeed.imaging.refusals import Reason, Refused

__all__ = ["DecoderFailed", "Limits", "Reason", "Refused", "Rendered", "RenderedFile", "render"]

_MIB = 1 << 20
_LINE_BYTES = 16 * 1024
_CONTENT_TYPES = {".jpg": "image/jpeg", ".webp": "image/webp"}

# Without `site` and the user's environment the interpreter starts in half the time; the path is handed over instead.
_START = "import sys; sys.path += sys.argv.pop(1).split(':'); from instafeed.imaging import child; child.main()"


@dataclass(frozen=True)
class Limits:
    """What one photo may cost. Whichever is reached first ends it."""

    max_pixels: int = 100_000_000
    """Width times height by the file's header: checked before anything is decoded."""
    memory_bytes: int = 1536 * _MIB
    """Address space of the decoder's process, of which 100 MiB are its own. Not enforced on macOS."""
    cpu_seconds: int = 20
    """Processor time of the decoder's process, at least 1."""
    wall_seconds: float = 30.0
    """From start to result."""


@dataclass(frozen=True)
class RenderedFile:
    """One rendition in one encoding."""

    name: str
    """`1080`, `640`, `320` (bound of the longer side) or `150` (square, cut from the centre)."""
    path: Path
    """Where it lies. Renditions that would be the same picture share one path."""
    width: int
    height: int
    content_type: str
    """`image/jpeg` or `image/webp`."""
    bytes: int
    """Size of the file."""


@dataclass(frozen=True)
class Rendered:
    """A photo's own size in pixels, upright, and its renditions."""

    width: int
    height: int
    has_alpha: bool
    """Something in it is transparent. JPEG renditions then show it on white."""
    blurhash: str
    files: tuple[RenderedFile, ...]
    """Each name once as JPEG and once as WebP, in the order 1080, 640, 320, 150."""


class DecoderFailed(Exception):
    """The photo is not to blame (disk full, file gone, decoder missing); another try may succeed.

    The message is for a log, and names no path.
    """


async def render(source: Path, out: Path, *, limits: Limits) -> Rendered:
    """Makes all renditions of a photo, in a process of its own.

    However it ends, also when it is cancelled, the process is gone.

    Args:
        source: the photo as it was sent. Its name means nothing.
        out: an existing directory for the renditions. The caller removes it, whatever the outcome.
        limits: what the photo may cost.

    Raises:
        Refused: the photo cannot be used. Of `took-too-long` and `decoder-crashed` the machine may be the cause, if it
            is overloaded or out of memory; all others would repeat themselves.
        DecoderFailed: the cause is ours; another try may succeed.
        OSError: no process can be started.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", _START, _import_path()),
        *(str(source), str(out)),
        *map(str, (limits.max_pixels, limits.memory_bytes, limits.cpu_seconds, os.getpid())),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(limits.wall_seconds):
            said = await _last_line(process)
            status = await process.wait()
    except TimeoutError:
        raise Refused(Reason.TOOK_TOO_LONG) from None
    finally:
        if process.returncode is None:
            _kill(process)
            await process.wait()
    return _result(status, said, out)


@functools.cache
def _import_path() -> str:
    """Where the decoder's process finds us and the libraries that it needs; HEIF's may be missing."""
    specs = map(importlib.util.find_spec, ("instafeed", "PIL", "blurhash", "pillow_heif"))
    places = [str(Path(spec.origin).parent.parent) for spec in specs if spec and spec.origin]
    return ":".join(dict.fromkeys(places))


async def _last_line(process: asyncio.subprocess.Process) -> bytes:
    """The document, or why Python did not come that far. What a decoder may have printed before is dropped."""
    stdout = cast("asyncio.StreamReader", process.stdout)
    tail = b""
    while chunk := await stdout.read(_LINE_BYTES):
        tail = (tail + chunk)[-_LINE_BYTES:]
    return tail.rstrip().rpartition(b"\n")[2]


def _kill(process: asyncio.subprocess.Process) -> None:
    # It leads its own group: whatever it may have started goes with it. It may have ended a moment ago.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _result(status: int, said: bytes, out: Path) -> Rendered:
    if status == -signal.SIGXCPU:
        raise Refused(Reason.TOOK_TOO_LONG)
    if status < 0:
        raise Refused(Reason.DECODER_CRASHED)
    if status > 0:
        raise DecoderFailed(said.decode(errors="replace"))
    try:
        document = json.loads(said)
    except ValueError:
        document = None
    match document:
        case {"rendered": dict(rendered)}:
            return _rendered(rendered, out)
        case {"refused": str(reason)}:
            raise Refused(Reason(reason))
        case {"failed": str(cause)}:
            raise DecoderFailed(cause)
        case _:
            raise DecoderFailed("It does not say what it has done.")


def _rendered(document: dict[str, Any], out: Path) -> Rendered:
    files = []
    for file in document.pop("files"):
        path = out / file.pop("file")
        files.append(
            RenderedFile(**file, path=path, content_type=_CONTENT_TYPES[path.suffix], bytes=path.stat().st_size)
        )
    return Rendered(**document, files=tuple(files))
