"""Histories that once came out wrong, or nearly did, played again as they were: found by drawing them, or by reading."""

import pytest

from tests.feeds.play import Past, Step, run
from tests.feeds.world import World

HISTORIES: dict[str, tuple[Past, list[Step]]] = {
    # A chunk of two began above an id and took two followers; of three it left the last one out.
    "somebody follows into a chunk that was cut already": (
        Past(at_once=1, follows={(0, 3), (2, 3)}, materialised={0, 1, 2}),
        [Step("post", 3), Step("job"), Step("finish"), Step("follow", 1, 3), Step("finish")],
    ),
    "a follower leaves a chunk that was cut already": (
        Past(at_once=1, follows={(0, 3), (1, 3), (2, 3)}, materialised={0, 1, 2}),
        [Step("post", 3), Step("job"), Step("finish"), Step("unfollow", 1, 3), Step("finish")],
    ),
    # What holds the cache was gone before the commit, and an old answer of the database's in its place.
    "redis is emptied before an unfollow is committed": (
        Past(posts=[1, 1], follows={(0, 1)}, materialised={0}),
        [
            *(Step("unfollow", 0, 1), Step("step"), Step("flush")),
            *(Step("read", 0, 5), Step("finish", 1), Step("finish"), Step("read", 0, 5), Step("finish")),
        ],
    ),
    "redis is emptied before a mute is committed": (
        Past(posts=[1, 1], follows={(0, 1)}, materialised={0}),
        [
            *(Step("mute", 0, 1), Step("step"), Step("flush")),
            *(Step("read", 0, 5), Step("finish", 1), Step("finish"), Step("read", 0, 5), Step("finish")),
        ],
    ),
    "redis is emptied before an edit is committed": (
        Past(posts=[1, 1], follows={(0, 1)}, materialised={0}),
        [
            *(Step("edit"), Step("step"), Step("flush")),
            *(Step("read", 0, 5), Step("finish", 1), Step("finish"), Step("read", 0, 5), Step("finish")),
        ],
    ),
    "redis is emptied before a deletion is committed": (
        Past(posts=[1, 1], follows={(0, 1)}, materialised={0}),
        [
            *(Step("delete"), Step("step"), Step("flush")),
            *(Step("read", 0, 5), Step("finish", 1), Step("finish"), Step("read", 0, 5), Step("finish")),
        ],
    ),
    "redis is emptied before a suspension is committed": (
        Past(posts=[1, 1], follows={(0, 1)}, materialised={0}),
        [
            *(Step("suspend", 1), Step("step"), Step("flush")),
            *(Step("read", 0, 5), Step("finish", 1), Step("finish"), Step("read", 0, 5), Step("finish")),
        ],
    ),
    "an unfollow is killed before its commit, and again after it": (
        Past(posts=[1, 1], follows={(0, 1)}, materialised={0}),
        [
            *(Step("unfollow", 0, 1), Step("step"), Step("kill"), Step("read", 0, 5), Step("finish")),
            *(Step("unfollow", 0, 1), Step("step", 0, 1), Step("kill"), Step("read", 0, 5), Step("finish")),
            *(Step("end_holds"), Step("read", 0, 5), Step("finish")),
        ],
    ),
    "a celebrity loses and wins followers again": (
        Past(window=2, celebrity=1, follows={(0, 3), (1, 3)}, posts=[3, 0, 3], materialised={0, 1, 2}),
        [
            *(Step("post", 3, 3), Step("job"), Step("finish"), Step("read", 0, 2), Step("finish")),
            *(Step("unfollow", 1, 3), Step("finish"), Step("post", 3), Step("job", 7), Step("finish")),
            *(Step("follow", 1, 3), Step("finish"), Step("post", 3), Step("job", 6), Step("step"), Step("job", 3)),
        ],
    ),
    # Of two reads that knew the same, the end of one was taken for the end of the other, which then was told of nothing more.
    "two reads of one feed, of which only one is still under way when it changes": (
        Past(celebrity=1, at_once=1, posts=[3, 3]),
        [
            *(Step("chain", 3), Step("late"), Step("late"), Step("late", 0, 1)),
            *(Step("read", 3), Step("approve", 0, 3)),
        ],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
async def test_a_history_comes_out_right(gated: World, name: str) -> None:
    past, steps = HISTORIES[name]
    await run(gated, past, steps, [1, 3, 2, 20])
