"""Sets hosts up and brings releases to them, over SSH: `fab provision`, `fab deploy`, `fab rollback`, `fab restart`.

Hosts are in fleet.toml. Whatever may be done on all hosts at once is; processes are replaced one by one, and each must be
ready before the next. docs/deployment.md tells how to use it.
"""

import io
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fabric import Connection, task
from invoke.context import Context
from invoke.exceptions import Exit, UnexpectedExit
from paramiko import RejectPolicy

HERE = Path(__file__).parent
RELEASES = "/opt/instafeed/releases"
CURRENT = "/opt/instafeed/current"
PREVIOUS = "/opt/instafeed/previous"
PACKAGES = "curl logrotate nginx python3 python3-pip python3-venv"
KEPT = 5
"""Releases that stay on a host."""


@dataclass(frozen=True)
class Worker:
    """A worker process of each host that runs workers."""

    queues: str
    metrics_port: int


@dataclass(frozen=True)
class Place:
    """A host as fleet.toml describes it."""

    name: str
    ssh: str
    address: str
    runs: Sequence[str]


@dataclass(frozen=True)
class Process:
    """A unit that is replaced by each release, and where it answers when it is ready."""

    unit: str
    url: str


@dataclass(frozen=True)
class Fleet:
    """fleet.toml."""

    places: Sequence[Place]
    workers: dict[str, Worker]
    api_ports: Sequence[int]
    balancers: Sequence[str]
    photos: Sequence[str]
    ready_seconds: float
    environment: Path
    known_hosts: Path

    @classmethod
    def read(cls, path: Path) -> "Fleet":
        """Raises: Exit: it is not there, or something is missing in it, or has a name that is not known."""
        try:
            found = tomllib.loads(path.read_text())
            places = [Place(name, **place) for name, place in found.pop("hosts").items()]
            workers = {name: Worker(**worker) for name, worker in found.pop("workers").items()}
            files = {name: path.parent / found.pop(name) for name in ("environment", "known_hosts")}
            for file in files.values():
                file.stat()
            return cls(places=places, workers=workers, **files, **found)
        except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise Exit(f"{path}: {error}") from None

    def processes(self, place: Place) -> list[Process]:
        """The host's processes in the order in which they are replaced: what the API asks for, workers must know."""
        here = f"http://{place.address}"
        workers = [
            Process(f"instafeed-worker@{name}.service", f"{here}:{worker.metrics_port}/metrics")
            for name, worker in self.workers.items()
        ]
        apis = [Process(f"instafeed-api@{port}.service", f"{here}:{port}/readyz") for port in self.api_ports]
        return (workers if "workers" in place.runs else []) + (apis if "api" in place.runs else [])

    def files(self, place: Place) -> dict[str, str]:
        """What the host is configured by: path → text."""
        found = {
            "etc/instafeed/environment": self.environment.read_text(),
            "etc/instafeed/host": "".join(
                f"{line}\n"
                for line in (
                    f"ADDRESS={place.address}",
                    f"INSTAFEED_METRICS_HOST={place.address}",
                    f"INSTAFEED_TRUSTED_PROXIES={','.join(self._addresses('nginx'))}",
                )
            ),
            "etc/logrotate.d/instafeed": (HERE / "systemd/logrotate").read_text(),
        }
        for name, worker in self.workers.items():
            text = f"QUEUES={worker.queues}\nINSTAFEED_METRICS_PORT={worker.metrics_port}\n"
            found[f"etc/instafeed/worker-{name}"] = text
        for unit in (HERE / "systemd").rglob("instafeed-*"):
            if unit.is_file():
                found[f"etc/systemd/system/{unit.name}"] = unit.read_text()
        for part in (HERE / "systemd").glob("*/*.conf"):
            found[f"etc/systemd/system/{part.parent.name}/{part.name}"] = part.read_text()
        return found | {f"etc/instafeed/nginx/{name}": text for name, text in self._nginx().items()}

    def _nginx(self) -> dict[str, str]:
        # As in nginx/api-servers.conf, which says why.
        servers = [
            f"server {address}:{port} {rule};"
            for rule in ("max_fails=1 fail_timeout=2s", "backup max_fails=0")
            for address in self._addresses("api")
            for port in self.api_ports
        ]
        return {path.name: path.read_text() for path in (HERE / "nginx").glob("*.conf")} | {
            "api-servers.conf": "\n".join(servers) + "\n",
            "photos-servers.conf": "\n".join(f"server {host};" for host in self.photos or ["127.0.0.1:9 down"]) + "\n",
            "proxies.conf": (HERE / "nginx/proxies.conf").read_text()
            + "".join(f"set_real_ip_from {network};\n" for network in self.balancers),
            "log.conf": "access_log /var/log/instafeed/access.log json;\n",
        }

    def _addresses(self, part: str) -> list[str]:
        return [place.address for place in self.places if part in place.runs]


class Host:
    """A host that can be reached. In a dry run it is told nothing, and every command is printed."""

    def __init__(self, place: Place, connection: Connection, *, dry_run: bool) -> None:
        self.place = place
        self._connection = connection
        self._dry_run = dry_run

    def say(self, text: str) -> None:
        """Tell whoever runs this."""
        sys.stdout.write(f"[{self.place.name}] {text}\n")
        sys.stdout.flush()

    def run(self, script: str) -> str:
        """Run a shell script as root; returns what it printed.

        Raises:
            UnexpectedExit: a command of it failed.
        """
        if self._dry_run:
            self.say(script)
            return ""
        # Whatever the umask of whoever logs in: processes run as another user.
        command = shlex.quote(f"umask 022; {script}")
        result = self._connection.run(f"sudo -n sh -euc {command}", hide=True, in_stream=False)
        return str(result.stdout).strip()

    def succeeds(self, script: str) -> bool:
        """Whether a script does."""
        try:
            self.run(script)
        except UnexpectedExit:
            return False
        return True

    def journal(self, unit: str) -> str:
        """The last lines that a unit has written."""
        return self.run(f"journalctl --no-pager -q -n 20 -o cat -u {unit} || true")

    def unpack(self, archive: Path, folder: str) -> None:
        """Unpack a tar file there, as root, with the modes that it names."""
        if self._dry_run:
            self.say(f"unpack {archive.name} into {folder}")
            return
        # Not for others' eyes: there are secrets among the files.
        private = str(self._connection.run("mktemp -d", hide=True, in_stream=False).stdout).strip()
        self._connection.put(str(archive), f"{private}/archive")
        self.run(f"tar -xzf {private}/archive -C {folder} --no-same-owner --no-overwrite-dir; rm -r {private}")

    def is_ready(self, process: Process, seconds: float) -> bool:
        """Wait until a process answers; False if it ends instead, or takes longer."""
        deadline = time.monotonic() + seconds
        while True:
            if self.succeeds(f"curl -fsS -o /dev/null --noproxy '*' --max-time 5 {process.url}"):
                return True
            if not self.succeeds(f"systemctl is-active --quiet {process.unit}") or time.monotonic() > deadline:
                return False
            time.sleep(0.5)


@contextmanager
def reached(c: Context, fleet: Fleet, *, dry_run: bool) -> Iterator[list[Host]]:
    """All hosts of the fleet."""
    with ExitStack() as stack:
        hosts = []
        for place in fleet.places:
            connection = Connection(place.ssh, config=c.config, connect_timeout=10)
            connection.client.set_missing_host_key_policy(RejectPolicy())
            if not dry_run:
                connection.client.load_system_host_keys(str(fleet.known_hosts))
                connection.open()
                stack.enter_context(connection)
            hosts.append(Host(place, connection, dry_run=dry_run))
        yield hosts


@contextmanager
def alone(hosts: Sequence[Host]) -> Iterator[None]:
    """While nobody else deploys."""
    lock = "/opt/instafeed/deploying"
    if not hosts[0].succeeds(f"mkdir {lock}"):
        raise Exit(f"Somebody else deploys; if not, remove {lock} on {hosts[0].place.name}.")
    try:
        yield
    finally:
        hosts[0].run(f"rmdir {lock}")


def at_once(hosts: Sequence[Host], do: Callable[[Host], None]) -> None:
    """Do something on all hosts at the same time; one that fails fails all, when all have ended."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        list(pool.map(do, hosts))


@task(help={"fleet": "the file that names the hosts", "dry-run": "print what would be done, do nothing"})
def provision(c: Context, fleet: str = "fleet.toml", dry_run: bool = False) -> None:
    """Set hosts up, or bring settings, units and nginx up to date; processes take settings at their next start."""
    found = Fleet.read(HERE / fleet)

    def set_up(host: Host) -> None:
        host.run(
            f"dpkg -s {PACKAGES} >/dev/null 2>&1 ||"
            f" {{ apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -qq -y {PACKAGES};"
            " systemctl disable --now nginx.service; }"
        )
        host.run(
            "getent passwd instafeed >/dev/null ||"
            " useradd --system --user-group --no-create-home --shell /usr/sbin/nologin instafeed"
        )
        host.run(f"install -d -m 755 {RELEASES} /etc/instafeed")
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder, "files.tar.gz")
            pack(archive, found.files(host.place))
            host.unpack(archive, "/")
        host.run("systemctl daemon-reload")
        if processes := found.processes(host.place):
            host.run(f"systemctl enable --quiet {' '.join(process.unit for process in processes)}")
        verb = "enable" if "upkeep" in host.place.runs else "disable"
        host.run(f"systemctl {verb} --quiet --now instafeed-upkeep.timer")
        if "nginx" in host.place.runs:
            host.run("systemctl enable --quiet instafeed-nginx.service")
            host.run("systemctl reload-or-restart instafeed-nginx.service")
        host.say("is set up")

    with reached(c, found, dry_run=dry_run) as hosts:
        at_once(hosts, set_up)


@task(
    help={
        "version": "commit, tag or branch of this repository",
        "fleet": "the file that names the hosts",
        "dry-run": "print what would be done, do nothing",
    }
)
def deploy(c: Context, version: str = "HEAD", fleet: str = "fleet.toml", dry_run: bool = False) -> None:
    """Bring a version to all hosts; at the first process that is not ready its host goes back, and all stops."""
    found = Fleet.read(HERE / fleet)
    release = git("describe", "--tags", "--always", "--abbrev=12", f"{version}^{{commit}}")
    if not re.fullmatch(r"[\w.-]+", release):
        raise Exit(f"{release} is no name for a release.")
    folder = f"{RELEASES}/{release}"

    def place(host: Host) -> None:
        if not host.succeeds(f"test -e {folder}/complete"):
            host.run(f"rm -rf {folder}; install -d {folder}/wheels")
            host.unpack(archive, f"{folder}/wheels")
            host.run(
                f"python3 -m venv --without-pip {folder};"
                f" pip --python {folder}/bin/python install -q --no-index --find-links {folder}/wheels 'instafeed[heif]';"
                f" {folder}/bin/instafeed --version; rm -r {folder}/wheels; touch {folder}/complete"
            )
        host.say(f"has {release}")

    with tempfile.TemporaryDirectory() as temporary, reached(c, found, dry_run=dry_run) as hosts:
        archive = Path(temporary, "wheels.tar.gz")
        if not dry_run:
            build(version, archive)
        with alone(hosts):
            at_once(hosts, place)
            migrate(hosts[0], f"instafeed-migrate@{release}.service")
            replace_all(hosts, found, lambda _: folder)
            at_once(hosts, forget_old)


@task(help={"fleet": "the file that names the hosts", "dry-run": "print what would be done, do nothing"})
def rollback(c: Context, fleet: str = "fleet.toml", dry_run: bool = False) -> None:
    """Go back to the release before, which runs on the newer schema; a second time goes forward again."""
    found = Fleet.read(HERE / fleet)
    with reached(c, found, dry_run=dry_run) as hosts, alone(hosts):
        at_once(hosts, check_previous)
        replace_all(hosts, found, lambda host: host.run(f"readlink {PREVIOUS}") or PREVIOUS)


@task(help={"fleet": "the file that names the hosts", "dry-run": "print what would be done, do nothing"})
def restart(c: Context, fleet: str = "fleet.toml", dry_run: bool = False) -> None:
    """Start all processes anew, one by one, so that they take new settings."""
    found = Fleet.read(HERE / fleet)
    with reached(c, found, dry_run=dry_run) as hosts, alone(hosts):
        for host in hosts:
            replace(host, found, found.processes(host.place))


def migrate(host: Host, unit: str) -> None:
    """Bring the schema up to date. Raises: Exit: it could not be done, and no process was touched."""
    if not host.succeeds(f"systemctl start {unit}"):
        raise Exit(f"{host.place.name}: the migrations failed, all processes run as before:\n{host.journal(unit)}")


def check_previous(host: Host) -> None:
    """Raises: Exit: there is no release before."""
    if not host.succeeds(f"test -e {PREVIOUS}/complete"):
        raise Exit(f"{host.place.name} has no release before.")


def replace_all(hosts: Sequence[Host], fleet: Fleet, release: Callable[[Host], str]) -> None:
    """Have every process run the release in that folder of its host, one after the other.

    Raises:
        Exit: a process was not ready. Its host has gone back; those before it keep the release, those after it are untouched.
    """
    for host in hosts:
        old, new = host.run(f"readlink {CURRENT} || true"), release(host)
        switch(host, new)
        try:
            replace(host, fleet, fleet.processes(host.place))
        except NotReady as error:
            host.say(str(error.message))
            if old:
                switch(host, old)
                replace(host, fleet, error.replaced)
                host.say(f"is back at {old}")
            raise Exit(f"Stopped at {host.place.name}.", code=1) from None
        if old and old != new:
            host.run(f"ln -sfn {old} {PREVIOUS}")
        host.say(f"runs {new}")


class NotReady(Exit):
    """A process does not get ready; `replaced` are it and those before it."""

    def __init__(self, host: Host, replaced: list[Process]) -> None:
        unit = replaced[-1].unit
        super().__init__(f"{host.place.name}: {unit} is not ready:\n{host.journal(unit)}", code=1)
        self.replaced = replaced


def switch(host: Host, folder: str) -> None:
    """What starts from now on starts from that folder."""
    host.run(f"ln -sfn {folder} {CURRENT}.new; mv -T {CURRENT}.new {CURRENT}")


def replace(host: Host, fleet: Fleet, processes: list[Process]) -> None:
    """Start the host's processes anew, each when the one before it is ready.

    Raises:
        NotReady: one was not.
    """
    for number, process in enumerate(processes, 1):
        if not (host.succeeds(f"systemctl restart {process.unit}") and host.is_ready(process, fleet.ready_seconds)):
            raise NotReady(host, processes[:number])


def forget_old(host: Host) -> None:
    """Delete releases but the newest, and those that a link names."""
    host.run(
        f"cd {RELEASES}; ls -t | tail -n +{KEPT + 1} | while read -r old; do"
        f' case "$(readlink {CURRENT} {PREVIOUS})" in *"/$old"*) ;; *) rm -rf "$old" ;; esac; done'
    )


def build(version: str, archive: Path) -> None:
    """The version and all it needs, as wheels in a tar file: every host gets the same bytes, and asks no registry."""
    source, wheels = archive.with_name("source"), archive.with_name("wheels")
    python = [sys.executable, "-m"]
    packed = subprocess.run(["git", "archive", version], cwd=HERE.parent, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        tar.extractall(source, filter="data")
    subprocess.run([*python, "hatchling", "build", "-t", "wheel", "-d", wheels], cwd=source, check=True)
    (ours,) = wheels.glob("instafeed-*.whl")
    subprocess.run([*python, "pip", "wheel", "-q", "--wheel-dir", wheels, f"{ours}[heif]"], check=True)
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(wheels.iterdir()):
            tar.add(path, path.name)


def pack(archive: Path, files: dict[str, str]) -> None:
    """A tar file of these texts; all may read them but for the environment, which root alone may."""
    with tarfile.open(archive, "w:gz") as tar:
        for name, text in files.items():
            content = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o600 if name == "etc/instafeed/environment" else 0o644
            tar.addfile(entry, io.BytesIO(content))


def git(*arguments: str) -> str:
    """What git says.

    Raises:
        Exit: it refuses.
    """
    done = subprocess.run(["git", *arguments], cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Exit(done.stderr.strip())
    return done.stdout.strip()
