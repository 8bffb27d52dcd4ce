"""Tags: the posts that have one, how many these are, and searching them."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from instafeed import accounts
from instafeed import posts as verbs
from instafeed.ids import shard_of
from instafeed.models import Viewer
from instafeed.resources import Resources
from tests.api.answers import invalid
from tests.client import Client

pytestmark = pytest.mark.usefixtures("workers")
SignUp = Callable[..., Awaitable[Client]]

UNFOLLOWED = {"following": False}


def new_tag() -> str:
    return f"t{secrets.token_hex(6)}"


async def publish(res: Resources, client: Client, caption: str) -> str:
    """Publish a post without photos, which nobody has to make ready."""
    me, post_id = int(client.id), res.ids.next(shard_of(int(client.id)))
    await verbs.create(res, Viewer(me, me, ""), post_id, caption=caption, photos=[])
    return str(post_id)


async def posts(client: Client, tag: str, limit: int = 30) -> list[str]:
    return await client.walk(f"/v1/tags/{tag}/posts", limit)


async def count(client: Client, tag: str) -> dict[str, Any]:
    found: dict[str, Any] = await client.call("GET", f"/v1/tags/{tag}")
    return found


async def found(client: Client, q: str, limit: int = 20) -> list[str]:
    page = await client.call("GET", "/v1/search/tags", params={"q": q, "limit": str(limit)})
    assert page["next_cursor"] is None
    return [tag["name"] for tag in page["items"]]


async def test_a_tag_finds_its_posts_newest_first(sign_up: SignUp, ada: Client, res: Resources) -> None:
    one, other = await sign_up(), await sign_up()
    tag = new_tag()
    ids = [
        await publish(res, author, caption)
        for author, caption in [
            (one, f"#{tag}"),
            (other, f"#{tag.upper()} #{tag}"),
            (one, f"#{tag}x"),
            (one, f"a #{tag}"),
        ]
    ]
    for limit in (1, 2, 3):
        assert await posts(ada, tag, limit) == [ids[3], ids[1], ids[0]]
    assert await posts(ada, tag.upper()) == [ids[3], ids[1], ids[0]]
    assert await count(ada, tag.upper()) == {"name": tag, "post_count": 3, "is_exact": True, "viewer": UNFOLLOWED}
    post = (await ada.call("GET", f"/v1/tags/{tag}/posts", params={"limit": "1"}))["items"][0]
    assert post["id"] == ids[3]
    assert (post["tags"], post["caption"]) == ([tag], f"a #{tag}")


async def test_a_tag_follows_the_caption(sign_up: SignUp, ada: Client) -> None:
    author = await sign_up()
    first, second = new_tag(), new_tag()
    post_id = (await author.published((await author.post(f"#{first}"))["id"]))["id"]
    assert await posts(ada, first) == [post_id]
    edited = await author.call("PATCH", f"/v1/posts/{post_id}", json={"caption": f"#{second} #both"})
    assert edited["tags"] == [second, "both"]
    assert await posts(ada, first) == []
    assert await posts(ada, second) == [post_id]
    await author.call(
        "PATCH", f"/v1/posts/{post_id}", json={"alt_texts": [{"id": edited["media"][0]["id"], "alt_text": "A"}]}
    )
    assert await posts(ada, second) == [post_id]
    await author.call("PATCH", f"/v1/posts/{post_id}", json={"caption": ""})
    assert await posts(ada, second) == []
    await author.call("PATCH", f"/v1/posts/{post_id}", json={"caption": f"#{first}"})
    assert await posts(ada, first) == [post_id]
    await author.call("DELETE", f"/v1/posts/{post_id}", 204)
    assert await posts(ada, first) == []
    assert await count(ada, first) == {"name": first, "post_count": 0, "is_exact": True, "viewer": UNFOLLOWED}
    assert await found(ada, first) == []


async def test_nothing_of_a_deleted_post_stays_in_the_index(sign_up: SignUp, res: Resources) -> None:
    author = await sign_up()
    post_id = await publish(res, author, " ".join(f"#{new_tag()}" for _ in range(3)))
    async with res.db.acquire() as connection:
        query = "select count(*) from tagged_posts where post_id = $1"
        assert await connection.fetchval(query, int(post_id)) == 3
        await author.call("DELETE", f"/v1/posts/{post_id}", 204)
        assert await connection.fetchval(query, int(post_id)) == 0


async def test_the_index_agrees_with_the_caption_whoever_comes_first(sign_up: SignUp, res: Resources) -> None:
    author = await sign_up()
    ids = [await publish(res, author, "") for _ in range(3)]
    names = [new_tag() for _ in range(4)]
    few = asyncio.Semaphore(6)  # on a slow machine more would wait for connections for longer than they may

    async def edit(post_id: str, caption: str) -> None:
        async with few:
            answer = await author.http.patch(f"/v1/posts/{post_id}", json={"caption": caption}, headers=author.headers)
        assert answer.status_code in {200, 404}, answer.text

    # New tags, in all orders, at the same time; and one post is deleted in between.
    captions = [" ".join(f"#{name}" for name in names[at:] + names[:at]) for at in range(4)] + ["", f"#{names[0]}"]
    edits = [edit(post_id, caption) for caption in captions for post_id in ids]
    delete = author.call("DELETE", f"/v1/posts/{ids[0]}", 204)
    await asyncio.gather(*edits[:9], delete, *edits[9:])
    async with res.db.acquire() as connection:
        records = await connection.fetch("select tag, post_id from tagged_posts where author_id = $1", int(author.id))
    kept = {post_id: (await author.call("GET", f"/v1/posts/{post_id}"))["tags"] for post_id in ids[1:]}
    assert {(record["tag"], str(record["post_id"])) for record in records} == {
        (tag, post_id) for post_id, tags in kept.items() for tag in tags
    }


async def test_a_post_is_found_once_it_is_published(fresh_http: httpx.AsyncClient) -> None:
    author = await Client.sign_up(fresh_http)
    assert (await author.post("#soon #later"))["tags"] == ["soon", "later"]
    for _ in range(2):
        assert await posts(author, "soon") == []
        assert await found(author, "soon") == []
        [post_id] = await author.walk(f"/v1/accounts/{author.id}/posts")
        await author.call("PATCH", f"/v1/posts/{post_id}", json={"caption": "#soon"})


async def test_tags_are_found_in_every_spelling(sign_up: SignUp, res: Resources) -> None:
    author = await sign_up()
    tag = new_tag()
    post_id = await publish(res, author, f"#{tag}\u65e5\u672c #{tag}Stra\u00dfe")
    assert await posts(author, f"{tag}\u65e5\u672c") == [post_id]
    assert await posts(author, f"{tag}STRASSE") == [post_id]
    page = await author.http.get(f"/v1/tags/{tag}\u65e5\u672c/posts", headers=author.headers)
    assert page.status_code == 200
    assert await found(author, f"#{tag}") == [f"{tag}strasse", f"{tag}\u65e5\u672c"]


async def test_a_page_of_a_tag_in_any_script_links_to_the_next_one(sign_up: SignUp, res: Resources) -> None:
    author = await sign_up()
    tag = new_tag() + "\u65e5\u672c"
    ids = [await publish(res, author, f"#{tag}") for _ in range(2)]
    page = await author.http.get(f"/v1/tags/{tag}/posts", params={"limit": "1"}, headers=author.headers)
    link = page.headers["link"].removeprefix("<").removesuffix('>; rel="next"')
    following = await author.http.get(link, headers=author.headers)
    assert [post["id"] for post in following.json()["items"]] == ids[:1]


@pytest.mark.parametrize("tag", ["1", "_", "%20", "a%20b", "a-b", "%23a", "a" * 65, "%e3%85%a4", "%00"])
async def test_what_is_no_tag_is_refused(ada: Client, tag: str) -> None:
    for path in (f"/v1/tags/{tag}", f"/v1/tags/{tag}/posts"):
        invalid(await ada.http.get(path, headers=ada.headers), "tag")


@pytest.mark.parametrize("q", ["", "#", " ", "a b", "a" * 65, "a" * 10_000, "\u3164", "\x00", "-"])
async def test_what_no_tag_begins_with_is_refused(ada: Client, q: str) -> None:
    invalid(await ada.http.get("/v1/search/tags", params={"q": q}, headers=ada.headers), "q")


async def test_a_search_needs_a_query_and_takes_a_limit(ada: Client) -> None:
    invalid(await ada.http.get("/v1/search/tags", headers=ada.headers), "q")
    for limit in ("0", "101", "a"):
        answer = await ada.http.get("/v1/search/tags", params={"q": "a", "limit": limit}, headers=ada.headers)
        invalid(answer, "limit")


async def test_the_tag_itself_is_found_first_then_the_most_used(sign_up: SignUp, res: Resources) -> None:
    author = await sign_up()
    tag = new_tag()
    await publish(res, author, f"#{tag} #{tag}a #{tag}b #{tag}c")
    async with res.db.acquire() as connection:
        for name, level in ((tag, 8), (f"{tag}a", 16), (f"{tag}b", 80), (f"{tag}c", 17)):
            await connection.execute("update tags set level = $2 where tag = $1", name, level)
    assert await found(author, tag) == [tag, f"{tag}b", f"{tag}c", f"{tag}a"]
    assert await found(author, tag, limit=2) == [tag, f"{tag}b"]


async def test_of_much_used_tags_the_number_is_an_estimate(
    sign_up: SignUp, ada: Client, monkeypatch: pytest.MonkeyPatch, res: Resources
) -> None:
    monkeypatch.setattr("instafeed.tags._SAMPLE", 4)
    author = await sign_up()
    tag = new_tag()
    for number in range(4):
        assert await count(ada, tag) == {"name": tag, "post_count": number, "is_exact": True, "viewer": UNFOLLOWED}
        await publish(res, author, f"#{tag}")

    async def use_much() -> None:
        async with res.db.acquire() as connection:
            await connection.execute("update tags set level = 80 where tag = $1", tag)

    await use_much()
    many = {"name": tag, "post_count": 11_000, "is_exact": False, "viewer": UNFOLLOWED}
    assert await count(ada, tag) == many
    other = await sign_up()
    for _ in range(2):
        await publish(res, other, f"#{tag}")
    await use_much()  # one use in a thousand raises the level
    await other.edit(is_private=True)
    assert await count(ada, tag) == many | {"post_count": 5600}


async def test_a_tag_is_found_under_many_hidden_posts(
    sign_up: SignUp, res: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instafeed.tags._SAMPLE_IN_SEARCH", 2)
    public, hidden, viewer = [await sign_up() for _ in range(3)]
    tag = new_tag()
    for author in (public, hidden, hidden):
        await publish(res, author, f"#{tag}")
    await hidden.edit(is_private=True)
    assert await found(viewer, tag) == [tag]


async def test_uses_are_estimated_well(res: Resources) -> None:
    from instafeed.storage import tags

    # The mean of many tags: each by itself is right to a fifth.
    names, uses = [new_tag() for _ in range(30)], 60
    async with res.db.acquire() as connection:
        for number in range(uses):
            await tags.add(connection, number + 1, 1, names)
        mean = sum([(await tags.get(connection, name)).uses for name in names]) / len(names)
        # Six standard errors of the mean.
        assert abs(mean - uses) < 6 * 0.21 * uses / len(names) ** 0.5
        await connection.execute("delete from tagged_posts where author_id = 1")


async def test_a_page_is_filled_past_posts_that_the_viewer_may_not_see(sign_up: SignUp, res: Resources) -> None:
    public, hidden, viewer = [await sign_up() for _ in range(3)]
    tag = new_tag()
    ids = [await publish(res, public, f"#{tag}")]
    await publish(res, hidden, f"#{tag}")
    ids.append(await publish(res, public, f"#{tag}"))
    await publish(res, hidden, f"#{tag}")
    await hidden.edit(is_private=True)
    page = await viewer.call("GET", f"/v1/tags/{tag}/posts", params={"limit": "2"})
    assert [post["id"] for post in page["items"]] == ids[::-1]
    assert page["next_cursor"] is None
    assert (await count(viewer, tag))["post_count"] == 2


async def test_a_tag_of_hidden_posts_only_is_one_that_nobody_uses(sign_up: SignUp, res: Resources) -> None:
    author, viewer = await sign_up(), await sign_up()
    tag = new_tag()
    await publish(res, author, f"#{tag}")
    assert await found(viewer, tag) == [tag]
    await author.edit(is_private=True)
    assert await found(viewer, tag) == []
    assert (await count(viewer, tag)) == {"name": tag, "post_count": 0, "is_exact": True, "viewer": UNFOLLOWED}
    assert await found(author, tag) == [tag]
    await author.edit(is_private=False)
    assert await found(viewer, tag) == [tag]
    await accounts.suspend(res, author.account["username"])
    assert await found(viewer, tag) == []
    assert await posts(viewer, tag) == []


async def test_the_limits_are_published(http: httpx.AsyncClient, sign_up: SignUp) -> None:
    limits = (await http.get("/v1/limits")).json()
    author = await sign_up()
    longest = "a" * limits["tag_max_characters"]
    names = [longest, *(f"t{number}" for number in range(limits["tags_per_post"]))]
    post = await author.post(" ".join(f"#{name}" for name in names))
    assert post["tags"] == names[:-1]
    caption = f"@{author.account['username']} " * (limits["mentions_per_post"] + 1)
    assert len((await author.post(caption))["mentions"]) == limits["mentions_per_post"]
