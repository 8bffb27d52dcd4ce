"""Real servers for every test: one set a run, a database, two Redis databases and an S3 prefix of its own a process."""

import asyncio
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from typing import Any

import asyncpg
import httpx
import hypothesis
import pytest
import uvicorn

from instafeed import passwords
from instafeed.api.app import create_app
from instafeed.api.server import configure
from instafeed.dev.embedded import EmbeddedServers, Endpoints
from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from instafeed.storage import migrations
from tests.client import Client, http_client
from tests.redis import queue_client, redis_client
from tests.workers import running_workers

_SERVERS = "TEST_SERVERS_OF_INSTAFEED"
# Thousands of accounts sign up. Processes of their own hash passwords as production does.
COST_OF_PASSWORDS = {"_PASSES": passwords._PASSES, "_MEMORY_KIB": passwords._MEMORY_KIB}
passwords._PASSES, passwords._MEMORY_KIB = 1, 8
TEMPLATE = "instafeed_template"
_ROOM_BYTES = 2 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers in the process that all others descend from."""
    # How long an example takes, or is thought up, says nothing on a machine that others use too.
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("tests", deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("tests")
    if _SERVERS in os.environ:
        return
    started: list[Endpoints] = []
    ready, stop = Event(), Event()
    folder = tempfile.TemporaryDirectory(prefix="instafeed-test-")
    databases = tempfile.TemporaryDirectory(prefix="instafeed-test-", dir=_in_memory())

    async def run() -> None:
        async with EmbeddedServers(Path(folder.name), durable=False) as servers:
            owner = Path(folder.name, "postgres", "data").stat()
            os.chown(databases.name, owner.st_uid, owner.st_gid)
            await _make_template(servers.endpoints.database_url, Path(databases.name))
            started.append(servers.endpoints)
            ready.set()
            await asyncio.to_thread(stop.wait)

    def main() -> None:
        try:
            asyncio.run(run())
        finally:
            ready.set()

    thread = Thread(target=main, name="servers")
    thread.start()
    ready.wait()
    if not started:
        raise pytest.UsageError("the test servers did not start")
    os.environ[_SERVERS] = json.dumps(asdict(started[0]))

    def clean_up() -> None:
        stop.set()
        thread.join()
        del os.environ[_SERVERS]
        folder.cleanup()
        databases.cleanup()

    config.add_cleanup(clean_up)


def _in_memory() -> Path | None:
    """Where a database that a test has for itself is there in 0.04 s instead of 0.8 s, if there is room."""
    folder = Path("/dev/shm")  # noqa: S108 - a folder of our own is made there
    return folder if folder.is_dir() and shutil.disk_usage(folder).free >= _ROOM_BYTES else None


async def _make_template(url: str, place: Path) -> None:
    """The database that others are copied from, and beside which they come to lie."""
    await _admin(url, f"create tablespace tests location '{place}'")
    await _admin(url, f"create database {TEMPLATE} tablespace tests")
    await migrations.migrate(url.rpartition("/")[0] + "/" + TEMPLATE)


async def _admin(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url.rpartition("/")[0] + "/postgres")
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def endpoints() -> Endpoints:
    """Where the run's servers are."""
    return Endpoints(**json.loads(os.environ[_SERVERS]))


def _redis_number() -> int:
    """Which two of Redis's 16 databases are this process's; the last two are for `fresh_settings`."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return int(worker) * 4 % 16


@asynccontextmanager
async def _database(endpoints: Endpoints) -> AsyncIterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    await _admin(endpoints.database_url, f"create database {name} template {TEMPLATE} strategy file_copy")
    try:
        yield endpoints.database_url.rpartition("/")[0] + "/" + name
    finally:
        await _admin(endpoints.database_url, f"drop database if exists {name} with (force)")


def make_settings(endpoints: Endpoints, database_url: str, *, redis_number: int, **values: Any) -> Settings:
    """Settings for the test servers; `values` go over the defaults of a test."""
    defaults: dict[str, Any] = {
        "environment": "development",
        "secret_key": "a secret key for tests only, and nothing else",
        "database_url": database_url,
        "redis_url": f"{endpoints.redis_url.rpartition('/')[0]}/{redis_number}",
        "queue_redis_url": f"{endpoints.redis_url.rpartition('/')[0]}/{redis_number + 1}",
        "s3_endpoint": endpoints.s3_endpoint,
        "s3_access_key": endpoints.s3_access_key,
        "s3_secret_key": endpoints.s3_secret_key,
        "s3_prefix": f"test-{secrets.token_hex(6)}/",
        "rate_limits": "off",
        "log_level": "warning",
    }
    return Settings.model_validate(defaults | values)


@pytest.fixture(scope="session")
async def settings(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Settings]:
    """This process's settings. Mails land in a folder."""
    mails = tmp_path_factory.mktemp("mails").as_uri()
    async with _database(endpoints) as url:
        yield make_settings(endpoints, url, redis_number=_redis_number(), mail_url=mails)


@pytest.fixture
async def fresh_settings(endpoints: Endpoints) -> AsyncIterator[Settings]:
    """Settings with an empty database and an empty Redis, where no worker runs but the test's own."""
    async with _database(endpoints) as url:
        settings = make_settings(endpoints, url, redis_number=_redis_number() + 2, feed_window=10)
        async with redis_client(settings) as redis, queue_client(settings) as queue:
            await redis.flushdb()
            await queue.flushdb()
        yield settings


@pytest.fixture
async def fresh_http(fresh_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API of the test's own, on empty servers and without workers."""
    async with running_api(fresh_settings) as url, http_client(base_url=url) as client:
        yield client


@pytest.fixture
async def fresh_res(fresh_settings: Settings) -> AsyncIterator[Resources]:
    """What that API's servers hold."""
    async with open_resources(fresh_settings) as opened:
        yield opened


@pytest.fixture(scope="session")
async def res(settings: Settings) -> AsyncIterator[Resources]:
    """What a process holds."""
    async with open_resources(settings) as opened:
        yield opened


@pytest.fixture(scope="session")
async def base_url(settings: Settings) -> AsyncIterator[str]:
    """A running API on a real socket."""
    async with running_api(settings) as url:
        yield url


@asynccontextmanager
async def running_api(settings: Settings) -> AsyncIterator[str]:
    """An API server in this process's event loop; yields its URL."""
    async with serving(settings) as (url, _):
        yield url


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    """An API server in this process's event loop; yields its URL, and itself."""
    app = create_app(settings)
    server = uvicorn.Server(configure(app, timeout_graceful_shutdown=2))
    async with listening(server) as url:
        try:
            yield url, server
        finally:
            app.state.hub.close()


@asynccontextmanager
async def listening(server: uvicorn.Server) -> AsyncIterator[str]:
    """A server in this process's event loop; yields its URL."""
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@pytest.fixture(scope="session")
async def workers(settings: Settings) -> AsyncIterator[None]:
    """Workers for all queues."""
    async with running_workers(settings):
        yield


@pytest.fixture(scope="session")
async def http(base_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API, without a log-in."""
    async with http_client(base_url=base_url) as client:
        yield client


@pytest.fixture
def sign_up(http: httpx.AsyncClient) -> Callable[..., Awaitable[Client]]:
    """Makes an account and gives a client that is logged in as it."""

    async def make(username: str | None = None, **fields: Any) -> Client:
        return await Client.sign_up(http, username, **fields)

    return make


@pytest.fixture(scope="session", autouse=True)
def _quiet(settings: Settings) -> None:
    from instafeed import telemetry

    telemetry.set_up(settings, process="test")
