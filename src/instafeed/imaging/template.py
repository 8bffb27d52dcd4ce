"""The decoders' template: it has imported everything once, and forks a process for each photo. Started by process.py.

It speaks through its standard input, a socket: one byte says that it is ready. Then each byte that it is sent brings the
socket of one photo along, in which the request waits. There the decoder answers, and the template after it, with the
decoder's exit status. When the other side closes that socket, the decoder is killed; when it closes the template's, all are.
"""

import contextlib
import ctypes
import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path

from instafeed.imaging.confine import confine
from instafeed.imaging.refusals import Reason, Refused
from instafeed.imaging.render import preload, render_photo

_MIB = 1 << 20
_REQUEST_BYTES = 64 * 1024
_ANSWER = 3
"""The decoder's only descriptor beside the standard ones."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Forks decoders until the other side is gone."""
    # Who stops the worker may tell its whole group; the photo at hand is the worker's to finish or to give up.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    preload()
    gc.freeze()  # its pages stay shared with all decoders
    control = socket.socket(fileno=os.dup(0))
    control.send(b"\0")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    _Template(control).serve()


class _Template:
    """One thread, which waits for new photos, for those that are given up, and for decoders that have ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._photos: dict[int, socket.socket] = {}
        """By the decoder's pid."""
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        ended, wake = socket.socketpair()
        for end in (ended, wake):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._control, selectors.EVENT_READ, self._fork)
        self._selector.register(ended, selectors.EVENT_READ, lambda: self._collect(ended))
        try:
            while True:
                for key, _ in self._selector.select():
                    key.data()
        except (EOFError, ConnectionError):
            for pid in self._photos:
                _kill(pid)

    def _fork(self) -> None:
        message, descriptors, _, _ = socket.recv_fds(self._control, 1, 1)
        if not message:
            raise EOFError
        photo = socket.socket(fileno=descriptors[0])
        request = photo.recv(_REQUEST_BYTES)
        if not request:  # given up already
            photo.close()
            return
        template = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            with photo, contextlib.suppress(OSError):
                photo.send(json.dumps({"failed": _cause(error)}).encode() + b"\n0")
            return
        if pid == 0:
            try:
                _decode(photo, request, template)
            finally:
                os._exit(1)
        # Here and in the decoder: whoever is first, its group is there when it is to be killed.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        self._photos[pid] = photo
        self._selector.register(photo, selectors.EVENT_READ, lambda: self._give_up(pid))

    def _give_up(self, pid: int) -> None:
        # Nothing is sent after the request: it can only be closed. Its decoder may have been collected a moment ago.
        if pid in self._photos:
            self._forget(self._photos[pid])
            _kill(pid)

    def _forget(self, photo: socket.socket) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(photo)

    def _collect(self, ended: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            ended.recv(4096)
        while self._photos:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            _kill(pid)  # what it may have started
            with self._photos.pop(pid) as photo:
                self._forget(photo)
                with contextlib.suppress(OSError):  # nobody waits for it any more
                    photo.send(b"\n%d" % os.waitstatus_to_exitcode(status), socket.MSG_DONTWAIT)


def _kill(pid: int) -> None:
    """A decoder leads its own group: whatever it may have started goes with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _decode(photo: socket.socket, request: bytes, template: int) -> None:
    """The decoder: bounds itself by `Limits`, renders `source` into `out`, answers, and ends.

    It says `{"rendered": Document}`, `{"refused": reason}`, or `{"failed": cause}` where the photo is not to blame.
    """
    signal.set_wakeup_fd(-1)
    os.setpgid(0, 0)
    _die_with(template)
    # Other photos' sockets are none of its business.
    os.dup2(photo.fileno(), _ANSWER)
    os.closerange(_ANSWER + 1, os.sysconf("SC_OPEN_MAX"))
    wanted = json.loads(request)
    answer: dict[str, object]
    try:
        _limit(memory_bytes=wanted["memory_bytes"], cpu_seconds=wanted["cpu_seconds"])
        confine(wanted["source"], wanted["out"])
        answer = {"rendered": render_photo(wanted["source"], wanted["out"], wanted["max_pixels"], wanted["encodings"])}
    except Refused as refusal:
        answer = {"refused": refusal.reason.value}
    except MemoryError:
        answer = {"refused": Reason.TOO_MUCH_MEMORY.value}
    except Exception as error:
        answer = {"failed": _cause(error)}
    os.write(_ANSWER, json.dumps(answer).encode())
    os._exit(0)


def _die_with(template: int) -> None:
    """A template that is killed leaves no decoder behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != template:  # killed before the kernel was told
        os._exit(1)


def _limit(*, memory_bytes: int, cpu_seconds: int) -> None:
    # The signal at the soft limit tells why it ended.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * _MIB, 16 * _MIB))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        # Where memory runs out for all, this process goes, and neither the template nor the worker.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _cause(error: Exception) -> str:
    """For a log: says what and where, but nothing of the photo and no path."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    what = error.strerror if isinstance(error, OSError) else "unexpected"
    return f"{type(error).__name__}: {what} (in {place.name}, line {place.lineno})"
