"""Workers are woken by bells, and find what has none."""

import pytest

from instafeed.jobs import adapters, worker
from instafeed.storage import queue
from instafeed.storage.outbox import Kind
from tests.client import eventually
from tests.feeds.world import World
from tests.jobs.test_trouble import is_done, noted, nothing
from tests.redis import queue_client
from tests.workers import running_workers


@pytest.fixture(autouse=True)
def _work_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(adapters.VERBS, Kind.ALIGN, nothing)


async def test_a_bell_wakes_a_worker(loud: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_POLL_SECONDS", 300)
    async with running_workers(loud.res.settings):
        for _ in range(3):
            entry = await noted(loud)
            await loud.res.queue.ring(Kind.ALIGN, entry)
            await eventually(lambda entry=entry: is_done(loud, entry))  # type: ignore[misc]


async def test_a_worker_that_is_woken_once_goes_on_until_nothing_waits(
    loud: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_POLL_SECONDS", 300)
    entries = [await noted(loud) for _ in range(40)]
    for entry in entries:
        await loud.res.queue.ring(Kind.ALIGN, entry)
    async with queue_client(loud.res.settings) as client:
        await client.delete(queue.bell_name("fanout"))

    async def all_done() -> bool:
        return all([await is_done(loud, entry) for entry in entries])

    async with running_workers(loud.res.settings):
        await eventually(all_done)


async def test_what_has_no_bell_is_found(loud: World) -> None:
    """As what arq enqueues by itself, and jobs that a worker hands back."""
    entry = await noted(loud)
    async with running_workers(loud.res.settings):
        client = queue.connect(loud.res.settings.queue_url)
        await client.enqueue_job(Kind.ALIGN.value, entry, _queue_name=queue.queue_name("fanout"))
        await client.aclose()
        await eventually(lambda: is_done(loud, entry))


async def test_bells_that_nobody_hears_do_not_pile_up(loud: World) -> None:
    for number in range(50):
        await loud.res.queue.ring(Kind.MAIL, number)
    assert await loud.res.queue._redis.call("", "LLEN", queue.bell_name("mail")) == 10
    assert (await loud.res.queue.lengths())["mail"] == 50
