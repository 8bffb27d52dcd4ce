"""Another username: who has the old one, and for how long."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import httpx
import pytest

from instafeed import sweep
from instafeed.resources import Resources
from tests.api.answers import anonymous, invalid, problem
from tests.client import PASSWORD, Client

SignUp = Callable[..., Awaitable[Client]]


def a_name() -> str:
    return f"n{secrets.token_hex(8)}"


async def rename(client: Client, username: str) -> httpx.Response:
    return await client.http.patch("/v1/me", json={"username": username}, headers=client.headers)


async def lapse(res: Resources, username: str) -> None:
    """Let the time pass for which a former name is held."""
    async with res.db.acquire() as connection:
        done = await connection.execute(
            "update usernames set held_until = now() - interval '1 second' where username = $1 and held_until > now()"
            " + interval '13 days'",
            username,
        )
    assert done == "UPDATE 1"


async def finds(client: Client, username: str) -> httpx.Response:
    return await client.http.get(f"/v1/accounts/by-username/{username}", headers=client.headers)


@pytest.mark.usefixtures("workers")
async def test_another_name_is_shown_at_once_and_wherever_the_account_is(sign_up: SignUp) -> None:
    one, fan, name = await sign_up(), await sign_up(), a_name()
    await fan.follow(one)
    post = (await one.post("hello"))["id"]
    await fan.sees(post)

    async def shown() -> set[str]:
        feed = await fan.call("GET", "/v1/feed")
        seen = await fan.call("GET", f"/v1/posts/{post}")
        following = await fan.call("GET", f"/v1/accounts/{fan.id}/following")
        accounts = [await one.call("GET", "/v1/me"), await fan.call("GET", f"/v1/accounts/{one.id}")]
        names = [account["username"] for account in (*accounts, *following["items"])]
        return {feed["items"][0]["author"]["username"], seen["author"]["username"], *names}

    assert await shown() == {one.account["username"]}
    assert (await one.edit(username=name.upper()))["username"] == name
    assert await shown() == {name}


async def test_a_former_name_finds_its_account_and_is_nobody_elses_for_14_days(
    http: httpx.AsyncClient, sign_up: SignUp, res: Resources
) -> None:
    one, other = await sign_up(), await sign_up()
    old, new = one.account["username"], a_name()
    await one.edit(username=new)
    assert (await finds(other, old)).json() == (await finds(other, new)).json()
    assert (await http.post("/v1/sessions", json={"username": old, "password": PASSWORD})).status_code == 201
    problem(await rename(other, old), 409, "username-taken")
    problem(await http.post("/v1/accounts", json={"username": old, "password": PASSWORD}), 409, "username-taken")
    await lapse(res, old)
    assert anonymous(await finds(other, old)) == anonymous(await finds(other, a_name()))
    lost = await http.post("/v1/sessions", json={"username": old, "password": PASSWORD})
    problem(lost, 401, "wrong-credentials")
    assert (await rename(other, old)).json()["id"] == other.id
    assert (await finds(one, old)).json()["id"] == other.id
    assert (await finds(one, other.account["username"])).json()["id"] == other.id


async def test_the_sweep_lets_go_of_names_that_are_held_no_more(sign_up: SignUp, res: Resources) -> None:
    one = await sign_up()
    lapsed, held = one.account["username"], a_name()
    await one.edit(username=held)
    await one.edit(username=a_name())
    await lapse(res, lapsed)
    await sweep.clear(res)
    async with res.db.acquire() as connection:
        kept = await connection.fetch("select username from usernames where username = any($1)", [lapsed, held])
    assert [record["username"] for record in kept] == [held]


async def test_whoever_gave_a_name_up_can_take_it_back(sign_up: SignUp) -> None:
    one, other, new = await sign_up(), await sign_up(), a_name()
    old = one.account["username"]
    for _ in range(5):  # nothing is given up for good: it is no limit's business
        assert (await rename(one, new)).json()["username"] == new
        assert (await rename(one, old)).json()["username"] == old
    problem(await rename(other, new), 409, "username-taken")


async def test_whoever_gives_up_many_names_waits(sign_up: SignUp, res: Resources) -> None:
    one = await sign_up()
    names = [one.account["username"], *(a_name() for _ in range(4))]
    for name in names[1:4]:
        await one.edit(username=name)
    refused = await rename(one, names[4])
    problem(refused, 429, "rate-limited")
    assert 13 * 86_400 < int(refused.headers["retry-after"]) <= 14 * 86_400
    assert (await one.call("GET", "/v1/me"))["username"] == names[3]
    assert (await finds(one, names[4])).status_code == 404  # it was not taken
    await one.edit(username=names[1])
    await lapse(res, names[0])
    await one.edit(username=names[4])


async def test_of_those_who_want_a_name_at_once_one_gets_it(sign_up: SignUp) -> None:
    many, name = [await sign_up() for _ in range(5)], a_name()
    answers = await asyncio.gather(*(rename(one, name) for one in many))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    for one, answer in zip(many, answers, strict=True):
        shown = (await one.call("GET", "/v1/me"))["username"]
        assert shown == (name if answer.status_code == 200 else one.account["username"])
        assert (await finds(one, one.account["username"])).json()["id"] == one.id


async def test_two_who_swap_names_at_once_get_neither(sign_up: SignUp) -> None:
    one, other = await sign_up(), await sign_up()
    answers = await asyncio.gather(rename(one, other.account["username"]), rename(other, one.account["username"]))
    for answer in answers:
        problem(answer, 409, "username-taken")


@pytest.mark.parametrize("name", ["", " ", "a" * 31, "ada..l", "ad\u00e4", "ada\u0000", 7, None, ["ada"]])
async def test_what_is_no_username_changes_nothing(sign_up: SignUp, name: object) -> None:
    one = await sign_up()  # of whom no post is being published
    before = await one.call("GET", "/v1/me")
    answer = await one.http.patch("/v1/me", json={"username": name, "bio": "x"}, headers=one.headers)
    invalid(answer, "/username")
    assert await one.call("GET", "/v1/me") == before


async def test_reserved_and_taken_names_change_nothing(sign_up: SignUp, bob: Client) -> None:
    one = await sign_up()
    before = await one.call("GET", "/v1/me")
    for name in ("Support", bob.account["username"].upper()):
        answer = await one.http.patch("/v1/me", json={"username": name, "bio": "x"}, headers=one.headers)
        problem(answer, 409, "username-taken")
    assert await one.call("GET", "/v1/me") == before
    assert (await rename(one, one.account["username"])).json() == before
