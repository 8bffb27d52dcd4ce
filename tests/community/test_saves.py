"""Saves."""

from collections.abc import Awaitable, Callable

from instafeed import accounts
from instafeed.resources import Resources
from tests.client import Client
from tests.community.conftest import Publish

SignUp = Callable[..., Awaitable[Client]]
PATH = "/v1/me/saves"


async def save(client: Client, post_id: str) -> None:
    assert (await client.call("PUT", f"/v1/posts/{post_id}/save"))["saved"]


async def test_saves_are_ones_own_and_listed_last_saved_first(sign_up: SignUp, publish: Publish) -> None:
    author, reader = await sign_up(), await sign_up()
    first, second, third = [await publish(author) for _ in range(3)]
    for post_id in (second, first, third, first):
        await save(reader, post_id)
    assert await reader.walk(PATH, 2) == [third, first, second]
    page = await reader.call("GET", PATH)
    assert page["items"][0] == await reader.call("GET", f"/v1/posts/{third}")
    assert page["items"][0]["viewer"] == {"liked": False, "saved": True}
    assert await author.walk(PATH) == []
    assert (await author.call("GET", f"/v1/posts/{third}"))["viewer"] == {"liked": False, "saved": False}
    for _ in range(2):
        await reader.call("DELETE", f"/v1/posts/{third}/save", 204)
    assert await reader.walk(PATH) == [first, second]


async def test_of_what_one_has_saved_one_sees_what_one_may_see_now(
    sign_up: SignUp, publish: Publish, res: Resources
) -> None:
    reader, friend = await sign_up(), await sign_up()
    authors = [await sign_up() for _ in range(4)]
    posts = [await publish(author) for author in authors]
    kept = await publish(friend)
    for post_id in (*posts, kept):
        await save(reader, post_id)
    await authors[0].block(reader)
    await authors[1].edit(is_private=True)
    await accounts.suspend(res, authors[2].account["username"])
    await authors[3].call("DELETE", f"/v1/posts/{posts[3]}", 204)
    page = await reader.call("GET", PATH, params={"limit": "1"})
    assert [post["id"] for post in page["items"]] == [kept]
    assert page["next_cursor"] is None, "that there are others shows in nothing"
    await authors[0].unblock(reader)
    await authors[1].edit(is_private=False)
    await accounts.unsuspend(res, authors[2].account["username"])
    assert await reader.walk(PATH, 1) == [kept, *reversed(posts[:3])]
    await reader.mute(authors[0])
    assert posts[0] in await reader.walk(PATH), "a mute is for the feed and the activity"
