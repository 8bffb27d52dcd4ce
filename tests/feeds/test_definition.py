"""The home feed is what its definition says, whatever happens in whatever order.

Steps are drawn at random: people post, publish late, delete, follow and unfollow; feeds are read, expire, or are lost with
all of Redis; jobs run late, again, out of order, at the same time, and are killed between any two calls. Every task stands
before each of its calls of a server until a step lets it on, so that a sequence of steps always does the same.

While this goes on, no read shows what was answered as gone before it began. Once it is over and the jobs are done, every
page of every feed is what SQL says.
"""

from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from instafeed import feeds
from instafeed.ids import MAX_ID
from instafeed.storage.timelines import Timelines
from tests.feeds.gates import Actor
from tests.feeds.world import World, add_follows, add_posts, viewer

ACTORS = 5
SHARDS = (5, 5, 70, 8191)  # two accounts share one, and two share a bucket


@dataclass
class Reading:
    """A read that is under way, and what it must not show."""

    account: int
    deleted: set[int]
    strangers: set[int]


@dataclass
class Play:
    """One sequence of steps in a world."""

    world: World
    accounts: list[int] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)
    posts: dict[int, int] = field(default_factory=dict)
    """The author of each published post that nobody began to delete."""
    deleted: set[int] = field(default_factory=set)
    """Posts whose deletion was answered."""
    strangers: dict[int, set[int]] = field(default_factory=dict)
    """Whom each account certainly does not follow."""
    changing: set[tuple[int, int]] = field(default_factory=set)
    """Follows that are being changed."""
    readings: list[Reading] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)

    async def begin(self, past: "Past") -> None:
        await self.world.sql("update outbox set done_at = now() where done_at is null returning 1")
        self.accounts = [await self.world.account(shard) for shard in SHARDS]
        self.strangers = {account: set(self.accounts) - {account} for account in self.accounts}
        authors = [self.accounts[place] for place in past.posts]
        self.posts = dict(zip(await add_posts(self.world, authors), authors, strict=True))
        follows = {(self.accounts[one], self.accounts[other]) for one, other in past.follows if one != other}
        await add_follows(self.world, follows)
        for me, author in follows:
            self.strangers[me].discard(author)
        await self.world.materialise(*(self.accounts[place] for place in past.materialised))

    async def act(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin a task; it stands before its first call."""
        if len(self.actors) == ACTORS:
            await self.actors.pop(0).finish()
        self.actors.append(await Actor.begin(work))

    def account(self, number: int) -> int:
        return self.accounts[number % len(self.accounts)]

    async def draft(self, author: int, _: int) -> None:
        self.drafts.append(await self.world.draft(self.account(author)))

    async def publish(self, number: int, _: int) -> None:
        if self.drafts:
            await self._publish(self.drafts.pop(number % len(self.drafts)))

    async def _publish(self, post_id: int) -> None:
        await self.world.publish(post_id)
        [self.posts[post_id]] = await self.world.sql("select author_id from posts where id = $1", post_id)

    async def post(self, author: int, count: int) -> None:
        for _ in range(1 + count % 6):
            await self._publish(await self.world.draft(self.account(author)))

    async def delete(self, number: int, _: int) -> None:
        if not self.posts:
            return
        post_id = list(self.posts)[number % len(self.posts)]
        author = self.posts.pop(post_id)

        async def work() -> None:
            await self.world.delete(author, post_id)
            self.deleted.add(post_id)

        await self.act(work())

    async def follow(self, follower: int, author: int) -> None:
        await self._change(self.account(follower), self.account(author), follow=True)

    async def unfollow(self, follower: int, author: int) -> None:
        await self._change(self.account(follower), self.account(author), follow=False)

    async def _change(self, me: int, author: int, *, follow: bool) -> None:
        if me == author or (me, author) in self.changing:
            return
        if follow:
            self.strangers[me].discard(author)
            for reading in self.readings:
                if reading.account == me:
                    reading.strangers.discard(author)

        async def work() -> None:
            self.changing.add((me, author))
            try:
                await (self.world.follow if follow else self.world.unfollow)(me, author)
            finally:
                self.changing.discard((me, author))
            if not follow:
                self.strangers[me].add(author)

        self.changing.add((me, author))
        await self.act(work())

    async def read(self, account: int, limit: int) -> None:
        await self.act(self._chain(self.account(account), 1 + limit % 20, pages=1))

    async def chain(self, account: int, limit: int) -> None:
        await self.act(self._chain(self.account(account), 1 + limit % 20, pages=50))

    async def _chain(self, account: int, limit: int, *, pages: int) -> None:
        position: int | None = MAX_ID
        for _ in range(pages):
            if position is None:
                break
            reading = Reading(account, set(self.deleted), set(self.strangers[account]))
            self.readings.append(reading)
            page = await feeds.read_home(self.world.res, viewer(account), below=position, limit=limit)
            self.readings.remove(reading)
            ids = [post.id for post in page.items]
            assert len(ids) <= limit
            assert [*ids, 0] == sorted({*ids, 0}, reverse=True), "a page goes down"
            assert all(id_ < position for id_ in ids), "a chain repeats nothing"
            assert not reading.deleted & set(ids), "a ghost"
            assert not reading.strangers & {post.author.id for post in page.items}, "a stranger's post"
            assert page.next is None or page.next == ids[-1]
            position = page.next

    async def job(self, number: int, _: int) -> None:
        pending = await self.world.pending()
        if pending:
            await self.act(self.world.perform(*pending[number % len(pending)]))

    async def again(self, number: int, _: int) -> None:
        """A job that was done is to be done again."""
        done = await self.world.sql(
            "select id from outbox where done_at is not null and (payload->>'author')::bigint = any($1) order by id",
            self.accounts,
        )
        if done:
            await self.world.sql(
                "update outbox set done_at = null, position = 0 where id = $1 returning 1", done[number % len(done)]
            )

    async def lapse(self, _: int, __: int) -> None:
        await self.world.lapse()

    async def step(self, number: int, count: int) -> None:
        if self.actors:
            actor = self.actors[number % len(self.actors)]
            for _ in range(1 + count % 4):
                await actor.step()

    async def finish(self, number: int, _: int) -> None:
        if self.actors:
            await self.actors.pop(number % len(self.actors)).finish()

    async def kill(self, number: int, _: int) -> None:
        if self.actors:
            await self.actors.pop(number % len(self.actors)).kill()

    async def stop(self, number: int, _: int) -> None:
        if self.actors:
            await self.actors.pop(number % len(self.actors)).stop()

    async def expire(self, account: int, _: int) -> None:
        await self.world.expire(self.account(account))

    async def unlock(self, account: int, _: int) -> None:
        await self.world.unlock(self.account(account))

    async def flush(self, _: int, __: int) -> None:
        await self.world.flush()

    async def end(self, limits: list[int]) -> None:
        """Let everything come to rest, and hold every feed against its definition."""
        while self.actors:
            await self.actors.pop().finish()
        await self.world.settle()
        for number, account in enumerate(self.accounts):
            await self._check_window(account)
            defined = await self.world.defined(account)
            limit = limits[number]
            for shown in (await self.world.walk(account, [limit]), await self.world.walk(account, limits)):
                assert shown == defined, f"account {number} in pages of {limit}"
            await self._check_window(account)

    async def _check_window(self, account: int) -> None:
        """What Redis holds may be too much, never too little."""
        window = await self.world.window(account)
        if window is not None:
            assert window.ids == sorted(set(window.ids), reverse=True)
            defined = await self.world.defined(account)
            last = 0 if window.to_the_end else window.ids[-1]
            assert {id_ for id_ in defined if id_ >= last} <= set(window.ids)


@dataclass(frozen=True)
class Past:
    """What has happened, and come to rest, before the first step."""

    window: int
    posts: list[int]
    """Their authors, oldest post first."""
    follows: set[tuple[int, int]]
    materialised: set[int]


place = st.integers(0, len(SHARDS) - 1)
pasts = st.builds(
    Past,
    window=st.sampled_from([10, 5, 2]),
    posts=st.lists(place, max_size=25)
    | st.builds(list.__mul__, place.map(lambda author: [author]), st.integers(1, 13)),
    follows=st.sets(st.tuples(place, place), max_size=6),
    materialised=st.sets(place),
)
number = st.integers(0, 7)
common = st.sampled_from(
    ["post", "follow", "unfollow", "delete", "read", "chain", "job", "job", "finish", "step", "step"]
)
rare = st.sampled_from(["flush", "kill", "stop", "unlock", "again", "lapse", "expire", "draft", "publish"])
steps = st.lists(st.tuples(common | common | rare, number, number), min_size=5, max_size=50)


async def run(gated: World, past: Past, steps: list[tuple[str, int, int]], limits: list[int]) -> None:
    """Play the steps, and hold what comes of it against the definition."""
    lists = Timelines(gated.res.redis, window=past.window, buckets=64, idle_days=14)
    play = Play(World(replace(gated.res, timelines=lists)))
    await play.begin(past)
    try:
        for name, one, other in steps:
            await getattr(play, name)(one, other)
        await play.end(limits)
    finally:
        for actor in play.actors:
            await actor.kill()


@given(past=pasts, steps=steps, limits=st.lists(st.integers(1, 20), min_size=len(SHARDS), max_size=len(SHARDS)))
@hypothesis_settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[phase for phase in Phase if phase is not Phase.explain],  # takes minutes, and helps little here
)
async def test_the_feed_is_its_definition(
    gated: World, past: Past, steps: list[tuple[str, int, int]], limits: list[int]
) -> None:
    await run(gated, past, steps, limits)
