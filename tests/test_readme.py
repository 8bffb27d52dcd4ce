"""What the README says is so. `python -m tests.test_readme` prints its table of settings."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from instafeed.settings import PREFIX, Settings
from tests.photos import REAL

README = Path(__file__).parents[1] / "README.md"


def settings_table() -> str:
    """The settings as a Markdown table."""
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "required" if field.default is PydanticUndefined else _shown(field.default)
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {' '.join((field.description or '').split())} |")
    return "\n".join(rows) + "\n"


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    return "" if default in (None, "") else f"`{default}`"


def test_the_table_of_settings_is_complete_and_true() -> None:
    assert settings_table() in README.read_text()


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("photo", [None, "cameras/canon_hdr_YES.jpg", "heif/arrow.heic"])
async def test_the_tour_works_when_it_is_pasted(base_url: str, tmp_path: Path, photo: str | None) -> None:
    tour = re.search(r"^## A tour$.*?^```sh\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)
    assert tour is not None
    script = tour[1].replace("http://127.0.0.1:8000", base_url).replace(".venv/bin/python", sys.executable)
    if photo is not None:
        if not REAL.is_dir():
            pytest.skip("the real photos are not here")
        script = f"photo={REAL / photo}\n{script}"
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"caption":"Hello from the terminal"' in done.stdout
    assert (tmp_path / "seen.jpg").read_bytes().startswith(b"\xff\xd8\xff")


if __name__ == "__main__":
    sys.stdout.write(settings_table())
