"""Explore: its formula, its order, and what it shows to whom. In a world where nothing else is ranked, nor by the clock."""

import math
from collections.abc import Awaitable, Callable

import httpx
import pytest

from instafeed import accounts, explore
from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.storage import explore as explore_rows
from instafeed.storage.explore import Candidate
from tests.api.answers import invalid
from tests.client import Client
from tests.community.conftest import Publish

SignUp = Callable[[], Awaitable[Client]]
PATH = "/v1/explore"


@pytest.fixture
def res(fresh_res: Resources) -> Resources:
    """What this world's servers hold."""
    return fresh_res


@pytest.fixture
def sign_up(fresh_http: httpx.AsyncClient) -> SignUp:
    """Gives people of this world."""
    return lambda: Client.sign_up(fresh_http)


async def like(post_id: str, *fans: Client) -> None:
    for fan in fans:
        await fan.call("PUT", f"/v1/posts/{post_id}/like")


async def age(res: Resources, post_id: str, hours: float) -> None:
    """Let the post have been published so long ago."""
    async with res.db.acquire() as connection:
        await connection.execute(
            "update posts set published_at = now() - make_interval(secs => $3) where shard = $1 and id = $2",
            shard_of(int(post_id)),
            int(post_id),
            hours * 3600,
        )


async def seen(client: Client, *post_ids: str) -> list[str]:
    """Which of these posts explore shows, in its order; the whole list is read."""
    return [id_ for id_ in await client.walk(PATH, 100) if id_ in post_ids]


def test_a_post_needs_the_more_likes_the_older_it_is() -> None:
    assert explore.score(10, 0) > explore.score(9, 0) > explore.score(9, 1)
    # Of a day: so many times as many as of one that was published just now.
    assert math.isclose(explore.score(1, 0) / explore.score(1, 24), 13**1.5)


def test_of_one_author_three_are_ranked_and_of_nobodys_liking_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore, "RANKED", 4)
    mine = [Candidate(post, 1, 100 + post, 0.0) for post in range(1, 6)]
    others = [Candidate(10, 2, 1, 0.0), Candidate(11, 3, 1, 0.0), Candidate(12, 4, 0, 0.0)]
    assert explore.ranking([*mine, *others]) == [5, 4, 3, 11]


async def test_posts_that_others_like_are_ranked_by_likes_and_age(
    sign_up: SignUp, publish: Publish, res: Resources
) -> None:
    fans = [await sign_up() for _ in range(3)]
    posts = []
    for _ in range(6):
        author = await sign_up()
        posts.append(await publish(author))
        await like(posts[-1], author)
    old, popular, fresh, alone, ancient, unliked = posts
    await like(old, *fans)
    await age(res, old, 30)
    await like(popular, *fans[:2])
    await like(fresh, fans[0])
    await like(ancient, *fans)
    await age(res, ancient, 24 * explore.DAYS + 1)
    await like(unliked, fans[0])
    await fans[0].call("DELETE", f"/v1/posts/{unliked}/like", 204)
    await explore.rank(res)
    reader = await sign_up()
    assert await seen(reader, *posts) == [popular, fresh, old]
    assert alone not in await reader.walk(PATH, 100)
    post = next(item for item in (await reader.call("GET", PATH))["items"] if item["id"] == popular)
    assert post == await reader.call("GET", f"/v1/posts/{popular}")


async def test_what_one_may_not_see_or_has_anyway_is_left_out_at_once(
    sign_up: SignUp, publish: Publish, res: Resources
) -> None:
    reader, fan = await sign_up(), await sign_up()
    authors = [await sign_up() for _ in range(7)]
    posts = [await publish(author) for author in authors]
    own = await publish(reader)
    for post_id in (*posts, own):
        await like(post_id, fan)
    await explore.rank(res)
    assert {*await seen(reader, *posts, own)} == {*posts}
    await authors[0].block(reader)
    await reader.block(authors[1])
    await reader.mute(authors[2])
    await reader.follow(authors[3])
    await authors[4].edit(is_private=True)
    await accounts.suspend(res, authors[5].account["username"])
    await authors[6].call("DELETE", f"/v1/posts/{posts[6]}", 204)
    assert await seen(reader, *posts) == []
    stranger = await sign_up()
    assert {*await seen(stranger, *posts)} == {*posts[:4]}
    # And those that are ranked after that.
    await explore.rank(res)
    assert {*await seen(stranger, *posts)} == {*posts[:4]}
    await authors[0].unblock(reader)
    await reader.unfollow(authors[3])
    assert {*await seen(reader, *posts)} == {posts[0], posts[3]}


async def test_pages_go_on_in_their_ranking_and_when_it_is_gone_in_the_newest(
    sign_up: SignUp, publish: Publish, res: Resources
) -> None:
    reader, fans = await sign_up(), [await sign_up() for _ in range(4)]
    posts = [await publish(await sign_up()) for _ in range(4)]
    for number, post_id in enumerate(posts):
        await like(post_id, *fans[number:])
    await explore.rank(res)
    assert await seen(reader, *posts) == posts
    first = await reader.call("GET", PATH, params={"limit": "1"})
    for fan in fans:
        await like(posts[3], fan)
    await age(res, posts[0], 100)
    await explore.rank(res)
    assert await seen(reader, *posts) == [posts[3], *posts[1:3], posts[0]]

    async def rest() -> list[str]:
        ids, cursor = [post["id"] for post in first["items"]], first["next_cursor"]
        while cursor is not None:
            page = await reader.call("GET", PATH, params={"limit": "100", "cursor": cursor})
            ids, cursor = ids + [post["id"] for post in page["items"]], page["next_cursor"]
        return ids

    ids = await rest()
    assert len({*ids}) == len(ids)
    assert [id_ for id_ in ids if id_ in posts] == posts
    async with res.db.acquire() as connection:
        await connection.execute("delete from explore_rankings where id < (select max(id) from explore_rankings)")
    assert len(await rest()) == len(await reader.walk(PATH, 100))
    invalid(await fans[0].http.get(PATH, params={"cursor": first["next_cursor"]}, headers=fans[0].headers), "cursor")


async def test_a_ranking_looks_at_the_newest_likes_and_at_the_one_before(
    sign_up: SignUp, publish: Publish, res: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    fan = await sign_up()
    posts = [await publish(await sign_up()) for _ in range(3)]
    for post_id in posts:
        await like(post_id, fan)
    async with res.db.acquire() as connection:
        assert await explore_rows.liked_lately(connection, limit=2) == {int(post_id) for post_id in posts[1:]}
    await explore.rank(res)
    monkeypatch.setattr(explore, "LIKES", 0)
    await explore.rank(res)
    assert {*await seen(await sign_up(), *posts)} == {*posts}
