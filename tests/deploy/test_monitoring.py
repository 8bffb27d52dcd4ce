"""A real Prometheus watches an API process and a worker, and our alerts fire when something breaks."""

import asyncio
import json
import re
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from pydantic import SecretStr

from instafeed.dev.process import Child
from instafeed.settings import Settings
from tests.client import Client, eventually, http_client
from tests.deploy.compose import DEPLOY
from tests.deploy.running import HOST, program
from tests.photos import jpeg
from tests.ports import free_ports
from tests.processes import running_api_process, running_worker
from tests.relay import running_relay
from tests.valkey import running_valkeys

SECONDS = 60
"""How long we wait for what takes about five."""
BROKEN = {"OutboxDead", "RedisFailing", "ApiErrors", "UploadsFailing", "DatabasePoolWaits"}
WITHOUT_API = {"NoApi"}
WITHOUT_WORKER = {"NoWorker", "TargetDown", "NoSweep"}
DEAD = "insert into outbox (shard, id, kind, payload, due_at, dead_at) values (0, 1, 'mail', '{}', now(), now())"


def hasty_rules() -> str:
    """alerts.yml, judging by the last seconds where an operator has minutes. Its thresholds stay."""
    text = re.sub(r"\bfor: \d+m", "for: 1s", (DEPLOY / "prometheus/alerts.yml").read_text())
    return re.sub(r"\[(5|10)m\]", "[6s]", text)


class Prometheus(httpx.AsyncClient):
    """What it says, by its HTTP API."""

    async def ask(self, path: str, **params: Any) -> Any:
        """The data of an answer."""
        answer = (await self.get(f"/api/v1/{path}", params=params)).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts = (await self.ask("alerts"))["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    async def knows(self, name: str, labels: dict[str, str]) -> None:
        """Wait until an exemplar of a histogram is there."""

        async def probe() -> bool:
            found = await self.ask("query_exemplars", query=name, start=0, end=time.time() + 60)
            return labels in [exemplar["labels"] for series in found for exemplar in series["exemplars"]]

        await eventually(probe, seconds=SECONDS)

    async def fires(self, names: set[str]) -> None:
        """Wait until these fire."""

        async def probe() -> bool:
            return await self.firing() >= names

        await eventually(probe, seconds=SECONDS)

    async def rests(self, names: set[str]) -> None:
        """Wait until none of these fires."""

        async def probe() -> bool:
            return not await self.firing() & names

        await eventually(probe, seconds=SECONDS)


@asynccontextmanager
async def watching(folder: Path, **targets: str) -> AsyncIterator[Prometheus]:
    """Prometheus, with one target for each job."""
    found = program("prometheus")
    if found is None:
        pytest.skip("prometheus is not installed")
    [port] = free_ports(1)
    (folder / "alerts.yml").write_text(hasty_rules())
    # JSON is YAML.
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "500ms"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = [
        found,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--enable-feature=exemplar-storage",
        f"--web.listen-address={HOST}:{port}",
    ]
    with (folder / "log").open("wb") as log:
        child = await Child.start(command, environ={}, output=log, folder=folder)
    try:
        async with Prometheus(base_url=f"http://{HOST}:{port}", timeout=30) as prometheus:

            async def ready() -> bool:
                assert child.running, (folder / "log").read_text()
                try:
                    return (await prometheus.get("/-/ready")).is_success
                except httpx.TransportError:
                    return False

            await eventually(ready, seconds=SECONDS)
            yield prometheus
    finally:
        await child.stop(signal.SIGKILL, seconds=5)


async def crowd(database: asyncpg.Pool, http: httpx.AsyncClient, person: Client) -> None:
    """Let requests wait for one another's connection: the one that has it waits for a lock."""
    async with database.acquire() as connection, connection.transaction():
        await connection.execute("lock table accounts")
        asking = [asyncio.create_task(http.get("/v1/me", headers=person.headers)) for _ in range(3)]
        await asyncio.sleep(0.5)
    assert all([(await one).is_success for one in asking])


async def test_alerts_fire_when_something_breaks_and_rest_when_it_is_mended(
    fresh_settings: Settings, tmp_path: Path
) -> None:
    [metrics_port] = free_ports(1)
    url = fresh_settings.database_url.get_secret_value()
    async with (
        running_valkeys(1) as [redis],
        running_relay(str(fresh_settings.s3_endpoint)) as s3,
        asyncpg.create_pool(url, min_size=1, max_size=1) as database,
    ):
        settings = fresh_settings.model_copy(
            update={"metrics_port": metrics_port, "redis_url": SecretStr(redis.url), "s3_endpoint": s3.url}
        )
        async with (
            running_api_process(settings.model_copy(update={"database_pool_size": 1})) as api,
            running_relay(api.url) as way,
            http_client(base_url=api.url) as http,
            watching(tmp_path, api=way.url.removeprefix("http://"), worker=f"{HOST}:{metrics_port}") as prometheus,
        ):
            async with running_worker(settings) as worker:
                person = await Client.sign_up(http)
                await database.execute(DEAD)
                await redis.kill()
                await s3.cut()

                async def breaks() -> bool:
                    assert (await http.get("/v1/feed", headers=person.headers)).is_success
                    answer = await http.post("/v1/media", headers=person.headers, content=jpeg())
                    assert answer.status_code == 503
                    await crowd(database, http, person)
                    return await prometheus.firing() >= BROKEN

                await eventually(breaks, seconds=SECONDS)
                s3.mend()
                await redis.start()
                await database.execute("delete from outbox where dead_at is not null")
                post = await person.post()
                await prometheus.knows("instafeed_feed_delivery_delay_seconds_bucket", {"post": post["id"]})
                request_id = secrets.token_hex(59)
                await http.get("/v1/limits", headers={"X-Request-Id": request_id + "cut"})
                await prometheus.knows("instafeed_http_request_seconds_bucket", {"request_id": request_id})
                await prometheus.rests(WITHOUT_WORKER)
                await worker.kill()
                await prometheus.fires(WITHOUT_WORKER)
            async with running_worker(settings):
                await way.cut()
                await prometheus.fires(WITHOUT_API)
                way.mend()
                await prometheus.rests(BROKEN | WITHOUT_WORKER | WITHOUT_API)
