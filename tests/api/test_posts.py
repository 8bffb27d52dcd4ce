"""Posting, and taking posts back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import httpx
import pytest

from instafeed import posts
from instafeed.errors import Unavailable
from instafeed.ids import shard_of
from instafeed.models import PhotoOfPost, PostChanges, Viewer
from instafeed.resources import Resources
from instafeed.storage.database import Connection, Database
from tests.api.answers import ID, anonymous, invalid, is_now, problem
from tests.client import Client
from tests.photos import jpeg

T = TypeVar("T")
SignUp = Callable[..., Awaitable[Client]]


async def send(client: Client, *photos: str, **fields: Any) -> httpx.Response:
    body = {"media": [{"id": photo} for photo in photos]} | fields
    return await client.http.post("/v1/posts", json=body, headers=client.headers)


async def photos(client: Client, number: int) -> list[str]:
    found = await asyncio.gather(*(client.upload() for _ in range(number)))
    return [photo["id"] for photo in found]


async def test_a_new_post_is_answered_whole(ada: Client) -> None:
    first, second = await photos(ada, 2)
    answer = await send(
        ada, caption="Evening at the harbour", media=[{"id": second, "alt_text": "A lighthouse"}, {"id": first}]
    )
    assert answer.status_code == 201
    post = answer.json()
    assert answer.headers["location"] == f"/v1/posts/{post['id']}"
    assert ID.fullmatch(post["id"])
    assert is_now(post["created_at"])
    author = {name: ada.account[name] for name in ("id", "username", "display_name", "avatar")}
    assert (post["author"], post["caption"]) == (author, "Evening at the harbour")
    assert [(photo["id"], photo["alt_text"]) for photo in post["media"]] == [(second, "A lighthouse"), (first, "")]


async def test_a_post_is_its_authors_until_its_photos_are_ready(
    fresh_http: httpx.AsyncClient, fresh_res: Resources
) -> None:
    author, stranger = await Client.sign_up(fresh_http), await Client.sign_up(fresh_http)
    post = await author.post("not yet")
    path = f"/v1/posts/{post['id']}"
    assert post["published_at"] is None
    assert await author.call("GET", path) == post
    assert await author.walk(f"/v1/accounts/{author.id}/posts") == [post["id"]]
    hidden = await fresh_http.get(path, headers=stranger.headers)
    assert anonymous(hidden) == anonymous(await fresh_http.get("/v1/posts/1", headers=stranger.headers))
    problem(hidden, 404, "not-found")
    # Not even that there are some: a page is empty, and no other follows.
    await author.post("nor this")
    page = await stranger.call("GET", f"/v1/accounts/{author.id}/posts", params={"limit": "1"})
    assert page == {"items": [], "next_cursor": None}
    assert (await stranger.call("GET", f"/v1/accounts/{author.id}"))["post_count"] == 0
    await author.call("DELETE", path, 204)
    assert (await author.call("GET", "/v1/me"))["post_count"] == 0


@pytest.mark.usefixtures("workers")
async def test_a_published_post_is_everybodys(sign_up: SignUp, ada: Client) -> None:
    author = await sign_up()
    post = await author.published((await author.post("hello"))["id"])
    assert is_now(post["published_at"])
    assert [photo["status"] for photo in post["media"]] == ["ready"]
    assert {
        key: value for key, value in (await ada.call("GET", f"/v1/posts/{post['id']}")).items() if key != "media"
    } == {key: value for key, value in post.items() if key != "media"}
    assert await ada.walk(f"/v1/accounts/{author.id}/posts") == [post["id"]]
    assert (await ada.call("GET", f"/v1/accounts/{author.id}"))["post_count"] == 1


@pytest.mark.usefixtures("workers")
async def test_a_deleted_post_is_nowhere_and_not_counted(sign_up: SignUp, ada: Client) -> None:
    author = await sign_up()
    kept, gone = [await author.published((await author.post())["id"]) for _ in range(2)]
    path = f"/v1/posts/{gone['id']}"
    theirs = await ada.http.delete(path, headers=ada.headers)
    problem(theirs, 404, "not-found")
    assert anonymous(theirs) == anonymous(await ada.http.delete("/v1/posts/1", headers=ada.headers))
    assert (await ada.call("GET", path))["id"] == gone["id"]
    await author.call("DELETE", path, 204)
    for client in (author, ada):
        problem(await client.http.get(path, headers=client.headers), 404, "not-found")
        assert await client.walk(f"/v1/accounts/{author.id}/posts") == [kept["id"]]
    problem(await author.http.delete(path, headers=author.headers), 404, "not-found")
    assert (await author.call("GET", "/v1/me"))["post_count"] == 1
    # Its photos went with it.
    media = gone["media"][0]["id"]
    problem(await author.http.get(f"/v1/media/{media}", headers=author.headers), 404, "not-found")
    problem(await send(author, media), 422, "media-unusable")


async def test_a_list_of_posts_goes_on_below_a_post_that_was_deleted(ada: Client) -> None:
    path = f"/v1/accounts/{ada.id}/posts"
    before = await ada.walk(path)
    posts = [(await ada.post())["id"] for _ in range(4)]
    page = await ada.call("GET", path, params={"limit": "2"})
    assert [post["id"] for post in page["items"]] == [posts[3], posts[2]]
    await ada.call("DELETE", f"/v1/posts/{posts[2]}", 204)
    rest = await ada.call("GET", path, params={"limit": "2", "cursor": page["next_cursor"]})
    assert [post["id"] for post in rest["items"]] == [posts[1], posts[0]]
    assert await ada.walk(path, limit=1) == [posts[3], posts[1], posts[0], *before]


@pytest.mark.parametrize("number", [0, 11])
async def test_a_post_has_one_to_ten_photos(ada: Client, number: int) -> None:
    invalid(await send(ada, *["412345678901234567"] * number), "/media")


async def test_ten_photos_stay_in_their_order(ada: Client) -> None:
    ids = await photos(ada, 10)
    answer = await send(ada, *ids[::-1])
    assert answer.status_code == 201
    assert [photo["id"] for photo in answer.json()["media"]] == ids[::-1]


async def test_photos_that_cannot_be_posted_are_told_one_by_one_and_alike(
    ada: Client, bob: Client, res: Resources
) -> None:
    mine, used, failed = await photos(ada, 3)
    [theirs] = await photos(bob, 1)
    assert (await send(ada, used)).status_code == 201
    async with res.db.acquire() as connection:
        # Workers of other tests may have made its renditions already.
        await connection.execute(
            "update media set status = 'failed', failure = 'It is broken.' where id = $1", int(failed)
        )
    unusable = [theirs, "1", used, failed, ada.id]
    refusals = []
    for id_ in unusable:
        answer = await send(ada, mine, id_)
        body = problem(answer, 422, "media-unusable")
        assert [error["pointer"] for error in body["errors"]] == ["/media/1/id"]
        refusals.append(anonymous(answer))
    assert len({str(refusal) for refusal in refusals}) == 1
    body = problem(await send(ada, *unusable, mine), 422, "media-unusable")
    assert [error["pointer"] for error in body["errors"]] == [f"/media/{index}/id" for index in range(5)]
    # Nothing came of any of these: the photos are free.
    assert (await send(ada, mine)).status_code == 201
    assert (await send(bob, theirs)).status_code == 201


async def test_a_photo_is_not_posted_twice_in_one_post(ada: Client) -> None:
    first, second = await photos(ada, 2)
    body = problem(await send(ada, first, second, first, first), 422, "media-unusable")
    assert [error["pointer"] for error in body["errors"]] == ["/media/2/id", "/media/3/id"]
    assert (await send(ada, first, second)).status_code == 201


async def test_of_posts_that_want_the_same_photos_at_once_one_gets_them(ada: Client) -> None:
    ids = await photos(ada, 3)
    answers = await asyncio.gather(*(send(ada, *order) for order in (ids, ids[::-1], ids, ids[::-1])))
    assert sorted(answer.status_code for answer in answers) == [201, 422, 422, 422]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"media": None}, "/media"),
        ({"media": {}}, "/media"),
        ({"media": "412345678901234567"}, "/media"),
        ({"media": [None]}, "/media/0"),
        ({"media": ["412345678901234567"]}, "/media/0"),
        ({"media": [{}]}, "/media/0/id"),
        ({"media": [{"id": 412345678901234567}]}, "/media/0/id"),
        ({"media": [{"id": "412345678901234567", "status": "ready"}]}, "/media/0/status"),
        ({"media": [{"id": "412345678901234567", "a/b~c": 1}]}, "/media/0/a~1b~0c"),
        ({"media": [{"id": "412345678901234567", "alt_text": "a" * 1501}]}, "/media/0/alt_text"),
        ({"caption": None}, "/caption"),
        ({"caption": ["a"]}, "/caption"),
        ({"caption": True}, "/caption"),
        ({"caption": 7}, "/caption"),
        ({"caption": "a" * 2201}, "/caption"),
        ({"author": "1"}, "/author"),
        ({"id": "1"}, "/id"),
        ({"published_at": "2026-01-01T00:00:00.000Z"}, "/published_at"),
        ({"like_count": 1_000_000}, "/like_count"),
    ],
)
async def test_posts_of_another_form_are_refused(ada: Client, fields: dict[str, object], pointer: str) -> None:
    answer = await send(ada, "412345678901234567", **fields)
    invalid(answer, pointer)


async def test_a_post_without_photos_is_none(ada: Client) -> None:
    invalid(await ada.http.post("/v1/posts", json={"caption": "words"}, headers=ada.headers), "/media")


async def test_nobody_posts_without_a_token(ada: Client) -> None:
    [photo] = await photos(ada, 1)
    body = {"media": [{"id": photo}]}
    problem(await ada.http.post("/v1/posts", json=body), 401, "unauthenticated")
    problem(await ada.http.post("/v1/media", content=jpeg()), 401, "unauthenticated")
    post = (await send(ada, photo)).json()["id"]
    for method in ("GET", "DELETE"):
        problem(await ada.http.request(method, f"/v1/posts/{post}"), 401, "unauthenticated")


async def test_somebody_elses_photo_is_told_like_one_that_does_not_exist(ada: Client, bob: Client) -> None:
    [photo] = await photos(ada, 1)
    theirs = await bob.http.get(f"/v1/media/{photo}", headers=bob.headers)
    problem(theirs, 404, "not-found")
    assert anonymous(theirs) == anonymous(await bob.http.get("/v1/media/1", headers=bob.headers))


async def test_an_edited_post_has_its_new_texts_and_says_when(fresh_http: httpx.AsyncClient) -> None:
    author = await Client.sign_up(fresh_http)  # where no worker changes the post too
    ids = await photos(author, 2)
    body = {"caption": "before", "media": [{"id": id_, "alt_text": "before"} for id_ in ids]}
    post = await author.call("POST", "/v1/posts", 201, json=body)
    assert post["edited_at"] is None
    path = f"/v1/posts/{post['id']}"
    # What changes nothing is no edit.
    same: list[dict[str, Any]] = [{}, {"caption": "before"}, {"alt_texts": [{"id": ids[0], "alt_text": "before"}]}]
    same += [{"media_ids": ids}, {"publish_at": None}]
    for changes in same:
        assert (await author.call("PATCH", path, json=changes))["edited_at"] is None
    edited = await author.call("PATCH", path, json={"caption": " after "})
    assert is_now(edited["edited_at"])
    assert (edited["caption"], [photo["alt_text"] for photo in edited["media"]]) == ("after", ["before"] * 2)
    again = await author.call("PATCH", path, json={"alt_texts": [{"id": ids[1], "alt_text": "after"}]})
    assert (again["caption"], [photo["alt_text"] for photo in again["media"]]) == ("after", ["before", "after"])
    assert again["edited_at"] >= edited["edited_at"]
    assert again == await author.call("GET", path)
    cleared = await author.call("PATCH", path, json={"caption": "", "alt_texts": [{"id": ids[1], "alt_text": ""}]})
    assert (cleared["caption"], cleared["media"][1]["alt_text"]) == ("", "")


@pytest.mark.usefixtures("workers")
async def test_an_edit_is_seen_in_feeds_at_once(sign_up: SignUp) -> None:
    author, fan = await sign_up(), await sign_up()
    await fan.follow(author)
    post = await author.post("before", photos=2)
    await fan.sees(post["id"])
    assert len(post["media"]) == 2
    order = [photo["id"] for photo in post["media"]]
    for _ in range(2):
        order.reverse()
        await author.call("PATCH", f"/v1/posts/{post['id']}", json={"media_ids": order})
        for path in ("/v1/feed", f"/v1/accounts/{author.id}/posts"):
            [seen] = (await fan.call("GET", path))["items"]
            assert [photo["id"] for photo in seen["media"]] == order
            assert seen["edited_at"]
    for caption in ("once", "twice"):
        await author.call("PATCH", f"/v1/posts/{post['id']}", json={"caption": caption})
        for path in ("/v1/feed", f"/v1/accounts/{author.id}/posts"):
            [seen] = (await fan.call("GET", path))["items"]
            assert seen["caption"] == caption
            assert seen["edited_at"]


async def test_only_its_author_edits_a_post(ada: Client, bob: Client) -> None:
    post = await ada.post("mine")
    for who, id_ in ((bob, post["id"]), (ada, "1")):
        answer = await who.http.patch(f"/v1/posts/{id_}", json={"caption": "x"}, headers=who.headers)
        problem(answer, 404, "not-found")
    assert (await ada.call("GET", f"/v1/posts/{post['id']}"))["caption"] == "mine"


async def test_an_edit_of_another_form_is_refused_whole(ada: Client, bob: Client) -> None:
    post = await ada.post("mine", photos=2)
    own, second = [photo["id"] for photo in post["media"]]
    other = (await ada.post())["media"][0]["id"]

    def texts(*ids: str) -> dict[str, Any]:
        return {"caption": "new", "alt_texts": [{"id": id_, "alt_text": "new"} for id_ in ids]}

    refused: list[tuple[dict[str, Any], list[str]]] = [
        (texts(own, other), ["/alt_texts/1/id"]),
        (texts("1", own, own), ["/alt_texts/0/id", "/alt_texts/2/id"]),
        ({"caption": None}, ["/caption"]),
        ({"caption": "a" * 2201}, ["/caption"]),
        ({"caption": "\u0000"}, ["/caption"]),
        ({"alt_texts": None}, ["/alt_texts"]),
        ({"alt_texts": [{"id": own}]}, ["/alt_texts/0/alt_text"]),
        ({"alt_texts": [{"id": own, "alt_text": "a" * 1501}]}, ["/alt_texts/0/alt_text"]),
        (texts(*[own] * 11), ["/alt_texts"]),
        ({"media_ids": []}, ["/media_ids"]),
        ({"media_ids": [second]}, ["/media_ids"]),
        ({"media_ids": [own, own]}, ["/media_ids/1"]),
        ({"media_ids": [second, own, other]}, ["/media_ids/2"]),
        ({"media_ids": None}, ["/media_ids"]),
        ({"publish_at": "2099-01-01T00:00:00"}, ["/publish_at"]),
        ({"publish_at": "2026-12-24T18:00:00+01:00"}, ["/publish_at"]),
        ({"media": []}, ["/media"]),
        ({"published_at": None}, ["/published_at"]),
    ]
    for body, pointers in refused:
        invalid(await ada.http.patch(f"/v1/posts/{post['id']}", json=body, headers=ada.headers), *pointers)
    seen = await ada.call("GET", f"/v1/posts/{post['id']}")
    assert (seen["caption"], seen["media"][0]["alt_text"], seen["edited_at"]) == ("mine", "", None)


class _GoneAfterCommit(Database):
    """A database that answers nothing any more once a transaction is committed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._committed = False

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection, if it is there."""
        if self._committed:
            raise Unavailable("The database does not answer.")
        async with self._database.acquire() as connection:
            yield connection

    async def transact(self, body: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `body` in the last transaction."""
        made = await super().transact(body)
        self._committed = True
        return made


async def test_what_is_committed_is_answered_though_the_database_is_gone_by_then(ada: Client, res: Resources) -> None:
    [photo] = await photos(ada, 1)
    me = Viewer.of(int(ada.id))
    post_id = res.ids.next(shard_of(int(ada.id)))

    def until_commit() -> Resources:
        return replace(res, db=_GoneAfterCommit(res.db))

    made = await posts.create(
        until_commit(), me, post_id, caption="Dawn", photos=[PhotoOfPost(int(photo), "The harbour")]
    )
    assert (made.post.id, made.post.caption, len(made.post.media)) == (post_id, "Dawn", 1)
    edited = await posts.edit(until_commit(), me, post_id, PostChanges(caption="Dusk"))
    assert edited.post.caption == "Dusk"
