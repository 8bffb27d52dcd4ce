"""deploy/munin/instafeed, asked for through a munin-node, shows what the API and a worker tell."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from instafeed.dev.process import Child
from tests.client import eventually
from tests.deploy.compose import DEPLOY
from tests.deploy.running import HOST, program
from tests.ports import free_ports

PROGRAM = program("munin-node")
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


def _move_configuration(folder: Path) -> None:
    """Have munin-node look there: where it looks is written into a module of its own, and nowhere else."""
    find = ["perl", "-MMunin::Common::Defaults", "-e", "print $INC{'Munin/Common/Defaults.pm'}"]
    text = Path(subprocess.run(find, capture_output=True, text=True, check=True).stdout).read_text()
    assert "/etc/munin}" in text
    moved = folder / "perl/Munin/Common/Defaults.pm"
    moved.parent.mkdir(parents=True)
    moved.write_text(text.replace("/etc/munin}", f"{folder}}}"))


@pytest.fixture
async def munin(base_url: str, worker: str, tmp_path: Path) -> AsyncIterator[Munin]:
    """Asks a munin-node with our plugin, which knows the API, a worker, and a process that is away."""
    assert PROGRAM is not None
    plugins, settings = tmp_path / "plugins", tmp_path / "plugin-conf.d"
    plugins.mkdir()
    settings.mkdir()
    shutil.copy(DEPLOY / "munin/instafeed", plugins)
    away, port = free_ports(2)
    urls = f"{base_url}/metrics {worker} http://{HOST}:{away}/metrics"
    (settings / "instafeed").write_text(f"[instafeed]\nuser {os.getuid()}\nenv.urls {urls}\n")
    (tmp_path / "munin-node.conf").write_text(f"""
        user {os.getuid()}
        group {os.getgid()}
        host {HOST}
        port {port}
        allow ^127\\.0\\.0\\.1$
        background 0
        setsid 0
        pid_file {tmp_path}/pid
        log_file {tmp_path}/log
    """)
    _move_configuration(tmp_path)

    async def ask(*words: str) -> str:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(f"cap multigraph\n{' '.join(words)}\nquit\n".encode())
            async with asyncio.timeout(30):
                return (await reader.read()).decode()
        finally:
            writer.close()

    async def answers() -> bool:
        assert node.running, (tmp_path / "output").read_text()
        with contextlib.suppress(ConnectionError):
            return "instafeed" in await ask("list")
        return False

    with (tmp_path / "output").open("ab") as output:
        environ = os.environ | {"PERL5LIB": str(tmp_path / "perl")}
        node = await Child.start([PROGRAM], environ=environ, output=output)
    try:
        await eventually(answers)
        yield ask
    finally:
        await node.stop(signal.SIGTERM, seconds=5)


async def test_munin_shows_all_processes_of_a_host(munin: Munin, http: httpx.AsyncClient) -> None:
    await http.get("/v1/limits")
    config, values = await munin("config", "instafeed"), await munin("fetch", "instafeed")
    graphs = re.findall(r"^multigraph (\w+)$", values, re.MULTILINE)
    assert graphs == re.findall(r"^multigraph (\w+)$", config, re.MULTILINE) != []
    assert len(re.findall(r"^graph_title ", config, re.MULTILINE)) == len(graphs)
    shown = dict(re.findall(r"^(\w+)\.value (\S+)$", values, re.MULTILINE))
    assert int(shown["instafeed_answers_200"]) > 0
    assert int(shown["instafeed_jobs_done"]) >= 9
    assert shown["instafeed_outbox_dead_all"] == "3.000"
    assert shown["instafeed_queue_age_fanout"] == "12.500"
    assert set(shown) <= set(re.findall(r"^(\w+)\.label ", config, re.MULTILINE))
