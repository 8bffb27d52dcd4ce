"""Work that hangs, work that ends whoever works on it, and what neither may do to the rest."""

import asyncio
import time

import pytest

from instafeed import sweep, telemetry, work
from instafeed.jobs import adapters, worker
from instafeed.resources import Resources
from instafeed.storage import outbox
from instafeed.storage.outbox import Entry, Kind
from instafeed.storage.queue import QUEUES
from instafeed.work import FollowUp
from tests.client import eventually
from tests.feeds.world import World, add_follows
from tests.redis import queue_client
from tests.workers import running_workers


async def noted(world: World, kind: Kind = Kind.ALIGN) -> int:
    """An entry of the outbox."""
    async with world.res.db.acquire() as connection:
        return await work.note(world.res, connection, 1, kind, {"viewer": 1, "author": 2})


async def is_done(world: World, entry: int) -> bool:
    return bool(await world.sql("select 1 from outbox where id = $1 and done_at is not null", entry))


async def hang(_: Resources, __: Entry) -> list[FollowUp]:
    await asyncio.Event().wait()
    return []


async def nothing(_: Resources, __: Entry) -> list[FollowUp]:
    return []


async def test_work_that_hangs_has_failed_and_is_given_up_in_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "LONGEST_SECONDS", 0.01)
    entry = await noted(world)
    for _ in range(outbox.MAX_ATTEMPTS):
        assert not await world.sql("select 1 from outbox where dead_at is not null")
        await work.perform(world.res, entry, Kind.ALIGN, hang)
    assert await world.sql("select error from outbox where id = $1 and dead_at is not null", entry) == [
        "TimeoutError: "
    ]


def test_arq_leaves_work_the_time_to_fail() -> None:
    assert worker._JOB_SECONDS > work.LONGEST_SECONDS + 5


async def test_work_that_kills_its_worker_each_time_is_given_up_in_the_end(world: World) -> None:
    entry = await noted(world)
    for _ in range(outbox.MAX_ATTEMPTS):
        await world.lapse()
        async with world.res.db.acquire() as connection:
            assert await outbox.claim(connection, entry) is not None
            await connection.execute("update outbox set due_at = now() - interval '1 second'")
            rung = await outbox.ring_late(connection, kinds=[Kind.ALIGN], limit=10)
    assert rung == []
    assert await world.sql("select id from outbox where dead_at is not null") == [entry]
    await sweep.ring(world.res)
    assert telemetry.OUTBOX_DEAD._value.get() == 1
    await world.lapse()
    async with world.res.db.acquire() as connection:
        assert await outbox.claim(connection, entry) is None


async def test_a_checkpoint_is_progress_that_keeps_work_alive(world: World) -> None:
    entry = await noted(world)
    async with world.res.db.acquire() as connection:
        for position in range(outbox.MAX_ATTEMPTS * 2):
            await world.lapse()
            claimed = await outbox.claim(connection, entry)
            assert claimed is not None
            assert claimed.position == max(0, position - 1)
            await outbox.checkpoint(connection, entry, position)
            await connection.execute("update outbox set due_at = now() - interval '1 second'")
            assert await outbox.ring_late(connection, kinds=[Kind.ALIGN], limit=10) == [(Kind.ALIGN, entry)]


async def test_jobs_that_hang_do_not_hold_up_what_is_due_by_the_clock(
    world: World, loud: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(adapters.VERBS, Kind.RETRACT, hang)
    author = await loud.account()
    await loud.materialise(author)
    async with running_workers(loud.res.settings):
        for _ in range(20):
            await loud.res.queue.ring(Kind.RETRACT, await noted(loud, Kind.RETRACT))
        post = await world.post(author)  # whose bell is lost

        async def delivered() -> bool:
            window = await loud.window(author)
            return window is not None and window.ids == [post]

        await eventually(delivered)


async def test_what_killed_workers_left_in_the_queue_hides_nothing(
    loud: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(adapters.VERBS, Kind.ALIGN, nothing)
    async with queue_client(loud.res.settings) as client:
        for number in range(150):
            await client.zadd("arq:fanout", {f"left{number}": 1 + number})
            await client.set(f"arq:in-progress:left{number}", "1", ex=60)
    entry = await noted(loud)
    await loud.res.queue.ring(Kind.ALIGN, entry)
    async with running_workers(loud.res.settings):
        await eventually(lambda: is_done(loud, entry))


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.15, 0.2, 0.25])
async def test_workers_stop_in_order_under_load_and_leave_no_work_behind(
    loud: World, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Wherever the stop finds them: some jobs are done, and all others can be taken at once."""
    monkeypatch.setattr(worker, "_STOP_SECONDS", 0.01)
    monkeypatch.setitem(adapters.VERBS, Kind.ALIGN, nothing)
    entries = [await noted(loud) for _ in range(300)]
    for entry in entries:
        await loud.res.queue.ring(Kind.ALIGN, entry)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(loud.res, QUEUES, stop))
    await asyncio.sleep(seconds)  # the load, not a wait
    began = time.monotonic()
    stop.set()
    await running
    assert time.monotonic() - began < 20
    taken = await loud.sql("select id from outbox where done_at is null and leased_until is not null")
    assert taken == []


async def test_a_fan_out_amid_which_redis_forgot_is_done_again_from_the_start(world: World) -> None:
    """Its checkpoint speaks of pushes that are lost."""
    author, reader = await world.account(1), await world.account(2)
    await add_follows(world, [(reader, author)])
    await world.materialise(reader)
    await sweep.heal(world.res)
    entry = await world.publish(post := await world.draft(author))
    async with world.res.db.acquire() as connection:
        claimed = await outbox.claim(connection, entry)
        await outbox.checkpoint(connection, entry, reader)
    assert claimed is not None
    # Redis comes back from what another server had written before.
    key = "seen:{0}"
    note: bytes = await world.res.redis.call(key, "GET", key)
    await world.res.redis.call(key, "SET", key, b"another " + note.partition(b" ")[2])
    await sweep.heal(world.res)
    async with world.res.db.acquire() as connection:
        await outbox.finish(connection, entry)  # whoever was at it knew nothing of that
    await world.settle()
    assert (await world.page(reader, 5))[0] == [post]
