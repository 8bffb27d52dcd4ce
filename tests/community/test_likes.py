"""Likes."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from instafeed import accounts
from instafeed.resources import Resources
from tests.api.answers import anonymous
from tests.client import Client, eventually
from tests.community.conftest import Publish

SignUp = Callable[..., Awaitable[Client]]


async def like(client: Client, post_id: str) -> None:
    assert (await client.call("PUT", f"/v1/posts/{post_id}/like"))["liked"]


async def unlike(client: Client, post_id: str) -> None:
    await client.call("DELETE", f"/v1/posts/{post_id}/like", 204)


async def test_a_like_is_counted_once_however_often_it_is_sent(sign_up: SignUp, publish: Publish) -> None:
    author, fan = await sign_up(), await sign_up()
    post_id = await publish(author)
    path = f"/v1/posts/{post_id}"
    post = await fan.call("GET", path)
    assert (post["like_count"], post["comment_count"]) == (0, 0)
    assert post["viewer"] == {"liked": False, "saved": False}
    await asyncio.gather(*(like(fan, post_id) for _ in range(5)))
    assert await fan.call("PUT", f"{path}/like") == {"liked": True, "saved": False}
    liked = await fan.call("GET", path)
    assert liked == post | {"like_count": 1, "viewer": {"liked": True, "saved": False}}
    assert (await author.call("GET", path)) == post | {"like_count": 1}
    assert (await fan.call("GET", f"/v1/accounts/{author.id}/posts"))["items"] == [liked]
    await asyncio.gather(*(unlike(fan, post_id) for _ in range(5)))
    assert await fan.call("GET", path) == post
    assert await fan.walk(f"{path}/likes") == []


async def test_who_likes_a_post_is_listed_newest_first_but_for_those_whom_the_viewer_may_not_see(
    sign_up: SignUp, publish: Publish, res: Resources
) -> None:
    author, fans = await sign_up(), [await sign_up() for _ in range(5)]
    post_id = await publish(author)
    path = f"/v1/posts/{post_id}/likes"
    for fan in fans:
        await like(fan, post_id)
    newest_first = [fan.id for fan in reversed(fans)]
    assert await author.walk(path, 2) == newest_first
    seen = (await fans[0].call("GET", path))["items"][0]
    assert seen["viewer"]["following"] is False
    await fans[0].block(fans[2])
    await fans[4].block(fans[0])
    assert await fans[0].walk(path, 1) == [fans[3].id, fans[1].id, fans[0].id]
    assert await author.walk(path) == newest_first
    await accounts.suspend(res, fans[3].account["username"])
    assert await fans[0].walk(path) == [fans[1].id, fans[0].id]
    assert (await author.call("GET", f"/v1/posts/{post_id}"))["like_count"] == 5
    await accounts.unsuspend(res, fans[3].account["username"])
    assert await author.walk(path) == newest_first


async def test_what_one_may_not_see_one_cannot_like_or_save(sign_up: SignUp, publish: Publish) -> None:
    author, fan = await sign_up(), await sign_up()
    hidden, deleted = await publish(author), await publish(author)
    await author.call("DELETE", f"/v1/posts/{deleted}", 204)
    await author.block(fan)
    calls = [("PUT", "like"), ("DELETE", "like"), ("GET", "likes"), ("PUT", "save"), ("DELETE", "save")]
    for method, what in calls:
        missing = await fan.http.request(method, f"/v1/posts/1/{what}", headers=fan.headers)
        assert missing.status_code == 404
        for post_id in (hidden, deleted):
            answer = await fan.http.request(method, f"/v1/posts/{post_id}/{what}", headers=fan.headers)
            assert anonymous(answer) == anonymous(missing), (method, what)
    assert (await author.call("GET", f"/v1/posts/{hidden}"))["like_count"] == 0


@pytest.mark.usefixtures("workers")
async def test_the_feed_shows_ones_own_marks_at_once_and_counts_within_moments(
    sign_up: SignUp, publish: Publish
) -> None:
    author, fan, other = await sign_up(), await sign_up(), await sign_up()
    post_id = await publish(author)
    await fan.follow(author)
    await fan.sees(post_id, seconds=30)

    async def in_feed(reader: Client) -> dict[str, object]:
        [post] = (await reader.call("GET", "/v1/feed"))["items"]
        found: dict[str, object] = post
        return found

    assert (await in_feed(fan)) == await fan.call("GET", f"/v1/posts/{post_id}")
    for _ in range(3):
        await like(fan, post_id)
        assert (await in_feed(fan))["viewer"] == {"liked": True, "saved": False}
        await fan.call("PUT", f"/v1/posts/{post_id}/save")
        assert (await in_feed(fan))["viewer"] == {"liked": True, "saved": True}
        await unlike(fan, post_id)
        assert (await in_feed(fan))["viewer"] == {"liked": False, "saved": True}
        await fan.call("DELETE", f"/v1/posts/{post_id}/save", 204)
        assert (await in_feed(fan))["viewer"] == {"liked": False, "saved": False}
    await like(fan, post_id)
    await like(other, post_id)

    async def counted() -> bool:
        return (await in_feed(fan))["like_count"] == 2

    await eventually(counted)
    assert (await in_feed(fan)) == await fan.call("GET", f"/v1/posts/{post_id}")
