"""Decodes each photo in a process that can be killed, so that none takes a worker down with it."""

import asyncio
import contextlib
import functools
import importlib.util
import json
import signal
import socket
import stat
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instafeed.imaging.refusals import Reason, Refused
from instafeed.imaging.sniff import Format
from instafeed.models import Camera

__all__ = [
    "Decoder",
    "DecoderFailed",
    "Encodings",
    "Limits",
    "Reason",
    "Refused",
    "Rendered",
    "RenderedFile",
    "formats",
]

_MIB = 1 << 20
_ANSWER_BYTES = 16 * 1024
_READY = b"\0"
_CONTENT_TYPES = {".jpg": "image/jpeg", ".webp": "image/webp", ".avif": "image/avif"}

# Without `site` and the user's environment the interpreter starts in half the time; the path is handed over instead.
_START = "import sys; sys.path += sys.argv.pop(1).split(':'); from instafeed.imaging import template; template.main()"


@dataclass(frozen=True)
class Limits:
    """What one photo may cost. Whichever is reached first ends it."""

    max_pixels: int = 100_000_000
    """Width times height by the file's header: checked before anything is decoded."""
    memory_bytes: int = 1536 * _MIB
    """Address space of the decoder's process, of which 70 MiB are its own. Not enforced on macOS."""
    cpu_seconds: int = 20
    """Processor time of the decoder's process, at least 1."""
    wall_seconds: float = 30.0
    """From start to result."""


@dataclass(frozen=True)
class Encodings:
    """Which renditions are made, and how they are written."""

    bounds: tuple[int, ...] = (1080, 640, 320)
    """Longest sides, in pixels, the largest first; also their names."""
    square: int = 150
    """Side of the one that is cut from the centre, in pixels; also its name."""
    jpeg_quality: int = 94
    """1 to 100, as libjpeg counts it."""
    webp_quality: int = 95
    """1 to 100, as libwebp counts it."""
    avif: bool = False
    """In AVIF too."""
    avif_quality: int = 87
    """1 to 100, as libavif counts it."""


@dataclass(frozen=True)
class RenderedFile:
    """One rendition in one encoding."""

    name: str
    """As `Encodings` say: `1080`, `640`, `320` (bound of the longer side) or `150` (square, cut from the centre)."""
    path: Path
    """Where it lies. Renditions that would be the same picture share one path."""
    width: int
    height: int
    content_type: str
    """`image/jpeg`, `image/webp` or `image/avif`."""
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
    dominant_color: str
    """`#rrggbb`: the colour that most of it has."""
    camera: Camera | None
    """What its camera wrote down; None if it wrote nothing."""
    files: tuple[RenderedFile, ...]
    """Each name once in each encoding, the largest first, the square last."""


class DecoderFailed(Exception):
    """The photo is not to blame (disk full, file gone, decoder missing); another try may succeed.

    The message is for a log, and names no path.
    """


class Decoder:
    """Renders photos, each in a process of its own that is forked from one template: nothing is left in it of another
    photo, and it need not start Python. The template is started with the first photo, and anew when it has died.
    """

    def __init__(self) -> None:
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None

    async def render(self, source: Path, out: Path, *, limits: Limits, encodings: Encodings) -> Rendered:
        """Makes all renditions of a photo.

        However it ends, also when it is cancelled, the photo's process is gone.

        Args:
            source: the photo as it was sent. Its name means nothing.
            out: an existing directory for the renditions. The caller removes it, whatever the outcome.
            limits: what the photo may cost.
            encodings: how the renditions are written.

        Raises:
            Refused: the photo cannot be used. Of `took-too-long` and `decoder-crashed` the machine may be the cause, if
                it is overloaded or out of memory; all others would repeat themselves.
            DecoderFailed: the cause is ours; another try may succeed.
            OSError: no process can be started.
        """
        request = {"source": str(source), "out": str(out), "encodings": asdict(encodings), **asdict(limits)}
        photo = await self._submit(json.dumps(request).encode())
        try:
            async with asyncio.timeout(limits.wall_seconds):
                said = await _to_the_end(photo)
        except TimeoutError:
            raise Refused(Reason.TOOK_TOO_LONG) from None
        finally:
            await _end(photo)
        return _result(said, out)

    async def close(self) -> None:
        """Ends the template, and what it has forked."""
        if self._control is not None and self._process is not None:
            self._let_go(self._control)
            await self._process.wait()

    def _let_go(self, control: socket.socket) -> None:
        control.close()
        if self._control is control:
            self._control = None

    async def _submit(self, request: bytes) -> socket.socket:
        """Has a process forked; returns the socket on which it answers, and which ends with it."""
        for _ in range(2):
            control = await self._started()
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    ours.sendall(request)
                    socket.send_fds(control, [b"\0"], [theirs.fileno()])
                except ConnectionError:  # it has just died
                    ours.close()
                    self._let_go(control)
                    continue
                except OSError:
                    ours.close()
                    raise
            ours.setblocking(False)
            return ours
        raise DecoderFailed("It ends as soon as it has started.")

    async def _started(self) -> socket.socket:
        async with self._starting:
            if self._control is None:
                self._control = await self._start()
            return self._control

    async def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", "-c", _START, _import_path()),
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=theirs.fileno(),
                    env={},
                    start_new_session=True,
                )
            ours.setblocking(False)
            said = b""
            while not said.endswith(_READY):
                piece = await _receive(ours)
                if not piece:
                    await self._process.wait()
                    raise DecoderFailed(_last_line(said))
                said = (said + piece)[-_ANSWER_BYTES:]
        except BaseException:
            # What has started finds nobody there, and ends.
            ours.close()
            raise
        return ours


def formats() -> list[Format]:
    """The kinds of photo that can be decoded: HEIF's decoder may be missing."""
    return [kind for kind in Format if kind is not Format.HEIF or importlib.util.find_spec("pillow_heif")]


@functools.cache
def _import_path() -> str:
    """Where the template finds us and the libraries that it needs; HEIF's may be missing."""
    specs = map(importlib.util.find_spec, ("instafeed", "PIL", "blurhash", "pillow_heif"))
    places = [str(Path(spec.origin).parent.parent) for spec in specs if spec and spec.origin]
    return ":".join(dict.fromkeys(places))


async def _receive(ours: socket.socket) -> bytes:
    """The next piece; nothing if the other side is gone."""
    try:
        return await asyncio.get_running_loop().sock_recv(ours, _ANSWER_BYTES)
    except ConnectionError:
        return b""


async def _to_the_end(photo: socket.socket) -> bytes:
    """What is said, or the end of it if it is long, until the process is gone."""
    said = b""
    while piece := await _receive(photo):
        said = (said + piece)[-_ANSWER_BYTES:]
    return said


async def _end(photo: socket.socket) -> None:
    """Has the process killed if it still runs, and waits until it is gone."""
    with photo:
        with contextlib.suppress(OSError):
            photo.shutdown(socket.SHUT_WR)
        await _to_the_end(photo)


def _last_line(said: bytes) -> str:
    return said.rstrip().rpartition(b"\n")[2].decode(errors="replace") or "It does not say why it ended."


def _result(said: bytes, out: Path) -> Rendered:
    answer, _, ended = said.rpartition(b"\n")
    try:
        status = int(ended)
    except ValueError:  # the template was killed; it may have been this photo
        raise Refused(Reason.DECODER_CRASHED) from None
    if status == -signal.SIGXCPU:
        raise Refused(Reason.TOOK_TOO_LONG)
    if status < 0:
        raise Refused(Reason.DECODER_CRASHED)
    try:
        match json.loads(answer):
            case {"rendered": dict(rendered)}:
                return _rendered(rendered, out)
            case {"refused": str(reason)}:
                refusal = Reason(reason)
            case {"failed": str(cause)}:
                raise DecoderFailed(cause)
            case _:
                raise ValueError
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        raise DecoderFailed("It does not say what it has done.") from None
    raise Refused(refusal)


def _rendered(document: dict[str, Any], out: Path) -> Rendered:
    files = []
    for file in document.pop("files"):
        path = out / file.pop("file")
        # A photo may have taken its decoder over: what it names is published.
        found = path.lstat()
        if path.parent != out or not stat.S_ISREG(found.st_mode):
            raise ValueError
        files.append(RenderedFile(**file, path=path, content_type=_CONTENT_TYPES[path.suffix], bytes=found.st_size))
    camera = document.pop("camera")
    return Rendered(**document, camera=Camera(**camera) if camera else None, files=tuple(files))
