"""PostgreSQL, a Redis-compatible server and an S3 store as child processes, from wheels, with their data in one folder.

They listen on 127.0.0.1 only and ask for generated passwords, which are kept in the folder. This is for development and
tests: the inner ports of the S3 store (not the one that speaks S3) ask for no password, so do not use it on a machine
with users whom you do not trust.
"""

import asyncio
import fcntl
import json
import os
import random
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from instafeed.dev.programs import EmbeddedError, check_installed
from instafeed.dev.servers import HOST, S3, Postgres, Redis, Server, write_private

__all__ = ["EmbeddedError", "EmbeddedServers", "Endpoints"]

_MARKER = "instafeed-data"
_LOCK = "lock"
_SECRETS = "secrets.json"
_PORTS = "first_port"


@dataclass(frozen=True)
class Endpoints:
    """Where the servers listen and what they ask for."""

    database_url: str
    redis_url: str
    s3_endpoint: str
    s3_access_key: str
    s3_secret_key: str


@dataclass(frozen=True)
class _Secrets:
    database_password: str
    redis_password: str
    s3_access_key: str
    s3_secret_key: str


class EmbeddedServers:
    """The three servers, started together; an asynchronous context manager.

    Args:
        data: Their folder. Made if it is not there; otherwise empty, or one that was made here.
        durable: False for tests: Redis keeps nothing over a restart, and a crash of the machine (not one of the server)
            may cost PostgreSQL its data.
        reset: Delete everything in the folder first.
        report: Called with a line about each step.

    Raises:
        EmbeddedError: (on entering) the folder cannot be used or is in use, or a server does not come up; then nothing
            runs.
    """

    postgres: Postgres
    redis: Redis
    s3: S3

    def __init__(
        self, data: Path, *, durable: bool = True, reset: bool = False, report: Callable[[str], None] = lambda _: None
    ) -> None:
        self.data = data.absolute()
        self.durable = durable
        self._reset = reset
        self._report = report
        self._lock: int | None = None
        self._ports: socket.socket | None = None

    async def __aenter__(self) -> Self:
        check_installed()
        try:
            try:
                self._open_folder()
                self._place()
            except OSError as error:
                raise EmbeddedError(f"The folder {self.data} cannot be used: {error.strerror}.") from error
            results = await asyncio.gather(*(self._start(server) for server in self._servers()), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def endpoints(self) -> Endpoints:
        """Where to reach them."""
        return Endpoints(
            database_url=self.postgres.url,
            redis_url=self.redis.url,
            s3_endpoint=self.s3.url,
            s3_access_key=self.s3.access_key,
            s3_secret_key=self.s3.secret_key,
        )

    async def watch(self) -> None:
        """Return when all three are stopped on purpose.

        Raises:
            EmbeddedError: one of them ended by itself.
        """
        tasks = [asyncio.create_task(server.watch()) for server in self._servers()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _servers(self) -> tuple[Server, ...]:
        return (self.postgres, self.redis, self.s3)

    async def _start(self, server: Server) -> None:
        began = time.monotonic()
        await server.start()
        self._report(f"The embedded {server.name} is ready ({time.monotonic() - began:.1f} s).")

    async def _close(self) -> None:
        if self._ports is not None:
            await asyncio.gather(*(server.stop() for server in self._servers()))
            self._ports.close()
            self._ports = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open_folder(self) -> None:
        """Take the folder for ourselves; after this it is ours, and has its marker."""
        if self.data.exists() and not self.data.is_dir():
            raise EmbeddedError(f"{self.data} is not a folder.")
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.data.stat().st_uid != os.geteuid():
            raise EmbeddedError(
                f"The folder {self.data} belongs to another user ({_owner(self.data)}). Start as that user, or choose "
                f"another folder."
            )
        lock = self.data / _LOCK
        found = {path.name for path in self.data.iterdir()} - {_LOCK}
        if found and _MARKER not in found:
            raise EmbeddedError(
                f"The folder {self.data} holds other things than instafeed's data. Choose an empty or a new one."
            )
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedError(
                f"The folder {self.data} is in use by another instafeed (process {lock.read_text().strip()})."
            ) from None
        os.ftruncate(self._lock, 0)
        os.write(self._lock, f"{os.getpid()}\n".encode())
        (self.data / _MARKER).write_text("Made by instafeed: the data of its embedded servers.\n")
        if self._reset:
            _empty(self.data, keep={_LOCK, _MARKER})
        for name in ("postgres", "redis", "s3", "logs"):
            (self.data / name).mkdir(mode=0o700, exist_ok=True)

    def _place(self) -> None:
        keys = _read_secrets(self.data / _SECRETS)
        # The same ports as the last time, if nobody has them: a client that was set up by hand goes on working.
        last = self.data / _PORTS
        first = int(last.read_text()) if last.exists() else None
        self._ports, (postgres, redis, *s3) = reserve_ports(2 + S3.port_count, first=first)
        logs = self.data / "logs"
        self.postgres = Postgres(
            self.data / "postgres",
            logs / "postgres.log",
            port=postgres,
            password=keys.database_password,
            durable=self.durable,
        )
        self.redis = Redis(
            self.data / "redis", logs / "redis.log", port=redis, password=keys.redis_password, durable=self.durable
        )
        self.s3 = S3(
            self.data / "s3",
            logs / "s3.log",
            ports=s3,
            access_key=keys.s3_access_key,
            secret_key=keys.s3_secret_key,
            durable=self.durable,
        )
        write_private(last, str(postgres))


def reserve_ports(count: int, *, first: int | None) -> tuple[socket.socket, list[int]]:
    """Free ports in a row, from `first` on if they are free; and the bound socket that keeps others of us away from them.

    Below 32768: the system takes the ports of outgoing connections from above, so that one could get a server's port
    while the server is down; a client that tries to reconnect may even end up connected to itself.
    """
    for keeper in [*([] if first is None else [first - 1]), *random.sample(range(12_000, 32_000, 32), k=200)]:
        taken = []
        try:
            for port in range(keeper, keeper + count + 1):
                taken.append(socket.socket())
                if port != keeper:  # as the servers do: connections of the last run may linger
                    taken[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                taken[-1].bind((HOST, port))
        except OSError:
            for one in taken:
                one.close()
            continue
        for one in taken[1:]:
            one.close()
        return taken[0], list(range(keeper + 1, keeper + count + 1))
    raise EmbeddedError(f"No {count} free ports were found on {HOST}.")


def _read_secrets(file: Path) -> _Secrets:
    if file.exists():
        return _Secrets(**json.loads(file.read_text()))
    made = _Secrets(*(secrets.token_hex(16) for _ in range(4)))
    write_private(file, json.dumps(asdict(made)))
    return made


def _empty(folder: Path, *, keep: Collection[str]) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in keep:
            path.unlink()


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except KeyError:
        return str(folder.stat().st_uid)
