"""A post with many followers: chunks that any worker takes, at once with others, twice, or after it was killed."""

import asyncio
import itertools
from contextlib import AsyncExitStack

import pytest

from instafeed import delivery, sweep
from instafeed.errors import RedisAway
from instafeed.jobs import adapters, worker
from instafeed.models import EventType
from instafeed.resources import Resources
from instafeed.storage import outbox, queue
from instafeed.storage.follows import PackedFollowers
from instafeed.storage.outbox import Entry, Kind
from instafeed.storage.timelines import Timelines
from instafeed.work import Outcome
from tests.client import eventually
from tests.feeds.gates import Actor
from tests.feeds.world import World
from tests.jobs.test_fan_out import town_of, windows
from tests.workers import running_workers

FOLLOWERS = 7


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_AT_ONCE", 2)


async def chunks(world: World) -> list[int]:
    """The chunks that are not done."""
    return [entry for entry, kind in await world.pending() if kind is Kind.DELIVER]


async def begun(world: World, author: int) -> tuple[int, int, list[int]]:
    """A post whose fan-out has begun: the post, the fan-out, and its chunks."""
    post = await world.draft(author)
    entry = await world.publish(post)
    await world.perform(entry, Kind.FAN_OUT)
    return post, entry, await chunks(world)


async def held(world: World, post: int, accounts: list[int]) -> list[int]:
    """How often each list in Redis holds the post."""
    return [(await world.res.timelines.entries(account)).count(post) for account in accounts]


async def created(world: World, post: int) -> int:
    """How often an event told of the post."""
    events = await world.res.events.after("0", limit=1000)
    return sum(event.type is EventType.POST_CREATED and event.post_id == post for event in events)


async def notified(world: World, post: int) -> list[int]:
    """Who was told of the post."""
    return sorted(await world.sql("select account_id from activity where subject_id = $1", post))


async def restored(world: World) -> None:
    """Redis comes back from what another server had written before, which is noticed."""
    for bucket in range(world.res.timelines.buckets):
        key = f"seen:{{{bucket}}}"
        note: bytes = await world.res.redis.call(key, "GET", key)
        await world.res.redis.call(key, "SET", key, b"another " + note.partition(b" ")[2])
    await sweep.heal(world.res)


async def test_several_workers_deliver_one_post_at_once(loud: World, monkeypatch: pytest.MonkeyPatch) -> None:
    author, readers = await town_of(loud, 19)
    at_it: set[int] = set()
    together = asyncio.Event()

    async def deliver_with_others(res: Resources, entry: Entry) -> Outcome:
        at_it.add(id(res))
        if len(at_it) == 3:
            together.set()
        async with asyncio.timeout(30):
            await together.wait()
        return await delivery.deliver(res, entry)

    monkeypatch.setitem(adapters.VERBS, Kind.DELIVER, deliver_with_others)
    monkeypatch.setitem(worker._AT_ONCE, "bulk", 2)
    post = await loud.draft(author)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(running_workers(loud.res.settings))
        entry = await loud.publish(post)

        async def done() -> bool:
            return not await loud.pending()

        await eventually(done)
    assert await held(loud, post, [author, *readers]) == [1] * 20
    parts = "select id from outbox where kind = 'deliver' and payload->>'parent' = $1"
    assert len(await loud.sql(parts, str(entry))) == 10
    assert await created(loud, post) == 1
    assert await notified(loud, post) == readers


@pytest.mark.parametrize("last", range(4))
async def test_event_and_notification_come_once_and_after_the_last_chunk(world: World, last: int) -> None:
    author, readers = await town_of(world, FOLLOWERS)
    post, entry, parts = await begun(world, author)
    assert len(parts) == 4
    for part in [part for part in parts if part != parts[last]]:
        await world.perform(part, Kind.DELIVER)
        await world.perform(entry, Kind.FAN_OUT)  # whoever rings for it, it goes on waiting
        assert (await created(world, post), await notified(world, post)) == (0, [])
        assert [kind for _, kind in await world.pending() if kind is Kind.NOTIFY] == []
    await world.perform(parts[last], Kind.DELIVER)
    assert await held(world, post, [author, *readers]) == [1] * (FOLLOWERS + 1)
    await world.perform(parts[last], Kind.DELIVER)
    for _ in range(2):
        await world.perform(entry, Kind.FAN_OUT)
    assert await created(world, post) == 1
    assert [kind for _, kind in await world.pending()] == [Kind.NOTIFY]
    await world.settle()
    assert await notified(world, post) == readers


async def test_a_fan_out_that_waits_is_not_late_and_is_due_after_the_last_chunk(world: World) -> None:
    author, _ = await town_of(world, FOLLOWERS)
    _, entry, parts = await begun(world, author)
    late = "select id from outbox where id = $1 and due_at < now() + interval '10 seconds'"
    for part in parts:
        assert await world.sql(late, entry) == []
        await world.perform(part, Kind.DELIVER)
    assert await world.sql(late, entry) == [entry], "should its bell be lost, the sweep rings"


@pytest.mark.parametrize("error", [ValueError("poison"), RedisAway("away")])
async def test_a_chunk_that_failed_is_tried_again_and_looks_before_it_pushes(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    author, readers = await town_of(world, FOLLOWERS)
    post, _, parts = await begun(world, author)
    push, looks = Timelines.push, []

    async def push_and_fail_once(
        lists: Timelines, post_id: int, followers: list[PackedFollowers], *, again: bool
    ) -> None:
        looks.append(again)
        await push(lists, post_id, followers, again=again)
        if len(looks) == 1:
            raise error

    monkeypatch.setattr(Timelines, "push", push_and_fail_once)
    await world.perform(parts[1], Kind.DELIVER)
    assert await world.sql("select attempts from outbox where id = $1 and done_at is null", parts[1]) == [
        1 if isinstance(error, ValueError) else 0
    ]
    await world.perform(parts[1], Kind.DELIVER)
    assert looks == [False, True]
    await world.settle()
    assert await held(world, post, readers) == [1] * FOLLOWERS
    assert await created(world, post) == 1


async def test_a_killed_workers_chunk_is_taken_up_whatever_call_it_was_killed_at(gated: World) -> None:
    author, readers = await town_of(gated, FOLLOWERS)
    for calls in itertools.count():
        post, _, parts = await begun(gated, author)
        killed = await Actor.begin(gated.perform(parts[2], Kind.DELIVER))
        for _ in range(calls):
            await killed.step()
        ended = killed.ended
        await killed.kill()
        await gated.settle()
        assert await held(gated, post, readers) == [1] * FOLLOWERS
        assert await notified(gated, post) == readers
        if ended:
            break
    assert calls > 4


async def test_a_fan_out_that_two_begin_at_once_ends_once(gated: World) -> None:
    """The lease of the first one ends in the middle, wherever that is."""
    author, readers = await town_of(gated, FOLLOWERS)
    for calls in itertools.count():
        post = await gated.draft(author)
        entry = await gated.publish(post)
        first = await Actor.begin(gated.perform(entry, Kind.FAN_OUT))
        for _ in range(calls):
            await first.step()
        ended = first.ended
        await gated.lapse()
        await gated.perform(entry, Kind.FAN_OUT)
        await first.finish()
        assert len(await chunks(gated)) == 4, "of two that note chunks, one does"
        await gated.settle()
        # The first one knew of nobody else, and did not look; a reader sees the post once.
        assert [shown.count(post) for shown in await windows(gated, [author, *readers])] == [1] * (FOLLOWERS + 1)
        assert await held(gated, post, readers) == [1] * FOLLOWERS
        assert await created(gated, post) == 1
        assert await notified(gated, post) == readers
        if ended:
            break
    assert calls > 4


async def test_the_end_of_a_fan_out_that_two_reach_at_once_is_noted_once(gated: World) -> None:
    author, readers = await town_of(gated, FOLLOWERS)
    for calls in itertools.count():
        post, entry, parts = await begun(gated, author)
        for part in parts:
            await gated.perform(part, Kind.DELIVER)
        first = await Actor.begin(gated.perform(entry, Kind.FAN_OUT))
        for _ in range(calls):
            await first.step()
        ended = first.ended
        await gated.lapse()
        await gated.perform(entry, Kind.FAN_OUT)
        await first.finish()
        notes = await gated.sql("select id from outbox where kind = 'notify' and payload->>'post' = $1", str(post))
        assert len(notes) == 1
        await gated.settle()
        assert await notified(gated, post) == readers
        if ended:
            break


@pytest.mark.parametrize("done", range(5))
async def test_redis_may_forget_in_the_middle_of_a_fan_out(world: World, done: int) -> None:
    """Chunks that are done count for nothing then: whoever waits for them is overtaken by another fan-out."""
    author, readers = await town_of(world, FOLLOWERS)
    await sweep.heal(world.res)
    post, entry, parts = await begun(world, author)
    for part in parts[:done]:
        await world.perform(part, Kind.DELIVER)
    for reader in readers:
        await world.res.timelines.remove(reader, [post])  # lost with what Redis had not written down
    await restored(world)
    await world.settle()
    assert await held(world, post, [author, *readers]) == [1] * (FOLLOWERS + 1)
    assert await notified(world, post) == readers
    assert await world.sql("select id from outbox where id = $1 and done_at is null", entry) == []


async def test_a_fan_out_that_is_reopened_looks_in_all_its_chunks(world: World) -> None:
    author, readers = await town_of(world, FOLLOWERS)
    await sweep.heal(world.res)
    post = await world.post(author)
    await world.settle()
    await world.res.timelines.remove(readers[3], [post])
    await restored(world)
    assert [kind for _, kind in await world.pending()] == [Kind.FAN_OUT]
    await world.settle()
    assert await held(world, post, [author, *readers]) == [1] * (FOLLOWERS + 1), "here it was lost, there it was not"
    assert await notified(world, post) == readers


async def test_an_author_who_has_gained_followers_since_a_fan_out_broke_off_is_delivered_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began in one go, and goes on in chunks."""
    monkeypatch.setattr(delivery, "_AT_ONCE", FOLLOWERS)
    author, readers = await town_of(world, FOLLOWERS)
    post = await world.draft(author)
    entry = await world.publish(post)

    async def fail(*_: object, **__: object) -> None:
        raise RedisAway("away")

    with monkeypatch.context() as broken:
        broken.setattr(type(world.res.events), "add", fail)
        await world.perform(entry, Kind.FAN_OUT)
    assert await held(world, post, readers) == [1] * FOLLOWERS
    monkeypatch.setattr(delivery, "_AT_ONCE", FOLLOWERS - 1)
    await world.settle()
    assert await held(world, post, readers) == [1] * FOLLOWERS


async def test_a_post_that_is_deleted_meanwhile_is_delivered_no_further(world: World) -> None:
    author, readers = await town_of(world, FOLLOWERS)
    post, _, parts = await begun(world, author)
    await world.perform(parts[0], Kind.DELIVER)
    await world.delete(author, post)
    await world.settle()
    assert await held(world, post, readers[2:]) == [0] * (FOLLOWERS - 2)
    assert (await created(world, post), await notified(world, post)) == (0, [])


async def test_a_dead_chunk_is_seen_and_its_fan_out_tells_of_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    author, _ = await town_of(world, FOLLOWERS)
    post, entry, parts = await begun(world, author)

    async def poison(_: Resources, __: Entry) -> Outcome:
        raise ValueError("poison")

    monkeypatch.setitem(adapters.VERBS, Kind.DELIVER, poison)
    for _ in range(outbox.MAX_ATTEMPTS):
        await world.perform(parts[0], Kind.DELIVER)
    monkeypatch.undo()
    for part in parts[1:]:
        await world.perform(part, Kind.DELIVER)
    await world.perform(entry, Kind.FAN_OUT)
    async with world.res.db.acquire() as connection:
        _, dead, _ = await outbox.counts(connection)
    assert dead == 1
    assert await created(world, post) == 0


async def test_no_small_author_waits_for_chunks(loud: World) -> None:
    """They are on another queue, which here nobody serves, and nothing of a small author's post is on it."""
    assert queue.kinds_of("bulk") == [Kind.DELIVER, Kind.PUSH_AGAIN]
    assert Kind.FAN_OUT in queue.kinds_of("fanout")
    big, _ = await town_of(loud, FOLLOWERS)
    small, reader = await loud.account(1), await loud.account(2)
    await loud.follow(reader, small)
    await loud.materialise(reader)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(loud.res, ["fanout", "notify"], stop))
    for _ in range(20):
        await loud.post(big)

    async def backlog() -> bool:
        return len(await chunks(loud)) == 80

    await eventually(backlog)
    post = await loud.post(small)

    async def delivered() -> bool:
        return await notified(loud, post) == [reader]

    await eventually(delivered)
    assert await held(loud, post, [reader]) == [1]
    assert len(await chunks(loud)) == 80
    stop.set()
    await running
