"""The caches of rights and posts, between two processes: one fills them with what the database says, the other one changes it."""

import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from instafeed import feeds, telemetry
from instafeed.ids import MAX_ID
from instafeed.storage import post_cache
from instafeed.storage.post_cache import PostCache
from instafeed.storage.rights_cache import RightsCache, Sides
from tests.feeds.gates import Actor, GatedDatabase
from tests.feeds.world import World, add_follows, add_posts, render, shown, viewer
from tests.redis import redis_client

Shown = dict[int, bytes]


def cache_reads() -> dict[tuple[str, str], float]:
    """How often each cache was asked, by what came of it."""
    [family] = telemetry.CACHE_READS.collect()
    return {
        (sample.labels["cache"], sample.labels["outcome"]): sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
    }


async def read(world: World, account: int) -> Shown:
    page = await feeds.read_home(world.res, viewer(account), below=MAX_ID, limit=20, render=render)
    return {id_: post.json for id_, post in page.items}


@dataclass
class Scene:
    """A reader of one post, by an author whom it follows; nothing is cached."""

    world: World
    reader: int
    author: int
    post: int

    @classmethod
    async def set(cls, world: World) -> "Scene":
        reader, author = await world.account(3), await world.account(4)
        [post] = await add_posts(world, [author])
        await add_follows(world, [(reader, author)])
        await world.flush()
        await world.materialise(reader)
        await world.end_holds()
        scene = cls(world, reader, author, post)
        await scene.forget()
        return scene

    async def forget(self) -> None:
        """Another process has cached nothing, and so has Redis."""
        res = self.world.res
        await res.rights.release(await res.rights.hold([self.reader]))
        await res.post_cache.release(await res.post_cache.hold([self.post]))

    async def unfollow(self) -> None:
        await self.world.unfollow(self.reader, self.author)

    async def remove(self) -> None:
        await self.world.remove_follower(self.author, self.reader)

    async def mute(self) -> None:
        await self.world.mute(self.reader, self.author)

    async def block(self) -> None:
        await self.world.block(self.author, self.reader)

    async def suspend(self) -> None:
        await self.world.suspend(self.author)

    async def delete(self) -> None:
        await self.world.delete(self.author, self.post)

    async def edit(self) -> None:
        await self.world.edit(self.author, self.post, "new")

    async def rename(self) -> None:
        await self.world.rename(self.author, "new")


Change = Callable[[Scene], Coroutine[Any, Any, None]]
CHANGES: list[Change] = [
    Scene.unfollow,
    Scene.remove,
    Scene.mute,
    Scene.block,
    Scene.suspend,
    Scene.delete,
    Scene.edit,
    Scene.rename,
]


def left(scene: Scene, change: Change) -> Shown:
    """What the reader sees after the change."""
    if change is Scene.edit:
        return {scene.post: shown("new", 0)}
    return {scene.post: shown("", 0)} if change is Scene.rename else {}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_a_fill_that_began_before_a_change_does_not_outlast_it(gated: World, change: Change) -> None:
    """The fill stops before each of its calls, and the change happens in full."""
    for calls in itertools.count():
        scene = await Scene.set(gated)
        fill = await Actor.begin(read(gated, scene.reader))
        for _ in range(calls):
            await fill.step()
        ended = fill.ended
        await change(scene)
        assert await read(gated, scene.reader) == left(scene, change)
        await fill.finish()
        for _ in range(2):
            assert await read(gated, scene.reader) == left(scene, change)
        if ended:
            break
    assert calls > 5


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("fill_ends_first", [True, False])
async def test_a_fill_amid_a_change_does_not_outlast_it(gated: World, change: Change, fill_ends_first: bool) -> None:
    """The change stops before its commit and before all that it does afterwards; a fill goes on beside it."""
    for before, after in itertools.product((1, 2, 3), range(0, 8, 2)):
        scene = await Scene.set(gated)
        changing = await Actor.begin(change(scene))
        for _ in range(before):
            await changing.step()
        fill = await Actor.begin(read(gated, scene.reader))
        for _ in range(after):
            await fill.step()
        for actor in (fill, changing) if fill_ends_first else (changing, fill):
            await actor.finish()
        assert await read(gated, scene.reader) == left(scene, change)
        await gated.end_holds()
        for _ in range(2):
            assert await read(gated, scene.reader) == left(scene, change)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_a_process_is_killed_amid_a_change(gated: World, change: Change) -> None:
    """Whether it had committed or not: what is read meanwhile, and when what it held has ended, is what is committed."""
    for calls in itertools.count():
        scene = await Scene.set(gated)
        await read(gated, scene.reader)
        changing = await Actor.begin(change(scene))
        for _ in range(calls):
            await changing.step()
        ended = changing.ended
        await changing.kill()
        defined = await gated.defined_posts(scene.reader)
        for _ in range(2):
            assert await read(gated, scene.reader) == defined
        fill = await Actor.begin(read(gated, scene.reader))
        await fill.step()
        await gated.end_holds()
        await fill.finish()
        for _ in range(2):
            assert await read(gated, scene.reader) == defined
        if ended:
            break
    assert calls > 1


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_redis_is_emptied_amid_a_change(gated: World, change: Change) -> None:
    for before, after in itertools.product((1, 2), range(1, 8, 2)):
        scene = await Scene.set(gated)
        changing = await Actor.begin(change(scene))
        for _ in range(before):
            await changing.step()
        await gated.flush()
        fill = await Actor.begin(read(gated, scene.reader))
        for _ in range(after):
            await fill.step()
        await changing.finish()
        assert await read(gated, scene.reader) == left(scene, change)
        await fill.finish()
        for _ in range(2):
            assert await read(gated, scene.reader) == left(scene, change)


async def test_a_hold_that_a_killed_process_left_lets_nobody_fill(gated: World) -> None:
    scene = await Scene.set(gated)
    changing = await Actor.begin(scene.unfollow())
    await changing.step()
    assert cast("GatedDatabase", gated.res.db).in_transaction
    await changing.kill()
    assert await read(gated, scene.reader) == {scene.post: shown("", 0)}, "nothing was committed"
    assert await gated.res.rights.finish_look(await gated.res.rights.begin_look(scene.reader)) is None
    await gated.end_holds()
    await read(gated, scene.reader)
    assert await gated.res.rights.finish_look(await gated.res.rights.begin_look(scene.reader)) is not None


async def test_a_post_stays_held_while_all_of_its_author_is_released(world: World) -> None:
    """An edit has not committed yet when a change of the author's name is over."""
    author = await world.account()
    [post] = await add_posts(world, [author])
    cache = world.res.post_cache
    edit = await cache.hold([post])
    rename = await cache.hold_author(author, [post])
    assert await cache.begin_fill([post]) == []
    await cache.release(rename)
    assert await cache.begin_fill([post]) == []
    await cache.release(edit)
    assert len(await cache.begin_fill([post])) == 1


async def test_of_two_holds_the_later_one_counts(world: World) -> None:
    author = await world.account()
    [post] = await add_posts(world, [author])
    cache = world.res.post_cache
    first = await cache.hold([post])
    second = await cache.hold([post])
    await cache.release(first)
    assert await cache.begin_fill([post]) == []
    await cache.release(second)
    assert len(await cache.begin_fill([post])) == 1

    rights = world.res.rights
    one, other = await rights.hold([author]), await rights.hold([author])
    await rights.release(one)
    fill = await rights.begin_fill(author)
    assert fill is not None
    await rights.finish_fill(fill, Sides([], []), [], [])
    assert await rights.finish_look(await rights.begin_look(author)) is None
    await rights.release(other)
    fill = await rights.begin_fill(author)
    assert fill is not None
    await rights.finish_fill(fill, Sides([], []), [], [])
    assert await rights.finish_look(await rights.begin_look(author)) is not None


async def test_what_one_process_caches_the_change_of_another_one_takes_out(gated: World) -> None:
    """Each keeps posts that it has fetched; whether they are still what is shown is asked at every read."""
    scene = await Scene.set(gated)
    redis = gated.res.redis
    other = World(
        replace(gated.res, rights=RightsCache(redis, buckets=64), post_cache=PostCache(redis, buckets=64)),
    )
    for world in (gated, other, gated):
        assert await read(world, scene.reader) == {scene.post: shown("", 0)}
    await replace(scene, world=other).edit()
    assert await read(gated, scene.reader) == {scene.post: shown("new", 0)}
    await replace(scene, world=other).delete()
    assert await read(gated, scene.reader) == {}


async def test_the_cache_says_what_was_edited_once_it_is_filled_again(gated: World) -> None:
    scene = await Scene.set(gated)
    await scene.edit()
    await read(gated, scene.reader)
    found = await gated.res.post_cache.finish_look(await gated.res.post_cache.begin_look([scene.post]))
    assert found.posts[scene.post].json == shown("new", 0)


async def test_what_another_release_made_is_not_shown_and_made_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two releases run side by side while the newer one is deployed: each shows posts in its own form."""
    author = await world.account()
    [post] = await add_posts(world, [author])
    old = World.of(world.res, post_cache=PostCache(world.res.redis, buckets=64))
    new = World.of(world.res, post_cache=PostCache(world.res.redis, buckets=64))
    monkeypatch.setattr(old, "render", lambda _: b"old", raising=False)
    monkeypatch.setattr(new, "render", lambda _: b"new", raising=False)
    for _ in range(3):
        for release, form in ((old, b"old"), (new, b"new")):
            monkeypatch.setattr(post_cache, "_FORMAT", form[:1] * 4)
            for _ in range(2):
                page = await feeds.read_home(release.res, viewer(author), below=MAX_ID, limit=5, render=release.render)
                assert [(id_, shown.json) for id_, shown in page.items] == [(post, form)]
    for release in (old, new):
        await release.res.queue.close()


async def test_it_is_counted_what_the_caches_know(world: World) -> None:
    counted = []
    before = cache_reads()
    there = await Scene.set(world)
    for step in (None, read, read, read):
        if step:
            assert await step(world, there.reader)
        now = cache_reads()
        counted.append({of for of, count in now.items() if count != before.get(of, 0)})
        before = now
    assert counted[0] >= {("counts", "miss"), ("marks", "miss")}
    # Services of other tests in this process may be counted, too.
    assert counted[1] >= {("rights", "miss"), ("marks", "hit"), ("posts", "miss")}
    assert counted[2] >= {("rights", "hit"), ("marks", "hit"), ("posts", "hit")}
    assert counted[3] >= {("rights", "hit"), ("marks", "hit"), ("posts", "near")}


async def test_a_post_is_cached_no_longer_than_the_url_of_its_authors_photo(world: World) -> None:
    there = await Scene.set(world)
    blobs = world.res.blobs
    # Of sixteen phases, one that ends soon, but not amid this test.
    keys = [f"renditions/{number}/150.jpg" for number in range(200)]
    key = min((key for key in keys if blobs.url_seconds_left(key) > 120), key=blobs.url_seconds_left)
    avatar = [{"name": "150", "key": key, "width": 150, "height": 150, "content_type": "image/jpeg", "size": 1}]
    await world.sql("update accounts set avatar = $2 where id = $1 returning 1", there.author, avatar)
    assert await read(world, there.reader)
    async with redis_client(world.res.settings) as redis:
        keys = [key async for key in redis.scan_iter(f"post:*{there.post}*")]
        lives = [await redis.ttl(key) for key in keys]
    assert 0 < max(lives) <= blobs.url_seconds_left(key) + 30, "a test may be slow, an hour is none"
