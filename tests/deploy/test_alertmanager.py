"""deploy/alertmanager/alertmanager.yml, in the real program, tells PagerDuty what it should."""

import asyncio
import json
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from instafeed.dev.process import Child
from tests.client import eventually, http_client
from tests.deploy.compose import DEPLOY
from tests.deploy.running import HOST, program
from tests.deploy.test_alerts import alerts
from tests.ports import free_ports

PROGRAM = program("prometheus-alertmanager") or program("alertmanager")
if PROGRAM is None:
    pytest.skip("alertmanager is not installed", allow_module_level=True)

KEY = "a-key-of-thirty-two-characters--"


class PagerDuty(ThreadingHTTPServer):
    """Stands for PagerDuty's Events API: keeps what it is told."""

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Events)
        self.events: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Where events are sent."""
        return f"http://{HOST}:{self.server_address[1]}/v2/enqueue"


class _Events(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, PagerDuty)
        self.server.events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(202)
        self.end_headers()
        self.wfile.write(b'{"status":"success"}')

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def pagerduty() -> Iterator[PagerDuty]:
    with PagerDuty() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
async def alertmanager(pagerduty: PagerDuty, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Alertmanager with our file, but for PagerDuty's address and shorter times."""
    moved = {"group_wait: 15s": "group_wait: 1s", "group_interval: 2m": "group_interval: 1s"}
    text = (DEPLOY / "alertmanager/alertmanager.yml").read_text()
    for old, new in moved.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "alertmanager.yml").write_text(f"global: {{pagerduty_url: '{pagerduty.url}'}}\n{text}")
    (tmp_path / "pagerduty_key").write_text(KEY)
    [port] = free_ports(1)
    assert PROGRAM is not None
    command = [PROGRAM, f"--config.file={tmp_path}/alertmanager.yml", f"--storage.path={tmp_path}/data"]
    command += [f"--web.listen-address={HOST}:{port}", "--cluster.listen-address="]
    with (tmp_path / "log").open("wb") as output:
        child = await Child.start(command, environ={}, output=output, folder=tmp_path)
        try:
            async with http_client(base_url=f"http://{HOST}:{port}") as http:

                async def ready() -> bool:
                    assert child.running, (tmp_path / "log").read_text()
                    try:
                        return (await http.get("/-/ready")).is_success
                    except httpx.TransportError:
                        return False

                await eventually(ready)
                yield http
        finally:
            await child.stop(signal.SIGTERM, seconds=10)


async def tell(http: httpx.AsyncClient, *names: str, over: bool = False, **labels: str) -> None:
    """What Prometheus sends for these alerts of ours."""
    now = datetime.now(UTC)
    times = {"startsAt": now - timedelta(minutes=1), "endsAt": now if over else now + timedelta(hours=1)}
    rules = alerts()
    body = [
        {
            "labels": {"alertname": name, **rules[name]["labels"], **labels},
            "annotations": rules[name]["annotations"],
            **{key: time.isoformat() for key, time in times.items()},
        }
        for name in names
    ]
    (await http.post("/api/v2/alerts", json=body)).raise_for_status()


async def events(pagerduty: PagerDuty, count: int) -> list[dict[str, Any]]:
    """The first events that came."""

    async def there() -> bool:
        return len(pagerduty.events) >= count

    await eventually(there)
    return pagerduty.events


async def test_an_alert_becomes_an_incident_and_ends_it(alertmanager: httpx.AsyncClient, pagerduty: PagerDuty) -> None:
    await tell(alertmanager, "OutboxDead")
    [begun] = await events(pagerduty, 1)
    assert (begun["event_action"], begun["routing_key"]) == ("trigger", KEY)
    payload = begun["payload"]
    assert payload["severity"] == "warning"
    assert (payload["class"], payload["component"]) == ("OutboxDead", "instafeed")
    assert payload["summary"] == alerts()["OutboxDead"]["annotations"]["summary"]
    assert payload["custom_details"]["runbook"] == "docs/runbook.md#outboxdead"
    await tell(alertmanager, "OutboxDead", over=True)
    ended = (await events(pagerduty, 2))[1]
    assert ended["event_action"] == "resolve"
    assert ended["dedup_key"] == begun["dedup_key"] != ""


async def test_alerts_of_a_kind_are_one_incident(alertmanager: httpx.AsyncClient, pagerduty: PagerDuty) -> None:
    await asyncio.gather(*(tell(alertmanager, "ApiErrors", route=f"/v1/{n}") for n in range(5)))

    async def all_told() -> bool:
        return any("(5 of its kind)" in event["payload"]["summary"] for event in pagerduty.events)

    await eventually(all_told)
    assert {event["payload"]["severity"] for event in pagerduty.events} == {"critical"}
    assert len({event["dedup_key"] for event in pagerduty.events}) == 1
    assert pagerduty.events[-1]["payload"]["custom_details"]["what"].count("5xx") == 5


async def test_what_follows_from_something_worse_is_not_told(
    alertmanager: httpx.AsyncClient, pagerduty: PagerDuty
) -> None:
    await tell(alertmanager, "NoWorker", job="worker")
    await events(pagerduty, 1)
    await tell(alertmanager, "TargetDown", "OutboxLate", "QueueBehind", job="worker")

    async def quiet() -> set[str]:
        found = (await alertmanager.get("/api/v2/alerts", params={"active": "false"})).json()
        return {alert["labels"]["alertname"] for alert in found if alert["status"]["state"] == "suppressed"}

    assert await eventually(quiet) == {"TargetDown", "OutboxLate", "QueueBehind"}
    await tell(alertmanager, "TargetDown", job="api", instance="a:8000")
    told = {event["payload"]["class"] for event in await events(pagerduty, 2)}
    assert told == {"NoWorker", "TargetDown"}


def test_amtool_finds_no_fault_and_a_way_to_pagerduty() -> None:
    amtool, file = program("amtool"), DEPLOY / "alertmanager/alertmanager.yml"
    if amtool is None:
        pytest.skip("amtool is not installed")
    check = subprocess.run([amtool, "check-config", file], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr
    for severity in ("critical", "warning"):
        ask = [amtool, "config", "routes", "test", f"--config.file={file}", f"severity={severity}"]
        assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip() == "pagerduty"


def test_the_names_in_the_file_are_those_of_alerts() -> None:
    text = (DEPLOY / "alertmanager/alertmanager.yml").read_text()
    for quoted in text.split("alertname=")[1:]:
        for name in quoted.partition("]")[0].strip("~\"'").split("|"):
            assert name.strip("\"'") in alerts()
