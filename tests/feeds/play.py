"""Histories of a small community, step by step, and what must hold during and after each."""

import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import pytest

from instafeed import delivery, feed_sources, feeds
from instafeed.entities import tags_in
from instafeed.errors import Conflict, NotFound, Unauthenticated
from instafeed.ids import MAX_ID
from instafeed.storage.outbox import Kind
from instafeed.storage.tags import list_id
from instafeed.storage.timelines import Timelines
from tests.feeds.conftest import timelines_of
from tests.feeds.gates import Actor, GatedDatabase
from tests.feeds.world import World, add_follows, add_posts, render, shown, viewer

ACTORS = 5
SHARDS = (5, 5, 69, 8191)  # two accounts share one, and three a bucket


class Step(NamedTuple):
    """What happens next; the numbers choose whom and what it is about."""

    name: str
    one: int = 0
    other: int = 0


@dataclass(frozen=True)
class Past:
    """What has happened, and come to rest, before the first step; accounts are named by their places."""

    window: int = 10
    disorder: int = 3
    """In milliseconds."""
    celebrity: int = 1000
    """Whoever has more followers is a celebrity; from this number down, no more."""
    at_once: int = 1000
    """More followers are served in chunks of so many."""
    read_ahead: int = 12
    posts: list[int] = field(default_factory=list)
    """Their authors, oldest post first."""
    tagged: list[int] = field(default_factory=lambda: [0])
    """Which tags they have, over and over: none, one, the other, both."""
    tags: set[tuple[int, int]] = field(default_factory=set)
    """Who follows which."""
    follows: set[tuple[int, int]] = field(default_factory=set)
    private: set[int] = field(default_factory=set)
    deliveries: dict[int, int] = field(default_factory=dict)
    """How posts of some reach followers."""
    materialised: set[int] = field(default_factory=set)


@dataclass(eq=False)  # of two that know the same, each is its own
class Reading:
    """A read that is under way, and what it must not show."""

    account: int
    forbidden: set[int]
    """Authors, unless a tag brings their posts in."""
    away: set[int]
    """Authors whose posts no tag may bring in."""
    tags: set[str]
    """Those that may be followed."""
    captions: dict[int, set[str]]
    """What may stand under each post that was there."""
    gone: set[int]


@dataclass
class Play:
    """One sequence of steps in a world."""

    world: World
    accounts: list[int] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)
    authors: dict[int, int] = field(default_factory=dict)
    """Of all posts."""
    captions: Counter[int] = field(default_factory=Counter)
    """How often each post was edited."""
    deleting: set[int] = field(default_factory=set)
    editing: dict[int, list[str]] = field(default_factory=dict)
    """What posts may show that are being edited."""
    granting: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Whose sight of whom is being changed."""
    opening: Counter[int] = field(default_factory=Counter)
    """Whose sight by everybody is."""
    tags: list[str] = field(default_factory=list)
    tagging: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Who is changing whether they follow which."""
    readings: list[Reading] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._db = cast("GatedDatabase", self.world.res.db)
        self._truth = World(replace(self.world.res, db=self._db.ungated))

    async def begin(self, past: Past) -> None:
        await self.world.sql("update outbox set done_at = now() where done_at is null returning 1")
        self.accounts = [await self.world.account(shard) for shard in SHARDS]
        authors = [self.accounts[place] for place in past.posts]
        self.tags = [f"{name}{self.accounts[0]}" for name in "ab"]
        captions = [self.caption("past", tagged) for tagged in past.tagged]
        self.authors = dict(zip(await add_posts(self.world, authors, captions), authors, strict=True))
        for place, tag in past.tags:
            await self.world.follow_tag(self.accounts[place], self.tags[tag])
        await add_follows(
            self.world, {(self.accounts[one], self.accounts[other]) for one, other in past.follows if one != other}
        )
        await self.world.sql(
            "update accounts set is_private = true where id = any($1) returning 1",
            [self.accounts[place] for place in past.private],
        )
        for place, way in past.deliveries.items():
            await self.world.sql(
                "update accounts set delivery = $2 where id = $1 returning 1", self.accounts[place], way
            )
        await self.world.materialise(*(self.accounts[place] for place in past.materialised))

    # What actors do.

    async def act(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin a task; it stands before its first call."""
        if len(self.actors) == ACTORS:
            await self.actors.pop(0).finish()
        self.actors.append(await Actor.begin(work))

    def caption(self, text: str, tagged: int) -> str:
        return " ".join([text, *(f"#{tag}" for place, tag in enumerate(self.tags) if tagged >> place & 1)])

    def account(self, number: int) -> int:
        return self.accounts[number % len(self.accounts)]

    @contextlib.contextmanager
    def _granting(self, pairs: Iterable[tuple[int, int]]) -> Iterator[None]:
        touched = list(pairs)
        self.granting.update(touched)
        for reading in self.readings:
            shown = {author for me, author in touched if me == reading.account}
            reading.forbidden -= shown
            reading.away -= shown
        try:
            yield
        finally:
            self.granting.subtract(touched)

    async def _change(
        self, verb: Callable[[int, int], Awaitable[None]], one: int, other: int, *, follower: int | None = None
    ) -> None:
        """Let `one` do something that concerns `other`. It changes what one of them sees, or what both do."""
        me, them = self.account(one), self.account(other)
        if me == them:
            return
        pairs = [(me, them), (them, me)] if follower is None else [(follower, me if follower == them else them)]

        async def work() -> None:
            with self._granting(pairs), contextlib.suppress(NotFound, Conflict, Unauthenticated):
                await verb(me, them)

        await self.act(work())

    async def follow(self, one: int, other: int) -> None:
        await self._change(self.world.follow, one, other, follower=self.account(one))

    async def unfollow(self, one: int, other: int) -> None:
        await self._change(self.world.unfollow, one, other, follower=self.account(one))

    async def approve(self, one: int, other: int) -> None:
        await self._change(self.world.approve, one, other, follower=self.account(other))

    async def refuse(self, one: int, other: int) -> None:
        await self._change(self.world.refuse, one, other, follower=self.account(other))

    async def remove(self, one: int, other: int) -> None:
        await self._change(self.world.remove_follower, one, other, follower=self.account(other))

    async def block(self, one: int, other: int) -> None:
        await self._change(self.world.block, one, other)

    async def unblock(self, one: int, other: int) -> None:
        await self._change(self.world.unblock, one, other)

    async def mute(self, one: int, other: int) -> None:
        await self._change(self.world.mute, one, other, follower=self.account(one))

    async def unmute(self, one: int, other: int) -> None:
        await self._change(self.world.unmute, one, other, follower=self.account(one))

    async def _alone(self, verb: Awaitable[None], account: int, *, shows: bool) -> None:
        """Let an account do something; `shows` if that changes who sees its posts."""

        async def work() -> None:
            with (
                self._granting([(other, account) for other in self.accounts] if shows else []),
                contextlib.suppress(NotFound, Unauthenticated),
            ):
                await verb

        await self.act(work())

    async def private(self, one: int, _: int) -> None:
        await self._alone(self._open(self.account(one), private=True), self.account(one), shows=False)

    async def public(self, one: int, _: int) -> None:
        await self._alone(self._open(self.account(one), private=False), self.account(one), shows=False)

    async def _open(self, account: int, *, private: bool) -> None:
        self.opening[account] += 1
        for reading in self.readings:
            reading.away.discard(account)
        try:
            await self.world.set_private(account, private)
        finally:
            self.opening[account] -= 1

    async def tag(self, one: int, other: int) -> None:
        await self._change_tag(self.world.follow_tag, one, other)

    async def untag(self, one: int, other: int) -> None:
        await self._change_tag(self.world.unfollow_tag, one, other)

    async def _change_tag(self, verb: Callable[[int, str], Awaitable[None]], one: int, other: int) -> None:
        me, tag = self.account(one), self.tags[other % len(self.tags)]

        async def work() -> None:
            self.tagging[me, tag] += 1
            for reading in self.readings:
                if reading.account == me:
                    reading.tags.add(tag)
            try:
                with contextlib.suppress(Unauthenticated):
                    await verb(me, tag)
            finally:
                self.tagging[me, tag] -= 1

        await self.act(work())

    async def rename(self, one: int, other: int) -> None:
        await self._alone(self.world.rename(self.account(one), f"name {other}"), self.account(one), shows=False)

    async def suspend(self, one: int, _: int) -> None:
        await self._alone(self.world.suspend(self.account(one)), self.account(one), shows=True)

    async def unsuspend(self, one: int, _: int) -> None:
        await self._alone(self.world.unsuspend(self.account(one)), self.account(one), shows=True)

    async def draft(self, one: int, other: int) -> None:
        author = self.account(one)
        self.drafts.append(await self.world.draft(author, self.caption("draft", other)))
        self.authors[self.drafts[-1]] = author

    async def publish(self, one: int, _: int) -> None:
        """Publish a draft, maybe long after it was made."""
        if self.drafts:
            await self.world.publish(self.drafts.pop(one % len(self.drafts)))

    async def late(self, one: int, other: int) -> None:
        """Like `publish`, step by step."""
        if not self.drafts:
            await self.draft(one, other)
        draft = self.drafts.pop(one % len(self.drafts))

        async def work() -> None:
            with contextlib.suppress(AssertionError):  # it was deleted
                await self.world.publish(draft)

        await self.act(work())

    async def post(self, one: int, other: int) -> None:
        for _ in range(1 + other % 6):
            await self.draft(one, other)
            await self.world.publish(self.drafts.pop())

    def _some_post(self, number: int) -> int | None:
        posts = [post_id for post_id in self.authors if post_id not in self.deleting]
        return posts[-1 - number % len(posts)] if posts else None

    async def delete(self, one: int, _: int) -> None:
        post_id = self._some_post(one)
        if post_id is None:
            return
        if post_id in self.drafts:
            self.drafts.remove(post_id)

        async def work() -> None:
            self.deleting.add(post_id)
            try:
                with contextlib.suppress(NotFound):
                    await self.world.delete(self.authors[post_id], post_id)
            finally:
                self.deleting.discard(post_id)

        await self.act(work())

    async def edit(self, one: int, other: int) -> None:
        post_id = self._some_post(one)
        if post_id is None:
            return
        self.captions[post_id] += 1
        caption = self.caption(f"version {self.captions[post_id]}", other)
        for reading in self.readings:
            reading.captions.get(post_id, set()).add(caption)
        before = await self._truth.sql("select caption from posts where id = $1", post_id)

        async def work() -> None:
            self.editing.setdefault(post_id, []).extend([*before, caption])
            try:
                with contextlib.suppress(NotFound):
                    await self.world.edit(self.authors[post_id], post_id, caption)
            finally:
                del self.editing[post_id][-len(before) - 1 :]
                if not self.editing[post_id]:
                    del self.editing[post_id]

        await self.act(work())

    async def read(self, one: int, other: int) -> None:
        await self.act(self._chain(self.account(one), 1 + other % 20, pages=1))

    async def chain(self, one: int, other: int) -> None:
        await self.act(self._chain(self.account(one), 1 + other % 20, pages=50))

    async def _chain(self, account: int, limit: int, *, pages: int) -> None:
        position: int | None = MAX_ID
        for _ in range(pages):
            if position is None:
                break
            reading = await self._begin_reading(account)
            self.readings.append(reading)
            try:
                page = await feeds.read_home(
                    self.world.res, viewer(account), below=position, limit=limit, render=render
                )
            finally:
                self.readings.remove(reading)
            ids = [id_ for id_, _ in page.items]
            assert len(ids) <= limit
            assert [*ids, 0] == sorted({*ids, 0}, reverse=True), "a page goes down"
            assert all(id_ < position for id_ in ids), "a chain repeats nothing"
            assert page.next is None or page.next == ids[-1]
            assert not reading.gone & set(ids), "a ghost"
            for id_, post in page.items:
                assert post.author_id == self.authors[id_]
                if post.author_id in reading.forbidden:
                    assert post.author_id not in reading.away, "a forbidden post"
                    tags = {tag for caption in reading.captions.get(id_, ()) for tag in tags_in(caption)}
                    assert reading.tags & tags or id_ not in reading.captions, "a post without a followed tag"
                if id_ in reading.captions:
                    assert post.json in {shown(caption, 0) for caption in reading.captions[id_]}, "an old caption"
            position = page.next

    async def _begin_reading(self, account: int) -> Reading:
        """What is committed and answered now must be seen."""
        allowed, shown = await self._truth.allowed(account), await self._truth.open(account)
        followed = await self._truth.sql("select tag from followed_tags where account_id = $1", account)
        async with self._db.ungated.acquire() as connection:
            posts = await connection.fetch("select id, caption from posts where author_id = any($1)", self.accounts)
        captions = {record["id"]: {record["caption"], *self.editing.get(record["id"], [])} for record in posts}
        return Reading(
            account,
            forbidden={id_ for id_ in self.accounts if id_ not in allowed and not self.granting[account, id_]},
            away={
                id_
                for id_ in self.accounts
                if id_ not in shown and not self.granting[account, id_] and not self.opening[id_]
            },
            tags={*followed, *(tag for tag in self.tags if self.tagging[account, tag])},
            captions=captions,
            gone=self.authors.keys() - captions.keys() - self.deleting,
        )

    async def job(self, one: int, _: int) -> None:
        pending = await self.world.pending()
        if not pending:
            return
        entry_id, kind = pending[one % len(pending)]
        if kind is Kind.APPROVE:
            [account] = await self.world.sql("select (payload->>'account')::bigint from outbox where id = $1", entry_id)
            await self._alone(self.world.perform(entry_id, kind), account, shows=True)
        else:
            await self.act(self.world.perform(entry_id, kind))

    # What happens to them, and around them.

    async def again(self, one: int, _: int) -> None:
        """A job that was done is to be done again."""
        done = await self.world.sql(
            "select id from outbox where done_at is not null and kind <> 'deliver'"
            " and (payload->>'author')::bigint = any($1) order by id",
            self.accounts,
        )
        if done:
            await self.world.sql(
                "update outbox set done_at = null, position = 0 where id = $1 returning 1", done[one % len(done)]
            )

    async def lapse(self, _: int, __: int) -> None:
        await self.world.lapse()

    async def step(self, one: int, other: int) -> None:
        if self.actors:
            actor = self.actors[one % len(self.actors)]
            for _ in range(1 + other % 4):
                await actor.step()

    async def finish(self, one: int, _: int) -> None:
        if self.actors:
            await self.actors.pop(one % len(self.actors)).finish()

    async def kill(self, one: int, _: int) -> None:
        if self.actors:
            actor = self.actors.pop(one % len(self.actors))
            await (actor.finish() if actor.must_end_well else actor.kill())

    async def stop(self, one: int, _: int) -> None:
        if self.actors:
            actor = self.actors.pop(one % len(self.actors))
            await (actor.finish() if actor.must_end_well else actor.stop())

    async def expire(self, one: int, _: int) -> None:
        await self.world.expire(self.account(one))

    async def expire_recents(self, one: int, _: int) -> None:
        lists = [*self.accounts, *map(list_id, self.tags)]
        await self.world.expire_recents(lists[one % len(lists)])

    async def unlock(self, one: int, other: int) -> None:
        await self.world.unlock(self.account(one))
        await self.world.unlock(list_id(self.tags[other % len(self.tags)]))

    async def end_holds(self, _: int, __: int) -> None:
        if not self._db.in_transaction:  # which would have been ended long before
            await self.world.end_holds()

    async def flush(self, _: int, __: int) -> None:
        await self.world.flush()
        # A change forgets what Redis learned since it was emptied: one fault at a time.
        for actor in self.actors:
            actor.must_end_well = True

    # How it ends.

    async def end(self, limits: list[int]) -> None:
        """Let everything come to rest, and hold every feed against its definition."""
        while self.actors:
            await self.actors.pop().finish()
        await self.world.settle()
        await self._check_tags()
        for number, account in enumerate(self.accounts):
            await self._check_windows(account)
            defined = await self.world.defined_posts(account)
            limit = limits[number]
            asked = await self.world.res.timelines.ask_read_ahead(account)
            ahead = self.world.res.timelines.read_ahead_of(await asked)
            if ahead is not None:
                await self.world.page(account, 1)  # whose posts they are is known from here on
                read = await self.world.walk_posts(account, limits, ahead.top)
                below = [(id_, post) for id_, post in defined.items() if id_ < ahead.top]
                assert list(read.items()) == below, f"account {number} below what was read ahead"
            for sizes in ([limit], limits):
                read = await self.world.walk_posts(account, sizes)
                assert list(read.items()) == list(defined.items()), f"account {number} in pages of {sizes}"
            await self._check_windows(account)
        await self._check_tags()
        await self.world.end_holds()
        for number, account in enumerate(self.accounts):
            defined = await self.world.defined_posts(account)
            for _ in range(2):  # whatever may be cached now is, and is right
                read = await self.world.walk_posts(account, limits)
                assert list(read.items()) == list(defined.items()), f"account {number} when all holds have ended"

    async def _check_windows(self, account: int) -> None:
        """What Redis holds may be too much, never too little."""
        window = await self.world.window(account)
        if window is not None:
            assert window.ids == sorted(set(window.ids), reverse=True)
            pushed = await self.world.sql(
                "select post.id from posts post join accounts author on author.id = post.author_id"
                " where post.id = any($1) and author_id = any($3) and (delivery < 2 or author_id = $2)",
                await self.world.defined(account),
                account,
                list(await self.world.allowed(account)),
            )
            assert {id_ for id_ in pushed if id_ >= window.floor} <= set(window.ids)
        recents = await self.world.res.recents.read(account, limit=None)
        if recents is not None:
            published = await self.world.sql(
                "select id from posts where published_at is not null and author_id = $1", account
            )
            assert {id_ for id_ in published if id_ >= recents.floor} <= set(recents.ids)

    async def _check_tags(self) -> None:
        for tag in self.tags:
            recents = await self.world.res.recents.read(list_id(tag), limit=None)
            if recents is not None:
                published = await self.world.sql(
                    "select post_id from tagged_posts join accounts author on author.id = author_id"
                    " where tag = $1 and not is_private and suspended_at is null",
                    tag,
                )
                assert {id_ for id_ in published if id_ >= recents.floor} <= set(recents.ids)


async def run(gated: World, past: Past, steps: Iterable[Step], limits: list[int]) -> None:
    """Play the steps, and hold what comes of it against the definition."""
    res = gated.res
    settings = res.settings.model_copy(update={"celebrity_followers": past.celebrity, "fan_out_chunk": past.at_once})
    lists = timelines_of(res, res.redis, window=past.window, disorder_seconds=past.disorder / 1000)
    recents = Timelines(res.redis, "recent", window=past.window, buckets=64, idle_days=14, disorder_seconds=0)
    play = Play(World(replace(res, timelines=lists, recents=recents, settings=settings)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "_AT_ONCE", past.at_once)
        patch.setattr(feed_sources, "READ_AHEAD", past.read_ahead)
        patch.setattr(delivery, "_NO_CELEBRITY_BELOW", 1 + 0.5 / past.celebrity)  # with one follower less they are none
        await play.begin(past)
        try:
            for name, one, other in steps:
                await getattr(play, name)(one, other)
            await play.end(limits)
        finally:
            for actor in play.actors:
                await actor.kill()
