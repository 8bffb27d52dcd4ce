"""Workers that die, and workers that are told to stop, in mid work."""

import signal

from instafeed.ids import shard_of
from instafeed.settings import Settings
from instafeed.storage.outbox import Kind
from tests.client import eventually
from tests.feeds.world import World
from tests.processes import running_worker

FOLLOWERS = 20_000
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
    readers = [author + number * STEP for number in range(1, FOLLOWERS + 1, 397)]
    await world.materialise(*readers)
    return author, readers


async def position(world: World, entry: int) -> int:
    [found] = await world.sql("select position from outbox where id = $1", entry)
    assert isinstance(found, int)
    return found


async def done(world: World, entry: int) -> bool:
    return bool(await world.sql("select 1 from outbox where id = $1 and done_at is not null", entry))


async def holders(world: World, post: int, readers: list[int]) -> list[int]:
    """How often each reader's feed holds the post."""
    return [(await world.res.timelines.entries(reader)).count(post) for reader in readers]


async def test_a_fan_out_goes_on_after_its_worker_was_killed_six_times(world: World, fault_settings: Settings) -> None:
    author, readers = await with_followers(world)
    post = await world.draft(author)
    entry = await world.publish(post)
    for _ in range(6):
        before = await position(world, entry)
        async with running_worker(fault_settings, "fanout") as worker:
            await world.res.queue.ring(Kind.FAN_OUT, entry)

            async def moved(before: int = before) -> bool:
                return await position(world, entry) > before

            await eventually(moved, seconds=30)
            await worker.kill()
        assert not await done(world, entry), "it was caught in the middle"
        assert 0 < sum(await holders(world, post, readers)) < len(readers)
        await world.lapse()
    async with running_worker(fault_settings):
        await world.res.queue.ring(Kind.FAN_OUT, entry)
        await eventually(lambda: done(world, entry), seconds=30)
    assert await holders(world, post, readers) == [1] * len(readers)


async def test_another_worker_takes_a_killed_ones_work_up_within_30_seconds(
    world: World, fault_settings: Settings
) -> None:
    author, readers = await with_followers(world)
    async with running_worker(fault_settings, "default", "notify"):  # whose sweep rings
        post = await world.draft(author)
        async with running_worker(fault_settings, "fanout") as worker:
            entry = await world.publish(post)
            await world.res.queue.ring(Kind.FAN_OUT, entry)

            async def began() -> bool:
                return await position(world, entry) > 0

            await eventually(began, seconds=30)
            await worker.kill()
        async with running_worker(fault_settings, "fanout"):
            await eventually(lambda: done(world, entry), seconds=30)
    assert await holders(world, post, readers) == [1] * len(readers)


async def test_a_worker_that_is_told_to_stop_hands_its_work_back_at_once(
    world: World, fault_settings: Settings
) -> None:
    author, readers = await with_followers(world)
    post = await world.draft(author)
    entry = await world.publish(post)
    async with running_worker(fault_settings, "fanout") as worker:
        await world.res.queue.ring(Kind.FAN_OUT, entry)

        async def began() -> bool:
            return await position(world, entry) > 0

        await eventually(began, seconds=30)
        await worker.child.stop(signal.SIGTERM, seconds=5)
    assert await done(world, entry) or await world.sql(
        "select 1 from outbox where id = $1 and leased_until is null and due_at <= now()", entry
    )
    async with running_worker(fault_settings):
        await eventually(lambda: done(world, entry), seconds=30)
    assert await holders(world, post, readers) == [1] * len(readers)
