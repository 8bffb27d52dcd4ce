"""What is read ahead of SQL below the window: it saves questions, and never keeps a post out of a feed."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from instafeed import feed_sources
from instafeed.models import Delivery
from instafeed.storage.database import Connection, Database
from instafeed.storage.timelines import ReadAhead
from tests.feeds.conftest import timelines_of
from tests.feeds.gates import Actor
from tests.feeds.world import World, add_follows, add_posts

LIMIT = 6  # so that the second page begins above the end of a window of 10, and the third one below it


class CountedDatabase(Database):
    """Counts the connections that one world takes: the metric of the process counts those of other tests' services, too."""

    def __init__(self, database: Database) -> None:
        self.uncounted = database
        self.questions = 0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection."""
        self.questions += 1
        async with self.uncounted.acquire() as connection:
            yield connection


async def held(world: World, reader: int) -> ReadAhead | None:
    """What was read ahead for a reader."""
    timelines = world.res.timelines
    return timelines.read_ahead_of(await (await timelines.ask_read_ahead(reader)))


@dataclass
class Scene:
    """A reader who follows an author; posts in a feed's order, older ones further down."""

    world: World
    reader: int
    author: int
    other: int
    """Whose posts are as old as the author's."""
    draft: int
    """The author's, from amid these posts."""
    mine: int
    """The reader's own draft, likewise."""

    @classmethod
    async def set(cls, world: World) -> "Scene":
        reader, author, other = [await world.account(shard) for shard in (1, 2, 2)]
        await add_posts(world, [author, other] * 8)
        draft, mine = await world.draft(author), await world.draft(reader)
        await add_posts(world, [author, other] * 12)
        await add_follows(world, [(reader, author)])
        return cls(world, reader, author, other, draft, mine)

    async def read(self) -> list[int]:
        """The whole feed, in pages."""
        return await self.world.walk(self.reader, [LIMIT])

    async def read_ahead(self) -> int:
        """Have all that is below the window be held; returns from where on."""
        await self.read()
        found = await held(self.world, self.reader)
        assert found is not None
        assert found.covers(self.draft + 1)
        return found.top

    async def check(self, top: int) -> None:
        """Hold the feed against its definition, but first what is below `top`, of which nothing is asked again."""
        defined = await self.world.defined(self.reader)
        await self.world.page(self.reader, 1)  # from here on it is known whose posts they are
        for _ in range(2):
            assert await self.world.walk(self.reader, [LIMIT], top) == [id_ for id_ in defined if id_ < top]
        assert await self.read() == defined

    async def nothing(self) -> None:
        """Nothing happens."""

    async def publish(self) -> None:
        await self.world.publish(self.draft)

    async def publish_mine(self) -> None:
        await self.world.publish(self.mine)

    async def publish_while_the_feed_is_not_in_redis(self) -> None:
        await self.world.expire(self.reader)
        await self.publish()

    async def publish_as_a_celebrity(self) -> None:
        """One that became one a moment ago."""
        world = World(replace(self.world.res, settings=self.world.res.settings.model_copy(update=CELEBRITY)))
        await add_follows(world, [(self.other, self.author)])
        await world.post(self.author)
        await world.settle()
        [way] = await world.sql("select delivery from accounts where id = $1", self.author)
        assert Delivery(way) is Delivery.MERGED
        await self.read()
        await self.publish()
        await world.settle()

    async def follow(self) -> None:
        await self.world.follow(self.reader, self.other)

    async def ask_to_follow(self) -> None:
        await self.world.set_private(self.other, True)
        await self.follow()
        await self.read()
        await self.world.approve(self.other, self.reader)

    async def ask_to_follow_and_go_public(self) -> None:
        await self.world.set_private(self.other, True)
        await self.follow()
        await self.read()
        await self.world.set_private(self.other, False)

    async def unfollow(self) -> None:
        await self.world.unfollow(self.reader, self.author)

    async def unfollow_and_follow(self) -> None:
        await self.unfollow()
        await self.read()
        await self.world.follow(self.reader, self.author)

    async def unmute(self) -> None:
        await self.world.mute(self.reader, self.author)
        await self.read()
        await self.world.unmute(self.reader, self.author)

    async def suspend(self) -> None:
        await self.world.suspend(self.author)

    async def unsuspend(self) -> None:
        await self.suspend()
        await self.read()
        await self.world.unsuspend(self.author)

    async def block(self) -> None:
        await self.world.block(self.reader, self.author)

    async def delete(self) -> None:
        for post in (await self.world.defined(self.reader))[-7::2]:
            await self.world.delete(self.author, post)

    async def push_the_window_up(self) -> None:
        await self.world.posts(self.author, 15)

    async def expire(self) -> None:
        await self.world.expire(self.reader)

    async def flush(self) -> None:
        await self.world.flush()


CELEBRITY = {"celebrity_followers": 1}
Change = Callable[[Scene], Awaitable[None]]
BRINGS = [
    Scene.publish,
    Scene.publish_mine,
    Scene.publish_while_the_feed_is_not_in_redis,
    Scene.publish_as_a_celebrity,
    Scene.follow,
    Scene.ask_to_follow,
    Scene.ask_to_follow_and_go_public,
    Scene.unfollow_and_follow,
    Scene.unmute,
    Scene.unsuspend,
]
TAKES = [Scene.unfollow, Scene.suspend, Scene.block, Scene.delete]
LEAVES = [Scene.nothing, Scene.push_the_window_up, Scene.expire, Scene.flush]


@pytest.mark.parametrize("size", [4, 500])
@pytest.mark.parametrize("change", [*BRINGS, *TAKES, *LEAVES], ids=lambda change: change.__name__)
async def test_a_feed_is_its_definition_whatever_comes_after_reading_ahead(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Change, size: int
) -> None:
    scene = await Scene.set(world)
    top = await scene.read_ahead()
    monkeypatch.setattr(feed_sources, "READ_AHEAD", size)
    await change(scene)
    await world.settle()
    await scene.check(top)


@pytest.mark.parametrize("change", [Scene.publish, Scene.follow], ids=lambda change: change.__name__)
async def test_a_change_amid_reading_ahead_is_not_lost(gated: World, change: Change) -> None:
    """It comes before any of the calls of the page that reads ahead."""
    for calls in itertools.count():
        scene = await Scene.set(gated)
        await gated.page(scene.reader, LIMIT)
        below = (await gated.defined(scene.reader))[11]
        page = await Actor.begin(gated.page(scene.reader, LIMIT, below))
        for _ in range(calls):
            await page.step()
        ended = page.ended
        await change(scene)
        await gated.settle()
        await page.finish()
        await scene.check(below)
        if ended:
            break
    assert calls > 6


async def test_a_reader_ahead_that_dies_is_relieved(gated: World) -> None:
    for calls in itertools.count():
        scene = await Scene.set(gated)
        await gated.page(scene.reader, LIMIT)
        defined = await gated.defined(scene.reader)
        page = await Actor.begin(gated.page(scene.reader, LIMIT, defined[11]))
        for _ in range(calls):
            await page.step()
        if page.ended:
            break
        await page.kill()
        assert await scene.read() == defined, "meanwhile SQL answers"
        await gated.end_holds()
        await scene.read_ahead()
    assert calls > 6


async def test_a_push_without_a_look_is_above_all_that_was_read_ahead(world: World) -> None:
    """Within the disorder, a late post goes to the head of the list; nobody can tell what is below it there."""
    slow = World(replace(world.res, timelines=timelines_of(world.res, world.res.redis, disorder_seconds=0.02)))
    scene = await Scene.set(slow)
    drafts = []
    for _ in range(4):
        drafts.append(await slow.draft(scene.author))
        await add_posts(slow, [scene.author] * 3)
    await slow.post(scene.author)
    await slow.settle()
    assert await scene.read() == await slow.defined(scene.reader)
    found = await held(slow, scene.reader)
    assert found is not None
    for draft in drafts:
        await slow.publish(draft)
        await slow.settle()
        entries = await slow.res.timelines.entries(scene.reader)
        assert entries[0] == draft, "it was pushed without a look"
        assert await held(slow, scene.reader) == found
        assert not found.covers(draft + 1)
        assert await scene.read() == await slow.defined(scene.reader)


async def test_below_the_window_sql_is_asked_once(world: World) -> None:
    database = CountedDatabase(world.res.db)
    scene = await Scene.set(World(replace(world.res, db=database)))
    await scene.read_ahead()
    before = database.questions
    assert before
    for _ in range(3):
        await scene.read()
    assert database.questions == before


async def test_the_posts_of_celebrities_are_asked_of_sql_for_each_page_below_the_window(world: World) -> None:
    scene = await Scene.set(world)
    await add_follows(world, [(scene.reader, scene.other)])
    await world.sql("update accounts set delivery = 2 where id = $1 returning 1", scene.other)
    for limit in (1, 4, LIMIT, 50):
        for _ in range(2):
            assert await world.walk(scene.reader, [limit]) == await world.defined(scene.reader)
    found = await held(world, scene.reader)
    assert found is not None
    theirs = await world.sql("select id from posts where author_id = $1", scene.other)
    assert found.ids
    assert not {*found.ids} & {*theirs}


async def test_many_pages_at_once_read_ahead_once(world: World) -> None:
    scene = await Scene.set(world)
    await world.page(scene.reader, LIMIT)
    defined = await world.defined(scene.reader)
    pages = await asyncio.gather(*(world.page(scene.reader, 4, defined[11]) for _ in range(20)))
    assert pages == [(defined[12:16], defined[15])] * 20
    found = await held(world, scene.reader)
    assert found is not None
    assert found.covers(defined[11])


async def test_a_page_is_full_though_all_that_was_read_ahead_may_not_be_shown(world: World) -> None:
    """Of somebody who posted much and is suspended."""
    reader, author, other = [await world.account(shard) for shard in (1, 2, 3)]
    await add_posts(world, [other] * 4 + [author] * 120)
    await add_follows(world, [(reader, author), (reader, other)])
    await world.walk(reader, [LIMIT])
    await world.suspend(author)
    for limit in (1, 3, LIMIT):
        assert await world.walk(reader, [limit]) == await world.defined(reader)
    await world.unsuspend(author)
    assert await world.walk(reader, [LIMIT]) == await world.defined(reader)
