"""Outbox entries: taken once, given back, tried again, given up; and what the bells look like."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from instafeed import sweep, telemetry, work
from instafeed.errors import RedisAway, Unavailable
from instafeed.models import EventType
from instafeed.resources import Resources
from instafeed.storage import outbox
from instafeed.storage.outbox import Entry, Kind
from instafeed.storage.queue import Queue, queue_name
from instafeed.work import FollowUp
from tests.client import eventually
from tests.feeds.world import World
from tests.redis import queue_client
from tests.workers import running_workers

Body = Callable[[Resources, Entry], Awaitable[list[FollowUp]]]


async def noted(world: World) -> int:
    """An entry of the outbox."""
    async with world.res.db.acquire() as connection:
        return await work.note(world.res, connection, 1, Kind.ALIGN, {"viewer": 1, "author": 2})


async def state(world: World, entry: int, column: str) -> object:
    [found] = await world.sql(f"select {column} from outbox where id = $1", entry)
    return found


def body_that(*outcomes: Exception | list[FollowUp]) -> tuple[Body, list[Entry]]:
    """A job that ends like this, one time after the other, and the entries that it was called with."""
    calls: list[Entry] = []

    async def body(_: Resources, entry: Entry) -> list[FollowUp]:
        outcome = outcomes[min(len(calls), len(outcomes) - 1)]
        calls.append(entry)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return body, calls


async def test_work_that_is_done_is_not_done_again(world: World) -> None:
    entry, (body, calls) = await noted(world), body_that([])
    for _ in range(3):
        await work.perform(world.res, entry, Kind.ALIGN, body)
    assert len(calls) == 1
    assert await state(world, entry, "done_at is not null")


async def test_work_that_somebody_is_at_is_left_to_them(world: World) -> None:
    entry, began, go = await noted(world), asyncio.Event(), asyncio.Event()

    async def slow(_: Resources, __: Entry) -> list[FollowUp]:
        began.set()
        await go.wait()
        return []

    running = asyncio.create_task(work.perform(world.res, entry, Kind.ALIGN, slow))
    await began.wait()
    body, calls = body_that([])
    await work.perform(world.res, entry, Kind.ALIGN, body)
    assert not calls
    go.set()
    await running
    assert await state(world, entry, "done_at is not null")


async def test_a_lease_is_renewed_for_as_long_as_the_work_takes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "LEASE_SECONDS", 3)
    entry, began, go = await noted(world), asyncio.Event(), asyncio.Event()
    calls = 0

    async def slow(_: Resources, __: Entry) -> list[FollowUp]:
        nonlocal calls
        calls += 1
        if calls == 1:
            began.set()
            await go.wait()
        return []

    running = asyncio.create_task(work.perform(world.res, entry, Kind.ALIGN, slow))
    await began.wait()
    for _ in range(2):
        until = await state(world, entry, "leased_until")

        async def renewed(until: object = until) -> bool:
            return await state(world, entry, "leased_until") != until

        await eventually(renewed)
        await work.perform(world.res, entry, Kind.ALIGN, slow)
    go.set()
    await running
    assert calls == 1


async def test_a_lease_that_ended_lets_the_next_one_in(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = await noted(world)
    async with world.res.db.acquire() as connection:
        assert await outbox.claim(connection, entry) is not None
        assert await outbox.claim(connection, entry) is None
        await world.lapse()
        monkeypatch.setattr(outbox, "LEASE_SECONDS", 0.05)
        assert await outbox.claim(connection, entry) is not None  # by a worker that is killed now

        async def freed() -> bool:
            return await outbox.claim(connection, entry) is not None

        await eventually(freed)


async def test_what_follows_is_noted_with_the_end(world: World) -> None:
    body, _ = body_that([(Kind.NOTIFY, {"post": 1, "author": 2})])
    await work.perform(world.res, await noted(world), Kind.ALIGN, body)
    [(_, kind)] = await world.pending()
    assert kind is Kind.NOTIFY


async def test_an_error_is_tried_again_after_a_growing_pause_until_it_is_given_up(world: World) -> None:
    entry, (body, calls) = await noted(world), body_that(ValueError("poison"))
    for attempt in range(outbox.MAX_ATTEMPTS + 3):
        [before] = await world.sql("select now()")
        await work.perform(world.res, entry, Kind.ALIGN, body)
        [after] = await world.sql("select now()")
        if attempt < 4:
            pause = timedelta(seconds=2**attempt)
            [due] = await world.sql("select due_at from outbox where id = $1", entry)
            assert before + pause <= due <= after + pause
    assert len(calls) == outbox.MAX_ATTEMPTS
    assert await state(world, entry, "dead_at is not null")
    assert await state(world, entry, "error") == "ValueError: poison"
    await sweep.ring(world.res)
    assert telemetry.OUTBOX_DEAD._value.get() >= 1


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("away"),
        RedisAway("away"),
        ExceptionGroup("several", [RedisAway("away"), ExceptionGroup("more", [Unavailable("away")])]),
    ],
)
async def test_a_server_that_is_away_is_no_fault_of_the_work(world: World, error: Exception) -> None:
    entry, (body, calls) = await noted(world), body_that(error)
    for _ in range(outbox.MAX_ATTEMPTS * 3):
        await work.perform(world.res, entry, Kind.ALIGN, body)
    assert len(calls) == outbox.MAX_ATTEMPTS * 3
    assert await state(world, entry, "dead_at is null and due_at < now() + interval '5 seconds'")


async def test_a_poison_entry_holds_up_nobody_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from instafeed.jobs import adapters

    body, _ = body_that(ValueError("poison"))
    monkeypatch.setitem(adapters.VERBS, Kind.ALIGN, body)
    res = replace(world.res, queue=Queue(world.res.settings.queue_url))
    author, reader = await world.account(1), await world.account(2)
    async with running_workers(world.res.settings):
        for _ in range(30):
            await res.queue.ring(Kind.ALIGN, await noted(world))
        await world.materialise(author)
        post = await world.draft(author)
        await res.queue.ring(Kind.FAN_OUT, await world.publish(post))

        async def delivered() -> bool:
            window = await world.window(author)
            return window is not None and window.ids == [post]

        await eventually(delivered)
    await res.queue.close()
    assert reader


async def test_a_stopping_worker_frees_its_work_at_once(world: World) -> None:
    entry, began = await noted(world), asyncio.Event()

    async def endless(_: Resources, __: Entry) -> list[FollowUp]:
        began.set()
        await asyncio.sleep(3600)
        return []

    running = asyncio.create_task(work.perform(world.res, entry, Kind.ALIGN, endless))
    await began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await state(world, entry, "leased_until is null and due_at <= now() and attempts = 0")


async def test_a_lost_bell_is_rung_again(world: World) -> None:
    author = await world.account()
    await world.materialise(author)
    post = await world.post(author)  # whose bell nobody hears
    async with running_workers(world.res.settings):

        async def delivered() -> bool:
            window = await world.window(author)
            return window is not None and window.ids == [post]

        await eventually(delivered)


async def test_a_long_queue_is_not_made_longer(loud: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_LONG_QUEUE", 3)
    for _ in range(10):
        await noted(loud)
    await loud.sql("update outbox set due_at = now() - interval '1 second' returning 1")
    await sweep.ring(loud.res)
    before = (await loud.res.queue.lengths())["fanout"]
    await loud.sql("update outbox set due_at = now() - interval '1 hour' returning 1")
    await sweep.ring(loud.res)
    assert telemetry.OUTBOX_AGE._value.get() >= 3600
    assert before >= 10
    assert (await loud.res.queue.lengths())["fanout"] == before


async def test_what_nobody_worked_on_for_a_day_is_done_though_its_jobs_are_no_more(
    loud: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than the sweep rings beside: what is left of them in the queue has to go first."""
    monkeypatch.setattr(sweep, "_LONG_QUEUE", 3)
    author = await loud.account()
    await loud.materialise(author)
    posts = [await loud.post(author) for _ in range(9)]
    async with queue_client(loud.res.settings) as client:
        await client.delete(*[key async for key in client.scan_iter("arq:job:*")])  # they live for 24 hours
    await loud.sql("update outbox set due_at = now() - interval '1 day' returning 1")
    async with running_workers(loud.res.settings):

        async def delivered() -> bool:
            window = await loud.window(author)
            return window is not None and window.ids == posts[::-1]

        await eventually(delivered)


async def test_a_queue_is_as_old_as_its_oldest_job(loud: World) -> None:
    assert (await loud.res.queue.ages())["exports"] == 0
    async with queue_client(loud.res.settings) as client:
        await client.zadd(queue_name("exports"), {"old": (time.time() - 60) * 1000, "new": time.time() * 1000})

    async def shown() -> bool:
        await sweep.ring(loud.res)
        return bool(60 <= telemetry.QUEUE_AGE.labels("exports")._value.get() < 600)

    await eventually(shown)  # other tests' workers sweep too, and show another queue's age


async def test_bells_are_json_and_carry_only_an_id(world: World) -> None:
    queue = Queue(world.res.settings.queue_url)
    await queue.ring(Kind.FAN_OUT, 1 << 60)
    async with queue_client(world.res.settings) as client:
        keys = [key async for key in client.scan_iter("arq:job:*")]
        jobs = [json.loads(await client.get(key)) for key in keys]
    assert [1 << 60] in [list(job["a"]) for job in jobs if job["f"] == "fan_out"]
    await queue.close()


async def test_what_is_done_is_forgotten_after_a_week(world: World) -> None:
    old, new = await noted(world), await noted(world)
    await world.sql("update outbox set done_at = now() - interval '8 days' where id = $1 returning 1", old)
    await world.sql("update outbox set done_at = now() - interval '6 days' where id = $1 returning 1", new)
    await sweep.clear(world.res)
    assert await world.sql("select id from outbox") == [new]


async def test_subscribers_are_told_once_however_often_the_job_runs(world: World) -> None:
    author, told, silent, stranger = [await world.account(shard) for shard in (1, 2, 3, 4)]
    await world.follow(told, author)
    await world.follow(silent, author, notify=False)
    post = await world.post(author)
    await world.settle()
    rows = "select account_id from activity where subject_id = $1"
    assert await world.sql(rows, post) == [told]
    await world.sql("update outbox set done_at = null, position = 0 returning 1")
    await world.settle()
    assert await world.sql(rows, post) == [told]
    assert stranger
    kinds = await world.sql("select kind from outbox where kind in ('fan_out', 'notify') order by done_at")
    assert kinds.index("fan_out") < kinds.index("notify")
    events = await world.res.events.after("0", limit=10)
    assert {event.type for event in events} == {EventType.POST_CREATED}
