"""deploy/munin/instafeed, run as munin-node runs it, shows what the API and a worker tell."""

import asyncio
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.deploy.compose import DEPLOY
from tests.deploy.running import HOST, free_ports, program

PROGRAM = program("munin-run")
if PROGRAM is None:
    pytest.skip("munin-node is not installed", allow_module_level=True)

Munin = Callable[..., Awaitable[str]]

WORKER = """instafeed_outbox_dead 3.0
instafeed_sweep_timestamp_seconds 4e+09
instafeed_queue_age_seconds{queue="fanout"} 12.5
instafeed_jobs_total{kind="render",outcome="done"} 7.0
instafeed_jobs_total{kind="fan_out",outcome="done"} 2.0
"""
"""What a worker tells; the API's numbers are real."""


class _Worker(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(WORKER.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def worker() -> Iterator[str]:
    """Where a worker's metrics are."""
    with ThreadingHTTPServer((HOST, 0), _Worker) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://{HOST}:{server.server_address[1]}/metrics"
        server.shutdown()
        thread.join()


@pytest.fixture
def munin(base_url: str, worker: str, tmp_path: Path) -> Munin:
    """Runs our plugin, which knows the API, a worker, and a process that is away."""
    assert PROGRAM is not None
    plugins, settings = tmp_path / "plugins", tmp_path / "plugin-conf.d"
    plugins.mkdir()
    settings.mkdir()
    shutil.copy(DEPLOY / "munin/instafeed", plugins)
    [away] = free_ports(1)
    urls = f"{base_url}/metrics {worker} http://{HOST}:{away}/metrics"
    (settings / "instafeed").write_text(f"[instafeed]\nuser {os.getuid()}\nenv.urls {urls}\n")
    (tmp_path / "munin-node.conf").write_text(f"user {os.getuid()}\ngroup {os.getgid()}\n")
    command = [
        PROGRAM,
        "--config",
        f"{tmp_path}/munin-node.conf",
        "--servicedir",
        str(plugins),
        "--sconfdir",
        str(settings),
    ]

    async def run(*words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *command, "instafeed", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode()

    return run


async def test_munin_shows_all_processes_of_a_host(munin: Munin, http: httpx.AsyncClient) -> None:
    await http.get("/v1/limits")
    config, values = await munin("config"), await munin()
    graphs = re.findall(r"^multigraph (\w+)$", values, re.MULTILINE)
    assert graphs == re.findall(r"^multigraph (\w+)$", config, re.MULTILINE) != []
    assert len(re.findall(r"^graph_title ", config, re.MULTILINE)) == len(graphs)
    shown = dict(re.findall(r"^(\w+)\.value (\S+)$", values, re.MULTILINE))
    assert int(shown["instafeed_answers_200"]) > 0
    assert int(shown["instafeed_jobs_done"]) >= 9
    assert shown["instafeed_outbox_dead_all"] == "3.000"
    assert shown["instafeed_queue_age_fanout"] == "12.500"
    assert set(shown) <= set(re.findall(r"^(\w+)\.label ", config, re.MULTILINE))
