"""The units are what systemd takes, and confine what they start without taking away what it needs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from instafeed.api import server
from instafeed.jobs import worker
from tests.deploy.compose import DEPLOY
from tests.deploy.running import program

UNITS = DEPLOY / "systemd"
NAMES = (
    *("instafeed-api@8001", "instafeed-worker@media", "instafeed-nginx"),
    *("instafeed-migrate@1.0", "instafeed-upkeep"),
)
NEEDED = {
    *("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "prctl"),
    *("clone", "clone3", "execve", "kill", "setpgid", "prlimit64", "setrlimit", "socketpair", "recvmsg", "sendmsg"),
}
"""What the decoders of photos call to be forked, to be bounded and to confine themselves."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host's file system, as far as systemd-analyze looks at it."""
    if program("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    shutil.copytree(UNITS, tmp_path / "etc/systemd/system")
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    for path in re.findall(r"(?m)^Exec\w+=(\S+)", "".join(unit.read_text() for unit in UNITS.glob("*.service"))):
        stand_in = tmp_path / path.replace("%i", "1.0").lstrip("/")
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("/bin/true", stand_in)
    return tmp_path


def analyze(root: Path, *arguments: str) -> str:
    """What systemd-analyze has to say; it must find no fault."""
    command = ["systemd-analyze", f"--root={root}", "--no-pager", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_takes_the_units(root: Path) -> None:
    units = [*(f"{name}.service" for name in NAMES), "instafeed-upkeep.timer"]
    assert analyze(root, "verify", "--man=no", "--generators=no", *units) == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_is_confined(root: Path, name: str) -> None:
    assert "OK" in analyze(root, "security", "--offline=yes", "--threshold=20", f"{name}.service")


def test_decoders_may_still_confine_themselves(root: Path) -> None:
    lines = (root / "etc/systemd/system/instafeed-.service.d/confined.conf").read_text().splitlines()
    (allowed,) = [line.partition("=")[2].split() for line in lines if line.startswith("SystemCallFilter=")]
    done = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True)
    groups: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("@"):
            groups[line.strip()] = calls = []
        elif line.strip() and not line.strip().startswith("#"):
            calls.append(line.strip())
    found: set[str] = set()
    while allowed:
        name = allowed.pop()
        found.add(name)
        allowed += groups.get(name, [])
    assert found >= NEEDED


def test_a_process_has_the_time_that_it_takes_to_stop() -> None:
    def seconds(unit: str) -> int:
        return int(re.findall(r"(?m)^TimeoutStopSec=(\d+)$", (UNITS / unit).read_text())[0])

    assert seconds("instafeed-api@.service") > server._DRAIN_SECONDS + server._STOP_SECONDS + 5
    assert seconds("instafeed-worker@.service") > worker._STOP_SECONDS + 5
