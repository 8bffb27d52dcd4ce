"""Another password: who may set it, and whom it logs out."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import httpx
import pytest

from instafeed.api import limits
from instafeed.settings import Settings
from tests.api.answers import invalid, problem
from tests.api.test_rate_limits import limited, refused
from tests.api.test_sessions import is_in, log_in
from tests.client import PASSWORD, Client, http_client
from tests.conftest import running_api

SignUp = Callable[..., Awaitable[Client]]
NEW = "staple battery horse correct"


async def change(client: Client, current: object = PASSWORD, new: object = NEW) -> httpx.Response:
    body = {"current_password": current, "new_password": new}
    return await client.http.put("/v1/me/password", json=body, headers=client.headers)


async def fits(client: Client, password: str) -> bool:
    body = {"username": client.account["username"], "password": password}
    answer = await client.http.post("/v1/sessions", json=body)
    if answer.status_code != 201:
        problem(answer, 401, "wrong-credentials")
    return answer.status_code == 201


async def test_another_password_replaces_the_one_before_and_logs_out_everywhere_else(sign_up: SignUp) -> None:
    phone = await sign_up()
    tablet, watch = await log_in(phone), await log_in(phone)
    assert [await is_in(one) for one in (phone, tablet, watch)] == [True] * 3  # in the cache too
    answer = await change(tablet)
    assert (answer.status_code, answer.content) == (204, b"")
    assert [await is_in(one) for one in (phone, tablet, watch)] == [False, True, False]
    assert await fits(phone, NEW)
    assert not await fits(phone, PASSWORD)


async def test_event_streams_of_other_devices_end_within_a_second(sign_up: SignUp) -> None:
    phone = await sign_up()
    tablet = await log_in(phone)
    async with phone.http.stream("GET", "/v1/feed/events", headers=phone.headers) as stream:
        lines = stream.aiter_lines()
        await anext(lines)
        assert (await change(tablet)).status_code == 204
        async with asyncio.timeout(5):  # 1 s, on a machine that is not crowded
            async for _ in lines:
                pass


async def test_whoever_holds_only_the_token_changes_nothing(sign_up: SignUp) -> None:
    phone = await sign_up()
    tablet = await log_in(phone)
    for wrong in ("a wrong password", NEW, ""):
        problem(await change(tablet, wrong), 403, "wrong-password")
    assert [await is_in(one) for one in (phone, tablet)] == [True] * 2
    assert await fits(phone, PASSWORD)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/current_password", "/new_password"]),
        ({"current_password": PASSWORD, "new_password": "1234567"}, ["/new_password"]),
        ({"current_password": PASSWORD, "new_password": "a" * 257}, ["/new_password"]),
        ({"current_password": PASSWORD, "new_password": "a secret\u0000"}, ["/new_password"]),
        ({"current_password": PASSWORD, "new_password": None}, ["/new_password"]),
        ({"current_password": "a" * 257, "new_password": NEW}, ["/current_password"]),
        ({"current_password": PASSWORD, "new_password": NEW, "username": "ada"}, ["/username"]),
    ],
)
async def test_what_is_no_change_of_password_is_refused(
    ada: Client, body: dict[str, object], pointers: list[str]
) -> None:
    answer = await ada.http.put("/v1/me/password", json=body, headers=ada.headers)
    invalid(answer, *pointers)
    assert PASSWORD not in answer.text


async def test_nobody_without_a_token_changes_a_password(http: httpx.AsyncClient) -> None:
    body = {"current_password": PASSWORD, "new_password": NEW}
    problem(await http.put("/v1/me/password", json=body), 401, "unauthenticated")


async def test_of_two_changes_at_once_one_counts(sign_up: SignUp) -> None:
    phone = await sign_up()
    tablet = await log_in(phone)
    answers = await asyncio.gather(change(phone, new=f"{NEW} 1"), change(tablet, new=f"{NEW} 2"))
    # The other one came with a password, or a token, that was good a moment ago.
    assert sorted(answer.status_code for answer in answers) in ([204, 401], [204, 403])
    won = [answer.status_code for answer in answers].index(204)
    assert [await fits(phone, f"{NEW} {number}") for number in (1, 2)] == [won == 0, won == 1]
    assert [await is_in(one) for one in (phone, tablet)] == [won == 0, won == 1]


async def test_of_log_ins_and_a_change_at_once_no_session_of_the_old_password_is_left(sign_up: SignUp) -> None:
    for _ in range(3):
        phone = await sign_up()
        inside: list[Client] = []

        async def enter(phone: Client = phone, inside: list[Client] = inside) -> None:
            with suppress(AssertionError):
                inside.append(await log_in(phone))

        changing = asyncio.create_task(change(phone))
        await asyncio.gather(*(enter() for _ in range(4)))
        assert (await changing).status_code == 204
        assert [await is_in(one) for one in inside] == [False] * len(inside)
        assert await is_in(phone)


async def test_guessing_the_password_with_a_stolen_token_is_limited(settings: Settings) -> None:
    async with running_api(limited(settings)) as url, http_client(base_url=url) as gate:
        phone = await Client.sign_up(gate)
        tries = [await change(phone, "a wrong guess") for _ in range(limits.PASSWORD.quota)]
        assert {answer.status_code for answer in tries} == {403}
        assert refused(await change(phone), limits.PASSWORD) > 20
        assert await fits(phone, PASSWORD)
