"""`instafeed dev` as a person runs it."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.client import eventually, http_client
from tests.mail import token_in
from tests.ports import free_port

Processes = Callable[[int], set[int]]
Gone = Callable[[set[int], float], bool]

AS_NOBODY = [
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    # The tests' own Python may be below a folder that is closed to others.
    *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
]
# A slow machine takes a minute to start a program five times.
PATIENT = [
    "-c",
    "from instafeed.cli import main; from instafeed.dev import run; run.DEATHS_SECONDS *= 10; raise SystemExit(main())",
]


class Dev:
    """A running `instafeed dev`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.output = ""

    async def read_until(self, text: str, *, seconds: float = 90) -> None:
        """Read what it writes until `text` is in it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            while text not in self.output:
                line = await self.process.stdout.readline()
                assert line, f"it ended:\n{self.output}"
                self.output += line.decode()

    async def end(self, number: signal.Signals, *, seconds: float = 30) -> int:
        """Send a signal, unless it has ended, and wait for the end."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(seconds):
            rest, _ = await self.process.communicate()
        self.output += rest.decode()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def running(
    data: Path,
    *options: str | Path,
    before: Sequence[str] = (),
    program: Sequence[str] = ("-m", "instafeed"),
    port: int | None = None,
    **environ: str,
) -> AsyncIterator[Dev]:
    port = port or free_port()
    process = await asyncio.create_subprocess_exec(
        *(*before, sys.executable, *program, "dev", "--port", str(port), "--data", data, *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={name: value for name, value in os.environ.items() if not name.startswith("INSTAFEED_")} | environ,
    )
    dev = Dev(process, port)
    try:
        yield dev
    finally:
        if process.returncode is None:
            await dev.end(signal.SIGKILL)


async def refusal(data: Path, *options: str | Path, port: int | None = None) -> str:
    """What it says when it does not start."""
    async with running(data, *options, port=port) as dev:
        output, _ = await asyncio.wait_for(dev.process.communicate(), 60)
    assert dev.process.returncode == 1
    text = output.decode()
    assert "Traceback" not in text
    return text


def command_of(pid: int) -> str:
    """A process's command, empty if it has ended: PostgreSQL starts some that do not stay."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


async def sign_up(dev: Dev, username: str) -> dict[str, Any]:
    body = {"username": username, "password": "correct horse battery"}
    async with http_client(base_url=dev.url) as client:
        return dict((await client.post("/v1/accounts", json=body)).raise_for_status().json())


async def a_mail_lands(dev: Dev, folder: Path) -> None:
    """Sign somebody up with an e-mail address, whose token can then be read."""
    async with http_client(base_url=dev.url) as client:
        body = {"username": "bob", "password": "correct horse battery", "email": "bob@example.org"}
        assert (await client.post("/v1/accounts", json=body)).status_code == 201

        async def token() -> str | None:
            return next((token_in(mail.read_text()) for mail in folder.glob("*.eml")), None)

        found = await eventually(token)
        assert (await client.post("/v1/emails/confirm", json={"token": found})).status_code == 204


async def test_it_starts_says_where_and_stops_without_a_trace(tmp_path: Path, processes: Processes, gone: Gone) -> None:
    data = tmp_path / "data"
    async with running(data) as dev:
        await dev.read_until("Stop  Ctrl-C")
        assert f"API   {dev.url}\n" in dev.output
        assert f"Docs  {dev.url}/docs\n" in dev.output
        assert f"Data  {data} " in dev.output
        assert f"Mails {data / 'mails'}, " in dev.output
        async with http_client(base_url=dev.url) as client:
            assert (await client.get("/readyz")).status_code == 200
            assert (await client.get("/docs")).status_code == 200
        account = await sign_up(dev, "ada")
        await a_mail_lands(dev, data / "mails")
        started = processes(dev.process.pid)
        assert len(started) > 10
        assert await dev.end(signal.SIGTERM) == 0
        assert gone(started, 20)
    assert dev.output.endswith("Stopping ...\nStopped.\n")
    assert (data / "secret_key").stat().st_mode & 0o077 == 0

    async with running(data) as dev:  # its data are there, and who was logged in is
        await dev.read_until("Stop  Ctrl-C")
        async with http_client(base_url=dev.url) as client:
            me = await client.get("/v1/me", headers={"Authorization": f"Bearer {account['token']}"})
            assert me.json()["username"] == "ada"
        dev.process.send_signal(signal.SIGINT)
        await dev.read_until("Stopping ...")
        assert await dev.end(signal.SIGINT) == 0  # impatience changes nothing


async def test_kill_9_leaves_no_process_and_the_next_start_works(
    tmp_path: Path, processes: Processes, gone: Gone
) -> None:
    data = tmp_path / "data"
    async with running(data) as dev:
        await dev.read_until("Stop  Ctrl-C")
        await sign_up(dev, "ada")
        started = processes(dev.process.pid)
        assert await dev.end(signal.SIGKILL) == -signal.SIGKILL
    async with running(data, port=dev.port) as dev:
        await dev.read_until("Stop  Ctrl-C")
        assert gone(started, 20)
        async with http_client(base_url=dev.url) as client:
            body = {"username": "ada", "password": "correct horse battery"}
            assert (await client.post("/v1/sessions", json=body)).status_code == 201
        assert await dev.end(signal.SIGTERM) == 0


async def test_a_program_that_dies_is_started_again_and_a_server_that_dies_ends_it_all(
    tmp_path: Path, processes: Processes, gone: Gone
) -> None:
    async with running(tmp_path / "data") as dev:
        await dev.read_until("Stop  Ctrl-C")
        started = {pid: command_of(pid) for pid in processes(dev.process.pid)}
        [worker] = [pid for pid, line in started.items() if line.endswith("instafeed\0worker\0")]
        os.kill(worker, signal.SIGKILL)
        await dev.read_until("The worker has ended (signal SIGKILL); it is started again.")
        [redis] = [pid for pid, line in started.items() if "valkey-server" in line]
        os.kill(redis, signal.SIGKILL)
        assert await asyncio.wait_for(dev.process.wait(), 30) == 1
        await dev.read_until("instafeed dev: The embedded Redis has ended (signal SIGKILL). Its log is")
        assert gone(set(started), 20)


async def test_a_program_that_cannot_run_is_given_up(tmp_path: Path, processes: Processes, gone: Gone) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104 - where the worker would show its metrics
        taken.listen()
        port = str(taken.getsockname()[1])
        async with running(tmp_path / "data", program=PATIENT, INSTAFEED_METRICS_PORT=port) as dev:
            await dev.read_until("instafeed is ready")
            started = processes(dev.process.pid)
            await dev.read_until("instafeed dev: The worker ended 5 times within 600 seconds", seconds=300)
            assert await asyncio.wait_for(dev.process.wait(), 30) == 1
            assert gone(started, 20)
    assert "Address already in use" in dev.output


async def test_a_wrong_setting_is_told_once(tmp_path: Path, processes: Processes) -> None:
    async with running(tmp_path / "data", INSTAFEED_LOG_LEVEL="shrill") as dev:
        output, _ = await asyncio.wait_for(dev.process.communicate(), 60)
    assert dev.process.returncode == 2
    assert output.decode().count("INSTAFEED_LOG_LEVEL: Input should be") == 1
    assert processes(os.getpid()) == set()


async def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert await refusal(tmp_path / "data", port=port) == (
            f"instafeed dev: Port {port} on 127.0.0.1 is taken by another program. Choose another one with --port.\n"
        )
    file = tmp_path / "file"
    file.write_text("not a folder")
    assert await refusal(file) == f"instafeed dev: {file} is not a folder.\n"
    assert (await refusal(tmp_path, "--reset")).endswith("Choose an empty or a new one.\n")
    assert file.read_text() == "not a folder"
    assert "cannot listen on 192.0.2.1" in await refusal(tmp_path / "data", "--host", "192.0.2.1")
    assert "There is no folder /nowhere" in await refusal(tmp_path / "data", "--demo-photos", "/nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert "cannot be used: Permission denied" in await refusal(closed / "data")


async def test_the_demo_fills_a_feed_and_a_second_time_adds_nothing(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(14):
        Image.new("RGB", (60, 40), (number * 9, 90, 120)).save(photos / f"{number}.jpg")
    (photos / "broken.jpg").write_text("no photo")
    (photos / "notes.txt").write_text("no photo either")
    data = tmp_path / "data"
    feeds = []
    for _ in range(2):
        async with running(data, "--demo", "--demo-photos", photos) as dev:
            await dev.read_until("\nTOKEN=")
            async with http_client(base_url=dev.url) as client:
                body = {"username": "maya.okafor", "password": "instafeed-demo"}
                token = (await client.post("/v1/sessions", json=body)).json()["token"]
                feed = await client.get("/v1/feed?limit=100", headers={"Authorization": f"Bearer {token}"})
            feeds.append(feed.json()["items"])
            assert await dev.end(signal.SIGTERM) == 0
        if len(feeds) == 1:
            assert "broken.jpg is not a photo that can be taken; it is left out." in dev.output
    assert "have posts already" in dev.output
    assert [post["id"] for post in feeds[0]] == [post["id"] for post in feeds[1]]
    assert sum(len(post["media"]) for post in feeds[0]) == 14


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
async def test_an_ordinary_user_needs_nothing_more(tmp_path: Path, processes: Processes, gone: Gone) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 65534, 65534)
    async with running(data, before=AS_NOBODY) as dev:
        await dev.read_until("Stop  Ctrl-C")
        started = processes(dev.process.pid)
        began = time.monotonic()
        assert await dev.end(signal.SIGTERM) == 0
        assert time.monotonic() - began < 15
        assert gone(started, 20)
    assert (data / "secrets.json").stat().st_uid == 65534
