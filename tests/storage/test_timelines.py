"""Timelines in Redis, held against a model of a few lines of Python."""

import itertools
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from instafeed.errors import RedisAway
from instafeed.ids import MAX_ID, shard_of
from instafeed.resources import Resources
from instafeed.storage import follows as follow_rows
from instafeed.storage import timelines
from instafeed.storage.follows import PackedFollowers
from instafeed.storage.redis import RedisServer
from instafeed.storage.timelines import Timelines, Window
from tests.bench.community import packed

WINDOW = 5
SLACK = 3
IDLE_DAYS = 14
IDLE_SECONDS = IDLE_DAYS * 86_400
MS = 1 << 23
"""A millisecond, in ids."""
DISORDERS = [0, 0.003, 1e9]
"""Seconds: strict order, an order loose by a few of the ids below, and none at all."""

# Few of each kind, so that repeats are common: small ones, where a double loses digits, where the number of digits grows,
# and the greatest; all a millisecond apart, and next to each other.
ids = st.one_of(
    st.builds(
        lambda origin, late, nearer: origin + late * MS + nearer,
        st.sampled_from([MS, 2**53 - 3 * MS, 10**18 - 3 * MS]),
        st.integers(0, 8),
        st.integers(0, 1),
    ),
    st.builds(lambda early: MAX_ID - early * MS, st.integers(0, 5)),
)


@dataclass
class Model:
    """What a timeline's list should hold."""

    disorder: int
    held: list[int] | None = None
    """Newest at the head, as they were put there; None: there is no list."""
    tail: str = ""
    """The marker at its end, if there is one."""
    lock: str = ""
    """The builder who holds the lock."""
    high: int | None = None

    @property
    def entries(self) -> list[str]:
        """The list as Redis should have it."""
        return [*map(str, self.held or []), *([self.tail] if self.tail else [])]

    @property
    def building(self) -> bool:
        return self.tail.startswith("-")

    def raise_(self, id_: int) -> None:
        self.high = max(self.high or 0, id_)

    def cut(self) -> None:
        assert self.held is not None
        self.held, self.tail = self.held[:WINDOW], ""

    def vanish(self) -> None:
        self.held, self.tail = None, ""

    def push(self, id_: int, *, again: bool, found: list[str]) -> None:
        """`found` is what became of the list: several places may be right for a late post."""
        late = self.high is None or float(id_) + float(self.disorder) <= float(self.high)
        self.raise_(id_)
        if self.held is None:
            return
        if not (again or late):
            self.held.insert(0, id_)
        elif id_ in self.held or not self._insert(id_, found):
            return
        if len(self.entries) > WINDOW + SLACK:
            if self.building:
                self.vanish()
                self.lock = ""
            else:
                self.cut()

    def _insert(self, id_: int, found: list[str]) -> bool:
        assert self.held is not None
        places = [
            place
            for place in range(len(self.held) + 1)
            if (place == 0 or self.held[place - 1] > id_) and (place == len(self.held) or self.held[place] < id_)
        ]
        if not self.held or self.held[0] < id_:
            places = [0]
        elif not self.tail:
            # What is below the end is found in SQL.
            places = [place for place in places if place < len(self.held)]
        if str(id_) in found:
            places = [place for place in places if place == found.index(str(id_))]
            assert places, "between a greater and a lesser one"
        elif self.held and not self.tail and self.held[-1] > id_:
            return False
        self.held.insert(places[0], id_)
        return True

    def add(self, new: set[int]) -> None:
        """Merge: what was loose is strict then."""
        assert self.held is not None
        kept = set(self.held)
        kept |= new if self.tail else {id_ for id_ in new if id_ > min(kept)}
        self.held = sorted(kept, reverse=True)
        if new:
            self.raise_(max(new))

    def merge(self, new: set[int]) -> None:
        if self.held is None:
            return
        self.add(new)
        if len(self.held) > WINDOW and not self.building:
            self.cut()

    def remove(self, gone: set[int]) -> None:
        if self.held is None:
            return
        self.held = [id_ for id_ in self.held if id_ not in gone]
        if not self.entries:
            self.vanish()

    def begin(self, marker: str | None) -> None:
        whole = self.held is not None and not self.building
        assert (marker is None) == (whole or bool(self.lock))
        if marker is not None:
            self.held, self.tail, self.lock = self.held or [], marker, marker

    def finish(self, marker: str, found: list[int], *, to_the_end: bool) -> bool:
        if self.held is None or self.tail != marker:
            return False
        self.add(set(found))
        if not to_the_end:
            # What the query did not find of what is below is found in SQL.
            self.held = [id_ for id_ in self.held if found and id_ >= found[-1]]
        self.tail, self.lock = "0" if to_the_end else "", ""
        if len(self.held) > WINDOW:
            self.cut()
        if not self.entries:
            self.vanish()
        return True


@dataclass
class Feed:
    """One account's list in Redis beside its model, and the builders who are at work on it."""

    lists: Timelines
    model: Model
    account_id: int = field(default_factory=lambda: 1 + secrets.randbelow(MAX_ID))
    builders: list[str] = field(default_factory=list)

    @property
    def redis(self) -> RedisServer:
        return self.lists._redis

    @property
    def key(self) -> str:
        return self.lists._key(self.account_id)

    async def push(self, id_: int, *, again: bool = False) -> None:
        await self.lists.push_to([self.account_id], id_, again=again)
        self.model.push(id_, again=again, found=await self.raw())

    async def push_again(self, id_: int) -> None:
        await self.push(id_, again=True)

    async def push_to_another(self, id_: int) -> None:
        """To somebody of the same bucket, whose list is not there."""
        other = self.account_id ^ MS  # of the same shard
        await self.lists.push_to([other], id_, again=False)
        self.model.raise_(id_)

    async def merge(self, new: set[int]) -> None:
        assert await self.lists.merge(self.account_id, new) == (self.model.held is not None)
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
        self.model.vanish()

    async def flush(self) -> None:
        await self._delete(self.key, f"{self.key}:lock", self.lists._high(self.lists.bucket_of(self.account_id)))
        self.model = Model(self.model.disorder)

    async def _delete(self, *keys: str) -> None:
        await self.redis.call(self.key, "DEL", *keys)

    async def raw(self) -> list[str]:
        found: list[bytes] = await self.redis.call(self.key, "LRANGE", self.key, 0, -1)
        return [entry.decode() for entry in found]

    async def read(self, limit: int | None = None) -> Window | None:
        return await self.lists.read(self.account_id, limit=limit)

    async def seconds_to_live(self) -> int:
        seconds: int = await self.redis.call(self.key, "TTL", self.key)
        return seconds

    async def build(self, found: list[int], *, to_the_end: bool = True) -> None:
        await self.begin()
        await self.finish(0, set(found), to_the_end=to_the_end)


def lists_of(res: Resources, *, disorder: float = 0, buckets: int = 64) -> Timelines:
    """Timelines of a name of their own, whose buckets nobody else pushes to."""
    name = f"test{secrets.token_hex(6)}"
    return Timelines(res.redis, name, window=WINDOW, buckets=buckets, idle_days=IDLE_DAYS, disorder_seconds=disorder)


def feed_of(res: Resources, *, disorder: float = 0) -> Feed:
    lists = lists_of(res, disorder=disorder)
    return Feed(lists, Model(lists._disorder))


@pytest.fixture(autouse=True)
def _little_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "_TRIM_SLACK", SLACK)


@pytest.fixture
def feed(res: Resources) -> Feed:
    """A feed in strict order."""
    return feed_of(res)


thorough = hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
step = st.one_of(
    st.tuples(st.just("push"), ids),
    st.tuples(st.just("push"), ids),
    st.tuples(st.sampled_from(["push_again", "push_to_another"]), ids),
    st.tuples(st.just("merge"), st.sets(ids, max_size=WINDOW + 2)),
    st.tuples(st.just("remove"), st.sets(ids, max_size=3)),
    st.tuples(st.just("begin")),
    st.tuples(st.just("finish"), st.integers(0, 3), st.sets(ids, max_size=WINDOW), st.booleans()),
    st.tuples(st.sampled_from(["lose_lock", "expire", "flush"])),
)


@pytest.mark.parametrize("disorder", DISORDERS)
@given(steps=st.lists(step, min_size=1, max_size=40))
@thorough
async def test_every_script_does_what_the_model_says(
    res: Resources, disorder: float, steps: list[tuple[Any, ...]]
) -> None:
    feed = feed_of(res, disorder=disorder)
    for name, *arguments in steps:
        # A query that fills the window says nothing of what is below it, nor does one that was given up.
        options = {"to_the_end": arguments.pop() and len(arguments[1]) < WINDOW} if name == "finish" else {}
        await getattr(feed, name)(*arguments, **options)
        assert await feed.raw() == feed.model.entries, f"after {name} {arguments}"
        loosely_sorted(feed)
        for limit in (None, *range(1, len(feed.model.entries) + 1)):
            honest(feed, await feed.read(limit), limit)


def loosely_sorted(feed: Feed) -> None:
    """An entry stands below another one only if it is less than that one plus the disorder."""
    for upper, lower in itertools.combinations(feed.model.held or [], 2):
        assert lower < upper + feed.lists._floor_above


def honest(feed: Feed, window: Window | None, limit: int | None) -> None:
    """A read of the first entries tells all that the list knows down to its floor, which is not far up."""
    model = feed.model
    assert (window is None) == (model.held is None or model.building)
    if window is None:
        return
    held = set(model.held or [])
    assert window.ids == sorted((id_ for id_ in held if id_ >= window.floor), reverse=True)
    seen = model.entries[:limit]
    assert window.to_the_end == (seen[-1] == "0")
    if not window.to_the_end:
        assert window.floor <= min(map(int, seen)) + feed.lists._floor_above


@dataclass
class Truth:
    """The feed as the database has it, where every change reaches the list a moment later, and maybe twice."""

    feed: Feed
    published: set[int] = field(default_factory=set)
    late: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    delivered: list[int] = field(default_factory=list)
    answers: dict[str, list[int]] = field(default_factory=dict)
    """What each builder's query found."""

    async def publish(self, id_: int) -> None:
        if id_ not in self.published:
            self.published.add(id_)

            async def push() -> None:
                await self.push(id_, again=False)
                self.delivered.append(id_)

            self.late.append(push)

    async def push(self, id_: int, *, again: bool) -> None:
        await self.feed.lists.push_to([self.feed.account_id], id_, again=again)

    async def deliver(self, place: int) -> None:
        if self.late:
            await self.late.pop(place % len(self.late))()

    async def deliver_again(self, place: int) -> None:
        """By a job that runs twice: it knows, or believes to be the first."""
        if self.delivered:
            await self.push(self.delivered[place % len(self.delivered)], again=place % 2 == 0)

    async def begin(self) -> None:
        marker = await self.feed.lists.begin_rebuild(self.feed.account_id)
        if marker is not None:
            self.answers[marker] = sorted(self.published, reverse=True)[:WINDOW]

    async def finish(self, place: int) -> None:
        if self.answers:
            marker = list(self.answers)[place % len(self.answers)]
            found = self.answers.pop(marker)
            await self.feed.lists.finish_rebuild(self.feed.account_id, marker, found, to_the_end=len(found) < WINDOW)


@pytest.mark.parametrize("disorder", DISORDERS)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("publish"), ids),
            st.tuples(st.just("push_to_another"), ids),
            st.tuples(st.sampled_from(["deliver", "deliver_again", "finish"]), st.integers(0, 5)),
            st.tuples(st.sampled_from(["begin", "lose_lock", "expire", "flush"])),
        ),
        max_size=40,
    )
)
@thorough
async def test_a_list_lacks_nothing_down_to_its_floor_once_all_is_delivered(
    res: Resources, disorder: float, steps: list[tuple[Any, ...]]
) -> None:
    feed = feed_of(res, disorder=disorder)
    truth = Truth(feed)
    for name, *arguments in steps:
        await getattr(truth if hasattr(truth, name) else feed, name)(*arguments)
        assert len(await feed.raw()) <= WINDOW + SLACK, "a list never outgrows window and slack"
    while truth.late:
        await truth.deliver(0)
    for limit in (None, *range(1, WINDOW + SLACK + 1)):
        window = await feed.read(limit)
        if window is not None:
            assert window.ids == sorted((id_ for id_ in truth.published if id_ >= window.floor), reverse=True)
            if window.to_the_end:
                assert set(window.ids) == truth.published


def test_a_key_is_parted_where_the_database_fills_in(res: Resources) -> None:
    lists = res.timelines
    before, after = lists.key_parts
    for account in (1, 5 << 10, MAX_ID):
        key = lists._key(account)
        assert key == f"{before}{lists.bucket_of(account)}{after}{account}"
        assert before.endswith("{"), "the bucket is the hash slot"
        assert after.startswith("}")


async def test_the_database_packs_the_key_of_every_follower(fresh_res: Resources) -> None:
    """Of ids as long as ours are this year, were, and will be, in buckets whose names have one digit and two."""
    lists, author = fresh_res.timelines, fresh_res.ids.next(3)
    ids = [edge + step for edge in (1, 99_999, 10**17 - 2, 10**18 - 2, MAX_ID - 40_000) for step in range(4)]
    ids += [(7 << 60) + (shard << 10) for shard in (3, 14)]
    async with fresh_res.db.acquire() as connection:
        await connection.executemany(
            "insert into followers (shard, followee_id, follower_id, id, notify) values ($1, $2, $3, $3, false)",
            [(shard_of(author), author, follower) for follower in ids],
        )
        packed = partial(
            follow_rows.packed_followers, connection, author, buckets=lists.buckets, key_parts=lists.key_parts
        )
        first = await packed(above=ids[0], limit=3)
        rest = await packed(above=first.last, limit=len(ids))
        none = await packed(above=rest.last, limit=1)
    found = {
        some.keys[at : at + some.width]: some.bucket
        for some in first.followers + rest.followers
        for at in range(0, len(some.keys), some.width)
    }
    assert found == {lists._key(id_): lists.bucket_of(id_) for id_ in ids[1:]}
    assert (first.count, rest.count) == (3, len(ids) - 4)
    assert (first.last, rest.last) == (sorted(ids)[3], max(ids))
    assert (none.followers, none.count, none.last) == ([], 0, max(ids))


@pytest.mark.parametrize("again", [False, True])
async def test_a_push_of_many_followers_reaches_each_of_them(res: Resources, again: bool) -> None:
    """Of buckets whose names have one digit and two, in several calls each."""
    lists = lists_of(res, buckets=12, disorder=30)
    accounts = [(serial << 23) | (shard << 10) for shard in (3, 11, 12 + 3) for serial in range(1, 604)]
    materialised = set(accounts[::2])
    for account in materialised:
        marker = await lists.begin_rebuild(account)
        assert marker is not None
        await lists.finish_rebuild(account, marker, [], to_the_end=True)
    followers = packed(lists, accounts)
    assert {some.bucket for some in followers} == {3, 11}
    assert len({some.width for some in followers}) == 5, "ids of 7 to 10 digits, in buckets of one and two"
    await lists.push(MAX_ID, followers, again=again)
    for account in accounts:
        window = await lists.read(account, limit=None)
        assert window == (Window([MAX_ID], floor=0) if account in materialised else None)


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


async def test_a_post_within_the_disorder_goes_to_the_head_and_a_later_one_into_its_place(res: Resources) -> None:
    feed = feed_of(res, disorder=0.003)
    await feed.build([10 * MS, 5 * MS])
    await feed.push(8 * MS)
    assert await feed.raw() == [str(8 * MS), str(10 * MS), str(5 * MS), "0"]
    await feed.push(7 * MS)
    assert (await feed.raw())[:3] == [str(8 * MS), str(10 * MS), str(7 * MS)]
    assert await feed.read() == Window([n * MS for n in (10, 8, 7, 5)], floor=0)


async def test_only_a_push_that_looks_leaves_a_post_alone_that_is_there(res: Resources) -> None:
    feed = feed_of(res, disorder=0.003)
    await feed.build([])
    await feed.push(10 * MS)
    await feed.push(10 * MS, again=True)
    assert await feed.raw() == [str(10 * MS), "0"]
    await feed.push(10 * MS)
    assert await feed.raw() == [str(10 * MS), str(10 * MS), "0"]
    assert await feed.read() == Window([10 * MS], floor=0), "a reader sees it once"


async def test_what_another_list_of_the_bucket_holds_decides_whether_a_push_looks(feed: Feed) -> None:
    await feed.build([20])
    await feed.push_to_another(30)
    await feed.push(25)
    assert await feed.raw() == ["25", "20", "0"]
    await feed.push(22)
    assert await feed.raw() == ["25", "22", "20", "0"]


async def test_a_list_lives_a_minute_while_it_is_built_and_then_from_one_keep_to_the_next(feed: Feed) -> None:
    await feed.begin()
    assert 50 < await feed.seconds_to_live() <= 60
    assert await feed.read() is None
    assert 50 < await feed.seconds_to_live() <= 60, "reading it does not keep a dead builder's list"
    await feed.finish(0, {7}, to_the_end=True)
    assert IDLE_SECONDS - 5 < await feed.seconds_to_live() <= IDLE_SECONDS
    await feed.redis.call(feed.key, "EXPIRE", feed.key, 1000)
    for change in (feed.push(9), feed.push(8), feed.push_again(6), feed.merge({5, 4}), feed.remove({9})):
        await change
        assert 990 < await feed.seconds_to_live() <= 1000, "only reading keeps a feed"
    await feed.read()
    assert IDLE_SECONDS - 5 < await feed.seconds_to_live() <= IDLE_SECONDS


async def test_an_empty_feed_stays_materialised(feed: Feed) -> None:
    await feed.build([])
    assert await feed.raw() == ["0"]
    await feed.push(3)
    await feed.remove({3})
    assert await feed.raw() == ["0"]
    assert await feed.read(1) == Window([], floor=0)


async def test_the_first_entries_say_nothing_of_the_end_unless_they_reach_it(feed: Feed) -> None:
    await feed.build([3, 2, 1])
    assert await feed.read(3) == Window([3, 2, 1], floor=1)
    assert await feed.read(4) == Window([3, 2, 1], floor=0)


async def test_a_failed_push_is_one_error_of_ours() -> None:
    nowhere = RedisServer("redis://127.0.0.1:1/0")
    lists = Timelines(nowhere, "feed", window=WINDOW, buckets=64, idle_days=IDLE_DAYS, disorder_seconds=0)
    packed = [PackedFollowers(bucket, "1" * 19, 19) for bucket in range(5)]
    with pytest.raises(RedisAway):
        await lists.push(1, packed, again=False)
    await nowhere.close()


bounds = st.one_of(ids, st.just(MAX_ID))


@given(
    held=st.lists(
        st.one_of(st.none(), st.tuples(st.sets(ids, max_size=WINDOW), st.booleans())), min_size=1, max_size=6
    ),
    below=bounds,
    above=st.one_of(st.just(0), ids),
    limit=st.integers(1, WINDOW + 2),
)
@thorough
async def test_many_lists_are_read_at_once(
    res: Resources, held: list[tuple[set[int], bool] | None], below: int, above: int, limit: int
) -> None:
    """Wherever they are: some in one bucket, some in others, some not there, some being rebuilt."""
    lists = lists_of(res, buckets=2)
    accounts = [(serial << 23) | (serial % 3 << 10) for serial in range(1, len(held) + 1)]
    for account, some in zip(accounts, held, strict=True):
        if some is None:
            continue
        found, to_the_end = some
        marker = await lists.begin_rebuild(account)
        assert marker is not None
        if found or to_the_end:
            await lists.finish_rebuild(account, marker, sorted(found, reverse=True), to_the_end=to_the_end)
    window, missing = await lists.read_many(accounts, below=below, above=above, limit=limit)
    there = [some for some in held if some is not None and (some[0] or some[1])]
    assert missing == [account for account, some in zip(accounts, held, strict=True) if some not in there]
    # Complete from where each of them is.
    floor = max(
        [above, *(min(found) for found, to_the_end in there if not to_the_end and min(found) > above)],
    )
    wanted = sorted({id_ for found, _ in there for id_ in found if floor <= id_ < below}, reverse=True)
    assert window == Window(wanted[:limit], floor if len(wanted) < limit else wanted[limit - 1])


async def test_of_many_lists_those_with_the_newest_ids_are_read(res: Resources) -> None:
    """More than are wanted, longer than what is looked at at once, and with posts in common."""
    lists = Timelines(
        res.redis, f"t{secrets.token_hex(4)}", window=40, buckets=2, idle_days=IDLE_DAYS, disorder_seconds=0
    )
    found: dict[int, set[int]] = {}
    for number in range(30):
        account = (number << 23) | (number % 3 << 10)
        found[account] = {MS * n for n in range(1 + number, 400, 7 + number % 9)}
        marker = await lists.begin_rebuild(account)
        assert marker is not None
        await lists.finish_rebuild(account, marker, sorted(found[account], reverse=True), to_the_end=number % 2 == 0)
        found[account] = set(sorted(found[account], reverse=True)[:40])
    everything = sorted(set.union(*found.values()), reverse=True)
    for limit, below in itertools.product((1, 3, 9, 20, 41), (MAX_ID, MS * 399, MS * 350, MS * 300)):
        window, _ = await lists.read_many([*found], below=below, above=0, limit=limit)
        wanted = [id_ for id_ in everything if id_ < below][:limit]
        assert window == Window(wanted, wanted[-1])


async def test_the_many_lists_that_are_read_live_on(res: Resources) -> None:
    lists = lists_of(res)
    feeds = [Feed(lists, Model(0)) for _ in range(3)]
    await feeds[0].build([3])
    await feeds[1].begin()
    await feeds[0].redis.call(feeds[0].key, "EXPIRE", feeds[0].key, 1000)
    for above in (0, 9):
        accounts = [feed.account_id for feed in feeds]
        window, missing = await lists.read_many(accounts, below=MAX_ID, above=above, limit=9)
        assert window == Window([3] if above < 3 else [], floor=above)
        assert missing == accounts[1:]
        assert await feeds[0].seconds_to_live() > IDLE_SECONDS - 5
        assert await feeds[1].seconds_to_live() <= 60
        assert await feeds[2].raw() == []
