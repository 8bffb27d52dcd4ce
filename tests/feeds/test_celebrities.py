"""Celebrities: their posts are merged when a feed is read. Becoming one and ceasing to be one loses nothing for any reader."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from instafeed import delivery
from instafeed.ids import MAX_ID
from instafeed.models import Delivery
from instafeed.storage.outbox import Kind
from tests.feeds.gates import Actor
from tests.feeds.world import World, add_follows, add_posts

LIMIT = 2
WINDOW = 10


async def way_of(world: World, author: int) -> Delivery:
    [way] = await world.sql("select delivery from accounts where id = $1", author)
    return Delivery(way)


async def town(world: World, *, authors: int = 1, readers: int = LIMIT) -> tuple[list[int], list[int]]:
    """Authors, and readers who follow all of them; whoever has more than two followers is a celebrity."""
    found = [await world.account(1 + number) for number in range(authors + readers)]
    await add_follows(world, itertools.product(found[authors:], found[:authors]))
    return found[:authors], found[authors:]


def few(world: World) -> World:
    """The world where few followers make a celebrity."""
    return World(replace(world.res, settings=world.res.settings.model_copy(update={"celebrity_followers": LIMIT})))


@pytest.fixture
async def small(world: World) -> World:
    return few(world)


async def rise(world: World, author: int) -> int:
    """Have enough readers to be a celebrity, and a post; returns the last reader."""
    [count] = await world.sql("select follower_count from accounts where id = $1", author)
    for _ in range(count, LIMIT + 1):
        reader = await world.account(9)
        await world.follow(reader, author)
    await world.post(author)
    await world.settle()
    assert await way_of(world, author) is Delivery.MERGED
    return reader


async def fall(world: World, author: int) -> None:
    """Lose all followers but one, and post; the jobs have not run."""
    followers = await world.sql("select follower_id from followers where followee_id = $1 order by 1", author)
    for reader in followers[1:]:
        await world.unfollow(reader, author)
    await world.post(author)


async def test_posts_of_a_celebrity_are_read_though_no_list_holds_them(small: World) -> None:
    [author], readers = await town(small, readers=LIMIT + 1)
    await add_posts(small, [author, readers[0]] * 3)
    await small.materialise(*readers)
    before = [await small.res.timelines.entries(reader) for reader in readers]
    await small.posts(author, 3)
    await small.settle()
    assert await way_of(small, author) is Delivery.MERGED
    assert [await small.res.timelines.entries(reader) for reader in readers] == before
    for reader, limit in itertools.product(readers, range(1, 9)):
        assert await small.walk(reader, [limit]) == await small.defined(reader)


async def test_an_account_is_a_celebrity_until_it_has_clearly_fewer_followers(small: World) -> None:
    [author], [reader, other] = await town(small)
    extra = await rise(small, author)
    await small.unfollow(extra, author)
    await small.post(author)
    await small.settle()
    assert await way_of(small, author) is Delivery.MERGED, "two followers are not clearly fewer than three"
    await small.unfollow(other, author)
    await small.post(author)
    await small.settle()
    assert await way_of(small, author) is Delivery.PUSHED
    assert await small.walk(reader, [3]) == await small.defined(reader)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
async def test_a_chain_goes_on_while_its_author_becomes_a_celebrity_and_ceases_to_be_one(
    small: World, limit: int
) -> None:
    [author], [reader, _] = await town(small)
    await add_posts(small, [author, reader] * WINDOW)
    await small.materialise(reader)
    expected = await small.defined(reader)
    turns = itertools.cycle([rise, fall])

    async def cross() -> None:
        await next(turns)(small, author)
        await small.settle()

    assert await small.walk(reader, [limit], between=cross) == expected
    assert await small.walk(reader, [limit]) == await small.defined(reader)


async def test_posts_of_the_time_as_a_celebrity_stay_when_it_is_over(small: World) -> None:
    [author], [reader, _] = await town(small)
    await small.materialise(reader)
    await rise(small, author)
    posts = await small.posts(author, 5)
    await small.settle()
    assert not set(posts) & set(await small.res.timelines.entries(reader))
    await fall(small, author)
    await small.settle()
    assert await way_of(small, author) is Delivery.PUSHED
    assert set(posts) <= set(await small.res.timelines.entries(reader))
    assert await small.walk(reader, [4]) == await small.defined(reader)


async def test_what_redis_forgot_of_such_posts_is_brought_again(small: World) -> None:
    [author], [reader, _] = await town(small)
    await small.materialise(reader)
    await rise(small, author)
    posts = await small.posts(author, 5)
    await fall(small, author)
    await small.settle()
    await small.res.timelines.remove(reader, posts)
    [entry] = await small.sql(
        "update outbox set done_at = null, position = 0 where kind = 'push_again' and done_at is not null"
        " and (payload->>'author')::bigint = $1 returning id",
        author,
    )
    await small.perform(entry, Kind.PUSH_AGAIN)
    assert set(posts) <= set(await small.res.timelines.entries(reader))


@pytest.mark.parametrize("limit", [1, 3, 10, 50])
async def test_a_reader_of_several_celebrities_reads_them_all_to_the_end_of_history(small: World, limit: int) -> None:
    """Far below what Redis holds of any of them."""
    authors, readers = await town(small, authors=3, readers=LIMIT + 1)
    await add_posts(small, [*authors, readers[0], authors[0]] * 12)
    for author in authors:
        await small.post(author)
    await small.settle()
    assert {await way_of(small, author) for author in authors} == {Delivery.MERGED}
    for _ in range(2):  # the second time from what the first one has built
        for reader in readers:
            defined = await small.defined(reader)
            assert len(defined) >= 4 * 12
            assert await small.walk(reader, [limit]) == defined


async def test_a_celebritys_deleted_post_is_shown_to_nobody(small: World) -> None:
    [author], readers = await town(small, readers=LIMIT + 1)
    posts = await small.posts(author, WINDOW + 5)
    await small.settle()
    for post_id in (posts[0], posts[3], posts[WINDOW], posts[-1], *posts[5:9]):
        await small.walk(readers[0], [4])
        await small.delete(author, post_id)
        for reader in readers:
            assert await small.walk(reader, [3]) == await small.defined(reader)
    await small.settle()


@pytest.mark.parametrize("change", [World.unfollow, World.mute, World.block])
async def test_a_celebrity_can_be_left(small: World, change: Callable[[World, int, int], Awaitable[None]]) -> None:
    [author], [reader, *_] = await town(small, readers=LIMIT + 1)
    await small.posts(author, 3)
    await small.settle()
    assert len((await small.page(reader, 5))[0]) == 3
    await change(small, reader, author)
    assert await small.page(reader, 5) == ([], None)
    await small.settle()
    assert await small.page(reader, 5) == ([], None)


async def test_recent_posts_that_redis_lost_come_from_sql_and_are_held_again(small: World) -> None:
    [author], [reader, *_] = await town(small, readers=LIMIT + 1)
    await add_posts(small, [author] * (WINDOW + 5))
    await small.post(author)
    await small.settle()
    defined = await small.defined(reader)
    assert await small.res.recents.read(author, limit=None) is None
    assert await small.walk(reader, [4]) == defined
    held = await small.res.recents.read(author, limit=None)
    assert held is not None
    assert held.ids == defined[:WINDOW]
    await small.expire_recents(author)
    assert await small.walk(reader, [4]) == defined
    assert await small.res.recents.read(author, limit=None) == held


async def test_a_post_comes_while_recent_posts_are_rebuilt(gated: World) -> None:
    gated = few(gated)
    [author], [reader, *_] = await town(gated, readers=LIMIT + 1)
    await add_posts(gated, [author] * 4)
    await gated.post(author)
    await gated.settle()
    for calls in itertools.count():
        await gated.expire_recents(author)
        read = await Actor.begin(gated.page(reader, 5))
        for _ in range(calls):
            await read.step()
        ended = read.ended
        await gated.post(author)
        await gated.settle()
        await read.finish()
        assert await gated.walk(reader, [3]) == await gated.defined(reader)
        held = await gated.res.recents.read(author, limit=None)
        assert held is not None
        assert {id_ for id_ in await gated.defined(reader) if id_ >= held.floor} == set(held.ids)
        if ended:
            break
    assert calls > 5


@dataclass
class Crossing:
    """A reader who reads while an author rises or falls; what was there before the read is in it."""

    world: World
    author: int
    reader: int

    @classmethod
    async def set(cls, world: World, *, up: bool, cold: str) -> "Crossing":
        [author], [reader, _] = await town(world)
        await add_posts(world, [author, reader] * 2)
        await world.materialise(reader)
        if not up:
            await rise(world, author)
            await world.posts(author, 2)
            await world.settle()
        await world.page(reader, 20)
        if cold == "rights":
            await world.follow(reader, await world.account(10))
            await world.settle()
        elif cold == "recents":
            await world.expire_recents(author)
        elif cold == "feed":
            await world.expire(reader)
        return cls(world, author, reader)


@pytest.mark.parametrize("cold", ["nothing", "rights", "recents", "feed"])
@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
async def test_a_read_amid_a_crossing_misses_nothing_that_was_there_before(gated: World, up: bool, cold: str) -> None:
    gated = few(gated)
    for calls in itertools.count():
        scene = await Crossing.set(gated, up=up, cold=cold)
        before = set(await gated.defined(scene.reader))
        pages: list[list[int]] = []

        async def read(scene: Crossing = scene, pages: list[list[int]] = pages) -> None:
            pages.append((await gated.page(scene.reader, 20))[0])

        actor = await Actor.begin(read())
        for _ in range(calls):
            await actor.step()
        ended = actor.ended
        if up:
            await rise(gated, scene.author)
        else:
            await fall(gated, scene.author)
        await gated.settle()
        await actor.finish()
        assert before <= set(pages[0])
        assert await gated.walk(scene.reader, [3]) == await gated.defined(scene.reader)
        if ended:
            break
    assert calls > 3


@pytest.fixture
async def ruled(gated: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Where one follower less makes a celebrity none."""
    monkeypatch.setattr(delivery, "_NO_CELEBRITY_BELOW", 1.5)
    return World(replace(gated.res, settings=gated.res.settings.model_copy(update={"celebrity_followers": 1})))


async def test_a_read_amid_changes_of_mind_believes_no_old_list_of_celebrities(ruled: World) -> None:
    """A fan-out is about to stop pushing when a late job ends the merging, and another fan-out begins it again."""
    world = ruled
    for calls in itertools.count():
        [author], [reader, other] = await town(world, readers=2)
        await world.materialise(reader)
        await world.post(author)
        await world.settle()
        assert await way_of(world, author) is Delivery.MERGED
        await world.unfollow(other, author)
        await world.post(author)
        [fan_out] = [entry for entry in await world.pending() if entry[1] is Kind.FAN_OUT]
        await world.perform(*fan_out)
        [late] = [entry for entry in await world.pending() if entry[1] is Kind.PUSH_AGAIN]
        await world.follow(other, author)
        await world.post(author)
        [first] = [entry for entry in await world.pending() if entry[1] is Kind.FAN_OUT]
        upward = await Actor.begin(world.perform(*first))
        for _ in range(calls):
            await upward.step()
        ended = upward.ended
        await world.perform(*late)
        await world.post(author)
        second = [entry for entry in await world.pending() if entry[1] is Kind.FAN_OUT][-1]
        again = await Actor.begin(world.perform(*second))
        await world.page(reader, 5)
        while not again.ended and await way_of(world, author) is Delivery.PUSHED:
            await again.step()
        await upward.finish()
        await again.kill()
        await world.settle()
        await world.post(author)
        await world.settle()
        assert (await world.page(reader, 20))[0] == await world.defined(reader)
        if ended:
            break
    assert calls > 5


async def test_a_late_post_of_a_celebrity_is_read_in_its_place(small: World) -> None:
    [author], [reader, *_] = await town(small, readers=LIMIT + 1)
    late = await small.draft(author)
    await small.posts(author, 3)
    await small.settle()
    await small.page(reader, 2)
    await small.publish(late)
    await small.settle()
    ids, position = await small.page(reader, 3, MAX_ID)
    assert position == ids[-1]
    assert await small.page(reader, 3, position) == ([late], None)


async def test_a_post_amid_the_end_of_merging_is_pushed(gated: World) -> None:
    """The job that brings what was not pushed has looked, maybe, and this one came after."""
    world = few(gated)
    for calls in itertools.count():
        [author], [reader, _] = await town(world)
        await world.materialise(reader)
        await rise(world, author)
        await fall(world, author)
        [fan_out] = [entry for entry in await world.pending() if entry[1] is Kind.FAN_OUT]
        await world.perform(*fan_out)
        assert await way_of(world, author) is Delivery.BOTH
        [late] = [entry for entry in await world.pending() if entry[1] is Kind.PUSH_AGAIN]
        job = await Actor.begin(world.perform(*late))
        for _ in range(calls):
            await job.step()
        ended = job.ended
        post = await world.post(author)
        [fan_out] = [entry for entry in await world.pending() if entry[1] is Kind.FAN_OUT]
        await world.perform(*fan_out)
        await job.finish()
        await world.settle()
        assert await way_of(world, author) is Delivery.PUSHED
        assert post in await world.res.timelines.entries(reader)
        assert await world.walk(reader, [3]) == await world.defined(reader)
        if ended:
            break
    assert calls > 5
