"""Feeds in Redis, held against a model of a few lines of Python."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from instafeed.errors import RedisAway
from instafeed.ids import MAX_ID
from instafeed.resources import Resources
from instafeed.storage import timelines
from instafeed.storage.follows import ID_DIGITS, PackedFollowers
from instafeed.storage.redis import RedisServer
from instafeed.storage.timelines import Timelines, Window

WINDOW = 5
SLACK = 3
IDLE_DAYS = 14
IDLE_SECONDS = IDLE_DAYS * 86_400

# Few of each kind, so that repeats are common: of one and two digits, where a double loses digits, where the number of
# digits grows, and the greatest.
ids = st.one_of(
    st.integers(1, 15),
    st.integers(2**53 - 2, 2**53 + 3),
    st.integers(10**18 - 3, 10**18 + 2),
    st.integers(MAX_ID - 4, MAX_ID),
)


@dataclass
class Model:
    """What a feed's list should hold."""

    ids: set[int] | None = None
    """None: there is no list."""
    tail: str = ""
    """The marker at its end, if there is one."""
    lock: str = ""
    """The builder who holds the lock."""

    @property
    def entries(self) -> list[str]:
        """The list as Redis should have it."""
        if self.ids is None:
            return []
        return [str(id_) for id_ in sorted(self.ids, reverse=True)] + ([self.tail] if self.tail else [])

    @property
    def building(self) -> bool:
        return self.tail.startswith("-")

    def add(self, new: set[int]) -> None:
        assert self.ids is not None
        self.ids |= new if self.tail else {id_ for id_ in new if id_ > min(self.ids or {0})}

    def cut(self) -> None:
        assert self.ids is not None
        self.ids, self.tail = set(sorted(self.ids, reverse=True)[:WINDOW]), ""

    def push(self, id_: int) -> None:
        if self.ids is None or id_ in self.ids:
            return
        self.add({id_})
        if len(self.entries) > WINDOW + SLACK:
            if self.building:
                self.ids, self.tail, self.lock = None, "", ""
            else:
                self.cut()

    def merge(self, new: set[int]) -> None:
        if self.ids is None:
            return
        self.add(new)
        if len(self.ids) > WINDOW and not self.building:
            self.cut()

    def remove(self, gone: set[int]) -> None:
        if self.ids is None:
            return
        self.ids -= gone
        if not self.entries:
            self.ids = None

    def begin(self, marker: str | None) -> None:
        whole = self.ids is not None and not self.building
        assert (marker is None) == (whole or bool(self.lock))
        if marker is not None:
            self.ids, self.tail, self.lock = self.ids or set(), marker, marker

    def finish(self, marker: str, found: list[int], *, to_the_end: bool) -> bool:
        if self.ids is None or self.tail != marker:
            return False
        self.ids, self.tail, self.lock = self.ids | set(found), "0" if to_the_end else "", ""
        if len(self.ids) > WINDOW:
            self.cut()
        if not self.entries:
            self.ids = None
        return True


@dataclass
class Feed:
    """One account's list in Redis beside its model, and the builders who are at work on it."""

    redis: RedisServer
    lists: Timelines
    account_id: int = field(default_factory=lambda: 1 + secrets.randbelow(MAX_ID))
    model: Model = field(default_factory=Model)
    builders: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.lists._key(self.account_id)

    async def push(self, id_: int) -> None:
        await self.lists.push_to(self.account_id, id_)
        self.model.push(id_)

    async def merge(self, new: set[int]) -> None:
        assert await self.lists.merge(self.account_id, new) == (self.model.ids is not None)
        self.model.merge(new)

    async def remove(self, gone: set[int]) -> None:
        await self.lists.remove(self.account_id, gone)
        self.model.remove(gone)

    async def begin(self) -> None:
        marker = await self.lists.begin_rebuild(self.account_id)
        self.model.begin(marker)
        if marker is not None:
            self.builders.append(marker)

    async def finish(self, place: int, found: set[int], *, to_the_end: bool) -> None:
        if self.builders:
            marker = self.builders.pop(place % len(self.builders))
            rows = sorted(found, reverse=True)
            expected = self.model.finish(marker, rows, to_the_end=to_the_end)
            assert await self.lists.finish_rebuild(self.account_id, marker, rows, to_the_end=to_the_end) == expected

    async def lose_lock(self) -> None:
        """The builder took longer than its lock lives, or is dead."""
        await self._delete(f"{self.key}:lock")
        self.model.lock = ""

    async def expire(self) -> None:
        await self._delete(self.key)
        self.model.ids, self.model.tail = None, ""

    async def flush(self) -> None:
        await self._delete(self.key, f"{self.key}:lock")
        self.model = Model()

    async def _delete(self, *keys: str) -> None:
        await self.redis.call(self.key, "DEL", *keys)

    async def raw(self) -> list[str]:
        found: list[bytes] = await self.redis.call(self.key, "LRANGE", self.key, 0, -1)
        return [entry.decode() for entry in found]

    async def seconds_to_live(self) -> int:
        seconds: int = await self.redis.call(self.key, "TTL", self.key)
        return seconds

    async def build(self, found: list[int], *, to_the_end: bool = True) -> None:
        await self.begin()
        await self.finish(0, set(found), to_the_end=to_the_end)


@pytest.fixture
def feed(res: Resources, monkeypatch: pytest.MonkeyPatch) -> Feed:
    monkeypatch.setattr(timelines, "_TRIM_SLACK", SLACK)
    return Feed(res.redis, Timelines(res.redis, window=WINDOW, buckets=64, idle_days=IDLE_DAYS))


step = st.one_of(
    st.tuples(st.just("push"), ids),
    st.tuples(st.just("push"), ids),
    st.tuples(st.just("merge"), st.sets(ids, max_size=WINDOW + 2)),
    st.tuples(st.just("remove"), st.sets(ids, max_size=3)),
    st.tuples(st.just("begin")),
    st.tuples(st.just("finish"), st.integers(0, 3), st.sets(ids, max_size=WINDOW)),
    st.tuples(st.sampled_from(["lose_lock", "expire", "flush"])),
)


@given(steps=st.lists(step, min_size=1, max_size=40))
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_every_script_does_what_the_model_says(feed: Feed, steps: list[tuple[Any, ...]]) -> None:
    feed = Feed(feed.redis, feed.lists)
    for name, *arguments in steps:
        # A query that fills the window says nothing of what is below it.
        options = {"to_the_end": len(arguments[1]) < WINDOW} if name == "finish" else {}
        await getattr(feed, name)(*arguments, **options)
        assert await feed.raw() == feed.model.entries, f"after {name} {arguments}"
        window = await feed.lists.read(feed.account_id, limit=None)
        if feed.model.ids is None or feed.model.building:
            assert window is None
        else:
            assert window == Window(sorted(feed.model.ids, reverse=True), to_the_end=feed.model.tail == "0")


@dataclass
class Truth:
    """The feed as the database has it, where every change reaches the list a moment later."""

    feed: Feed
    published: set[int] = field(default_factory=set)
    late: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    answers: dict[str, list[int]] = field(default_factory=dict)
    """What each builder's query found."""

    async def publish(self, id_: int) -> None:
        if id_ not in self.published:
            self.published.add(id_)
            self.late.append(lambda: self.feed.lists.push_to(self.feed.account_id, id_))

    async def deliver(self, place: int) -> None:
        if self.late:
            await self.late.pop(place % len(self.late))()

    async def begin(self) -> None:
        marker = await self.feed.lists.begin_rebuild(self.feed.account_id)
        if marker is not None:
            self.answers[marker] = sorted(self.published, reverse=True)[:WINDOW]

    async def finish(self, place: int) -> None:
        if self.answers:
            marker = list(self.answers)[place % len(self.answers)]
            found = self.answers.pop(marker)
            await self.feed.lists.finish_rebuild(self.feed.account_id, marker, found, to_the_end=len(found) < WINDOW)


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("publish"), ids),
            st.tuples(st.sampled_from(["deliver", "finish"]), st.integers(0, 5)),
            st.tuples(st.sampled_from(["begin", "lose_lock", "expire", "flush"])),
        ),
        max_size=40,
    )
)
@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_a_whole_list_lacks_nothing_between_its_ends_once_all_is_delivered(
    feed: Feed, steps: list[tuple[Any, ...]]
) -> None:
    feed = Feed(feed.redis, feed.lists)
    truth = Truth(feed)
    for name, *arguments in steps:
        await getattr(truth if hasattr(truth, name) else feed, name)(*arguments)
    while truth.late:
        await truth.deliver(0)
    window = await feed.lists.read(feed.account_id, limit=None)
    if window is not None:
        expected = sorted(truth.published, reverse=True)
        assert window.ids == (expected if window.to_the_end else expected[: len(window.ids)])


async def test_a_push_of_many_followers_reaches_each_of_them(res: Resources) -> None:
    lists = Timelines(res.redis, window=WINDOW, buckets=64, idle_days=IDLE_DAYS)
    bucket, accounts = 3, [(serial << 23) | (3 << 10) for serial in range(1, 1204)]
    materialised = accounts[::2]
    for account in materialised:
        marker = await lists.begin_rebuild(account)
        assert marker is not None
        await lists.finish_rebuild(account, marker, [], to_the_end=True)
    packed = PackedFollowers(bucket, "".join(f"{account:0{ID_DIGITS}d}" for account in accounts))
    await lists.push(MAX_ID, [packed])
    for account in accounts:
        window = await lists.read(account, limit=None)
        assert window == (Window([MAX_ID], to_the_end=True) if account in materialised else None)


async def test_a_push_past_window_and_slack_cuts_the_list_to_the_window(feed: Feed) -> None:
    await feed.build([])
    for id_ in range(1, WINDOW + SLACK):
        await feed.push(id_)
    assert await feed.raw() == [*map(str, range(WINDOW + SLACK - 1, 0, -1)), "0"]
    await feed.push(100)
    assert await feed.raw() == ["100", "7", "6", "5", "4"]


async def test_late_posts_do_not_make_a_list_outgrow_window_and_slack(feed: Feed) -> None:
    await feed.build([MAX_ID])
    for id_ in range(1, 50):
        await feed.push(id_)
        assert len(await feed.raw()) <= WINDOW + SLACK
    assert (await feed.raw())[0] == str(MAX_ID)


async def test_a_list_that_outgrows_the_window_while_it_is_built_is_given_up(feed: Feed) -> None:
    await feed.begin()
    for id_ in range(1, WINDOW + SLACK + 1):
        await feed.push(id_)
    assert await feed.raw() == []
    await feed.finish(0, {1, 2}, to_the_end=True)
    assert await feed.raw() == []
    await feed.begin()
    assert feed.builders, "the next one may begin at once"


async def test_a_list_that_is_built_lives_a_minute_and_a_whole_one_as_long_as_it_is_read(feed: Feed) -> None:
    await feed.begin()
    assert 50 < await feed.seconds_to_live() <= 60
    assert await feed.lists.read(feed.account_id, limit=None) is None
    assert 50 < await feed.seconds_to_live() <= 60, "reading it does not keep a dead builder's list"
    await feed.finish(0, {7}, to_the_end=True)
    assert IDLE_SECONDS - 5 < await feed.seconds_to_live() <= IDLE_SECONDS
    await feed.redis.call(feed.key, "EXPIRE", feed.key, 1000)
    for change in (feed.push(9), feed.push(8), feed.merge({5, 6}), feed.remove({9})):
        await change
        assert 990 < await feed.seconds_to_live() <= 1000, "only reading keeps a feed"
    await feed.lists.read(feed.account_id, limit=1)
    assert IDLE_SECONDS - 5 < await feed.seconds_to_live() <= IDLE_SECONDS


async def test_an_empty_feed_stays_materialised(feed: Feed) -> None:
    await feed.build([])
    assert await feed.raw() == ["0"]
    await feed.push(3)
    await feed.remove({3})
    assert await feed.raw() == ["0"]
    assert await feed.lists.read(feed.account_id, limit=1) == Window([], to_the_end=True)


async def test_the_first_entries_say_nothing_of_the_end_unless_they_reach_it(feed: Feed) -> None:
    await feed.build([3, 2, 1])
    assert await feed.lists.read(feed.account_id, limit=3) == Window([3, 2, 1], to_the_end=False)
    assert await feed.lists.read(feed.account_id, limit=4) == Window([3, 2, 1], to_the_end=True)


async def test_a_failed_push_is_one_error_of_ours() -> None:
    nowhere = RedisServer("redis://127.0.0.1:1/0")
    lists = Timelines(nowhere, window=WINDOW, buckets=64, idle_days=IDLE_DAYS)
    with pytest.raises(RedisAway):
        await lists.push(1, [PackedFollowers(bucket, "1" * ID_DIGITS) for bucket in range(5)])
    await nowhere.close()
