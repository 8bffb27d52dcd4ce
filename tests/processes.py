"""The programs themselves, each in a process of its own."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import httpx
from pydantic import SecretStr

from instafeed.dev.process import Child
from instafeed.settings import PREFIX, Settings
from tests.client import eventually, http_client
from tests.ports import free_port

MIB = 1 << 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def environ_of(settings: Settings) -> dict[str, str]:
    """The environment that gives a program these settings."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    for name in type(settings).model_fields:
        match getattr(settings, name):
            case None:
                continue
            case SecretStr() as secret:
                value = secret.get_secret_value()
            case tuple() as several:
                value = ",".join(map(str, several))
            case other:
                value = str(other)
        environ[PREFIX + name.upper()] = value
    return environ


@dataclass(frozen=True)
class Program:
    """A running program."""

    child: Child

    @property
    def memory(self) -> int:
        """Its resident memory now, in bytes."""
        return int(self._proc("statm").read_text().split()[1]) * _PAGE_BYTES

    @property
    def peak_memory(self) -> int:
        """Its most resident memory since `forget_peak`, in bytes."""
        lines = dict(line.split(":", 1) for line in self._proc("status").read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024

    def forget_peak(self) -> None:
        """Measure `peak_memory` from now on."""
        self._proc("clear_refs").write_text("5")

    @property
    def cpu_seconds(self) -> float:
        """Its processor time so far."""
        fields = self._proc("stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND

    async def kill(self) -> None:
        """End it without a warning."""
        self.child.send(signal.SIGKILL)
        await self.child.wait()

    def _proc(self, name: str) -> Path:
        return Path(f"/proc/{self.child.pid}/{name}")


@dataclass(frozen=True)
class Api(Program):
    """A running `instafeed serve`."""

    url: str


@asynccontextmanager
async def running_worker(settings: Settings, *queues: str, log: Path | None = None) -> AsyncIterator[Program]:
    """`instafeed worker`, for all queues if none is named. What it says goes to `log`, if there is one."""
    async with _running(settings, "worker", *(["--queues", ",".join(queues)] if queues else []), log=log) as child:
        yield Program(child)


@asynccontextmanager
async def running_api_process(settings: Settings, *command: str, log: Path | None = None) -> AsyncIterator[Api]:
    """`instafeed serve`, once it answers; `command` is what to start instead of `-m instafeed`. What it says goes to `log`,
    if there is one.
    """
    port = free_port()
    api_url = f"http://127.0.0.1:{port}"
    started = _running(settings, "serve", "--port", str(port), command=command or ("-m", "instafeed"), log=log)
    async with started as child, http_client() as http:

        async def answers() -> bool:
            assert child.running, "it ended at once"
            try:
                return (await http.get(f"{api_url}/livez")).is_success
            except httpx.TransportError:
                return False

        await eventually(answers, seconds=90)
        yield Api(child, api_url)


@asynccontextmanager
async def _running(
    settings: Settings, *arguments: str, command: tuple[str, ...] = ("-m", "instafeed"), log: Path | None = None
) -> AsyncIterator[Child]:
    with log.open("ab") if log else nullcontext() as output:
        child = await Child.start([sys.executable, *command, *arguments], environ=environ_of(settings), output=output)
    try:
        yield child
    finally:
        await child.stop(signal.SIGTERM, seconds=20)
