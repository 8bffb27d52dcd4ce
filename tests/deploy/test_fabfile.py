"""deploy/fabfile.py brings releases to hosts over SSH, under load, and takes a bad one back."""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx
import pytest

from instafeed.dev.embedded import Endpoints
from instafeed.settings import PREFIX
from instafeed.storage.queue import QUEUES
from tests.client import Client, eventually, http_client
from tests.conftest import make_settings
from tests.deploy.compose import DEPLOY, ROOT
from tests.deploy.hosts import SshHost, make_key, missing
from tests.deploy.running import write_nginx
from tests.ports import free_ports
from tests.processes import environ_of

DEPLOYS = int(os.environ.get("DEPLOYS", "1"))
"""By hand more: `DEPLOYS=20 PAUSE=0.05 pytest -s tests/deploy/test_fabfile.py`."""
PAUSE = float(os.environ.get("PAUSE", "0.2"))
"""Between two requests of each of those who make the load."""
_FAB = Path(sysconfig.get_path("scripts"), "fab")


def test_the_example_of_a_fleet_names_every_queue() -> None:
    workers = tomllib.loads((DEPLOY / "fleet.example.toml").read_text())["workers"].values()
    assert sorted(",".join(worker["queues"] for worker in workers).split(",")) == sorted(QUEUES)


def test_upkeep_is_for_one_host(tmp_path: Path) -> None:
    said = fab_in(tmp_path, (DEPLOY / "fleet.example.toml").read_text(), "provision", "--dry-run").stdout
    told = dict(re.findall(r"(?m)^\[(\w+)\] systemctl (\w+) --quiet --now instafeed-upkeep.timer$", said))
    assert told == {"one": "enable", "two": "disable", "three": "disable"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("ready_seconds = 60", "", "missing 1 required positional argument: 'ready_seconds'"),
        ("balancers =", "balancer =", "unexpected keyword argument 'balancer'"),
        ("[hosts.two]", "[hosts.one]", "Cannot declare ('hosts', 'one') twice"),
        ('environment = "environment"', 'environment = "nowhere"', "No such file or directory"),
    ],
)
def test_what_is_wrong_in_a_fleet_is_said(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (DEPLOY / "fleet.example.toml").read_text()
    assert old in text
    done = fab_in(tmp_path, text.replace(old, new), "restart", "--dry-run")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def fab_in(folder: Path, fleet: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """How fab ends there, with a fleet that nobody can reach."""
    shutil.copytree(DEPLOY, folder, dirs_exist_ok=True)
    (folder / "fleet.toml").write_text(fleet)
    for name in ("environment", "known_hosts"):
        (folder / name).write_text("")
    return subprocess.run([_FAB, *arguments], cwd=folder, capture_output=True, text=True, check=False)


class Checkout:
    """A repository like ours, in which releases are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("deploy", "migrations", "src"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("LICENSE", "README.md", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        self._git("init", "-q")

    def release(self, version: str, *, broken: bool = False, bad_migration: bool = False) -> None:
        """Commit and tag a release; a broken one cannot serve."""
        migrations = self.folder / "migrations"
        bad = migrations / f"{len(list((ROOT / 'migrations').glob('0*.sql'))) + 1:04}_bad.sql"
        bad.unlink(missing_ok=True)
        if bad_migration:
            bad.write_text("select no_such_column;\n")
        path = self.folder / "pyproject.toml"
        path.write_text(re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', path.read_text()))
        server = self.folder / "src/instafeed/api/server.py"
        good = (ROOT / "src/instafeed/api/server.py").read_text()
        server.write_text(good + "\nraise RuntimeError('a broken release')\n" if broken else good)
        self._git("add", "--all", "src", "pyproject.toml", "migrations", "README.md", "LICENSE")
        self._git("commit", "-q", "-m", version)
        self._git("tag", version)

    def _git(self, *arguments: str) -> None:
        who = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=self.folder, check=True)


@dataclass
class Fleet:
    """Two hosts, of which the first has nginx, and whoever deploys to them."""

    checkout: Checkout
    hosts: list[SshHost]
    key: Path
    api_port: int
    url: str

    async def fab(self, *arguments: str) -> tuple[int, str]:
        """Run fab as an operator does; returns its status and what it printed."""
        process = await asyncio.create_subprocess_exec(
            *(str(_FAB), "-i", str(self.key), *arguments),
            cwd=self.checkout.folder / "deploy",
            # What a release needs is linked on the hosts.
            env=os.environ | {"PIP_NO_DEPS": "1", "PYTHONPATH": ""},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 300)
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def deployed(self, *arguments: str) -> str:
        """What fab printed, which must have succeeded."""
        status, said = await self.fab(*arguments)
        logs = "".join(host.journal(f"instafeed-api@{self.api_port}.service")[-2000:] for host in self.hosts)
        assert status == 0, said + logs
        return said

    async def keep_up(self) -> None:
        """Run what the timer runs, which must find all sound."""
        [host, _] = self.hosts
        unit = "instafeed-upkeep.service"
        await self.deployed("-H", f"root@{host.address}:{host.port}", "--", f"systemctl start {unit}")
        said = [line.split() for line in host.journal(unit).splitlines()]
        assert said[0] == ["analyzed"]
        assert said[-1] == ["ok", "redis", "0", "found"]
        assert {word for word, *_ in said[1:]} == {"ok"}

    async def versions(self) -> list[str]:
        """The release that each host's API says it is."""
        async with http_client() as http:
            documents = [
                (await http.get(f"http://{host.address}:{self.api_port}/openapi.json")).json() for host in self.hosts
            ]
        return [document["info"]["version"] for document in documents]


@pytest.fixture
async def fleet(endpoints: Endpoints, empty_database: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Hosts on which nothing is set up, with a database that has no schema."""
    if lack := missing():
        pytest.skip(lack)
    api, metrics, ssh, port, photos, health = free_ports(6)
    hosts = [SshHost(tmp_path / f"host{n}", f"127.0.0.{n}", ssh) for n in (2, 3)]
    checkout = Checkout(tmp_path / "checkout")
    key = tmp_path / "key"
    make_key(key)
    settings = make_settings(
        endpoints,
        empty_database,
        redis_number=14,
        metrics_port=0,
        allowed_hosts=("api.example.org", "127.0.0.2", "127.0.0.3"),
    )
    given = {
        name: value
        for name, value in environ_of(settings).items()
        if name.startswith(PREFIX) and not name.removeprefix(PREFIX).startswith(("METRICS", "TRUSTED"))
    }
    deploy = checkout.folder / "deploy"
    (deploy / "environment").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
    (deploy / "known_hosts").write_text("")
    text = (deploy / "fleet.example.toml").read_text()
    (deploy / "fleet.toml").write_text(
        re.sub(r"(?ms)^api_ports.*", "", text)
        + f"""
        api_ports = [{api}]
        ready_seconds = 120
        [workers.all]
        queues = "{",".join(QUEUES)}"
        metrics_port = {metrics}
        """
        + "".join(
            f"""
            [hosts.{name}]
            ssh = "root@{host.address}:{ssh}"
            address = "{host.address}"
            runs = {runs}
            """
            for name, host, runs in zip(
                ("one", "two"), hosts, (["nginx", "api", "workers", "upkeep"], ["api", "workers"]), strict=True
            )
        )
    )
    # Both hosts are this machine: no port may be one that somebody has.
    conf = write_nginx(deploy / "nginx", None, port=port, photos=photos, health=health)
    conf.write_text(f"user root;\n{conf.read_text()}")
    async with AsyncExitStack() as stack:
        for host in hosts:
            await stack.enter_async_context(host.running(key.with_suffix(".pub")))
        (deploy / "known_hosts").write_text("".join(host.known for host in hosts))
        yield Fleet(checkout, hosts, key, api, f"http://127.0.0.1:{port}")


@dataclass
class Load:
    """People who read, write, post and listen, and what they were answered."""

    http: httpx.AsyncClient
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    posts: list[str] = field(default_factory=list)
    heard: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Client]:
        """The load; yields somebody who follows the one who posts."""
        author, reader = await Client.sign_up(self.http), await Client.sign_up(self.http)
        await reader.follow(author)
        first = await author.post("the first")
        self.posts.append(first["id"])
        await author.published(first["id"])
        stop = asyncio.Event()
        comments = f"/v1/posts/{first['id']}/comments"
        jobs = [
            self._often(stop, reader, "GET", "/v1/feed"),
            self._often(stop, reader, "GET", f"/v1/posts/{first['id']}"),
            self._often(stop, reader, "POST", comments, json={"text": "nice"}),
            self._often(stop, reader, "PUT", f"/v1/posts/{first['id']}/like"),
            self._post(stop, author),
            self._listen(stop, reader),
        ]
        tasks = [asyncio.create_task(job) for job in jobs]
        try:
            yield reader
        finally:
            stop.set()
            await asyncio.gather(*tasks)

    async def told(self, posts: set[str]) -> bool:
        """Whether the event stream has told of these."""
        return posts <= self.heard

    async def _often(self, stop: asyncio.Event, client: Client, method: str, path: str, **options: object) -> None:
        while not stop.is_set():
            await self._send(client, method, path, **options)
            await asyncio.sleep(PAUSE)

    async def _post(self, stop: asyncio.Event, client: Client) -> None:
        while not stop.is_set():
            media = await self._send(client, "POST", "/v1/media", content=_slowly())
            post = media and await self._send(client, "POST", "/v1/posts", json={"media": [{"id": media.json()["id"]}]})
            if post:
                self.posts.append(post.json()["id"])
            await asyncio.sleep(5 * PAUSE)

    async def _listen(self, stop: asyncio.Event, client: Client) -> None:
        last: dict[str, str] = {}
        while not stop.is_set():
            with contextlib.suppress(httpx.ReadTimeout):
                async with self.http.stream(
                    "GET", "/v1/feed/events", headers=client.headers | last, timeout=httpx.Timeout(30, read=2)
                ) as stream:
                    self._note("GET /v1/feed/events", stream)
                    async for line in stream.aiter_lines():
                        name, _, value = line.partition(": ")
                        if name == "id":
                            last = {"Last-Event-ID": value}
                        if name == "data":
                            self.heard |= set(re.findall(r'"post_id":"(\d+)"', value))
                        if stop.is_set():
                            break

    async def _send(self, client: Client, method: str, path: str, **options: object) -> httpx.Response | None:
        try:
            answer = await client.http.request(method, path, headers=client.headers, **options)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            self.failures.append(f"{method} {path}: {error!r}")
            return None
        self._note(f"{method} {path}", answer)
        return answer if answer.is_success else None

    def _note(self, what: str, answer: httpx.Response) -> None:
        self.answers[what.partition("?")[0]] += 1
        if not answer.is_success:
            self.failures.append(f"{what}: {answer.status_code}")


async def _slowly() -> AsyncIterator[bytes]:
    from tests.photos import jpeg

    photo = jpeg()
    for start in range(0, len(photo), 1 + len(photo) // 5):
        yield photo[start : start + 1 + len(photo) // 5]
        await asyncio.sleep(0.1)


async def test_releases_come_and_go_under_load_without_a_failed_request(fleet: Fleet, empty_database: str) -> None:
    checkout = fleet.checkout
    checkout.release("1.0.0")
    assert "systemctl restart" in await fleet.deployed("deploy", "--version=1.0.0", "--dry-run")
    assert not any(host.journal(f"instafeed-api@{fleet.api_port}.service") for host in fleet.hosts)
    await fleet.deployed("provision")
    await fleet.deployed("deploy", "--version=1.0.0")
    assert await fleet.versions() == ["1.0.0", "1.0.0"]
    await fleet.keep_up()
    began = time.monotonic()
    async with http_client(base_url=fleet.url, headers={"Host": "api.example.org"}, timeout=60) as http:
        load = Load(http)
        async with load.running() as reader:
            for number in range(1, DEPLOYS + 1):
                checkout.release(f"1.0.{number}")
                await fleet.deployed("deploy", f"--version=1.0.{number}")
                assert await fleet.versions() == [f"1.0.{number}"] * 2
                assert not load.failures

            checkout.release("6.6.6", broken=True)
            status, said = await fleet.fab("deploy", "--version=6.6.6")
            assert status != 0
            assert "Stopped at one." in said
            assert "a broken release" in said, "the operator is shown why"
            assert await fleet.versions() == [f"1.0.{DEPLOYS}"] * 2

            checkout.release("6.6.7", bad_migration=True)
            status, said = await fleet.fab("deploy", "--version=6.6.7")
            assert status != 0
            assert "no_such_column" in said
            assert await fleet.versions() == [f"1.0.{DEPLOYS}"] * 2

            await fleet.deployed("rollback")
            assert await fleet.versions() == [f"1.0.{DEPLOYS - 1}"] * 2
            so_far = set(load.posts[1:])
            await eventually(lambda: load.told(so_far))
        seconds = time.monotonic() - began
        assert not load.failures
        await delivered(reader, load.posts)
    connection = await asyncpg.connect(empty_database)
    try:

        async def all_done() -> bool:
            return not await connection.fetchval("select count(*) from outbox where done_at is null")

        await eventually(all_done, seconds=60)
    finally:
        await connection.close()
    for host in fleet.hosts:
        for unit in (f"instafeed-api@{fleet.api_port}.service", "instafeed-worker@all.service"):
            assert "did not stop in time" not in host.journal(unit)
    done = f"{sum(load.answers.values())} requests, {len(load.posts)} posts, {len(load.failures)} failures"
    sys.stdout.write(f"\n{DEPLOYS} deploys, a broken one and a rollback in {seconds:.0f} s: {done}\n")


async def delivered(reader: Client, posts: list[str]) -> None:
    """Wait until the feed holds each post, and see that it does once."""

    async def there() -> bool:
        return set(await reader.feed()) >= set(posts)

    await eventually(there, seconds=60)
    assert sorted(await reader.feed()) == sorted(posts)
