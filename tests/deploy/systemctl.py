"""A `systemctl` for hosts on which no systemd runs: it starts and stops what the unit files say, in the same words.

It heeds ExecStartPre, ExecStart, ExecReload, EnvironmentFile, WorkingDirectory, Type=oneshot, KillSignal and
TimeoutStopSec. It neither confines a process, nor starts one again that has ended, nor knows a unit's user; a timer can be
enabled and never elapses.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

UNITS = Path("/etc/systemd/system")
STATE = Path("/run/units")


class Unit:
    """A unit, of a template or not."""

    def __init__(self, name: str) -> None:
        self.name = name
        template, at, rest = name.partition("@")
        self._instance = rest.rpartition(".")[0]
        text = (UNITS / (f"{template}@.service" if at else name)).read_text()
        lines = [line for line in text.splitlines() if line and line[0] not in "#["]
        self._settings = [
            (key, value.replace("%i", self._instance)) for key, _, value in (x.partition("=") for x in lines)
        ]
        self._pid_file = STATE / name

    def setting(self, key: str, default: str = "") -> str:
        """Its value that counts, the last."""
        return (self.all(key) or [default])[-1]

    def all(self, key: str) -> list[str]:
        """All its values."""
        return [value for name, value in self._settings if name == key]

    @property
    def pid(self) -> int | None:
        """Its main process, if that runs."""
        try:
            pid = int(self._pid_file.read_text())
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            return None
        return None if state == "Z" else pid

    def start(self) -> int:
        """Start it; returns the exit status, of a oneshot its own."""
        if self.pid:
            return 0
        if status := self._run_all("ExecStartPre"):
            return status
        if self.setting("Type") == "oneshot":
            return self._run_all("ExecStart")
        process = self._run(self.setting("ExecStart"))
        STATE.mkdir(exist_ok=True)
        self._pid_file.write_text(str(process.pid))
        return 0

    def stop(self) -> int:
        """Stop it, by force when its time is over, which its journal then says."""
        if pid := self.pid:
            os.kill(pid, signal.Signals[self.setting("KillSignal", "SIGTERM")])
            end = time.monotonic() + float(self.setting("TimeoutStopSec", "90"))
            while self.pid and time.monotonic() < end:
                time.sleep(0.02)
            if self.pid:
                self._journal("killed: it did not stop in time\n")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        return 0

    def restart(self) -> int:
        """Stop it and start it."""
        return self.stop() or self.start()

    def reload_or_restart(self) -> int:
        """Have it read its files again, or start it."""
        return self._run_all("ExecReload") if self.pid else self.start()

    def is_active(self) -> int:
        """0 if it runs."""
        return 0 if self.pid else 3

    def enable(self) -> int:
        """0 if it can be enabled."""
        return 0 if self.setting("WantedBy") else 1

    def disable(self) -> int:
        """The same."""
        return self.enable()

    def _run_all(self, key: str) -> int:
        for command in self.all(key):
            if status := self._run(command.replace("$MAINPID", str(self.pid))).wait():
                return status
        return 0

    def _run(self, command: str) -> "subprocess.Popen[bytes]":
        environ = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        for path in self.all("EnvironmentFile"):
            lines = Path(path).read_text().splitlines()
            environ |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        if logs := self.setting("LogsDirectory"):
            Path("/var/log", logs).mkdir(exist_ok=True)
        words = [re.sub(r"\$\{(\w+)\}", lambda found: environ[found[1]], word) for word in shlex.split(command)]
        with self._log.open("ab") as output:
            return subprocess.Popen(
                words,
                env=environ,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def _log(self) -> Path:
        return Path(os.environ["JOURNAL"], self.name)

    def _journal(self, text: str) -> None:
        with self._log.open("a") as log:
            log.write(text)


def main() -> int:
    """Do what the arguments say, unit by unit."""
    verb, *names = [word for word in sys.argv[1:] if not word.startswith("-")]
    if verb == "daemon-reload":
        return 0
    return max(int(getattr(Unit(name), verb.replace("-", "_"))()) for name in names)


if __name__ == "__main__":
    sys.exit(main())
