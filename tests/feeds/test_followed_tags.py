"""Posts that come into home feeds by tags: of whom, from when, until when, and whatever happens at once."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from instafeed import feed_sources, feeds
from instafeed.ids import MAX_ID
from instafeed.storage.outbox import Kind
from instafeed.storage.tags import list_id
from instafeed.storage.timelines import Timelines
from tests.feeds.gates import Actor
from tests.feeds.world import World, add_follows, add_posts, viewer

TAG = "harbour"


@pytest.fixture
async def world(world: World) -> World:
    """Where lists of tags are as short as feeds, and no post of another test has a tag."""
    await world.sql("delete from tagged_posts returning 1")
    recents = Timelines(world.res.redis, "recent", window=10, buckets=64, idle_days=14, disorder_seconds=0)
    return World(replace(world.res, recents=recents))


async def same(world: World, *readers: int) -> None:
    """The feeds are what SQL says, in pages of any size, twice: what the first chain of pages builds, the second one reads."""
    for reader in readers:
        defined = await world.defined(reader)
        for limit in (3, 1, 50, 3):
            assert await world.walk(reader, [limit]) == defined


async def test_a_followed_tag_brings_in_posts_of_strangers_that_were_there_and_that_come(world: World) -> None:
    reader, stranger = await world.account(1), await world.account(2)
    old = await world.post(stranger, f"old #{TAG}")
    await world.post(stranger, "untagged")
    await world.settle()
    assert await world.page(reader, 5) == ([], None)
    await world.follow_tag(reader, TAG)
    assert await world.page(reader, 5) == ([old], None)
    new = await world.post(stranger, f"#{TAG.upper()} and #other")
    own = await world.post(reader, f"#{TAG}")
    await world.settle()
    assert await world.page(reader, 5) == ([own, new, old], None)
    await world.unfollow_tag(reader, TAG)
    assert await world.page(reader, 5) == ([own], None)
    await same(world, reader)


async def test_a_post_is_there_once_however_many_ways_it_comes(world: World) -> None:
    reader, friend = await world.account(1), await world.account(2)
    await world.follow(reader, friend)
    for tag in (TAG, "sea"):
        await world.follow_tag(reader, tag)
    posts = [await world.post(friend, f"#{TAG} #sea") for _ in range(4)]
    await world.settle()
    await same(world, reader)
    assert await world.page(reader, 9) == (posts[::-1], None)
    await world.unfollow(reader, friend)
    assert await world.page(reader, 9) == (posts[::-1], None)
    await world.settle()
    await same(world, reader)


@pytest.mark.parametrize("window", [2, 10])
async def test_pages_go_on_below_every_list_to_the_very_end(world: World, window: int) -> None:
    recents = Timelines(world.res.redis, "recent", window=window, buckets=64, idle_days=14, disorder_seconds=0)
    world = World(replace(world.res, recents=recents))
    reader, friend, *strangers = [await world.account(shard) for shard in (1, 2, 3, 4, 5)]
    await add_follows(world, [(reader, friend)])
    await add_posts(world, [friend, *strangers] * 12, [f"#{TAG}", "#sea", "", f"#{TAG} #sea", "#hill"])
    await world.sql("update accounts set is_private = true where id = $1 returning 1", strangers[1])
    for tag in (TAG, "sea", "nobody"):
        await world.follow_tag(reader, tag)
    assert len(await world.defined(reader)) > 25
    await same(world, reader)
    await world.flush()
    await same(world, reader)


async def test_hidden_posts_fill_no_page_and_end_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them in a row than SQL is asked for at once, in Redis's lists and below them."""
    monkeypatch.setattr(feed_sources, "READ_AHEAD", 7)
    reader, *hidden, stranger = [await world.account(shard) for shard in (1, 2, 3, 4, 5)]
    first = await add_posts(world, [stranger] * 3, [f"#{TAG}"])
    await add_posts(world, hidden * 12, [f"#{TAG}"])
    last = await add_posts(world, [stranger] * 3, [f"#{TAG}"])
    await world.follow_tag(reader, TAG)
    await world.sql("update accounts set is_private = true where id = $1 returning 1", hidden[0])
    await world.suspend(hidden[1])
    await world.mute(reader, hidden[2])
    await world.settle()
    assert await world.page(reader, 6) == ([*first, *last][::-1], None)
    await same(world, reader)


async def test_a_page_ends_early_below_too_many_hidden_posts_and_the_next_one_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_sources, "TURNS", 2)
    reader, hidden, stranger = [await world.account(shard) for shard in (1, 2, 3)]
    [first] = await add_posts(world, [stranger], [f"#{TAG}"])
    await add_posts(world, [hidden] * 60, [f"#{TAG}"])
    [last] = await add_posts(world, [stranger], [f"#{TAG}"])
    await world.suspend(hidden)
    await world.follow_tag(reader, TAG)
    monkeypatch.setattr(feed_sources, "READ_AHEAD", 9)
    assert await pages_of(world, reader, 2) == [last, first]


async def test_a_list_of_a_tag_whose_newest_posts_are_all_hidden_is_built_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_sources, "TURNS", 2)
    reader, hidden, stranger = [await world.account(shard) for shard in (1, 2, 3)]
    first, *_ = await add_posts(world, [stranger] + [hidden] * 30, [f"#{TAG}"])
    await add_posts(world, [reader] * 6)
    await world.suspend(hidden)
    await world.follow_tag(reader, TAG)
    mine = (await world.page(reader, 6))[0]
    built = await world.res.recents.read(list_id(TAG), limit=None)
    assert built is not None
    assert not built.to_the_end

    async def begin(*_: object) -> None:
        raise AssertionError("it is built again")

    monkeypatch.setattr(Timelines, "begin_rebuild", begin)
    assert (await world.page(reader, 6))[0] == mine
    assert await pages_of(world, reader, 6) == [*mine, first]
    await world.post(stranger, f"#{TAG}")
    await world.settle()
    assert await pages_of(world, reader, 6) == await world.defined(reader)


async def pages_of(world: World, reader: int, limit: int) -> list[int]:
    ids, position = list[int](), MAX_ID
    for _ in range(100):
        page = await feeds.read_home(world.res, viewer(reader), below=position, limit=limit, render=world.render)
        ids += [id_ for id_, _ in page.items]
        if page.next is None:
            return ids
        assert page.next < position
        position = page.next
    raise AssertionError("the feed comes to an end")


Change = Callable[[World, int, int], Awaitable[None]]


async def private(world: World, _: int, stranger: int) -> None:
    await world.set_private(stranger, True)


async def public(world: World, _: int, stranger: int) -> None:
    await world.set_private(stranger, False)


async def suspend(world: World, _: int, stranger: int) -> None:
    await world.suspend(stranger)


async def unsuspend(world: World, _: int, stranger: int) -> None:
    await world.unsuspend(stranger)


async def blocked(world: World, reader: int, stranger: int) -> None:
    await world.block(stranger, reader)


async def unblocked(world: World, reader: int, stranger: int) -> None:
    await world.unblock(stranger, reader)


async def untag(world: World, reader: int, _: int) -> None:
    await world.unfollow_tag(reader, TAG)


async def tag(world: World, reader: int, _: int) -> None:
    await world.follow_tag(reader, TAG)


HIDING: list[tuple[Change, Change]] = [
    (World.mute, World.unmute),
    (World.block, World.unblock),
    (blocked, unblocked),
    (private, public),
    (suspend, unsuspend),
    (untag, tag),
]


@pytest.mark.parametrize(("hide", "show"), HIDING, ids=lambda change: change.__name__)
async def test_what_hides_a_stranger_hides_at_once_and_what_shows_brings_back(
    world: World, hide: Change, show: Change
) -> None:
    reader, stranger = await world.account(1), await world.account(2)
    await world.follow_tag(reader, TAG)
    posts = [await world.post(stranger, f"#{TAG}") for _ in range(3)][::-1]
    await world.settle()
    for built in (False, True):
        assert await world.page(reader, 5) == (posts, None)
        await hide(world, reader, stranger)
        if built:  # while they are hidden: nothing of them is in the list then
            await world.expire_recents(list_id(TAG))
        assert await world.page(reader, 5) == ([], None)
        await world.settle()
        assert await world.page(reader, 5) == ([], None)
        await show(world, reader, stranger)
        await world.settle()
        await same(world, reader)
        assert await world.page(reader, 5) == (posts, None)


async def test_somebody_private_shows_tagged_posts_to_followers_only(world: World) -> None:
    reader, stranger, author = [await world.account(shard) for shard in (1, 2, 3)]
    await add_follows(world, [(reader, author)])
    await world.set_private(author, True)
    for who in (reader, stranger):
        await world.follow_tag(who, TAG)
    post = await world.post(author, f"#{TAG}")
    await world.settle()
    assert await world.page(reader, 5) == ([post], None)
    assert await world.page(stranger, 5) == ([], None)
    assert await world.res.recents.entries(list_id(TAG)) == []


async def test_an_edit_takes_a_post_out_at_once_and_another_one_brings_it_in(world: World) -> None:
    reader, stranger = await world.account(1), await world.account(2)
    await world.follow_tag(reader, TAG)
    posts = [await world.post(stranger, f"#{TAG}") for _ in range(3)]
    await world.settle()
    await same(world, reader)
    await world.edit(stranger, posts[1], "#other")
    assert await world.page(reader, 5) == ([posts[2], posts[0]], None)
    await world.expire_recents(list_id(TAG))
    await same(world, reader)
    await world.edit(stranger, posts[1], f"#{TAG} again")
    await world.settle()
    assert posts[1] in await world.res.recents.entries(list_id(TAG))
    await same(world, reader)
    await world.delete(stranger, posts[2])
    assert await world.page(reader, 5) == ([posts[1], posts[0]], None)


async def test_an_edit_that_brings_no_tag_causes_no_work(world: World) -> None:
    author = await world.account(1)
    post, draft = await world.post(author, f"#{TAG}"), await world.draft(author)
    await world.settle()
    for id_, caption in ((post, f"still #{TAG}"), (post, "none"), (draft, f"#{TAG}")):
        await world.edit(author, id_, caption)
        assert await world.pending() == []
    await world.edit(author, post, f"#{TAG}")
    assert [kind for _, kind in await world.pending()] == [Kind.TAG]


async def test_all_posts_of_who_goes_public_come_back_though_the_job_is_killed(
    gated: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instafeed.delivery._TAG_CHUNK", 2)
    world = gated
    tags = [f"{TAG}{number}" for number in range(3)]
    for calls in itertools.count():
        reader, author = await world.account(1), await world.account(2)
        await world.set_private(author, True)
        await world.settle()
        for name in tags:
            await world.follow_tag(reader, name)
        posts = await add_posts(world, [author] * 5, [f"#{name}" for name in tags])
        await world.page(reader, 9)
        await world.set_private(author, False)
        [entry] = [entry for entry in await world.pending() if entry[1] is Kind.TAG]
        job = await Actor.begin(world.perform(*entry))
        for _ in range(calls):
            await job.step()
        ended = job.ended
        await job.kill()
        await world.settle()
        held = [set(await world.res.recents.entries(list_id(name))) for name in tags]
        assert set.union(*held) >= set(posts)
        assert [id_ for id_ in (await world.page(reader, 50))[0] if id_ in posts] == posts[::-1]
        if ended:
            break
    assert calls > 5


async def test_what_redis_forgot_of_a_tags_list_is_brought_again(world: World) -> None:
    reader, stranger = await world.account(1), await world.account(2)
    await world.follow_tag(reader, TAG)
    await same(world, reader)
    posts = [await world.post(stranger) for _ in range(2)]
    await world.edit(stranger, posts[0], f"#{TAG}")
    posts.append(await world.post(stranger, f"#{TAG}"))
    await world.settle()
    await world.res.recents.remove(list_id(TAG), posts)
    await world.sql(
        "update outbox set done_at = null, position = 0 where kind in ('tag', 'fan_out') and (payload->>'author')::bigint = $1"
        " returning id",
        stranger,
    )
    await world.settle()
    assert await world.res.recents.entries(list_id(TAG)) == [posts[2], posts[0]]


async def test_who_follows_no_tag_asks_for_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, stranger = await world.account(1), await world.account(2)
    await world.post(stranger, f"#{TAG}")
    await world.settle()
    await world.page(reader, 5)

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("nothing is to be merged")

    monkeypatch.setattr(world.res.recents, "read_many", asked)
    assert await world.page(reader, 5) == ([], None)


@dataclass
class Scene:
    """A reader, a stranger with posts of which some have the tag, and whatever else happens."""

    world: World
    reader: int
    stranger: int
    posts: list[int]
    draft: int

    @classmethod
    async def set(cls, world: World, *, follows: bool, private: bool) -> "Scene":
        reader, stranger = await world.account(1), await world.account(2)
        draft = await world.draft(stranger, f"#{TAG}")
        posts = await add_posts(world, [stranger] * 4, [f"#{TAG}", ""])
        if private:
            await world.set_private(stranger, True)
        if follows:
            await world.follow_tag(reader, TAG)
        await world.settle()
        await world.flush()
        await world.materialise(reader)
        return cls(world, reader, stranger, posts, draft)

    async def read(self) -> None:
        await self.world.expire_recents(list_id(TAG))

    async def publish(self) -> None:
        await self.world.publish(self.draft)

    async def edit_in(self) -> None:
        await self.world.edit(self.stranger, self.posts[1], f"#{TAG}")

    async def edit_out(self) -> None:
        await self.world.edit(self.stranger, self.posts[2], "")

    async def tag(self) -> None:
        await self.world.follow_tag(self.reader, TAG)

    async def untag(self) -> None:
        await self.world.unfollow_tag(self.reader, TAG)

    async def hide(self) -> None:
        await self.world.set_private(self.stranger, True)

    async def show(self) -> None:
        await self.world.set_private(self.stranger, False)

    async def whole(self, event: "Event") -> None:
        """An event, and what it causes."""
        await event(self)
        if event is Scene.read:
            await self.world.page(self.reader, 4)
        for entry in await self.world.pending():
            await self.world.perform(*entry)


Event = Callable[[Scene], Awaitable[None]]
EVENTS: list[Event] = [Scene.publish, Scene.edit_in, Scene.edit_out, Scene.tag, Scene.untag, Scene.hide, Scene.show]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
@pytest.mark.parametrize("other", [Scene.read, None], ids=["read", "amid"])
async def test_a_read_and_a_change_at_once_leave_the_feed_right(
    gated: World, event: Event, other: Event | None
) -> None:
    """The one stops before any of its calls of a server, and the other happens in full."""
    world = gated
    for calls in itertools.count():
        await world.sql("delete from tagged_posts returning 1")
        scene = await Scene.set(world, follows=event is not Scene.tag, private=event is Scene.show)
        await scene.read()
        first, second = (Scene.read, event) if other else (event, Scene.read)
        actor = await Actor.begin(scene.whole(first))
        for _ in range(calls):
            await actor.step()
        ended = actor.ended
        await scene.whole(second)
        if event is Scene.edit_out and other:
            assert scene.posts[2] not in (await world.page(scene.reader, 9))[0], "its answer was before this read"
        await actor.finish()
        await world.settle()
        for _ in range(2):
            assert await world.walk(scene.reader, [3]) == await world.defined(scene.reader)
            await world.end_holds()
        if ended:
            break
    assert calls >= 3


async def test_an_old_post_that_comes_while_a_list_is_built_hides_none_between(
    gated: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the tag's newest posts so many may not be shown that the list is built of few, from far up only."""
    monkeypatch.setattr(feed_sources, "TURNS", 2)
    world = gated
    for calls in itertools.count():
        await world.sql("delete from tagged_posts returning 1")
        reader, hidden, stranger = [await world.account(shard) for shard in (1, 2, 3)]
        old, _ = await add_posts(world, [stranger] * 2, ["", f"#{TAG}"])
        await add_posts(world, [hidden] * 30, [f"#{TAG}"])
        await add_posts(world, [stranger] * 3, [f"#{TAG}"])
        await world.suspend(hidden)
        await world.follow_tag(reader, TAG)
        await world.settle()
        await world.page(reader, 1)
        await world.expire_recents(list_id(TAG))
        read = await Actor.begin(world.page(reader, 4))
        for _ in range(calls):
            await read.step()
        ended = read.ended
        await world.edit(stranger, old, f"#{TAG}")
        await world.settle()
        await read.finish()
        assert await pages_of(world, reader, 3) == await world.defined(reader)
        if ended:
            break
    assert calls > 5


@pytest.mark.parametrize("keep_away", [World.mute, World.block])
async def test_a_read_amid_the_end_of_the_last_tag_shows_nobody_who_is_kept_away(
    gated: World, keep_away: Callable[[World, int, int], Awaitable[None]]
) -> None:
    """Of who follows no tag it is not cached who these are; the read goes by the tag that was followed when it began."""
    world = gated
    for calls in itertools.count():
        await world.sql("delete from tagged_posts returning 1")
        await world.flush()
        reader, stranger = await world.account(1), await world.account(2)
        await add_posts(world, [stranger], [f"#{TAG}"])
        await world.follow_tag(reader, TAG)
        await keep_away(world, reader, stranger)
        await world.settle()
        for _ in range(2):
            assert await world.page(reader, 5) == ([], None)
        pages: list[list[int]] = []

        async def read(reader: int = reader, pages: list[list[int]] = pages) -> None:
            pages.append((await world.page(reader, 5))[0])

        actor = await Actor.begin(read())
        for _ in range(calls):
            await actor.step()
        ended = actor.ended
        await world.unfollow_tag(reader, TAG)
        await world.page(reader, 5)
        await actor.finish()
        assert pages == [[]]
        if ended:
            break
    assert calls > 3
