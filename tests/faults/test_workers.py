"""Workers that die, and workers that are told to stop, in mid work."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from instafeed.ids import shard_of
from instafeed.settings import Settings
from tests.client import eventually
from tests.feeds.world import World
from tests.processes import running_worker

FOLLOWERS = 20_000
SOME_CHUNKS = 10  # of 200
STEP = 1 << 23  # the next millisecond's id on the same shard


async def with_followers(world: World) -> tuple[int, list[int]]:
    """An author with many followers, and those of them whose feeds are materialised."""
    author = await world.account()
    await world.sql(
        "insert into followers (shard, followee_id, follower_id, id, notify)"
        " select $1, $2::bigint, $2::bigint + number * $3::bigint, number, false"
        " from generate_series(1, $4::int) as number returning 1",
        shard_of(author),
        author,
        STEP,
        FOLLOWERS,
    )
    await world.sql(
        "update accounts set follower_count = $3 where shard = $1 and id = $2 returning 1",
        shard_of(author),
        author,
        FOLLOWERS,
    )
    readers = [author + number * STEP for number in range(1, FOLLOWERS + 1, 397)]
    await world.materialise(*readers)
    return author, readers


async def chunks_done(world: World, entry: int) -> int:
    """How far a fan-out is."""
    parts = "select id from outbox where kind = 'deliver' and payload->>'parent' = $1 and done_at is not null"
    return len(await world.sql(parts, str(entry)))


async def progress(world: World, entry: int, before: int = 0) -> None:
    """Wait until some chunks are done besides those `before`."""

    async def moved() -> bool:
        return await chunks_done(world, entry) >= before + SOME_CHUNKS

    await eventually(moved, seconds=30)


@asynccontextmanager
async def unhurried(world: World) -> AsyncIterator[None]:
    """Each chunk takes a tenth of a second, so that workers are caught in the middle however late it is noticed."""
    await world.sql(
        "create function linger() returns trigger language plpgsql as"
        " $$ begin perform pg_sleep(0.1); return new; end $$"
    )
    await world.sql(
        "create trigger linger before update on outbox for each row"
        " when (new.kind = 'deliver' and new.done_at is not null) execute function linger()"
    )
    try:
        yield
    finally:
        await world.sql("drop function linger cascade")


async def done(world: World, entry: int) -> bool:
    return bool(await world.sql("select 1 from outbox where id = $1 and done_at is not null", entry))


async def holders(world: World, post: int, readers: list[int]) -> list[int]:
    """How often each reader's feed holds the post."""
    return [(await world.res.timelines.entries(reader)).count(post) for reader in readers]


async def test_a_fan_out_goes_on_after_its_worker_was_killed_six_times(world: World, fault_settings: Settings) -> None:
    author, readers = await with_followers(world)
    post = await world.draft(author)
    entry = await world.publish(post)
    async with unhurried(world):
        for _ in range(6):
            before = await chunks_done(world, entry)
            async with running_worker(fault_settings, "fanout", "bulk") as worker:
                for pending, kind in await world.pending():
                    await world.res.queue.ring(kind, pending)  # whoever was killed may have lost bells too
                await progress(world, entry, before)
                await worker.kill()
            assert not await done(world, entry), "it was caught in the middle"
            assert 0 < sum(await holders(world, post, readers)) < len(readers)
            await world.lapse()
    async with running_worker(fault_settings):
        await eventually(lambda: done(world, entry), seconds=60)
    assert await holders(world, post, readers) == [1] * len(readers)


async def test_another_worker_takes_a_killed_ones_work_up_within_30_seconds(
    world: World, fault_settings: Settings
) -> None:
    author, readers = await with_followers(world)
    async with running_worker(fault_settings, "default", "notify"):  # whose sweep rings
        post = await world.draft(author)
        async with unhurried(world), running_worker(fault_settings, "fanout", "bulk") as worker:
            entry = await world.publish(post)
            await progress(world, entry)
            await worker.kill()
        assert not await done(world, entry)
        before = await chunks_done(world, entry)
        async with running_worker(fault_settings, "fanout", "bulk"):
            await progress(world, entry, before)
            await eventually(lambda: done(world, entry), seconds=60)
    assert await holders(world, post, readers) == [1] * len(readers)


async def test_a_worker_that_is_told_to_stop_hands_its_work_back_at_once(
    world: World, fault_settings: Settings
) -> None:
    author, readers = await with_followers(world)
    post = await world.draft(author)
    entry = await world.publish(post)
    async with running_worker(fault_settings, "fanout", "bulk") as worker:
        await progress(world, entry)
        await worker.child.stop(signal.SIGTERM, seconds=30)
    assert await world.sql("select id from outbox where done_at is null and leased_until is not null") == []
    async with running_worker(fault_settings):
        await eventually(lambda: done(world, entry), seconds=60)
    assert await holders(world, post, readers) == [1] * len(readers)


async def test_workers_that_deliver_one_post_together_deliver_it_once(world: World, fault_settings: Settings) -> None:
    """And go on with what one of them leaves behind."""
    author, readers = await with_followers(world)
    post = await world.draft(author)
    async with running_worker(fault_settings), running_worker(fault_settings, "bulk") as other:
        entry = await world.publish(post)
        await progress(world, entry)
        await other.kill()
        await eventually(lambda: done(world, entry), seconds=60)
    assert await holders(world, post, readers) == [1] * len(readers)
