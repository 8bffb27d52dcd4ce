"""The whole path: a posted photo is in the followers' feeds."""

from collections.abc import Awaitable, Callable

import pytest

from tests.client import Client, http_client

pytestmark = pytest.mark.usefixtures("workers")
SignUp = Callable[..., Awaitable[Client]]


async def test_a_posted_photo_reaches_the_followers_feed(sign_up: SignUp) -> None:
    author, follower, stranger = await sign_up(), await sign_up(), await sign_up()
    await follower.follow(author)
    post = await author.post("hello")
    await follower.sees(post["id"])
    assert await author.feed() == [post["id"]]
    assert await stranger.feed() == []
    [seen] = (await follower.call("GET", "/v1/feed"))["items"]
    assert seen["caption"] == "hello"
    async with http_client() as phone:
        for rendition in seen["media"][0]["renditions"]:
            answer = await phone.get(rendition["url"])
            assert answer.status_code == 200
            assert answer.headers["content-type"] == rendition["content_type"]
            assert len(answer.content) == rendition["bytes"]
