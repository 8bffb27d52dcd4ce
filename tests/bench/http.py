"""Load on HTTP servers, by wrk or over one bare connection, and the limit: the framework answering the same bytes prebuilt."""

import asyncio
import json
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from instafeed.dev.process import Child
from tests.bench.common import progress
from tests.client import eventually, http_client
from tests.processes import Api

CONNECTIONS = 16

_PREBUILT = """
import sys, uvicorn
from fastapi import FastAPI, Response
body = open(sys.argv[2], "rb").read()
head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode())]}
app = FastAPI()
@app.get("/v1/feed")
async def feed():
    return Response(body, media_type="application/json")
async def bare(scope, receive, send):
    if scope["type"] == "http":
        await send(head)
        await send({"type": "http.response.body", "body": body})
served = {"bare": bare, "framework": app}[sys.argv[3]]
uvicorn.run(served, port=int(sys.argv[1]), log_level="warning", access_log=False, lifespan="off")
"""

# Every request is another account's: none meets its rate limit.
SCRIPT = """
local tokens, pause, at = {%s}, %s, 0
request = function()
  at = at %% #tokens + 1
  return wrk.format("GET", "%s", {["Authorization"] = "Bearer " .. tokens[at]})
end
if pause > 0 then delay = function() return pause end end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format('\\nfound {"requests": %%d, "seconds": %%f, "median": %%f, "p99": %%f, "errors": %%d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What a load met: answers a second, their times in milliseconds, and the process's processor time for each in µs."""

    rate: float
    median: float
    p99: float
    cpu: float


def has_wrk() -> bool:
    """Whether wrk is installed; says so if it is not."""
    found = shutil.which("wrk") is not None
    if not found:
        progress("skipped: wrk is missing (Debian's package wrk)")
    return found


async def wrk(
    server: Api,
    tokens: Sequence[str],
    *,
    seconds: float,
    path: str = "/v1/feed",
    connections: int = CONNECTIONS,
    pause: float = 0,
    script: str = SCRIPT,
) -> Load:
    """Ask over some connections, each as soon as it is answered, or so many milliseconds after that; what is asked is for
    the script to say, into which tokens, pause and path are put.
    """
    names = ",".join(f'"{token}"' for token in tokens)
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script % (names, pause, path))
        file.flush()
        cpu = server.cpu_seconds
        wrk_ = await asyncio.create_subprocess_exec(
            *("wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", file.name, server.url),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await wrk_.communicate()
    cpu = server.cpu_seconds - cpu
    found = json.loads(output.decode().rpartition("found ")[2])
    assert wrk_.returncode == 0, output.decode()
    assert found["errors"] == 0, output.decode()
    return Load(found["requests"] / found["seconds"], found["median"], found["p99"], cpu / found["requests"] * 1e6)


async def ask(url: str, paths: Sequence[str], token: str) -> tuple[list[float], list[bytes]]:
    """Ask for one after the other over one connection; returns the seconds of each, and the bodies."""
    return await asyncio.to_thread(_ask, url, paths, token)


def _ask(url: str, paths: Sequence[str], token: str) -> tuple[list[float], list[bytes]]:
    parts = urlsplit(url)
    times, bodies = [], []
    with socket.create_connection((str(parts.hostname), parts.port or 80)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = connection.makefile("rb")
        for path in paths:
            request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            began = time.perf_counter()
            connection.sendall(request)
            status, length = answers.readline(), 0
            while (line := answers.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            bodies.append(answers.read(length))
            times.append(time.perf_counter() - began)
            assert status.startswith(b"HTTP/1.1 200"), status + bodies[-1]
    return times, bodies


async def pages(url: str, tokens: Sequence[str], *, limit: int = 30) -> bytes:
    """Read everybody's first page until all is cached; returns one of them."""
    body = b""
    for _ in range(3):
        for token in tokens:
            _, [body] = await ask(url, ["/v1/feed"], token)
            assert len(json.loads(body)["items"]) == limit
    return body


async def sql_so_far(api: Api) -> int:
    """How often the process has taken a connection to PostgreSQL."""
    async with http_client() as http:
        text = (await http.get(f"{api.url}/metrics")).text
    found = re.search(r"^instafeed_database_pool_wait_seconds_count (\S+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


@asynccontextmanager
async def prebuilt(body: bytes, *, bare: bool = False) -> AsyncIterator[Api]:
    """A process that answers `body` without asking anybody: a handler of the framework's, or `bare`, with no framework."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(body)
        port = free_port()
        command = [sys.executable, "-c", _PREBUILT, str(port), file.name, "bare" if bare else "framework"]
        async with program(f"http://127.0.0.1:{port}", command, {}) as running:
            yield running


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@asynccontextmanager
async def program(url: str, command: Sequence[str], environ: dict[str, str]) -> AsyncIterator[Api]:
    """A server of any kind, once it answers."""
    child = await Child.start(list(command), environ=environ)
    try:
        async with http_client() as http:

            async def answers() -> bool:
                assert child.running, "it ended at once"
                try:
                    await http.get(url)
                except httpx.TransportError:
                    return False
                return True

            await eventually(answers)
        yield Api(child, url)
    finally:
        await child.stop(signal.SIGTERM, seconds=5)
