"""Fan-out and what comes of it, run twice, late, out of order, and from the middle."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from instafeed import delivery, telemetry
from instafeed.models import EventType
from instafeed.storage.outbox import Kind
from tests.feeds.gates import Actor
from tests.feeds.world import World, add_follows


async def town_of(world: World, followers: int) -> tuple[int, list[int]]:
    """An author and followers, all of whose feeds are materialised; fan-out goes by twos."""
    world.res = replace(world.res, settings=world.res.settings.model_copy(update={"fan_out_chunk": 2}))
    author, *readers = [await world.account(shard) for shard in range(1, followers + 2)]
    await add_follows(world, [(reader, author) for reader in readers])
    await world.materialise(author, *readers)
    return author, readers


async def windows(world: World, accounts: list[int]) -> list[list[int]]:
    found = [await world.window(account) for account in accounts]
    return [window.ids for window in found if window]


@pytest.fixture
def delivered(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """How many deliveries the task that asks has counted since it asked last; other tests' workers count in this process, too."""
    counted: dict[object, float] = {}

    def count(many: float) -> None:
        counted[asyncio.current_task()] = counted.get(asyncio.current_task(), 0) + many

    monkeypatch.setattr(telemetry.DELIVERIES, "inc", count)
    return lambda: counted.pop(asyncio.current_task(), 0)


@pytest.mark.parametrize("followers", [0, 1, 2, 3, 4, 5])
async def test_every_follower_and_the_author_get_a_post_once(
    world: World, delivered: Callable[[], float], followers: int
) -> None:
    author, readers = await town_of(world, followers)
    post = await world.post(author)
    await world.settle()
    assert await windows(world, [author, *readers]) == [[post]] * (followers + 1)
    assert delivered() == followers


async def test_fan_outs_may_run_again_and_in_any_order(world: World) -> None:
    author, readers = await town_of(world, 3)
    posts = [await world.post(author) for _ in range(4)]
    entries = [entry for entry, _ in await world.pending()]
    for order in itertools.permutations(entries):
        for entry in order:
            await world.sql("update outbox set done_at = null, position = 0 where id = $1 returning 1", entry)
            await world.perform(entry, Kind.FAN_OUT)
        assert await windows(world, readers) == [posts[::-1]] * 3
        await world.flush()
        await world.materialise(*readers)


async def test_a_post_that_is_gone_is_delivered_to_nobody(world: World) -> None:
    author, readers = await town_of(world, 3)
    post = await world.post(author)
    await world.delete(author, post)
    await world.settle()
    assert await windows(world, [author, *readers]) == [[]] * 4
    assert await world.sql("select 1 from activity where subject_id = $1", post) == []
    assert await world.sql("select distinct kind from outbox order by kind") == [Kind.FAN_OUT, Kind.PRUNE, Kind.RETRACT]


async def work_off(world: World) -> None:
    """What a worker does that serves all queues."""
    while jobs := await world.pending():
        for job in jobs:
            await world.perform(*job)


async def test_a_fan_out_goes_on_where_its_worker_was_killed(
    gated: World, delivered: Callable[[], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever call it was killed at, of the fan-out, of a chunk, or of what comes after the last one."""
    monkeypatch.setattr(delivery, "_AT_ONCE", 2)
    author, readers = await town_of(gated, 7)
    found = []
    for calls in itertools.count():
        post = await gated.draft(author)
        await gated.publish(post)
        worker = await Actor.begin(work_off(gated))
        for _ in range(calls):
            await worker.step()
        if worker.ended:
            break
        await worker.kill()
        delivered()
        await gated.settle()
        found.append(delivered())
        lists = [await gated.res.timelines.entries(reader) for reader in readers]
        assert [entries[0] for entries in lists] == [post] * 7
        assert [entries.count(post) for entries in lists] == [1] * 7
        assert sorted(await gated.sql("select account_id from activity where subject_id = $1", post)) == readers
    assert found == sorted(found, reverse=True), "the later it was killed, the less is left to do"
    assert set(found) == {7, 5, 3, 1, 0}, "no chunk that is done is done again"


async def test_subscribers_are_told_whatever_call_their_job_is_killed_at(gated: World) -> None:
    author, readers = await town_of(gated, 3)
    await gated.follow(readers[0], author, notify=False)
    await gated.settle()
    for calls in itertools.count():
        post = await gated.post(author)
        [(fan_out, _)] = await gated.pending()
        await gated.perform(fan_out, Kind.FAN_OUT)
        [(entry, _)] = await gated.pending()
        worker = await Actor.begin(gated.perform(entry, Kind.NOTIFY))
        for _ in range(calls):
            await worker.step()
        ended = worker.ended
        await worker.kill()
        await gated.settle()
        told = await gated.sql("select account_id from activity where subject_id = $1 order by 1", post)
        assert told == sorted(readers[1:])
        if ended:
            break


async def test_notification_follows_fan_out_and_the_event_tells_of_it(world: World) -> None:
    author, [reader] = await town_of(world, 1)
    post = await world.post(author)
    [(fan_out, kind)] = await world.pending()
    assert kind is Kind.FAN_OUT
    await world.perform(fan_out, kind)
    assert await windows(world, [reader]) == [[post]]
    assert await world.sql("select 1 from activity where subject_id = $1", post) == []
    [event] = await world.res.events.after("0", limit=5)
    assert (event.type, event.author_id, event.post_id) == (EventType.POST_CREATED, author, post)
    [(notify, kind)] = await world.pending()
    assert kind is Kind.NOTIFY
    await world.perform(notify, kind)
    assert await world.sql("select account_id from activity where subject_id = $1", post) == [reader]
    assert await world.pending() == []
