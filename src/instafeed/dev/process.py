"""Child processes that never outlive us."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

# The shell reads from a pipe that only we hold. A line means that the child is gone and there is nothing to do; the end
# of the pipe means that we were killed. This works whatever user the child runs as, and on every Unix.
_GUARD = 'read -r _ || kill -s "$1" -- "-$2"'


def describe(status: int) -> str:
    """An exit status in words."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


class Child:
    """A running process, in a session of its own, and guarded.

    So Ctrl-C in the terminal reaches us alone, and we decide on the order of things; and the process, with what it
    started in its process group, ends even if we are killed.
    """

    def __init__(self, process: asyncio.subprocess.Process, guard: asyncio.subprocess.Process) -> None:
        self._process = process
        self._guard = guard
        self._ended = asyncio.create_task(self._reap())

    @classmethod
    async def start(
        cls,
        command: Sequence[str | Path],
        *,
        environ: Mapping[str, str],
        output: BinaryIO | None = None,
        folder: Path | None = None,
        orphan_signal: signal.Signals = signal.SIGKILL,
    ) -> "Child":
        """Start `command`.

        Args:
            command: The program and its arguments.
            environ: Its whole environment.
            output: Where standard output and error go. Default: ours.
            folder: Its working directory. Default: ours.
            orphan_signal: What its process group is sent when we are gone.

        Raises:
            OSError: the program cannot be started.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environ,
            cwd=folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            guard = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                _GUARD,
                "instafeed-guard",
                orphan_signal.name.removeprefix("SIG"),
                str(process.pid),
                env={},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            process.kill()
            await process.wait()
            raise
        return cls(process, guard)

    @property
    def pid(self) -> int:
        """Process id, and id of its process group."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return not self._ended.done()

    async def wait(self) -> int:
        """The exit status, once the process has ended; negative: the signal that ended it."""
        return await asyncio.shield(self._ended)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it still runs."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def stop(self, number: signal.Signals, *, seconds: float) -> None:
        """Ask the process to end with a signal; after `seconds`, and if we are cancelled, SIGKILL."""
        try:
            self.send(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.wait()
        finally:
            self.send(signal.SIGKILL)
            await self.wait()

    async def _reap(self) -> int:
        status = await self._process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nothing is left of the group
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._guard.communicate(b"\n")
        return status
