import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instafeed.ids import (
    EPOCH_MS,
    MAX_ID,
    SEQUENCE_BITS,
    SHARD_BITS,
    SHARDS,
    IdMaker,
    random_shard,
    shard_of,
    unix_ms_of,
)

shards = st.integers(0, SHARDS - 1)
LAST_MS = EPOCH_MS + (1 << 40) - 1
"""The last millisecond whose ids fit a signed 64-bit integer: in November 2060."""


class Clock:
    """A clock that shows what it is told."""

    def __init__(self, ms: int) -> None:
        self.ms = ms

    def __call__(self) -> int:
        return self.ms


@given(shard=shards, ms=st.integers(EPOCH_MS + 1, LAST_MS))
def test_an_id_tells_its_shard_and_its_time(shard: int, ms: int) -> None:
    made = IdMaker(lambda: ms).next(shard)
    assert shard_of(made) == shard
    assert unix_ms_of(made) == ms
    assert 0 < made <= MAX_ID


@given(
    start=st.integers(EPOCH_MS - 1000, LAST_MS - 10_000),
    steps=st.lists(st.tuples(shards, st.integers(-5, 5) | st.integers(-(10**6), 100)), min_size=2, max_size=300),
)
def test_ids_of_a_shard_only_grow_whatever_the_clock_does(start: int, steps: list[tuple[int, int]]) -> None:
    clock = Clock(start)
    maker = IdMaker(clock)
    last: dict[int, int] = {}
    made = set()
    for shard, step in steps:
        clock.ms += step
        id_ = maker.next(shard)
        assert id_ > last.get(shard, 0)
        assert shard_of(id_) == shard
        last[shard] = id_
        made.add(id_)
    assert len(made) == len(steps)


@given(shard=shards)
def test_a_clock_that_steps_back_makes_time_stand_still(shard: int) -> None:
    clock = Clock(EPOCH_MS + 1_000_000)
    maker = IdMaker(clock)
    before = maker.next(shard)
    clock.ms -= 60_000
    assert unix_ms_of(maker.next(shard)) == unix_ms_of(before)
    clock.ms += 60_001
    assert unix_ms_of(maker.next(shard)) == clock.ms


def test_more_ids_than_a_millisecond_holds_go_on_in_the_next_one() -> None:
    maker = IdMaker(Clock(EPOCH_MS + 1000))
    ids = [maker.next(7) for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert {shard_of(id_) for id_ in ids} == {7}
    # Every millisecond but the first is used up before the next one begins.
    assert unix_ms_of(ids[-1]) - (EPOCH_MS + 1000) <= 1 + (5000 >> SEQUENCE_BITS)


def test_one_maker_never_makes_an_id_twice_over_all_shards() -> None:
    maker = IdMaker(Clock(EPOCH_MS + 1000))
    ids = [maker.next(random.randrange(SHARDS)) for _ in range(20_000)]
    assert len(set(ids)) == len(ids)


def test_makers_begin_at_different_places_of_the_same_millisecond() -> None:
    clock = Clock(EPOCH_MS + 1000)
    firsts = {IdMaker(clock).next(0) for _ in range(200)}
    assert len(firsts) > 100
    half = 1 << SEQUENCE_BITS - 1
    assert max(firsts) - min(firsts) < half


@pytest.mark.parametrize("ms", [LAST_MS, EPOCH_MS + 1])
def test_ids_fit_a_signed_64_bit_integer_to_the_last(ms: int) -> None:
    made = IdMaker(lambda: ms).next(SHARDS - 1)
    assert made.bit_length() <= 63
    assert made >> (SHARD_BITS + SEQUENCE_BITS) == ms - EPOCH_MS


def test_new_accounts_are_spread_over_all_shards() -> None:
    drawn = {random_shard() for _ in range(2000)}
    assert len(drawn) > 1500
    assert min(drawn) >= 0
    assert max(drawn) < SHARDS
