"""`Idempotency-Key`: what is sent again is done once and answered the same."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.storage import idempotency
from instafeed.storage.idempotency import Found, Hold, Owner
from tests.api.answers import JSON, invalid, problem
from tests.client import PASSWORD, Client
from tests.photos import jpeg
from tests.redis import redis_client

SignUp = Callable[..., Awaitable[Client]]


def a_key() -> str:
    return secrets.token_hex(16)


def new_name() -> str:
    return f"k{secrets.token_hex(8)}"


async def sign_up_with(http: httpx.AsyncClient, key: str, name: str, **fields: object) -> httpx.Response:
    body = {"username": name, "password": PASSWORD} | fields
    return await http.post("/v1/accounts", json=body, headers={"Idempotency-Key": key})


async def log_in_with(client: Client, key: str, **fields: object) -> httpx.Response:
    body = {"username": client.account["username"], "password": PASSWORD} | fields
    return await client.http.post("/v1/sessions", json=body, headers={"Idempotency-Key": key})


async def post_with(client: Client, key: str, *photos: str, **fields: object) -> httpx.Response:
    body = {"media": [{"id": photo} for photo in photos]} | fields
    return await client.http.post("/v1/posts", json=body, headers=client.headers | {"Idempotency-Key": key})


async def upload_with(client: Client, key: str, data: bytes) -> httpx.Response:
    return await client.http.post("/v1/media", content=data, headers=client.headers | {"Idempotency-Key": key})


def replayed(first: httpx.Response, again: httpx.Response) -> None:
    """Assert that the second answer is the first once more."""
    assert first.status_code == again.status_code == 201, again.text
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == first.content
    for name in ("content-type", "location"):
        assert again.headers.get(name) == first.headers.get(name)
    assert again.headers["x-request-id"] != first.headers["x-request-id"]


async def forget_reply(res: Resources, owner: Owner, key: str) -> None:
    """Leave everything as a process does that is killed after its transaction and before its answer."""
    async with res.db.acquire() as connection:
        status = await connection.execute(
            "update idempotency_keys set status = null, headers = null, body = null"
            " where shard = $1 and account_id = $2 and key = $3",
            owner.shard(key),
            owner.account_id,
            key,
        )
        assert status == "UPDATE 1"
        await idempotency.unlock(connection, await hold_of(res, owner, key))


async def hold_of(res: Resources, owner: Owner, key: str) -> Hold:
    async with res.db.acquire() as connection:
        row = await connection.fetchrow(
            "select resource_id, locked_until from idempotency_keys where shard = $1 and account_id = $2 and key = $3",
            owner.shard(key),
            owner.account_id,
            key,
        )
    assert row is not None
    return Hold(owner, key, row["resource_id"], row["locked_until"])


async def test_a_repeated_sign_up_is_one_account(http: httpx.AsyncClient) -> None:
    key, name = a_key(), new_name()
    first = await sign_up_with(http, key, name, device_name="Phone")
    client = Client(http, first.json()["account"], first.json()["token"])
    # What happens in between changes nothing about the answer.
    other = await Client.sign_up(http)
    await client.follow(other)
    replayed(first, await sign_up_with(http, key, name, device_name="Phone"))
    assert [session["id"] for session in (await client.call("GET", "/v1/sessions"))["items"]] == [client.id]


async def test_a_repeated_log_in_is_one_session_with_one_token(sign_up: SignUp) -> None:
    client, key = await sign_up(), a_key()
    first = await log_in_with(client, key, device_name="Tablet")
    tablet = Client(client.http, client.account, first.json()["token"])
    await tablet.call("GET", "/v1/me")
    replayed(first, await log_in_with(client, key, device_name="Tablet"))
    assert len((await client.call("GET", "/v1/sessions"))["items"]) == 2


async def test_a_repeated_log_in_does_not_bring_an_ended_session_back(sign_up: SignUp, res: Resources) -> None:
    client, key = await sign_up(), a_key()
    first = await log_in_with(client, key)
    tablet = Client(client.http, client.account, first.json()["token"])
    await tablet.call("DELETE", "/v1/sessions/current", 204)
    replayed(first, await log_in_with(client, key))
    assert [session["id"] for session in (await client.call("GET", "/v1/sessions"))["items"]] == [client.id]
    # Not even once the cache has forgotten that it ended.
    secret = tablet.token.partition(".")[2]
    async with redis_client(res.settings) as redis:
        [key_of_session] = await redis.keys(f"session:*{client.id}:{hashlib.sha256(secret.encode()).hexdigest()}*")
        assert await redis.delete(key_of_session) == 1
    problem(await client.http.get("/v1/me", headers=tablet.headers), 401, "unauthenticated")


async def test_a_repeated_post_is_one_post(ada: Client) -> None:
    key, photo = a_key(), (await ada.upload())["id"]
    before = await ada.walk(f"/v1/accounts/{ada.id}/posts")
    first = await post_with(ada, key, photo, caption="once")
    replayed(first, await post_with(ada, key, photo, caption="once"))
    assert await ada.walk(f"/v1/accounts/{ada.id}/posts") == [first.json()["id"], *before]
    # Also when the post is gone: the key stands for what was done.
    await ada.call("DELETE", f"/v1/posts/{first.json()['id']}", 204)
    replayed(first, await post_with(ada, key, photo, caption="once"))
    assert await ada.walk(f"/v1/accounts/{ada.id}/posts") == before


async def test_a_repeated_upload_is_one_photo(ada: Client) -> None:
    key = a_key()
    replayed(await upload_with(ada, key, jpeg()), await upload_with(ada, key, jpeg()))


async def test_a_key_stands_for_one_request(ada: Client) -> None:
    key = a_key()
    first, second = (await ada.upload())["id"], (await ada.upload())["id"]
    assert (await post_with(ada, key, first)).status_code == 201
    problem(await post_with(ada, key, second), 422, "idempotency-mismatch")
    problem(await upload_with(ada, key, jpeg()), 422, "idempotency-mismatch")
    # What was refused left its photo free.
    assert (await post_with(ada, a_key(), second)).status_code == 201


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_bodies_are_told_apart_however_their_type_is_spelt(ada: Client, kind: str) -> None:
    key, photo = a_key(), (await ada.upload())["id"]
    headers = ada.headers | {"Idempotency-Key": key, "Content-Type": kind}
    bodies = [json.dumps({"caption": caption, "media": [{"id": photo}]}) for caption in "ab"]
    first = await ada.http.post("/v1/posts", content=bodies[0], headers=headers)
    assert first.status_code == 201
    problem(await ada.http.post("/v1/posts", content=bodies[1], headers=headers), 422, "idempotency-mismatch")
    replayed(first, await ada.http.post("/v1/posts", content=bodies[0], headers=headers))


async def test_a_wrong_password_is_no_replay_of_a_right_one(sign_up: SignUp) -> None:
    client, key = await sign_up(), a_key()
    assert (await log_in_with(client, key)).status_code == 201
    answer = await log_in_with(client, key, password="another password")
    problem(answer, 422, "idempotency-mismatch")


async def test_keys_of_different_accounts_do_not_meet(ada: Client, bob: Client) -> None:
    key = a_key()
    answers = [await post_with(client, key, (await client.upload())["id"], caption="mine") for client in (ada, bob)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert [answer.json()["author"]["id"] for answer in answers] == [ada.id, bob.id]


async def test_what_was_refused_may_be_sent_again_corrected(ada: Client, http: httpx.AsyncClient) -> None:
    key, photo = a_key(), (await ada.upload())["id"]
    problem(await post_with(ada, key, "1"), 422, "media-unusable")
    invalid(await post_with(ada, key), "/media")
    first = await post_with(ada, key, photo)
    replayed(first, await post_with(ada, key, photo))

    key, name = a_key(), new_name()
    problem(await sign_up_with(http, key, "admin"), 409, "username-taken")
    problem(await sign_up_with(http, key, ada.account["username"]), 409, "username-taken")
    assert (await sign_up_with(http, key, name)).status_code == 201

    key = a_key()
    problem(await log_in_with(ada, key, password="another password"), 401, "wrong-credentials")
    assert (await log_in_with(ada, key)).status_code == 201

    key = a_key()
    problem(await upload_with(ada, key, b"no photo"), 415, "media-unsupported")
    assert (await upload_with(ada, key, jpeg())).status_code == 201


async def test_requests_at_once_under_one_key_have_one_effect(sign_up: SignUp, http: httpx.AsyncClient) -> None:
    client = await sign_up()
    photo, name = (await client.upload())["id"], new_name()
    calls: dict[str, Callable[[str], Awaitable[httpx.Response]]] = {
        "post": lambda key: post_with(client, key, photo),
        "log-in": lambda key: log_in_with(client, key),
        "sign-up": lambda key: sign_up_with(http, key, name),
        "upload": lambda key: upload_with(client, key, jpeg()),
    }
    for what, call in calls.items():
        key = a_key()
        answers = await asyncio.gather(*(call(key) for _ in range(6)))
        done = [answer for answer in answers if answer.status_code == 201]
        for answer in answers:
            if answer not in done:
                problem(answer, 409, "idempotency-in-flight")
                assert answer.headers["retry-after"] == "1"
        assert len({answer.content for answer in done}) == 1, what
        assert (await call(key)).content == done[0].content
    assert len(await client.walk(f"/v1/accounts/{client.id}/posts")) == 1
    assert len((await client.call("GET", "/v1/sessions"))["items"]) == 2


async def test_after_a_crash_a_repeated_request_finds_what_it_made(sign_up: SignUp, res: Resources) -> None:
    key, name = a_key(), new_name()
    http = (await sign_up()).http
    first = await sign_up_with(http, key, name)
    client = Client(http, first.json()["account"], first.json()["token"])
    await forget_reply(res, Owner(0), key)
    again = await sign_up_with(http, key, name)
    assert again.status_code == 201, again.text
    assert again.json()["account"] == first.json()["account"]
    assert again.json()["token"] == client.token
    replayed(again, await sign_up_with(http, key, name))

    key = a_key()
    first = await log_in_with(client, key)
    await forget_reply(res, Owner(0), key)
    again = await log_in_with(client, key)
    assert again.json()["token"] == first.json()["token"]
    assert len((await client.call("GET", "/v1/sessions"))["items"]) == 2

    key, photo = a_key(), (await client.upload())["id"]
    first = await post_with(client, key, photo)
    await forget_reply(res, Owner(int(client.id)), key)
    again = await post_with(client, key, photo)
    assert again.status_code == 201, again.text
    assert again.json()["id"] == first.json()["id"]
    assert await client.walk(f"/v1/accounts/{client.id}/posts") == [first.json()["id"]]

    key = a_key()
    first = await upload_with(client, key, jpeg())
    await forget_reply(res, Owner(int(client.id)), key)
    assert (await upload_with(client, key, jpeg())).json()["id"] == first.json()["id"]


async def reserve(res: Resources, key: str, *, resource_id: int = 1, fingerprint: bytes = b"a request") -> Hold | Found:
    async with res.db.acquire() as connection:
        return await idempotency.reserve(connection, Owner(0), key, fingerprint=fingerprint, resource_id=resource_id)


async def test_of_those_who_reserve_a_key_at_once_one_holds_it(res: Resources) -> None:
    for _ in range(20):
        key = a_key()
        found = await asyncio.gather(*(reserve(res, key, resource_id=number) for number in range(1, 9)))
        [hold] = [one for one in found if isinstance(one, Hold)]
        assert {one.resource_id for one in found} == {hold.resource_id}


async def test_who_lost_a_key_to_another_has_his_hand_off_it(res: Resources) -> None:
    key = a_key()
    slow = await reserve(res, key)
    assert isinstance(slow, Hold)
    async with res.db.acquire() as connection:
        await idempotency.unlock(connection, slow)
        quick = await reserve(res, key, resource_id=2)
        assert isinstance(quick, Hold)
        assert quick.resource_id == slow.resource_id
        await idempotency.forget(connection, slow)
        await idempotency.unlock(connection, slow)
        await idempotency.keep(connection, slow, status=201, headers={}, body=b"slow")
        under_way = await reserve(res, key)
        assert isinstance(under_way, Found)
        assert under_way.status is None
        await idempotency.keep(connection, quick, status=201, headers={}, body=b"quick")
        found = await reserve(res, key)
        assert isinstance(found, Found)
        assert found.body == b"quick"


async def test_an_unlocked_key_is_not_free_for_another_request(res: Resources) -> None:
    key = a_key()
    hold = await reserve(res, key)
    assert isinstance(hold, Hold)
    async with res.db.acquire() as connection:
        await idempotency.unlock(connection, hold)
    assert isinstance(await reserve(res, key, fingerprint=b"another request"), Found)
    assert isinstance(await reserve(res, key), Hold)


async def test_replies_are_kept_for_a_day(ada: Client, res: Resources) -> None:
    kept, old = a_key(), a_key()
    photos = [(await ada.upload())["id"] for _ in range(3)]
    first = await post_with(ada, kept, photos[0])
    assert (await post_with(ada, old, photos[1])).status_code == 201

    async def age(key: str, minutes: int) -> None:
        async with res.db.acquire() as connection:
            await connection.execute(
                "update idempotency_keys set created_at = now() - make_interval(mins => $3),"
                " locked_until = now() - make_interval(mins => $3 - 1)"
                " where shard = $1 and account_id = $2 and key = $4",
                shard_of(int(ada.id)),
                int(ada.id),
                minutes,
                key,
            )

    await age(kept, 24 * 60 - 1)
    await age(old, 24 * 60 + 1)
    async with res.db.acquire() as connection:
        await idempotency.forget_old(connection, limit=1000)
    replayed(first, await post_with(ada, kept, photos[0]))
    again = await post_with(ada, old, photos[2])
    assert again.status_code == 201
    assert "idempotency-replayed" not in again.headers


@pytest.mark.parametrize("key", ["", "a" * 201, "k\xe9y", "a\tb"])
async def test_keys_of_another_form_are_refused(ada: Client, key: str) -> None:
    headers = httpx.Headers(ada.headers | {"Idempotency-Key": key}, encoding="latin-1")
    answer = await ada.http.post("/v1/posts", json={"media": [{"id": "1"}]}, headers=headers)
    invalid(answer, "Idempotency-Key")


async def test_two_keys_are_none(ada: Client) -> None:
    headers = [*ada.headers.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    invalid(await ada.http.post("/v1/posts", json={"media": [{"id": "1"}]}, headers=headers), "Idempotency-Key")


@pytest.mark.parametrize("key", ["a", "a" * 200, 'with spaces and "quotes"', "'; drop table posts; --"])
async def test_any_other_text_is_a_key(ada: Client, key: str) -> None:
    photo = (await ada.upload())["id"]
    first = await post_with(ada, key, photo)
    replayed(first, await post_with(ada, key, photo))


async def test_a_key_is_of_no_use_without_a_token(ada: Client) -> None:
    key, photo = a_key(), (await ada.upload())["id"]
    assert (await post_with(ada, key, photo)).status_code == 201
    body: Any = {"media": [{"id": photo}]}
    answer = await ada.http.post("/v1/posts", json=body, headers=JSON | {"Idempotency-Key": key})
    problem(answer, 401, "unauthenticated")
