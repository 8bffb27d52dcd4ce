"""The home feed is what its definition says, whatever happens in whatever order.

Steps are drawn at random: people post, publish late, edit, delete, follow and unfollow accounts and tags, ask and answer,
remove, go private and public, block, mute, and are suspended; they become celebrities and cease to be; feeds are read, expire,
or are lost with all of Redis; jobs run late, again, out of order, at the same time, and are killed between any two calls. Every
task stands before each of its calls of a server, and before each commit, until a step lets it on, so that a sequence of steps
always does the same.

While this goes on, no read shows what was answered as gone, forbidden or edited before it began. Once it is over and the jobs
are done, every page of every feed is what SQL says.
"""

from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.feeds.play import SHARDS, Past, Step, run
from tests.feeds.world import World

place = st.integers(0, len(SHARDS) - 1)
pasts = st.builds(
    Past,
    window=st.sampled_from([10, 5, 2]),
    disorder=st.sampled_from([3, 3, 0]),
    celebrity=st.sampled_from([1, 1, 2, 1000]),
    at_once=st.sampled_from([1, 1, 2, 1000]),
    read_ahead=st.sampled_from([12, 12, 4, 1000]),
    posts=st.lists(place, max_size=25)
    | st.builds(list.__mul__, place.map(lambda author: [author]), st.integers(1, 13)),
    tagged=st.lists(st.integers(0, 3), min_size=1, max_size=3),
    tags=st.sets(st.tuples(place, st.integers(0, 1)), max_size=3),
    follows=st.sets(st.tuples(place, place), max_size=8),
    private=st.sets(place, max_size=1),
    deliveries=st.dictionaries(place, st.integers(1, 2), max_size=2),
    materialised=st.sets(place),
)
number = st.integers(0, 7)
common = st.sampled_from(
    [
        *("post", "late", "follow", "unfollow", "delete", "edit", "read", "chain"),
        *("job", "job", "job", "finish", "step", "step", "step"),
    ]
)
seldom = st.sampled_from(
    [
        *("approve", "refuse", "remove", "private", "public", "block", "unblock", "mute", "unmute"),
        *("suspend", "unsuspend", "rename", "tag", "untag"),
    ]
)
rare = st.sampled_from(
    [
        *("flush", "kill", "stop", "unlock", "again", "lapse", "draft", "publish"),
        *("expire", "expire_recents", "end_holds"),
    ]
)
steps = st.lists(st.builds(Step, common | common | seldom | rare, number, number), min_size=5, max_size=60)


@given(past=pasts, steps=steps, limits=st.lists(st.integers(1, 20), min_size=len(SHARDS), max_size=len(SHARDS)))
@hypothesis_settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[phase for phase in Phase if phase is not Phase.explain],  # takes minutes, and helps little here
)
async def test_the_feed_is_its_definition(gated: World, past: Past, steps: list[Step], limits: list[int]) -> None:
    await run(gated, past, steps, limits)
