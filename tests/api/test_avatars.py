"""Avatars: photos that accounts are shown with."""

import io
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from PIL import Image

from instafeed import avatars
from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.storage import media as media_rows
from instafeed.storage.blobs import original_key, rendition_prefix
from instafeed.storage.outbox import Entry, Kind
from tests.api.answers import invalid, problem
from tests.client import Client, eventually, http_client
from tests.photos import jpeg, jpeg_of_a_camera

SignUp = Callable[..., Awaitable[Client]]
pytestmark = pytest.mark.usefixtures("workers")


async def put(client: Client, media_id: object) -> httpx.Response:
    return await client.http.put("/v1/me/avatar", json={"media_id": media_id}, headers=client.headers)


async def ready(client: Client, seed: int = 0) -> str:
    """A photo that is ready."""
    media = await client.ready((await client.upload(jpeg(320, 240, seed)))["id"])
    assert media["status"] == "ready"
    return str(media["id"])


def prefix(shown: list[dict[str, Any]] | None) -> str | None:
    """Which photo an account is shown with."""
    return str(shown[0]["url"]).partition("?")[0].rpartition("/")[0] if shown else None


async def object_key(res: Resources, media_id: str) -> str:
    async with res.db.acquire() as connection:
        key: str = await connection.fetchval("select object_key from media where id = $1", int(media_id))
    return key


async def is_gone(client: Client, res: Resources, media_id: str, key: str, url: str) -> None:
    """Wait until nothing of a photo is left."""
    problem(await client.http.get(f"/v1/media/{media_id}", headers=client.headers), 404, "not-found")

    async def probe() -> bool:
        async with http_client() as anybody:
            seen = (await anybody.get(url)).status_code == 200
        return not seen and not await _is_there(res, key)

    await eventually(probe)


async def _is_there(res: Resources, key: str) -> bool:
    async with http_client() as anybody:
        return (await anybody.get(res.blobs.url(original_key(key)))).status_code == 200


async def test_an_account_is_shown_with_its_photo_everywhere_at_once(sign_up: SignUp) -> None:
    one, fan = await sign_up(), await sign_up()
    await fan.follow(one)
    post = (await one.post("hello"))["id"]
    await fan.sees(post)

    async def shown() -> set[str | None]:
        feed = await fan.call("GET", "/v1/feed")
        seen = await fan.call("GET", f"/v1/posts/{post}")
        following = await fan.call("GET", f"/v1/accounts/{fan.id}/following")
        accounts = [await one.call("GET", "/v1/me"), await fan.call("GET", f"/v1/accounts/{one.id}")]
        authors = [feed["items"][0]["author"], seen["author"]]
        return {prefix(item["avatar"]) for item in (*authors, *accounts, *following["items"])}

    assert await shown() == {None}
    answer = await put(one, media := await ready(one))
    assert answer.json() == await one.call("GET", "/v1/me")
    photo = await one.call("GET", f"/v1/media/{media}")
    assert await shown() == {prefix(photo["renditions"])}
    assert {item["name"] for item in answer.json()["avatar"]} == {"640", "320", "150"}
    small = (await fan.call("GET", f"/v1/posts/{post}"))["author"]["avatar"]
    assert {(item["name"], item["width"], item["height"]) for item in small} == {("150", 150, 150)}
    async with http_client() as anybody:
        data = (await anybody.get(small[0]["url"])).content
    assert Image.open(io.BytesIO(data)).size == (150, 150)
    await one.call("DELETE", "/v1/me/avatar", 204)
    assert await shown() == {None}


async def test_an_avatar_tells_nothing_that_a_camera_wrote(sign_up: SignUp) -> None:
    one = await sign_up()
    photo = await one.upload(jpeg_of_a_camera(), params={"camera_facts": "true"})
    await one.ready(photo["id"])
    shown = (await put(one, photo["id"])).json()["avatar"]
    async with http_client() as anybody:
        files = [(await anybody.get(rendition["url"])).content for rendition in shown]
    assert len(files) > 1
    assert not [
        word for word in (b"Exif", b"EXIF", b"Somebody", b"S/N 7", b"Model 1") for file in files if word in file
    ]
    assert "camera" not in str(await one.call("GET", "/v1/me"))


async def test_another_photo_replaces_and_deletes_the_one_before(sign_up: SignUp, res: Resources) -> None:
    one = await sign_up()
    first, second = await ready(one, 1), await ready(one, 2)
    keys = {media: await object_key(res, media) for media in (first, second)}
    shown = (await put(one, first)).json()["avatar"]
    for _ in range(2):
        again = (await put(one, second)).json()["avatar"]
        assert rendition_prefix(keys[second]) in again[0]["url"]
    await is_gone(one, res, first, keys[first], shown[0]["url"])
    await one.call("DELETE", "/v1/me/avatar", 204)
    await one.call("DELETE", "/v1/me/avatar", 204)
    await is_gone(one, res, second, keys[second], again[0]["url"])
    assert (await one.call("GET", "/v1/me"))["avatar"] is None


async def test_a_photo_that_is_not_ready_is_shown_when_it_is(sign_up: SignUp, res: Resources) -> None:
    one = await sign_up()
    before = await ready(one, 1)
    await put(one, before)
    media = (await one.upload(jpeg(seed=2)))["id"]
    assert (await put(one, media)).status_code == 200
    wanted = rendition_prefix(await object_key(res, media))

    async def shown() -> bool:
        avatar = (await one.call("GET", "/v1/me"))["avatar"]
        assert avatar  # one of the two, all the time
        return wanted in avatar[0]["url"]

    await eventually(shown)
    problem(await one.http.get(f"/v1/media/{before}", headers=one.headers), 404, "not-found")


async def test_a_photo_that_turns_out_to_be_none_changes_nothing(sign_up: SignUp) -> None:
    one = await sign_up()
    await put(one, await ready(one))
    before = prefix((await one.call("GET", "/v1/me"))["avatar"])
    broken = (await one.upload(jpeg()[: len(jpeg()) // 2]))["id"]
    await put(one, broken)
    assert (await one.ready(broken))["status"] == "failed"
    assert prefix((await one.call("GET", "/v1/me"))["avatar"]) == before
    problem(await put(one, broken), 422, "media-unusable")


async def test_a_worker_that_died_before_a_photo_was_shown_is_made_up_for(sign_up: SignUp, res: Resources) -> None:
    one = await sign_up()
    media = await ready(one)
    async with res.db.acquire() as connection:
        # It was claimed while it was rendered, and the worker ended after the renditions were noted.
        assert await media_rows.claim_avatar(connection, int(one.id), int(media))

    async def undone() -> int | None:
        async with res.db.acquire() as connection:
            # Once it is done: that is noted a little later than that the photo is ready.
            found: int | None = await connection.fetchval(
                "update outbox set done_at = null, due_at = now() where shard = $1 and kind = 'render'"
                " and payload ->> 'media' = $2 and done_at is not null returning id",
                shard_of(int(one.id)),
                media,
            )
        return found

    entry = await eventually(undone)
    assert entry is not None
    await res.queue.ring(Kind.RENDER, entry)

    async def shown() -> bool:
        return (await one.call("GET", "/v1/me"))["avatar"] is not None

    await eventually(shown)


async def test_a_job_that_runs_again_late_takes_nothing_back(sign_up: SignUp, res: Resources) -> None:
    """Neither what is to be shown next, nor what was shown since."""
    one = await sign_up()
    first, second = await ready(one, 1), await ready(one, 2)
    keys = [await object_key(res, media) for media in (first, second)]
    late = Entry(1, Kind.AVATAR, {"account": int(one.id), "media": int(first)}, position=0, attempts=2)

    async def shown() -> list[bool]:
        avatar = (await one.call("GET", "/v1/me"))["avatar"]
        return [rendition_prefix(key) in avatar[0]["url"] for key in keys]

    async def set_status(status: str) -> None:
        async with res.db.acquire() as connection:
            await connection.execute("update media set status = $2 where id = $1", int(second), status)

    await put(one, first)
    await set_status("processing")
    await put(one, second)
    await avatars.show(res, late)
    assert await shown() == [True, False]
    await set_status("ready")
    await avatars.show(res, replace(late, payload=late.payload | {"media": int(second)}))
    assert await shown() == [False, True]
    await avatars.show(res, late)
    assert await shown() == [False, True]


async def test_an_avatar_cannot_be_posted_nor_a_posts_photo_be_an_avatar(sign_up: SignUp) -> None:
    one, other = await sign_up(), await sign_up()
    avatar, posted, others = await ready(one), await ready(one), await ready(other)
    await put(one, avatar)
    answer = await one.http.post("/v1/posts", json={"media": [{"id": avatar}]}, headers=one.headers)
    problem(answer, 422, "media-unusable")
    post = await one.call("POST", "/v1/posts", 201, json={"media": [{"id": posted}]})
    for unusable in (posted, others, "1", post["id"], one.id):
        body = problem(await put(one, unusable), 422, "media-unusable")
        assert [field["pointer"] for field in body["errors"]] == ["/media_id"]
    await one.call("DELETE", "/v1/me/avatar", 204)
    assert (await one.call("GET", f"/v1/posts/{post['id']}"))["media"][0]["id"] == posted


async def test_what_is_no_avatar_is_refused(ada: Client) -> None:
    for wrong in ("", "0", "-1", "9" * 20, 7, None):
        invalid(await put(ada, wrong), "/media_id")
    invalid(await ada.http.put("/v1/me/avatar", json={}, headers=ada.headers), "/media_id")
