"""Counters while many count at once, and the caches of counts and marks between two processes."""

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from instafeed import comments, likes, posts, reactions, saves
from instafeed.errors import Invalid, NotFound
from instafeed.ids import shard_of
from instafeed.models import NO_MARKS, Counts, Marks
from instafeed.storage import comments as comment_rows
from instafeed.storage import count_cache, counters, locks, mark_cache
from instafeed.storage import likes as like_rows
from instafeed.storage import posts as post_rows
from instafeed.storage.comments import CommentRow
from instafeed.storage.count_cache import CountCache
from instafeed.storage.mark_cache import MarkCache
from tests.client import eventually
from tests.feeds.gates import Actor
from tests.feeds.world import World, add_posts, add_rows, viewer

LIKED, SAVED = Marks(liked=True, saved=False), Marks(liked=False, saved=True)


async def act(world: World, pick: random.Random, people: list[int], post_ids: list[int]) -> None:
    """Somebody does something, once or twice."""
    me, post_id, res = viewer(pick.choice(people)), pick.choice(post_ids), world.res
    what, times, text = pick.randrange(7), pick.choice((1, 1, 2)), "Nice"
    known = await world.sql("select id from comments where post_id = $1", post_id)
    some = pick.choice(known) if known else None
    for _ in range(times):
        with suppress(NotFound, Invalid):
            match what:
                case 0 | 1:
                    await likes.like(res, me, post_id)
                case 2:
                    await likes.unlike(res, me, post_id)
                case 3:
                    await (saves.save if times == 1 else saves.unsave)(res, me, post_id)
                case 4 | 5:
                    comment_id = res.ids.next(shard_of(post_id))
                    await comments.create(res, me, comment_id, post_id, text=text, reply_to=some)
                case _ if some is not None:
                    await comments.delete(res, me, some)


async def counted(world: World, subjects: list[int]) -> dict[int, Counts]:
    async with world.res.db.acquire() as connection:
        return await counters.get_many(connection, subjects)


async def rows(world: World, table: str, column: str, id_: int) -> int:
    [found] = await world.sql(f"select count(*) from {table} where {column} = $1", id_)
    return int(found)


@pytest.mark.parametrize("seed", range(3))
async def test_counts_equal_rows_after_all_that_happens_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(comments, "CHUNK", 2)
    monkeypatch.setattr(posts, "_CHUNK", 3)
    monkeypatch.setattr(posts, "_CHUNKS", 2)
    pick = random.Random(seed)
    people = [await world.account(shard) for shard in range(5)]
    kept, doomed = await add_posts(world, [people[0], people[1]])
    await asyncio.gather(*(act(world, pick, people, [kept, doomed]) for _ in range(60)))
    await asyncio.gather(
        *(act(world, pick, people, [kept, doomed]) for _ in range(15)),
        world.delete(people[1], doomed),
        *(act(world, pick, people, [kept, doomed]) for _ in range(15)),
    )
    await world.settle()
    found = Counts(await rows(world, "likers", "post_id", kept), await rows(world, "comments", "post_id", kept))
    assert (await counted(world, [kept]))[kept] == found
    assert await rows(world, "likes", "post_id", kept) == found.likes
    assert await rows(world, "savers", "post_id", kept) == await rows(world, "saves", "post_id", kept)
    assert await world.sql("select comment_id from commented where account_id = any($1) order by 1", people) == (
        await world.sql("select id from comments where post_id = $1 order by 1", kept)
    )
    first = await world.sql("select id from comments where post_id = $1 and parent_id is null", kept)
    assert {id_: counts.comments for id_, counts in (await counted(world, first)).items()} == {
        id_: await rows(world, "comments", "parent_id", id_) for id_ in first
    }
    for table in ("likes", "likers", "saves", "savers", "comments"):
        assert await rows(world, table, "post_id", doomed) == 0, table
    # Of the doomed post and its comments; what other tests counted is older.
    left = "select 1 from counters where shard = $1 and subject_id > $2 and subject_id <> $3"
    assert await world.sql(left, shard_of(doomed), people[0], kept) == []


async def test_two_who_count_at_once_do_not_wait_for_each_other(world: World) -> None:
    [post] = await add_posts(world, [await world.account()])
    slots = [{"shard": shard_of(post), "subject_id": post, "slot": slot} for slot in (3, 5)]
    await add_rows(world, "counters", slots)
    async with world.res.db.acquire() as one, one.transaction():
        await counters.add(one, post, likes=1)
        async with world.res.db.acquire() as other, other.transaction():
            await other.execute("set local lock_timeout = '3s'")
            await counters.add(other, post, likes=1)
    assert await world.sql("select likes from counters where subject_id = $1", post) == [1, 1]


async def test_those_who_count_one_after_the_other_take_one_slot(world: World) -> None:
    author = await world.account()
    [post] = await add_posts(world, [author])
    for _ in range(4):
        await likes.like(world.res, viewer(author), post)
        await likes.unlike(world.res, viewer(author), post)
    assert await rows(world, "counters", "subject_id", post) == 1
    assert (await counted(world, [post]))[post] == Counts(0, 0)


async def waiting(world: World, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """The work, once it waits for a lock on a post or a comment."""
    task = asyncio.create_task(work)
    await eventually(lambda: world.sql("select 1 from pg_locks where locktype = 'advisory' and not granted"))
    return task


async def test_nothing_is_added_to_a_post_that_is_being_deleted(world: World) -> None:
    me = await world.account()
    [post] = await add_posts(world, [me])
    async with world.res.db.acquire() as connection, connection.transaction():
        await locks.seize(connection, post)
        await post_rows.delete(connection, post, me)
        comment = partial(comments.create, text="late", reply_to=None)
        tasks = [
            await waiting(world, work)
            for work in (
                likes.like(world.res, viewer(me), post),
                saves.save(world.res, viewer(me), post),
                comment(world.res, viewer(me), world.res.ids.next(shard_of(post)), post),
            )
        ]
    for task in tasks:
        with pytest.raises(NotFound):
            await task


async def test_a_post_is_deleted_once_nothing_more_is_added_to_it(world: World) -> None:
    me = await world.account()
    [post] = await add_posts(world, [me])
    async with world.res.db.acquire() as connection, connection.transaction():
        await locks.share(connection, post)
        await like_rows.insert(connection, world.res.ids.next(shard_of(me)), account_id=me, post_id=post)
        deleting = await waiting(world, world.delete(me, post))
    await deleting
    await world.settle()
    assert [await rows(world, table, "post_id", post) for table in ("likes", "likers")] == [0, 0]


async def test_nothing_replies_to_a_comment_that_is_being_deleted(world: World) -> None:
    me = await world.account()
    [post] = await add_posts(world, [me])
    first, reply = [world.res.ids.next(shard_of(post)) for _ in range(2)]
    create = partial(comments.create, world.res, viewer(me), post_id=post, text="Nice")
    row = CommentRow((await create(first, reply_to=None)).id, post, None, me, "Nice")
    async with world.res.db.acquire() as connection, connection.transaction():
        await locks.seize(connection, first)
        await comment_rows.delete(connection, row)
        replying = await waiting(world, create(reply, reply_to=first))
    with pytest.raises(Invalid):
        await replying


@dataclass
class Scene:
    """A reader and a post."""

    world: World
    reader: int
    post: int

    @classmethod
    async def set(cls, world: World, before: Marks) -> "Scene":
        scene = cls(world, await world.account(3), (await add_posts(world, [await world.account(4)]))[0])
        if before.liked:
            await scene.like()
        await world.flush()
        return scene

    async def like(self) -> None:
        await likes.like(self.world.res, viewer(self.reader), self.post)

    async def unlike(self) -> None:
        await likes.unlike(self.world.res, viewer(self.reader), self.post)

    async def save(self) -> None:
        await saves.save(self.world.res, viewer(self.reader), self.post)

    async def read(self) -> tuple[Counts, Marks]:
        """What a page of the feed shows beside the post."""
        res = self.world.res
        look = await reactions.begin_look(res, self.reader, [self.post])
        counts, marks = await reactions.finish_look(res, self.reader, look, res.db.acquire)
        return counts[self.post], marks.get(self.post, NO_MARKS)

    async def marks(self) -> Marks:
        return (await self.read())[1]

    async def defined(self) -> Marks:
        of = "account_id = $1 and post_id = $2"
        liked = await self.world.sql(f"select 1 from likes where {of}", self.reader, self.post)
        saved = await self.world.sql(f"select 1 from saves where {of}", self.reader, self.post)
        return Marks(bool(liked), bool(saved))


@pytest.fixture
def gated(gated: World) -> World:
    """The caches of counts and marks behind gates too."""
    redis = gated.res.redis
    return World.of(gated.res, marks=MarkCache(redis, buckets=64), counts=CountCache(redis, buckets=64))


Change = Callable[[Scene], Coroutine[Any, Any, None]]
changes = pytest.mark.parametrize(
    ("change", "before", "after"),
    [(Scene.like, NO_MARKS, LIKED), (Scene.unlike, LIKED, NO_MARKS), (Scene.save, NO_MARKS, SAVED)],
    ids=["like", "unlike", "save"],
)


@changes
async def test_a_fill_that_began_before_a_change_does_not_outlast_it(
    gated: World, change: Change, before: Marks, after: Marks
) -> None:
    """The fill stops before each of its calls, and the change happens in full."""
    for calls in itertools.count():
        scene = await Scene.set(gated, before)
        fill = await Actor.begin(scene.read())
        for _ in range(calls):
            await fill.step()
        ended = fill.ended
        await change(scene)
        assert await scene.marks() == after
        await fill.finish()
        for _ in range(2):
            assert await scene.marks() == after
        if ended:
            break
    assert calls > 5


@changes
@pytest.mark.parametrize("fill_ends_first", [True, False])
async def test_a_fill_amid_a_change_does_not_outlast_it(
    gated: World, change: Change, before: Marks, after: Marks, fill_ends_first: bool
) -> None:
    for steps, of_fill in itertools.product((1, 2), range(2, 12)):
        scene = await Scene.set(gated, before)
        changing = await Actor.begin(change(scene))
        for _ in range(steps):
            await changing.step()
        fill = await Actor.begin(scene.read())
        for _ in range(of_fill):
            await fill.step()
        for actor in (fill, changing) if fill_ends_first else (changing, fill):
            await actor.finish()
        for _ in range(2):
            assert await scene.marks() == after


@changes
async def test_a_process_is_killed_amid_a_change(gated: World, change: Change, before: Marks, after: Marks) -> None:
    for calls in itertools.count():
        scene = await Scene.set(gated, before)
        await scene.read()
        changing = await Actor.begin(change(scene))
        for _ in range(calls):
            await changing.step()
        ended = changing.ended
        await scene.read()
        await changing.step()
        await changing.kill()
        defined = await scene.defined()
        assert defined in {before, after}
        assert await scene.marks() == defined
        await gated.end_holds()
        for _ in range(2):
            assert await scene.marks() == defined
        if ended:
            break
    assert calls > 1


@changes
async def test_redis_is_emptied_amid_a_change(gated: World, change: Change, before: Marks, after: Marks) -> None:
    for steps, of_fill in itertools.product((1, 2), range(2, 12, 2)):
        scene = await Scene.set(gated, before)
        changing = await Actor.begin(change(scene))
        for _ in range(steps):
            await changing.step()
        await gated.flush()
        fill = await Actor.begin(scene.read())
        for _ in range(of_fill):
            await fill.step()
        await changing.finish()
        assert await scene.marks() == after
        await fill.finish()
        for _ in range(2):
            assert await scene.marks() == after


async def test_counts_that_were_read_before_a_like_end_soon_after_it(
    gated: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count_cache, "LAG_MILLISECONDS", 200)
    monkeypatch.setattr(count_cache, "NEAR_SECONDS", 0)
    for calls in itertools.count():
        scene = await Scene.set(gated, NO_MARKS)
        fill = await Actor.begin(scene.read())
        for _ in range(calls):
            await fill.step()
        ended = fill.ended
        await scene.like()
        await fill.finish()

        async def shown(scene: Scene = scene) -> bool:
            return (await scene.read())[0] == Counts(1, 0)

        await eventually(shown)
        if ended:
            break
    assert calls > 5


async def test_of_posts_older_than_the_newest_marks_the_database_is_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reactions, "NEWEST", 2)
    monkeypatch.setattr(mark_cache, "_MOST", 4)
    me = await world.account()
    marked = await add_posts(world, [await world.account()] * 8)
    for number, post_id in enumerate(marked):
        await (likes.like if number % 2 else saves.save)(world.res, viewer(me), post_id)

    async def read() -> list[Marks]:
        look = await reactions.begin_look(world.res, me, marked[::-1])
        found = await reactions.finish_look(world.res, me, look, world.res.db.acquire)
        return [found.marks.get(id_, NO_MARKS) for id_ in marked]

    for _ in range(2):
        assert await read() == [SAVED, LIKED] * 4
    for post_id in marked[1::2]:
        await likes.unlike(world.res, viewer(me), post_id)
        await likes.like(world.res, viewer(me), post_id)
        assert await read() == [SAVED, LIKED] * 4
    await likes.unlike(world.res, viewer(me), marked[1])
    assert await read() == [SAVED, NO_MARKS, *[SAVED, LIKED] * 3]
