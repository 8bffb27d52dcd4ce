"""Two things happen to a feed at once: one stops before any of its calls of a server, and the other happens in full."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from tests.feeds.gates import Actor
from tests.feeds.world import World, add_follows, add_posts


@dataclass
class Scene:
    """A reader, an author of many posts whom the reader may follow, and somebody whom the reader follows."""

    world: World
    reader: int
    author: int
    friend: int
    draft: int
    """A post of the author's, older than others that are published."""
    posts: list[int]
    """The author's, oldest first."""

    @classmethod
    async def set(cls, world: World, *, follows: bool, materialised: bool) -> "Scene":
        # Two of them share a shard.
        reader, author, friend = [await world.account(shard) for shard in (1, 2, 2)]
        posts = await add_posts(world, [author] * 9 + [friend] * 2)
        draft = await world.draft(author)
        posts += await add_posts(world, [author] * 3)
        await add_follows(world, [(reader, friend)] + [(reader, author)] * follows)
        await world.flush()
        if materialised:
            await world.materialise(reader)
        return cls(world, reader, author, friend, draft, [id_ for id_ in posts if id_ not in posts[9:11]])

    async def nothing(self) -> None:
        """Nothing happened but the read."""

    async def expire(self) -> None:
        await self.world.expire(self.reader)

    async def post(self) -> None:
        await self.world.post(self.author)

    async def publish(self) -> None:
        await self.world.publish(self.draft)

    async def delete(self) -> None:
        await self.world.delete(self.author, self.posts[-1])

    async def follow(self) -> None:
        await self.world.follow(self.reader, self.author)

    async def unfollow(self) -> None:
        await self.world.unfollow(self.reader, self.author)

    async def come_after(self, event: "Event") -> None:
        """What an event causes: its jobs, or a read that finds the feed as the event left it."""
        if event in READS:
            await self.world.page(self.reader, 4)
        else:
            for entry in await self.world.pending():
                await self.world.perform(*entry)

    async def check(self) -> None:
        """At rest the feed is what SQL says, though a builder may still be held dead."""
        await self.world.settle()
        for _ in range(2):
            defined = await self.world.defined(self.reader)
            window = await self.world.window(self.reader)
            if window is not None:
                assert {id_ for id_ in defined if id_ >= window.floor} <= set(window.ids)
            assert await self.world.walk(self.reader, [4]) == defined
            await self.world.unlock(self.reader)


Event = Callable[[Scene], Awaitable[None]]
READS: list[Event] = [Scene.nothing, Scene.expire]
EVENTS: list[Event] = [*READS, Scene.post, Scene.publish, Scene.delete, Scene.follow, Scene.unfollow]
PAIRS = [
    (one, other)
    for one, other in itertools.product(EVENTS, EVENTS)
    if one is not Scene.nothing and (one is not other or one in {Scene.expire, Scene.post})
]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda event: event.__name__)
async def test_what_happens_amid_something_else_leaves_the_feed_right(gated: World, one: Event, other: Event) -> None:
    for calls in itertools.count():
        follows = one is not Scene.follow and (one is Scene.unfollow or other is not Scene.follow)
        scene = await Scene.set(gated, follows=follows, materialised=other is not Scene.nothing)
        await one(scene)
        actor = await Actor.begin(scene.come_after(one))
        for _ in range(calls):
            await actor.step()
        if actor.ended:
            break
        await other(scene)
        await scene.come_after(other)
        await actor.finish()
        await scene.check()
    assert calls > 1
