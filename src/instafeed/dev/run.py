"""`instafeed dev`: starts everything in order, keeps it running, and stops it."""

import asyncio
import errno
import http.client
import secrets
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from instafeed import base64url
from instafeed.dev.embedded import EmbeddedError, EmbeddedServers
from instafeed.dev.process import Child, describe
from instafeed.dev.servers import BUCKET, REGION, write_private
from instafeed.settings import Settings
from instafeed.storage.migrations import MigrationError, migrate

READY_SECONDS = 60.0
CHILD_STOP_SECONDS = 3.0
DEATHS = 5
DEATHS_SECONDS = 60.0


class DevError(Exception):
    """Why `instafeed dev` cannot go on, as a sentence for the person who started it."""


def _report(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def run_dev(
    *, host: str, port: int, data: Path, reset: bool, demo: bool, demo_photos: Path | None, environ: Mapping[str, str]
) -> int:
    """Run the embedded servers, the API and a worker until Ctrl-C or SIGTERM.

    Args:
        host: Address on which the API listens.
        port: Its port.
        data: Folder of all data; made if it is not there.
        reset: Delete what is in the folder first.
        demo: Fill in accounts and posts, unless they are there; the log is of warnings and errors only, if not set.
        demo_photos: Folder of photos for the demo. Default: generated ones.
        environ: Environment of the API and the worker; what they need to find the servers is set in it.

    Returns:
        The exit status: 0 when it was stopped, 1 when something is wrong; what that is was printed.

    Raises:
        pydantic.ValidationError: a setting in `environ` is wrong.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup wants it
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    work = asyncio.create_task(
        _run(host=host, port=port, data=data, reset=reset, demo=demo, demo_photos=demo_photos, environ=environ)
    )
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not work.done():
        _report("Stopping ...")
        # Once only: from here on everything is stopped in order, and another Ctrl-C changes nothing.
        work.cancel()
    try:
        await work
    except asyncio.CancelledError:
        _report("Stopped.")
        return 0
    except (DevError, EmbeddedError, MigrationError) as error:
        sys.stderr.write(f"instafeed dev: {error}\n")
    return 1


async def _run(
    *, host: str, port: int, data: Path, reset: bool, demo: bool, demo_photos: Path | None, environ: Mapping[str, str]
) -> None:
    began = time.monotonic()
    demo = demo or demo_photos is not None
    _check_address(host, port)
    _check_photos(demo_photos)
    async with EmbeddedServers(data, reset=reset, report=_report) as servers:
        for name in await migrate(servers.postgres.url):
            _report(f"The migration {name} is applied.")
        program = [sys.executable, "-m", "instafeed"]
        settings = {**_defaults(demo=demo), **environ, **_settings(servers)}
        Settings.from_environ(settings)  # one that is wrong is told once, and not by programs that cannot start

        async def welcome() -> None:
            url = await _ready_url(host, port)
            _report(_greeting(url, servers.data, seconds=time.monotonic() - began))
            if demo:
                await _fill_demo(url, demo_photos)

        tasks = [
            asyncio.create_task(servers.watch()),
            asyncio.create_task(_keep("API", [*program, "serve", "--host", host, "--port", str(port)], settings)),
            asyncio.create_task(_keep("worker", [*program, "worker"], settings)),
            asyncio.create_task(welcome()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _check_photos(folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        raise DevError(f"There is no folder {folder} with photos for the demo.")


def _check_address(host: str, port: int) -> None:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(address)
            attempt.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise DevError(
                f"Port {port} on {host} is taken by another program. Choose another one with --port."
            ) from error
        raise DevError(f"The API cannot listen on {host}, port {port}: {error.strerror}.") from error


def _defaults(*, demo: bool) -> dict[str, str]:
    # A line about each of the demo's hundreds of requests would bury what the person is to read.
    quiet = {"INSTAFEED_LOG_LEVEL": "warning"} if demo else {}
    return {"INSTAFEED_LOG_FORMAT": "console", **quiet}


def _settings(servers: EmbeddedServers) -> dict[str, str]:
    endpoints = servers.endpoints
    return {
        "INSTAFEED_ENVIRONMENT": "development",
        "INSTAFEED_SECRET_KEY": _secret_key(servers.data / "secret_key"),
        "INSTAFEED_DATABASE_URL": endpoints.database_url,
        "INSTAFEED_REDIS_URL": endpoints.redis_url,
        "INSTAFEED_QUEUE_REDIS_URL": f"{endpoints.redis_url.removesuffix('/0')}/1",
        "INSTAFEED_S3_ENDPOINT": endpoints.s3_endpoint,
        "INSTAFEED_S3_REGION": REGION,
        "INSTAFEED_S3_BUCKET": BUCKET,
        "INSTAFEED_S3_ACCESS_KEY": endpoints.s3_access_key,
        "INSTAFEED_S3_SECRET_KEY": endpoints.s3_secret_key,
        "INSTAFEED_WEB_PUSH_KEY": _web_push_key(servers.data / "web_push_key"),
        "INSTAFEED_MAIL_URL": _mails(servers.data).as_uri(),
        # Their log lines appear when they are written, also where the output is no terminal.
        "PYTHONUNBUFFERED": "1",
    }


def _mails(data: Path) -> Path:
    return data.resolve() / "mails"


def _secret_key(file: Path) -> str:
    if not file.exists():
        write_private(file, secrets.token_urlsafe(32))
    return file.read_text()


def _web_push_key(file: Path) -> str:
    # Kept: browsers subscribe to pushes of this one key.
    if not file.exists():
        number = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
        write_private(file, base64url.encode(number.to_bytes(32)))
    return file.read_text()


async def _keep(name: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Run the program, and again when it ends, until we are cancelled; then stop it.

    Raises:
        DevError: it ends again and again.
    """
    deaths: deque[float] = deque(maxlen=DEATHS)
    while True:
        child = await Child.start(command, environ=environ)
        try:
            status = await child.wait()
        finally:
            await child.stop(signal.SIGTERM, seconds=CHILD_STOP_SECONDS)
        now = time.monotonic()
        while deaths and now - deaths[0] > DEATHS_SECONDS:
            deaths.popleft()
        deaths.append(now)
        if len(deaths) == DEATHS:
            raise DevError(
                f"The {name} ended {DEATHS} times within {DEATHS_SECONDS:.0f} seconds, the last time with "
                f"{describe(status)}. What it wrote above says why."
            )
        _report(f"The {name} has ended ({describe(status)}); it is started again.")
        await asyncio.sleep(0.1 * 2 ** (len(deaths) - 1))


async def _ready_url(host: str, port: int) -> str:
    """Wait until the API is ready.

    Returns:
        Its base URL.

    Raises:
        DevError: it takes longer than a minute.
    """
    # An address that stands for all of the machine's is no place to connect to.
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    url = f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
    deadline = time.monotonic() + READY_SECONDS
    while not await asyncio.to_thread(_is_ready, reachable, port):
        if time.monotonic() > deadline:
            raise DevError(f"The API did not become ready within {READY_SECONDS:.0f} seconds; {url}/readyz says why.")
        await asyncio.sleep(0.05)
    return url


def _greeting(url: str, data: Path, *, seconds: float) -> str:
    return (
        f"\ninstafeed is ready ({seconds:.1f} s).\n"
        f"  API   {url}\n"
        f"  Docs  {url}/docs\n"
        f"  Data  {data} (kept; --reset begins anew)\n"
        f"  Mails {_mails(data)}, a file each: none is sent\n"
        f"  Logs  of the API and the worker: here; of the servers: {data / 'logs'}\n"
        f"  Stop  Ctrl-C\n"
    )


async def _fill_demo(url: str, photos: Path | None) -> None:
    try:
        from instafeed.dev import demo  # noqa: PLC0415 - takes time to import, and few want it
    except ModuleNotFoundError as error:
        raise DevError(f"The demo needs {error.name}: pip install 'instafeed[embedded]'") from error
    try:
        login = await demo.fill(url, photos=photos, report=_report)
    except demo.DemoError as error:
        _report(f"The demo could not be filled in: {error}")
    else:
        _report(demo.invitation(url, login))


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
