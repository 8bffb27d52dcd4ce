"""Following tags over HTTP."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import httpx
import pytest

from instafeed import tags
from tests.api.answers import invalid, problem
from tests.client import Client, eventually

pytestmark = pytest.mark.usefixtures("workers")
SignUp = Callable[..., Awaitable[Client]]


def new_tag() -> str:
    return f"t{secrets.token_hex(6)}"


async def follow(client: Client, tag: str) -> None:
    assert await client.call("PUT", f"/v1/tags/{tag}/follow") == {"following": True}


async def followed(client: Client, limit: int = 30) -> list[str]:
    names, params = list[str](), {"limit": str(limit)}
    while True:
        page = await client.call("GET", "/v1/me/followed-tags", params=params)
        assert all(tag["viewer"] == {"following": True} for tag in page["items"])
        names += [tag["name"] for tag in page["items"]]
        if page["next_cursor"] is None:
            return names
        assert len(page["items"]) == limit
        params["cursor"] = page["next_cursor"]


async def shows(viewer: Client, ids: list[str]) -> None:
    """Wait until the feed is this."""

    async def probe() -> bool:
        return await viewer.feed() == ids

    await eventually(probe)


async def test_a_tag_is_followed_and_unfollowed(sign_up: SignUp, ada: Client) -> None:
    viewer, author = await sign_up(), await sign_up()
    tag = new_tag()
    post = await author.published((await author.post(f"#{tag}"))["id"])
    for name in (tag, tag.upper()):  # again, and in another spelling
        await follow(viewer, name)
        assert await viewer.feed() == [post["id"]]
        assert (await viewer.call("GET", f"/v1/tags/{tag}"))["viewer"] == {"following": True}
        [found] = (await viewer.call("GET", "/v1/search/tags", params={"q": tag}))["items"]
        assert found["viewer"] == {"following": True}
        assert await followed(viewer) == [tag]
    assert (await ada.call("GET", f"/v1/tags/{tag}"))["viewer"] == {"following": False}
    [item] = (await viewer.call("GET", "/v1/feed"))["items"]
    assert item == await viewer.call("GET", f"/v1/posts/{post['id']}")
    for _ in range(2):
        await viewer.call("DELETE", f"/v1/tags/{tag.upper()}/follow", 204)
        assert await viewer.feed() == []
        assert (await viewer.call("GET", f"/v1/tags/{tag}"))["viewer"] == {"following": False}
        assert await followed(viewer) == []


async def test_an_edit_and_a_deletion_take_a_post_out_of_feeds(sign_up: SignUp) -> None:
    viewer, author = await sign_up(), await sign_up()
    tag = new_tag()
    await follow(viewer, tag)
    assert await viewer.feed() == []
    ids = [(await author.published((await author.post(f"#{tag}"))["id"]))["id"] for _ in range(2)]
    await shows(viewer, ids[::-1])
    await author.call("PATCH", f"/v1/posts/{ids[0]}", json={"caption": "none"})
    assert await viewer.feed() == ids[1:]
    await author.call("PATCH", f"/v1/posts/{ids[0]}", json={"caption": f"#{tag}"})
    await shows(viewer, ids[::-1])
    await author.call("DELETE", f"/v1/posts/{ids[1]}", 204)
    assert await viewer.feed() == ids[:1]


async def test_followed_tags_come_in_pages_the_last_one_first(sign_up: SignUp) -> None:
    viewer = await sign_up()
    names = [new_tag() for _ in range(5)]
    for name in names:
        await follow(viewer, name)
    for limit in (1, 2, 5, 30):
        assert await followed(viewer, limit) == names[::-1]
    page = await viewer.call("GET", "/v1/me/followed-tags", params={"limit": "1"})
    assert page["items"] == [
        {"name": names[-1], "post_count": 0, "is_exact": True, "viewer": {"following": True}},
    ]
    other = await sign_up()
    params = {"cursor": page["next_cursor"]}
    invalid(await other.http.get("/v1/me/followed-tags", params=params, headers=other.headers), "cursor")


async def test_no_more_tags_are_followed_than_are_published(
    http: httpx.AsyncClient, sign_up: SignUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags, "FOLLOWED_MAX", 3)
    assert (await http.get("/v1/limits")).json()["followed_tags_max"] == 3
    viewer = await sign_up()
    names = [new_tag() for _ in range(9)]
    answers = await asyncio.gather(*(http.put(f"/v1/tags/{name}/follow", headers=viewer.headers) for name in names))
    kept = {name for name, answer in zip(names, answers, strict=True) if answer.is_success}
    for answer in answers:
        if not answer.is_success:
            problem(answer, 409, "too-many-tags")
    assert set(await followed(viewer)) == kept
    assert len(kept) == 3
    await follow(viewer, next(iter(kept)))
    await viewer.call("DELETE", f"/v1/tags/{kept.pop()}/follow", 204)
    await follow(viewer, new_tag())


@pytest.mark.parametrize("tag", ["1", "%20", "a%20b", "%23a", "a" * 65, "%e3%85%a4", "%00", "a,b"])
async def test_what_is_no_tag_is_not_followed(ada: Client, tag: str) -> None:
    for method in ("PUT", "DELETE"):
        invalid(await ada.http.request(method, f"/v1/tags/{tag}/follow", headers=ada.headers), "tag")
    assert await followed(ada) == []


async def test_tags_of_any_script_are_followed(sign_up: SignUp) -> None:
    viewer, author = await sign_up(), await sign_up()
    names = [f"{new_tag()}{letters}" for letters in ("日本", "ß", "مرحبا", "é")]
    post = await author.published((await author.post(" ".join(f"#{name}" for name in names)))["id"])
    for name in names:
        await follow(viewer, name)
        for _ in range(2):  # from the database, and from what is cached
            assert await viewer.feed() == [post["id"]]
        await viewer.call("DELETE", f"/v1/tags/{name}/follow", 204)
        assert await viewer.feed() == []
