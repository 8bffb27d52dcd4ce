"""Copies of people's data."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from instafeed import exports, sweep, work
from instafeed.errors import Unavailable
from instafeed.storage import outbox
from instafeed.storage.blobs import Blobs, original_key
from instafeed.storage.outbox import Kind
from tests.api.answers import problem
from tests.client import Client, http_client
from tests.feeds.world import World
from tests.leaving.test_leaving import Scene, finish, leave, scene
from tests.media.traces import Traces
from tests.photos import jpeg, large_jpeg


async def export(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = await client.call("POST", "/v1/me/export", 201)
    return found


async def exported(client: Client, export_id: str) -> zipfile.ZipFile:
    """What is in a copy that is ready."""
    ready = await client.call("GET", f"/v1/me/exports/{export_id}")
    assert (ready["status"], ready["progress"]) == ("ready", 100)
    async with http_client() as anybody:
        answer = await anybody.get(ready["url"])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert len(answer.content) == ready["bytes"]
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    return archive


async def entry_of(world: World) -> tuple[int, Kind]:
    [entry] = [found for found in await world.pending() if found[1] is Kind.EXPORT]
    return entry


async def test_it_holds_what_is_kept_of_its_owner(alone: World, phone: httpx.AsyncClient, stored: Traces) -> None:
    there: Scene = await scene(alone, phone)
    one = there.one
    await alone.settle()
    face = await one.upload(large_jpeg(7 << 20))  # more than a part
    await one.call("PUT", "/v1/me/avatar", json={"media_id": face["id"]})
    await alone.sql("update media set original_deleted_at = now() where post_id = $1 returning 1", int(there.post_id))
    gone = await alone.sql("select object_key from media where post_id = $1 order by id", int(there.post_id))
    await alone.res.blobs.delete([original_key(key) for key in gone])
    asked = await export(one)
    assert asked["status"] == "processing"
    assert (asked["progress"], asked["bytes"], asked["url"]) == (0, None, None)
    # One at a time.
    assert await one.call("POST", "/v1/me/export") == asked
    await alone.settle()
    again = await one.call("POST", "/v1/me/export")
    assert (again["id"], again["status"]) == (asked["id"], "ready")
    archive = await exported(one, asked["id"])
    read = {name.removesuffix(".json"): json.loads(archive.read(name)) for name in archive.namelist() if "json" in name}
    [account] = read["account"]
    assert (account["id"], account["email"]) == (one.id, "a@example.org")
    assert there.post_id in [post["id"] for post in read["posts"]]
    assert {item["id"] for item in read["followers"]} == {there.fan.id, there.star.id}
    assert {item["id"] for item in read["following"]} == {there.star.id, there.other.id}
    assert [item["id"] for item in read["requested"]] == [there.asked.id]
    assert [len(read[name]) for name in ("follow_requests", "blocks", "mutes", "sessions", "warnings", "reports")] == (
        [1, 1, 1, 1, 1, 2]
    )
    assert [tag["name"] for tag in read["followed_tags"]] == ["harbour"]
    assert read["likes"] == read["saves"] == [{"post_id": there.kept_id}]
    assert [(comment["post_id"], comment["text"]) for comment in read["comments"]] == [(there.kept_id, "Nice")]
    assert read["preferences"] == [{"kind": "like", "push": "off"}]
    assert "token" not in json.dumps(read["sessions"])
    [device] = read["devices"]
    assert device.pop("registered_at")
    assert device == {"name": "phone", "platform": "apns"}
    names = {name for name in archive.namelist() if name.startswith("photos/")}
    assert names == {f"photos/{photo['id']}.jpg" for photo in read["photos"]}
    assert {photo for post in read["posts"] for photo in post["photos"]} < {photo["id"] for photo in read["photos"]}
    assert [photo["id"] for photo in read["photos"] if photo["is_avatar"]] == [face["id"]]
    keys = dict(
        zip(
            *[await alone.sql(f"select {column} from media order by id") for column in ("id", "object_key")],
            strict=True,
        )
    )
    objects = await stored.objects()
    for photo in read["photos"]:
        content = archive.read(f"photos/{photo['id']}.jpg")
        if photo["post_id"] == there.post_id:
            assert len(content) in objects.values()
            assert content[:3] == b"\xff\xd8\xff"
        else:
            assert content == await stored.content(original_key(keys[int(photo["id"])]))
    # Nobody else's.
    problem(await phone.get(f"/v1/me/exports/{asked['id']}", headers=there.fan.headers), 404, "not-found")


async def test_it_holds_nothing_that_took_an_originals_place(
    alone: World, phone: httpx.AsyncClient, stored: Traces
) -> None:
    one = await Client.sign_up(phone)
    photo = await one.upload(jpeg())
    await finish(alone)
    [key] = await alone.sql("select object_key from media where id = $1", int(photo["id"]))

    async def others() -> AsyncIterator[bytes]:
        yield b"an error"

    await alone.res.blobs.put(original_key(key), others(), size=8, content_type="image/jpeg")
    asked = await export(one)
    await finish(alone)
    archive = await exported(one, asked["id"])
    assert archive.read(f"photos/{photo['id']}.jpg")[:3] == b"\xff\xd8\xff"


async def test_who_leaves_leaves_no_copy(alone: World, phone: httpx.AsyncClient, stored: Traces) -> None:
    one = await Client.sign_up(phone)
    await export(one)
    await finish(alone)
    assert len(await stored.objects("exports/")) == 1
    await leave(one)
    await finish(alone)
    assert await stored.objects() == {}


async def test_it_expires(alone: World, phone: httpx.AsyncClient, stored: Traces) -> None:
    one = await Client.sign_up(phone)
    asked = await export(one)
    await finish(alone)
    await sweep.clear(alone.res)
    await exported(one, asked["id"])
    await alone.sql("update exports set expires_at = now() returning 1")
    problem(await phone.get(f"/v1/me/exports/{asked['id']}", headers=one.headers), 404, "not-found")
    await sweep.clear(alone.res)
    await finish(alone)
    assert await stored.objects() == {}
    assert await alone.sql("select 1 from exports") == []
    assert (await export(one))["id"] != asked["id"]


class Killed(BaseException):
    """The worker is gone."""


@pytest.mark.parametrize("call", ["begin_upload", "fetch", "complete_upload", "size"])
async def test_a_worker_may_be_killed_amid_it(
    alone: World, phone: httpx.AsyncClient, stored: Traces, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    one = await Client.sign_up(phone)
    await one.upload(content := large_jpeg(6 << 20))
    await alone.settle()
    asked = await export(one)
    entry = await entry_of(alone)
    with monkeypatch.context() as patch:
        kept, count = getattr(Blobs, call), 0

        async def once(blobs: Blobs, *arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += blobs is alone.res.blobs  # and not of other tests' workers
            result = await kept(blobs, *arguments, **options)
            if count == 1 and blobs is alone.res.blobs:
                raise Killed
            return result

        patch.setattr(Blobs, call, once)
        with pytest.raises(Killed):
            await alone.perform(*entry)
    await alone.settle()
    archive = await exported(one, asked["id"])
    [name] = [name for name in archive.namelist() if name.startswith("photos/")]
    assert archive.read(name) == content
    assert await stored.open_uploads("exports/") == set()
    assert len(await stored.objects("exports/")) == 1


async def test_one_that_cannot_be_made_is_given_up(
    alone: World, phone: httpx.AsyncClient, stored: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await Client.sign_up(phone)
    asked = await export(one)
    entry = await entry_of(alone)

    async def broken(*_: object) -> AsyncIterator[bytes]:
        yield b"a" * (5 << 20)
        raise ValueError("broken")

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(exports, "_archive", broken)
    with monkeypatch.context() as patch:
        patch.setattr(Blobs, "abort_uploads", away)
        for _ in range(exports._TRIES + 1):
            await alone.perform(*entry)  # it is not its fault
    for _ in range(exports._TRIES + 1):
        assert (await one.call("GET", f"/v1/me/exports/{asked['id']}"))["status"] == "processing"
        await alone.perform(*entry)
    failed = await one.call("GET", f"/v1/me/exports/{asked['id']}")
    assert (failed["status"], failed["url"]) == ("failed", None)
    assert await stored.objects() == {}
    assert await stored.open_uploads() == set()
    monkeypatch.undo()
    other = await export(one)
    await finish(alone)
    await exported(one, other["id"])


async def test_it_may_take_longer_than_other_work(
    alone: World, phone: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "LONGEST_SECONDS", 0)
    monkeypatch.setattr(outbox, "LEASE_SECONDS", 3)
    one = await Client.sign_up(phone)
    asked = await export(one)
    await alone.perform(*await entry_of(alone))
    await exported(one, asked["id"])


async def test_of_two_requests_at_once_one_makes_a_copy(alone: World, phone: httpx.AsyncClient) -> None:
    one = await Client.sign_up(phone)
    await one.upload(jpeg())
    answers = await asyncio.gather(*(phone.post("/v1/me/export", headers=one.headers) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    [location] = [answer.headers["location"] for answer in answers if answer.status_code == 201]
    await one.call("GET", location)
