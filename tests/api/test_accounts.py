"""Signing up, and who is who."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import httpx
import pytest

from tests.api.answers import ID, anonymous, invalid, is_now, problem
from tests.client import NO_RELATION, PASSWORD, Client

SignUp = Callable[..., Awaitable[Client]]


def a_name() -> str:
    return f"n{secrets.token_hex(8)}"


async def send(http: httpx.AsyncClient, **fields: object) -> httpx.Response:
    return await http.post("/v1/accounts", json={"username": a_name(), "password": PASSWORD} | fields)


async def test_signing_up_makes_an_account_and_logs_it_in(http: httpx.AsyncClient) -> None:
    name = a_name()
    answer = await send(http, username=name, display_name="Ada Lovelace", device_name="Ada's phone")
    assert answer.status_code == 201
    body = answer.json()
    account = body["account"]
    assert answer.headers["location"] == f"/v1/accounts/{account['id']}"
    assert ID.fullmatch(account["id"])
    assert is_now(account.pop("created_at"))
    assert account == {
        "id": account["id"],
        "username": name,
        "display_name": "Ada Lovelace",
        "avatar": None,
        "bio": "",
        "website": "",
        "is_private": False,
        "post_count": 0,
        "follower_count": 0,
        "following_count": 0,
        "viewer": None,
        "email": None,
        "pending_email": None,
    }
    session = body["session"]
    assert is_now(session["created_at"])
    assert is_now(session["used_at"])
    assert (session["device_name"], session["current"]) == ("Ada's phone", True)
    me = await http.get("/v1/me", headers={"Authorization": f"Bearer {body['token']}"})
    assert me.status_code == 200
    assert me.json()["id"] == account["id"]


async def test_an_account_is_the_same_from_wherever_one_looks(ada: Client, bob: Client) -> None:
    own = await ada.call("GET", "/v1/me")
    mine = await ada.call("GET", f"/v1/accounts/{ada.id}")
    assert own == mine | {"email": None, "pending_email": None}
    assert mine == await ada.call("GET", f"/v1/accounts/by-username/{ada.account['username']}")
    assert mine["viewer"] is None
    seen = await bob.call("GET", f"/v1/accounts/{ada.id}")
    assert seen == await bob.call("GET", f"/v1/accounts/by-username/{ada.account['username']}")
    assert seen == mine | {"viewer": NO_RELATION}


@pytest.mark.parametrize("name", ["a", "0", "ada.lovelace", "a_b.c_d", "0" * 30, "9lives"])
async def test_usernames_of_every_form_are_taken(http: httpx.AsyncClient, name: str) -> None:
    answer = await send(http, username=name)
    assert answer.status_code == 201
    assert answer.json()["account"]["username"] == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a" * 31,
        ".ada",
        "ada_",
        "ada..l",
        "ada._l",
        "ada-l",
        "ada l",
        "ada\nl",
        "ada\u0000",
        "ada\u200bl",
        "ada\u202el",
        "ad\u0430",  # Cyrillic
        "\u03b1da",  # Greek
        "ad\u00e4",
        "\U0001f600",
        "ada/../bob",
        "%61da",
        "<b>ada</b>",
        "a" * 1000,
    ],
)
async def test_what_is_no_username_is_refused(http: httpx.AsyncClient, name: str) -> None:
    body = invalid(await send(http, username=name), "/username")
    assert len(body["errors"][0]["detail"]) < 200


@pytest.mark.parametrize(
    "vary",
    [
        pytest.param(str.upper, id="case"),
        pytest.param(lambda name: f" {name}\u3000", id="spaces around"),
        pytest.param(lambda name: "".join(chr(ord(c) + 0xFEE0) for c in name), id="full width"),
        pytest.param(lambda name: name.replace("fi", "\ufb01"), id="ligature"),
        pytest.param(lambda name: name.replace("k", "\u212a"), id="Kelvin sign"),
        pytest.param(lambda name: name.replace("s", "\u017f"), id="long s"),
        pytest.param(lambda name: name.replace("1", "\u2460"), id="circled digit"),
        pytest.param(lambda name: name.replace("a", "\U0001d41a"), id="mathematical bold"),
    ],
)
async def test_variants_of_a_username_are_one_name(http: httpx.AsyncClient, vary: Callable[[str], str]) -> None:
    name = f"fi1sak{secrets.token_hex(6)}"
    account = (await send(http, username=name)).json()
    headers = {"Authorization": f"Bearer {account['token']}"}
    variant = vary(name)
    assert variant != name
    problem(await send(http, username=variant), 409, "username-taken")
    found = await http.get(f"/v1/accounts/by-username/{variant}", headers=headers)
    assert found.json()["id"] == account["account"]["id"]
    again = await http.post("/v1/sessions", json={"username": variant, "password": PASSWORD})
    assert again.json()["account"]["username"] == name


@pytest.mark.parametrize("name", ["admin", "Support", "instafeed", "me", "\uff41\uff44\uff4d\uff49\uff4e", "null"])
async def test_reserved_usernames_are_not_given_away(http: httpx.AsyncClient, name: str) -> None:
    problem(await send(http, username=name), 409, "username-taken")


async def test_of_those_who_want_a_name_at_once_one_gets_it(http: httpx.AsyncClient) -> None:
    name = a_name()
    answers = await asyncio.gather(*(send(http, username=name) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@localhost",
        "a@b@example.org",
        "ada lovelace@example.org",
        "ada@exa mple.org",
        "ada@example.org\nbcc: x@example.org",
        "ada\u0000@example.org",
        "ada@-example.org",
        "ada,bob@example.org",
        "ada@example.org,bob@example.org",
        '"ada"@example.org',
        "<ada@example.org>",
        "ada>@example.org",
        ".ada@example.org",
        "ada..l@example.org",
        "ad\u00e4@example.org",
        f"{'a' * 65}@example.org",
        f"ada@{'a' * 250}.org",
    ],
)
async def test_what_is_no_e_mail_address_is_refused(http: httpx.AsyncClient, address: str) -> None:
    invalid(await send(http, email=address), "/email")


@pytest.mark.parametrize("password", ["", "1234567", "a" * 257, "\U0001f600" * 257, "a secret\u0000", "a" * 100_000])
async def test_passwords_out_of_bounds_are_refused_and_never_repeated(http: httpx.AsyncClient, password: str) -> None:
    answer = await send(http, password=password)
    invalid(answer, "/password")
    assert not password or password not in answer.text


@pytest.mark.parametrize(
    "password", ["        ", "\u00e4\u00f6\u00fc\u00df\u4e2d\u6587\U0001f600!", "a" * 256, "\U0001f600" * 256]
)
async def test_any_other_text_is_a_password(http: httpx.AsyncClient, password: str) -> None:
    name = a_name()
    assert (await send(http, username=name, password=password)).status_code == 201
    right = await http.post("/v1/sessions", json={"username": name, "password": password})
    assert right.status_code == 201
    wrong = await http.post("/v1/sessions", json={"username": name, "password": password[:-1] + "?"})
    problem(wrong, 401, "wrong-credentials")


async def test_without_a_username_or_password_nobody_signs_up(http: httpx.AsyncClient) -> None:
    invalid(await http.post("/v1/accounts", json={}), "/username", "/password")


async def test_fields_that_are_not_for_clients_to_set_are_refused(http: httpx.AsyncClient) -> None:
    ours = {"id": "1", "follower_count": 7, "is_admin": True, "password_hash": "x", "created_at": "now"}
    invalid(await send(http, **ours), *(f"/{name}" for name in ours))


@pytest.mark.parametrize("path", ["/v1/accounts/{}", "/v1/accounts/{}/posts", "/v1/accounts/{}/followers"])
async def test_an_account_that_does_not_exist_is_not_found(ada: Client, path: str) -> None:
    # The id of a post is no account's either.
    for missing in ("1", "9223372036854775807", str(int(ada.id) ^ 1 << 10), str(int(ada.id) + 1)):
        problem(await ada.http.get(path.format(missing), headers=ada.headers), 404, "not-found")


async def test_names_that_nobody_has_are_not_found(ada: Client) -> None:
    problem(await ada.http.get(f"/v1/accounts/by-username/{a_name()}", headers=ada.headers), 404, "not-found")


async def test_missing_accounts_and_missing_names_are_told_alike(ada: Client) -> None:
    by_id = await ada.http.get("/v1/accounts/1", headers=ada.headers)
    by_name = await ada.http.get(f"/v1/accounts/by-username/{a_name()}", headers=ada.headers)
    assert anonymous(by_id) == anonymous(by_name)


async def test_accounts_are_shown_to_nobody_without_a_token(http: httpx.AsyncClient, ada: Client) -> None:
    answers = [
        await http.get(path)
        for path in ("/v1/me", f"/v1/accounts/{ada.id}", "/v1/accounts/1", f"/v1/accounts/by-username/{a_name()}")
    ]
    for answer in answers:
        problem(answer, 401, "unauthenticated")
    assert len({str(anonymous(answer)) for answer in answers}) == 1
