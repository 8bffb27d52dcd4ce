"""The one-server size on this machine, without containers."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest

from instafeed.dev.embedded import Endpoints
from tests.client import http_client
from tests.deploy.running import Machine, program


@asynccontextmanager
async def _empty_database(endpoints: Endpoints) -> AsyncIterator[str]:
    base, _, _ = endpoints.database_url.rpartition("/")
    name = f"test_deploy_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(f"{base}/postgres")
    try:
        await connection.execute(f"create database {name} template template0")
        yield f"{base}/{name}"
        await connection.execute(f"drop database {name} with (force)")
    finally:
        await connection.close()


@pytest.fixture
async def empty_database(endpoints: Endpoints) -> AsyncIterator[str]:
    """URL of a database without a schema."""
    async with _empty_database(endpoints) as url:
        yield url


@pytest.fixture(scope="session")
async def machine(endpoints: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Machine]:
    """Everything but nginx and Prometheus, set up and started in compose.yaml's order."""
    async with _empty_database(endpoints) as url, _running(Machine(tmp_path_factory.mktemp("machine"), url)) as machine:
        yield machine


@asynccontextmanager
async def _running(machine: Machine) -> AsyncIterator[Machine]:
    async with machine.running("valkey-feeds", "valkey-queue", "seaweedfs"):
        migrated, _ = await asyncio.gather(machine.run("migrate"), machine.answers("seaweedfs", "/healthz"))
        assert migrated[0] == 0, migrated[1]
        status, output = await machine.run("bucket")
        assert status == 0, output + machine.log("seaweedfs").read_text(errors="replace")[-2000:]
        async with machine.running("api-1", "api-2", "worker", "media-worker"):
            await asyncio.gather(
                *(machine.answers(name, "/readyz") for name in ("api-1", "api-2")),
                *(machine.answers(name, "/metrics") for name in ("worker", "media-worker")),
            )
            yield machine


@pytest.fixture(scope="session")
async def nginx(machine: Machine) -> AsyncIterator[Machine]:
    """The same with nginx."""
    if program("nginx") is None:
        pytest.skip("nginx is not installed")
    async with machine.running("nginx"):
        await machine.answers("nginx", "/", url=machine.url("nginx-health"))
        yield machine


@pytest.fixture
async def phone(nginx: Machine) -> AsyncIterator[httpx.AsyncClient]:
    """A client that knows nginx only."""
    headers = {"Host": "api.example.org"}
    async with http_client(base_url=nginx.url("nginx"), headers=headers) as http:
        yield http
