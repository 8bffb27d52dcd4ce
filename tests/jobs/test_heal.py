"""After Redis came back as another server: what is delivered again, and since when, by the notes of all buckets."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from instafeed import sweep, telemetry, work
from instafeed.errors import RedisAway
from instafeed.models import Delivery
from instafeed.storage import accounts as account_rows
from instafeed.storage import seen
from instafeed.storage.outbox import Kind
from tests.feeds.world import World, add_follows

BUCKETS = 64
LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)


def key(bucket: int) -> str:
    return f"seen:{{{bucket}}}"


async def note(world: World, bucket: int) -> tuple[str, datetime]:
    """Which server a bucket's note names, and when it was left."""
    text: bytes = await world.res.redis.call(key(bucket), "GET", key(bucket))
    epoch, _, at = text.decode().partition(" ")
    return epoch, datetime.fromisoformat(at)


async def leave(world: World, bucket: int, at: datetime, *, epoch: str = "another") -> None:
    """A note that was left at that time, on another server if none is named."""
    await world.res.redis.call(key(bucket), "SET", key(bucket), f"{epoch} {at.isoformat()}")


async def done(world: World, at: datetime, kind: Kind = Kind.ALIGN) -> int:
    """Work that was done at that time."""
    payload = {"viewer": 1, "author": 2} if kind is Kind.ALIGN else {"post": 1, "author": 2}
    async with world.res.db.acquire() as connection:
        entry = await work.note(world.res, connection, 1, kind, payload)
    await world.sql("update outbox set done_at = $2, position = 5 where id = $1 returning 1", entry, at)
    return entry


async def open_again(world: World) -> list[int]:
    return sorted(entry for entry, _ in await world.pending())


async def test_every_bucket_is_noted_with_its_server_and_the_time(world: World) -> None:
    before = telemetry.now()
    await sweep.heal(world.res)
    epoch = (await world.res.redis.node("")).epoch
    for bucket in range(BUCKETS):
        assert (await note(world, bucket))[0] == epoch
        assert before <= (await note(world, bucket))[1] <= telemetry.now()


async def test_an_emptied_redis_has_nothing_to_heal(world: World) -> None:
    await done(world, telemetry.now())
    await sweep.heal(world.res)
    assert await open_again(world) == []


async def test_the_same_server_has_nothing_to_heal(world: World) -> None:
    await sweep.heal(world.res)
    await done(world, telemetry.now())
    await sweep.heal(world.res)
    assert await open_again(world) == []


@pytest.mark.parametrize("bucket", [0, 17, BUCKETS - 1])
async def test_one_bucket_on_another_server_is_enough(world: World, bucket: int) -> None:
    await sweep.heal(world.res)
    now = telemetry.now()
    await leave(world, bucket, now - timedelta(minutes=10))
    forgotten = [await done(world, now - timedelta(minutes=minutes)) for minutes in (0, 9, 10)]
    await done(world, now - timedelta(minutes=12))
    await sweep.heal(world.res)
    assert await open_again(world) == sorted(forgotten)
    assert set(await world.sql("select position from outbox where done_at is null")) == {0}
    await world.sql("update outbox set done_at = now() returning 1")
    await sweep.heal(world.res)
    assert await open_again(world) == [], "once is enough"


async def test_the_oldest_note_from_elsewhere_counts(world: World) -> None:
    await sweep.heal(world.res)
    now = telemetry.now()
    for bucket, hours in enumerate((1, 5, 3)):
        await leave(world, bucket, now - timedelta(hours=hours))
    epoch = (await world.res.redis.node("")).epoch
    await leave(world, 3, LONG_AGO, epoch=epoch)  # of this very server, which has forgotten nothing
    await world.res.redis.call(key(4), "DEL", key(4))
    forgotten = await done(world, now - timedelta(hours=4, minutes=59))
    await done(world, now - timedelta(hours=6))
    await sweep.heal(world.res)
    assert await open_again(world) == [forgotten]
    assert {(await note(world, bucket))[0] for bucket in range(BUCKETS)} == {epoch}


async def test_a_heal_that_cannot_leave_its_notes_is_done_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await sweep.heal(world.res)
    await leave(world, 7, telemetry.now())
    entry = await done(world, telemetry.now())

    async def fail(*_: object) -> None:
        raise RedisAway("away")

    with monkeypatch.context() as broken:
        broken.setattr(seen, "write", fail)
        with pytest.raises(RedisAway):
            await sweep.heal(world.res)
    await world.sql("update outbox set done_at = now() returning 1")
    await sweep.heal(world.res)
    assert await open_again(world) == [entry]


async def test_only_what_changes_feeds_is_done_again(world: World) -> None:
    await sweep.heal(world.res)
    await leave(world, 1, telemetry.now())
    again = [await done(world, telemetry.now(), kind) for kind in (Kind.FAN_OUT, Kind.ALIGN, Kind.PUSH_AGAIN)]
    for kind in (Kind.NOTIFY, Kind.RETRACT, Kind.DELIVER):
        await done(world, telemetry.now(), kind)
    await sweep.heal(world.res)
    assert await open_again(world) == sorted(again)


async def test_what_was_pushed_for_a_former_celebrity_is_pushed_again(world: World) -> None:
    settings = world.res.settings.model_copy(update={"celebrity_followers": 3})
    world.res = replace(world.res, settings=settings)
    author, *readers = [await world.account(shard) for shard in range(1, 6)]
    for reader in readers:
        await world.follow(reader, author)
    await world.materialise(*readers)
    await world.settle()
    merged = await world.post(author)
    await world.settle()
    assert await world.res.timelines.entries(readers[0]) == [], "a celebrity's posts are not pushed"
    for reader in readers[1:]:
        await world.unfollow(reader, author)
    pushed = await world.post(author)
    await world.settle()
    async with world.res.db.acquire() as connection:
        assert (await account_rows.delivery(connection, author))[0] is Delivery.PUSHED
    assert (await world.page(readers[0], 5))[0] == [pushed, merged]
    await sweep.heal(world.res)
    await world.res.timelines.remove(readers[0], [merged, pushed])
    await leave(world, 9, telemetry.now())
    await sweep.heal(world.res)
    await world.settle()
    assert (await world.page(readers[0], 5))[0] == [pushed, merged]


async def test_followers_in_many_buckets_get_again_what_their_bucket_forgot(world: World) -> None:
    author, *readers = [await world.account(shard) for shard in range(1, 12)]
    await add_follows(world, [(reader, author) for reader in readers])
    await world.materialise(*readers)
    await sweep.heal(world.res)
    post = await world.post(author)
    await world.settle()
    lost = readers[4]
    await world.res.timelines.remove(lost, [post])
    await leave(world, world.res.timelines.bucket_of(lost), telemetry.now() - timedelta(seconds=5))
    await sweep.heal(world.res)
    await world.settle()
    for reader in readers:
        assert await world.res.timelines.entries(reader) == [post]
