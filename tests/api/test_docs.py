"""What clients' authors read: the documentation page, and what problems mean."""

import hashlib
import re
from pathlib import Path

import httpx
import pytest

import instafeed.api
from instafeed import errors
from instafeed.api.errors import STATUSES
from instafeed.api.problems import KINDS

STATIC = Path(instafeed.api.__file__).parent / "static"
ERRORS = Path(__file__).parents[2] / "docs" / "errors.md"


async def test_the_page_and_all_it_asks_for_come_from_here(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    asked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(asked) == 5
    for url in asked:
        if url != "data:,":
            assert (await http.get(f"/{url}")).status_code == 200, url


async def test_the_page_may_ask_no_foreign_host_and_run_nothing_inline(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {source for sources in policy.values() for source in sources.split()} == {"'none'", "'self'", "data:"}
    assert "data:" not in policy["script-src"]
    assert not re.search(r"<script>|<style|style=|\bon\w+=|//", page.text.replace("<!doctype html>", ""))
    assert "http" not in (await http.get("/docs/docs.js")).text


async def test_assets_are_cached_and_checked_by_their_tag(http: httpx.AsyncClient) -> None:
    asset = await http.get("/docs/swagger-ui/swagger-ui.css")
    assert asset.headers["cache-control"] == "public, max-age=3600"
    again = await http.get("/docs/swagger-ui/swagger-ui.css", headers={"If-None-Match": asset.headers["etag"]})
    assert again.status_code == 304
    assert again.headers["cache-control"] == "public, max-age=3600"


@pytest.mark.parametrize(
    "path", ["none.js", "..%2fdocs.py", "%2e%2e/docs.py", "%00", "%2fetc%2fpasswd", "", "swagger-ui", "a" * 5000]
)
async def test_nothing_else_is_served(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.get(f"/docs/{path}")
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/not-found"


def test_the_vendored_files_are_those_that_their_readme_names() -> None:
    sums = re.findall(r"([0-9a-f]{64})  (\S+)", (STATIC / "swagger-ui" / "README.md").read_text())
    assert len(sums) == 2
    for sum_, name in sums:
        assert hashlib.sha256((STATIC / "swagger-ui" / name).read_bytes()).hexdigest() == sum_


def test_every_error_has_a_status() -> None:
    kinds = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.InstafeedError)
    }
    assert kinds - {errors.InstafeedError} == STATUSES.keys()


def test_every_problem_is_documented() -> None:
    rows = [line for line in ERRORS.read_text().splitlines() if line.startswith("| `/problems/")]
    assert rows == [
        f"| `/problems/{kind.slug}` | {kind.status} | {kind.title} | {kind.meaning} |" for kind in KINDS.values()
    ]
    for kind in KINDS.values():
        assert kind.meaning.endswith("."), f"say in api/problems.py what {kind.slug} means"


async def test_the_type_of_a_problem_can_be_looked_up(http: httpx.AsyncClient) -> None:
    problem = (await http.get("/v1/me")).json()
    answer = await http.get(problem["type"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith(f"{problem['title']} ({problem['status']})\n\n")
    unknown = await http.get("/problems/none")
    assert unknown.status_code == 404
    assert unknown.json()["type"] == "/problems/not-found"
