"""Hosts that are reached by SSH: real sshds on this machine, each with a file system of its own over ours.

What a host is told happens to it alone: /etc, /opt, /var and /run are its own from the moment it starts, and so are its
processes. Its programs are ours, but for `sudo`, `dpkg`, `systemctl` and `journalctl`, and a `pip` that links what a
release depends on from where these tests run instead of installing it.
"""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from instafeed.dev.process import Child
from tests.client import eventually
from tests.deploy.running import program

NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]

_START = """
set -eu
mkdir "$1/layers"
mount -t tmpfs layers "$1/layers"
for name in etc opt var; do
    mkdir -p "$1/layers/$name/over" "$1/layers/$name/work"
    mount -t overlay -o "lowerdir=/$name,upperdir=$1/layers/$name/over,workdir=$1/layers/$name/work" overlay "/$name"
done
mount -t tmpfs run /run
mkdir /run/sshd
echo 'root:x:0:0:root:/root:/bin/sh
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin' >/etc/passwd
echo 'root:x:0:' >/etc/group
exec "$2" -D -e -f "$1/sshd_config"
"""

_PIP = """
"{python}" -m pip "$@" --no-deps --no-build-isolation
cd "${{2%/bin/python}}"/lib/python3.*/site-packages
echo "{packages}" >dependencies.pth
"""


def missing() -> str | None:
    """What this machine lacks for such hosts."""
    for name in ("sshd", "ssh-keygen", "unshare", "curl", "git", "nginx"):
        if program(name) is None:
            return f"{name} is not installed"
    attempt = (
        "mount -t tmpfs none /mnt && mkdir /mnt/a /mnt/b &&"
        " mount -t overlay -o lowerdir=/etc,upperdir=/mnt/a,workdir=/mnt/b overlay /etc"
    )
    done = subprocess.run([*NAMESPACES, "sh", "-c", attempt], capture_output=True, text=True, check=False)
    return f"no file system of its own can be made here: {done.stderr.strip()}" if done.returncode else None


def make_key(path: Path) -> None:
    """A new key, and beside it its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


@dataclass
class SshHost:
    """One of them, which listens on `address`."""

    folder: Path
    address: str
    port: int

    @property
    def known(self) -> str:
        """Its line in known_hosts."""
        return f"[{self.address}]:{self.port} {(self.folder / 'host_key.pub').read_text()}"

    def journal(self, unit: str) -> str:
        """What a unit has written."""
        path = self.folder / "journal" / unit
        return path.read_text(errors="replace") if path.exists() else ""

    @asynccontextmanager
    async def running(self, authorized: Path) -> AsyncIterator[None]:
        """From its start to its end; whoever has the key of that file is let in."""
        self._write(authorized)
        sshd = program("sshd")
        assert sshd is not None
        with (self.folder / "log").open("ab") as log:
            command = [*NAMESPACES, "sh", "-c", _START, "start", str(self.folder), sshd]
            child = await Child.start(command, environ=os.environ, output=log)
        try:

            async def answers() -> bool:
                text = (self.folder / "log").read_text()
                assert child.running, text
                return "Server listening" in text

            await eventually(answers)
            yield
        finally:
            await child.stop(signal.SIGKILL, seconds=10)

    def _write(self, authorized: Path) -> None:
        (self.folder / "journal").mkdir(parents=True)
        make_key(self.folder / "host_key")
        settings = {
            "Port": self.port,
            "ListenAddress": self.address,
            "HostKey": self.folder / "host_key",
            "AuthorizedKeysFile": authorized,
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "PidFile": "none",
            "MaxStartups": 100,
            "MaxSessions": 100,
            "Subsystem": "sftp internal-sftp",
            "SetEnv": f"PATH={self.folder}/bin:{os.environ['PATH']}:/usr/sbin:/sbin JOURNAL={self.folder}/journal",
        }
        (self.folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        packages = next(path for path in sys.path if path.endswith("site-packages"))
        self._write_program("sudo", 'shift; exec "$@"')
        self._write_program("dpkg", "exit 0")
        self._write_program("systemctl", f'exec "{sys.executable}" "{Path(__file__).parent}/systemctl.py" "$@"')
        self._write_program("journalctl", f'for last; do :; done; cat "{self.folder}/journal/$last"')
        self._write_program("python3", f'exec "{sys.executable}" "$@"')
        self._write_program("pip", _PIP.format(python=sys.executable, packages=packages))

    def _write_program(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh -e\n{text}\n")
        path.chmod(0o755)
