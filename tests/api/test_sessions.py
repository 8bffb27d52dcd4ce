"""Logging in and out, and what a token is."""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import httpx
import pytest

from instafeed import passwords
from instafeed.ids import shard_of
from instafeed.passwords import Passwords
from instafeed.resources import Resources
from instafeed.settings import Settings
from tests.api.answers import ID, anonymous, invalid, is_now, problem
from tests.client import PASSWORD, Client, http_client
from tests.conftest import COST_OF_PASSWORDS, running_api
from tests.redis import redis_client

SignUp = Callable[..., Awaitable[Client]]

AWAY = "redis://127.0.0.1:1/0"


async def log_in(client: Client, **fields: object) -> Client:
    """The same person on another device."""
    body = {"username": client.account["username"], "password": PASSWORD} | fields
    answer = await client.http.post("/v1/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return Client(client.http, answer.json()["account"], answer.json()["token"])


async def is_in(client: Client) -> bool:
    """Whether the token works."""
    answer = await client.http.get("/v1/me", headers=client.headers)
    if answer.status_code != 200:
        problem(answer, 401, "unauthenticated")
    return answer.status_code == 200


async def sessions_of(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.call("GET", "/v1/sessions"))["items"]
    return found


async def test_logging_in_opens_a_session(http: httpx.AsyncClient, sign_up: SignUp) -> None:
    phone = await sign_up()
    answer = await http.post(
        "/v1/sessions",
        json={"username": phone.account["username"], "password": PASSWORD, "device_name": "Tablet"},
    )
    assert answer.status_code == 201
    body = answer.json()
    assert body["account"] == phone.account
    assert body["token"] != phone.token
    session = body["session"]
    assert ID.fullmatch(session["id"])
    assert is_now(session["created_at"])
    assert (session["device_name"], session["current"]) == ("Tablet", True)
    tablet = Client(http, body["account"], body["token"])
    here, there = await sessions_of(tablet)
    assert here == session | {"used_at": here["used_at"]}
    assert (there["id"], there["current"]) == (phone.id, False)


async def test_devices_are_listed_page_by_page(sign_up: SignUp) -> None:
    phone = await sign_up()
    for name in ("a", "b"):
        await log_in(phone, device_name=name)
    ids = [session["id"] for session in await sessions_of(phone)]
    assert len(ids) == 3
    assert ids == sorted(ids, reverse=True)
    assert await phone.walk("/v1/sessions", limit=1) == ids


@pytest.mark.parametrize("change", [{"password": "another password"}, {"username": "nobody.has.this.name"}])
async def test_a_wrong_name_and_a_wrong_password_are_told_alike(ada: Client, change: dict[str, str]) -> None:
    right = {"username": ada.account["username"], "password": PASSWORD}
    answer = await ada.http.post("/v1/sessions", json=right | change)
    problem(answer, 401, "wrong-credentials")
    other = await ada.http.post("/v1/sessions", json=right | {"password": "a third password"})
    assert anonymous(answer) == anonymous(other)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"password": PASSWORD}, "/username"),
        ({"username": "ada"}, "/password"),
        ({"username": "no such form!", "password": PASSWORD}, "/username"),
        ({"username": "ada\u0000", "password": PASSWORD}, "/username"),
        ({"username": "ada", "password": "a\u0000b"}, "/password"),
        ({"username": "ada", "password": "a" * 257}, "/password"),
        ({"username": "ada", "password": PASSWORD, "device_name": "a" * 101}, "/device_name"),
        ({"username": "ada", "password": PASSWORD, "token": "x"}, "/token"),
    ],
)
async def test_log_ins_that_make_no_sense_are_refused(
    http: httpx.AsyncClient, body: dict[str, str], pointer: str
) -> None:
    invalid(await http.post("/v1/sessions", json=body), pointer)


@pytest.fixture
def _passwords_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are hashed as in production."""
    for name, value in COST_OF_PASSWORDS.items():
        monkeypatch.setattr(passwords, name, value)


@pytest.mark.usefixtures("_passwords_cost")
async def test_passwords_are_hashed_as_owasp_advises() -> None:
    assert (await Passwords().hash(PASSWORD)).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.usefixtures("_passwords_cost")
async def test_unknown_names_take_as_long_as_known_ones(settings: Settings) -> None:
    async with running_api(settings) as url, http_client(base_url=url) as http:
        ada = await Client.sign_up(http)

        async def seconds(name: str) -> float:
            began = time.perf_counter()
            answer = await http.post("/v1/sessions", json={"username": name, "password": "a wrong password"})
            assert answer.status_code == 401
            return time.perf_counter() - began

        known, unknown, tries = list[float](), list[float](), 0
        # At their quickest, when nothing else goes on. Without a hash it would be a tenth, however often one tries.
        while tries < 8 or (tries < 80 and not 0.5 < min(unknown) / min(known) < 2):
            known.append(await seconds(ada.account["username"]))
            unknown.append(await seconds("nobody.has.this.name"))
            tries += 1
    assert 0.5 < min(unknown) / min(known) < 2


async def test_a_password_of_nobody_is_never_right() -> None:
    assert not await Passwords().verify("nobody has this password", None)
    assert not await Passwords().verify(PASSWORD, "not a hash")


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param([], id="missing"),
        pytest.param([""], id="empty"),
        pytest.param(["Bearer"], id="scheme only"),
        pytest.param(["{token}"], id="no scheme"),
        pytest.param(["Basic {token}"], id="wrong scheme"),
        pytest.param(["Token {token}"], id="unknown scheme"),
        pytest.param(["Bearer {account}"], id="no secret"),
        pytest.param(["Bearer .{secret}"], id="no account"),
        pytest.param(["Bearer {account}."], id="empty secret"),
        pytest.param(["Bearer {account}.{secret}.{secret}"], id="three parts"),
        pytest.param(["Bearer {secret}.{account}"], id="the wrong way round"),
        pytest.param(["Bearer 0{token}"], id="leading zero"),
        pytest.param(["Bearer +{token}"], id="sign"),
        pytest.param(["Bearer -{token}"], id="minus"),
        pytest.param(["Bearer 99999999999999999999.{secret}"], id="past 64 bits"),
        pytest.param(["Bearer 9999999999999999999.{secret}"], id="past 63 bits"),
        pytest.param(["Bearer {other}.{secret}"], id="another account's secret"),
        pytest.param(["Bearer {token}x"], id="longer"),
        pytest.param(["Bearer {shorter}"], id="shorter"),
        pytest.param(["Bearer {token} {token}"], id="two tokens"),
        pytest.param(["Bearer {token}, Bearer {token}"], id="a list"),
        pytest.param(["Bearer {token}", "Bearer {token}"], id="twice"),
        pytest.param(["Bearer " + "a" * 30_000], id="enormous"),
        pytest.param(["Bearer " + "1" * 30_000 + ".{secret}"], id="enormous number"),
        pytest.param(["Bearer \xb2.{secret}"], id="superscript"),
        pytest.param(["Bearer {account}." + "\xe9" * 43], id="not ASCII"),
    ],
)
async def test_anything_but_one_token_is_nobody(ada: Client, bob: Client, wrong: list[str]) -> None:
    account, _, secret = ada.token.partition(".")
    values = {
        "token": ada.token,
        "shorter": ada.token[:-1],
        "account": account,
        "secret": secret,
        "other": bob.id,
    }
    headers = [(b"authorization", text.format_map(values).encode("latin-1")) for text in wrong]
    answer = await ada.http.get("/v1/me", headers=headers)
    problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert secret not in answer.text


@pytest.mark.parametrize("prefix", ["Bearer ", "bearer ", "BEARER ", "Bearer   "])
async def test_the_scheme_is_taken_in_any_case(ada: Client, prefix: str) -> None:
    assert (await ada.http.get("/v1/me", headers={"Authorization": f"{prefix}{ada.token}"})).status_code == 200


@pytest.mark.parametrize("name", ["access_token", "token", "authorization"])
async def test_a_token_in_the_query_or_a_cookie_is_not_looked_at(ada: Client, name: str) -> None:
    problem(await ada.http.get("/v1/me", params={name: ada.token}), 401, "unauthenticated")
    problem(await ada.http.get("/v1/me", headers={"Cookie": f"{name}={ada.token}"}), 401, "unauthenticated")


async def test_logging_out_here_ends_this_session_only(sign_up: SignUp) -> None:
    phone = await sign_up()
    tablet = await log_in(phone)
    assert await is_in(tablet)  # it is in the cache now
    await tablet.call("DELETE", "/v1/sessions/current", 204)
    assert not await is_in(tablet)
    assert [session["id"] for session in await sessions_of(phone)] == [phone.id]
    problem(await phone.http.delete("/v1/sessions/current", headers=tablet.headers), 401, "unauthenticated")


async def test_a_request_that_is_late_does_not_bring_an_ended_session_back(res: Resources) -> None:
    # It has read the session from the database just before the end, and remembers it just after.
    key = f"1:{secrets.token_hex(32)}"
    await res.sessions.end([key])
    await res.sessions.fill(key, 7, epoch=await res.sessions.epoch(key))
    assert await res.sessions.look([key]) == {key: 0}


async def test_one_device_can_log_another_out(sign_up: SignUp) -> None:
    phone = await sign_up()
    tablet = await log_in(phone)
    assert await is_in(tablet)
    [session] = [session for session in await sessions_of(phone) if not session["current"]]
    await phone.call("DELETE", f"/v1/sessions/{session['id']}", 204)
    assert not await is_in(tablet)
    assert await is_in(phone)
    again = await phone.http.delete(f"/v1/sessions/{session['id']}", headers=phone.headers)
    problem(again, 404, "not-found")


async def test_logging_out_everywhere_else_keeps_this_session(sign_up: SignUp, ada: Client) -> None:
    phone = await sign_up()
    others = [await log_in(phone) for _ in range(3)]
    assert all(await asyncio.gather(*map(is_in, others)))
    for _ in range(2):
        await phone.call("DELETE", "/v1/sessions", 204)
        assert not any(await asyncio.gather(*map(is_in, others)))
        assert await is_in(phone)
    assert len(await sessions_of(phone)) == 1
    assert await is_in(ada)


async def test_somebody_elses_session_is_told_like_one_that_does_not_exist(ada: Client, bob: Client) -> None:
    [session, *_] = await sessions_of(ada)
    theirs = await bob.http.delete(f"/v1/sessions/{session['id']}", headers=bob.headers)
    missing = await bob.http.delete("/v1/sessions/1", headers=bob.headers)
    problem(theirs, 404, "not-found")
    assert anonymous(theirs) == anonymous(missing)
    assert await is_in(ada)


async def test_a_session_survives_an_emptied_redis_and_a_log_out_too(
    fresh_http: httpx.AsyncClient, fresh_res: Resources
) -> None:
    phone = await Client.sign_up(fresh_http)
    tablet = await log_in(phone)
    await tablet.call("DELETE", "/v1/sessions/current", 204)
    async with redis_client(fresh_res.settings) as redis:
        await redis.flushdb()
    assert await is_in(phone)
    assert not await is_in(tablet)


async def test_a_session_that_idles_too_long_ends(sign_up: SignUp, res: Resources) -> None:
    phone = await sign_up()
    tablet, watch = await log_in(phone), await log_in(phone)

    async def idle(client: Client, days: int) -> None:
        secret = client.token.partition(".")[2]
        async with res.db.acquire() as connection:
            status = await connection.execute(
                "update sessions set used_at = now() - make_interval(days => $3) where shard = $1 and token_hash = $2",
                shard_of(int(client.id)),
                hashlib.sha256(secret.encode()).digest(),
                days,
            )
        assert status == "UPDATE 1"

    await idle(tablet, res.settings.session_days + 1)
    await idle(watch, res.settings.session_days - 1)
    assert not await is_in(tablet)
    assert await is_in(watch)
    listed = await sessions_of(phone)
    assert len(listed) == 2
    # Being used, the other one begins to idle anew.
    assert all(is_now(str(session["used_at"])) for session in listed)


async def test_no_token_is_kept_anywhere(fresh_http: httpx.AsyncClient, fresh_res: Resources) -> None:
    body = {"username": "keeper", "password": "a password to look for"}
    tokens: list[str] = []
    for path, key in (("/v1/accounts", "first"), ("/v1/sessions", "second"), ("/v1/sessions", None)):
        headers = {"Idempotency-Key": key} if key else {}
        tokens.append((await fresh_http.post(path, json=body, headers=headers)).json()["token"])
        assert await is_in(Client(fresh_http, {}, tokens[-1]))
    kept = await everything_in_postgres(fresh_res) + await everything_in_redis(fresh_res)
    assert "keeper" in kept
    for token in tokens:
        secret = token.partition(".")[2]
        assert hashlib.sha256(secret.encode()).hexdigest() in kept
        assert secret not in kept
        assert secret.encode().hex() not in kept
    assert body["password"] not in kept


async def everything_in_postgres(res: Resources) -> str:
    """All rows as text, binary columns in hexadecimal."""
    tables = "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    said: list[str] = []
    async with res.db.acquire() as connection:
        for table in await connection.fetch(tables):
            said += [row[0] for row in await connection.fetch(f'select t::text from "{table[0]}" t')]
    return "\n".join(said)


async def everything_in_redis(res: Resources) -> str:
    """All keys and their values."""
    said: list[Any] = []
    async with redis_client(res.settings) as redis:
        async for key in redis.scan_iter():
            said.append(key)
            match await redis.type(key):
                case b"string":
                    said.append(await redis.get(key))
                case b"list":
                    said += await cast("Awaitable[list[bytes]]", redis.lrange(key, 0, -1))
                case b"set":
                    said += await cast("Awaitable[set[bytes]]", redis.smembers(key))
                case b"hash":
                    said += (await cast("Awaitable[dict[bytes, bytes]]", redis.hgetall(key))).items()
                case b"stream":
                    said += await redis.xrange(key)
                case b"none":
                    pass  # its time is over since it was found
                case other:
                    pytest.fail(f"{key} is a {other}")
    return str(said)


async def test_with_redis_gone_sessions_go_on_and_can_be_ended(settings: Settings, sign_up: SignUp) -> None:
    phone = await sign_up()
    tablet = await log_in(phone)
    gone = settings.model_copy(update={"redis_url": type(settings.redis_url)(AWAY)})
    async with running_api(gone) as url, http_client(base_url=url) as without_redis:
        on_phone, on_tablet = (Client(without_redis, phone.account, one.token) for one in (phone, tablet))
        laptop = await log_in(on_phone)
        assert [await is_in(one) for one in (on_phone, on_tablet, laptop)] == [True] * 3
        [there] = [session["id"] for session in await sessions_of(on_tablet) if session["current"]]
        await laptop.call("DELETE", f"/v1/sessions/{there}", 204)
        assert [await is_in(one) for one in (on_phone, on_tablet, laptop)] == [True, False, True]
        await laptop.call("DELETE", "/v1/sessions", 204)
        assert [await is_in(one) for one in (on_phone, laptop)] == [False, True]
        await laptop.call("DELETE", "/v1/sessions/current", 204)
        assert not await is_in(laptop)
