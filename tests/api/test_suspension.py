"""Suspension: an account vanishes, and comes back whole."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from instafeed import accounts
from instafeed.errors import NotFound
from instafeed.resources import Resources
from tests.api.answers import anonymous, problem
from tests.client import PASSWORD, Client
from tests.redis import redis_client

SignUp = Callable[..., Awaitable[Client]]


async def suspend(res: Resources, client: Client) -> None:
    await accounts.suspend(res, client.account["username"])


async def unsuspend(res: Resources, client: Client) -> None:
    await accounts.unsuspend(res, client.account["username"])


async def log_in(http: httpx.AsyncClient, client: Client, password: str = PASSWORD) -> httpx.Response:
    return await http.post("/v1/sessions", json={"username": client.account["username"], "password": password})


async def test_a_suspended_account_is_logged_out_at_once_and_cannot_log_in(
    http: httpx.AsyncClient, sign_up: SignUp, res: Resources
) -> None:
    one = await sign_up()
    other_device = Client(http, one.account, (await log_in(http, one)).json()["token"])
    await other_device.call("GET", "/v1/me")
    for _ in range(2):
        await suspend(res, one)
    for device in (one, other_device):
        for method, path in (("GET", "/v1/me"), ("PATCH", "/v1/me"), ("GET", "/v1/feed"), ("GET", "/v1/feed/events")):
            problem(await http.request(method, path, headers=device.headers), 401, "unauthenticated")
    refused, wrong = await log_in(http, one), await log_in(http, one, "another password")
    problem(refused, 401, "wrong-credentials")
    assert anonymous(refused) == anonymous(wrong)
    for _ in range(2):
        await unsuspend(res, one)
    again = await log_in(http, one)
    assert again.status_code == 201
    await Client(http, one.account, again.json()["token"]).call("GET", "/v1/me")
    for device in (one, other_device):
        problem(await http.get("/v1/me", headers=device.headers), 401, "unauthenticated")


async def test_a_session_that_the_cache_does_not_know_is_refused_too(
    fresh_http: httpx.AsyncClient, fresh_res: Resources
) -> None:
    one = await Client.sign_up(fresh_http)
    await one.call("GET", "/v1/me")
    async with fresh_res.db.acquire() as connection:  # what a suspension looks like to a server that was not told
        await connection.execute("update accounts set suspended_at = now() where id = $1", int(one.id))
    async with redis_client(fresh_res.settings) as redis:
        await redis.flushdb()
    problem(await one.http.get("/v1/me", headers=one.headers), 401, "unauthenticated")


async def test_of_log_ins_and_suspensions_at_once_no_session_is_left(
    http: httpx.AsyncClient, sign_up: SignUp, res: Resources
) -> None:
    for _ in range(3):
        one = await sign_up()
        suspending = asyncio.create_task(suspend(res, one))
        answers = await asyncio.gather(*(log_in(http, one) for _ in range(4)))
        await suspending
        for answer in answers:
            if answer.status_code == 201:
                headers = {"Authorization": f"Bearer {answer.json()['token']}"}
                problem(await http.get("/v1/me", headers=headers), 401, "unauthenticated")
            else:
                problem(answer, 401, "wrong-credentials")


async def test_a_suspended_accounts_event_stream_ends_within_a_second(sign_up: SignUp, res: Resources) -> None:
    one = await sign_up()
    async with one.http.stream("GET", "/v1/feed/events", headers=one.headers) as stream:
        lines = stream.aiter_lines()
        await anext(lines)
        await suspend(res, one)
        async with asyncio.timeout(5):  # 1 s, on a machine that is not crowded
            async for _ in lines:
                pass


@pytest.mark.usefixtures("workers")
async def test_it_comes_back_whole(http: httpx.AsyncClient, sign_up: SignUp, res: Resources) -> None:
    one, fan, star, muter, blocked, asking = [await sign_up() for _ in range(6)]
    post = await one.published((await one.post("hello"))["id"])
    await fan.follow(one)
    await one.follow(star)
    await muter.mute(one)
    await one.block(blocked)
    await one.edit(is_private=True, bio="Hello.")
    await asking.follow(one)
    await fan.sees(post["id"])
    watchers = (fan, star, muter, blocked, asking)

    async def look(who: Client) -> list[object]:
        answers = [
            await http.get(path, headers=who.headers)
            for path in (f"/v1/accounts/{one.id}", f"/v1/posts/{post['id']}", "/v1/me", "/v1/me/mutes", "/v1/feed")
        ]
        return [answer.json() if answer.is_success else answer.status_code for answer in answers]

    before = [await look(who) for who in watchers]
    await suspend(res, one)
    for who in watchers:
        profile, seen, me, mutes, feed = await look(who)
        assert (profile, seen) == (404, 404)
        assert isinstance(me, dict)
        assert mutes == feed == {"items": [], "next_cursor": None}
    # Nobody can do anything to it, and nothing of it changes.
    for method, path in (
        ("DELETE", "follow"),
        ("PUT", "follow"),
        ("PUT", "mute"),
        ("DELETE", "mute"),
        ("PUT", "block"),
    ):
        problem(await http.request(method, f"/v1/accounts/{one.id}/{path}", headers=fan.headers), 404, "not-found")
    problem(await http.delete(f"/v1/me/followers/{one.id}", headers=star.headers), 404, "not-found")
    await unsuspend(res, one)
    assert [without_urls(await look(who)) for who in watchers] == [without_urls(found) for found in before]
    back = Client(http, one.account, (await log_in(http, one)).json()["token"])
    assert await back.walk("/v1/me/blocks") == [blocked.id]
    assert await back.walk("/v1/me/follow-requests") == [asking.id]
    assert await back.feed() == [post["id"]]


def without_urls(value: object) -> object:
    """A value without the URLs of photos, each of which is signed when it is shown."""
    if isinstance(value, dict):
        return {key: without_urls(inner) for key, inner in value.items() if key != "url"}
    return [without_urls(inner) for inner in value] if isinstance(value, list) else value


async def test_a_suspended_requester_is_not_listed_and_cannot_be_answered(sign_up: SignUp, res: Resources) -> None:
    star, asking = await sign_up(), await sign_up()
    await star.edit(is_private=True)
    await asking.follow(star)
    await suspend(res, asking)
    assert await star.walk("/v1/me/follow-requests") == []
    for method in ("PUT", "DELETE"):
        answer = await star.http.request(method, f"/v1/me/follow-requests/{asking.id}", headers=star.headers)
        problem(answer, 404, "not-found")
    await unsuspend(res, asking)
    assert await star.walk("/v1/me/follow-requests") == [asking.id]


async def test_a_name_that_nobody_has_cannot_be_suspended(res: Resources) -> None:
    for verb in (accounts.suspend, accounts.unsuspend):
        with pytest.raises(NotFound):
            await verb(res, "nobody.has.this.name")
