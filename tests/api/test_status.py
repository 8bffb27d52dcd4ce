"""Whether the product works, as uptime checkers see it."""

import asyncio
import time
from xml.etree import ElementTree

import pytest

from instafeed import checks
from instafeed.checks import Watch
from instafeed.resources import Resources
from instafeed.settings import Settings
from instafeed.storage import queue
from tests.api.test_operations import AWAY, changed
from tests.client import eventually, http_client
from tests.conftest import running_api
from tests.redis import queue_client


async def _status(url: str) -> tuple[int, str]:
    """Status and word of `/status`; Pingdom is seen to be told the same, and nobody anything else."""
    async with http_client(base_url=url) as client:
        answer, pingdom = await client.get("/status"), await client.get("/status.xml")
    body = answer.json()
    assert body.keys() == {"status", "seconds"}
    assert body["seconds"] > 0
    assert pingdom.status_code == answer.status_code
    assert pingdom.headers["content-type"] == "text/xml; charset=utf-8"
    check = ElementTree.fromstring(pingdom.text)  # noqa: S314 - our own
    assert check.tag == "pingdom_http_custom_check"
    assert [part.tag for part in check] == ["status", "response_time"]
    assert check[0].text == {"ok": "OK", "down": "DOWN"}[body["status"]]
    assert 0 < float(check[1].text or "") < 100_000_000
    return answer.status_code, body["status"]


@pytest.mark.parametrize("part", AWAY)
async def test_a_server_that_is_away_is_a_product_that_is_down(settings: Settings, part: str) -> None:
    async with running_api(changed(settings, AWAY[part])) as url:
        assert await _status(url) == (503, "down")


@pytest.mark.parametrize(
    ("name", "minutes", "expected"),
    [
        ("fanout", 0, (200, "ok")),
        ("fanout", 6, (503, "down")),
        ("fanout", 1, (200, "ok")),
        ("exports", 60, (200, "ok")),
        ("mail", 60, (200, "ok")),
    ],
)
async def test_work_that_nobody_does_is_a_product_that_is_down(
    fresh_settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str, minutes: int, expected: tuple[int, str]
) -> None:
    monkeypatch.setattr(checks, "_SECONDS", 30)  # a machine that is busy is not meant, nor one that was
    async with queue_client(fresh_settings) as client:
        await client.zadd(queue.queue_name(name), {"a job": (time.time() - 60 * minutes) * 1000})
    async with running_api(fresh_settings) as url:

        async def found() -> bool:
            return await _status(url) == expected

        await eventually(found)


async def test_the_servers_are_asked_once_for_all_who_ask(res: Resources) -> None:
    watch = Watch(res, fresh_seconds=3600)
    found = await asyncio.gather(*(watch.read() for _ in range(100)))
    assert all(status is found[0] for status in found)
    assert await watch.read() is found[0]


async def test_what_is_stale_is_found_out_anew(res: Resources) -> None:
    watch = Watch(res, fresh_seconds=0)
    assert await watch.read() is not await watch.read()


async def test_who_goes_away_takes_nobody_elses_answer_along(res: Resources) -> None:
    watch = Watch(res)
    first, second = [asyncio.create_task(watch.read()) for _ in range(2)]
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).seconds > 0
    assert first.cancelled()
