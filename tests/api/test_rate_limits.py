"""Who may ask how often."""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from instafeed.api import limits
from instafeed.resources import Resources
from instafeed.settings import Settings
from instafeed.storage import rate_limiter
from instafeed.storage.rate_limiter import Policy, RateLimiter, Verdict
from instafeed.storage.redis import RedisServer
from tests.api.answers import anonymous, problem
from tests.client import PASSWORD, Client, eventually, http_client
from tests.conftest import running_api
from tests.redis import redis_client

AWAY = "redis://127.0.0.1:1/0"
_numbers = itertools.count(1)


def limited(settings: Settings, **changes: object) -> Settings:
    values = settings.model_dump() | {"rate_limits": "on", "trusted_proxies": "127.0.0.0/8"} | changes
    return Settings.model_validate(values)


async def check(limiter: RateLimiter, policy: Policy, client: str) -> Verdict:
    """Count a request."""
    return await limiter.finish(await limiter.begin(policy, client))


@pytest.fixture(scope="module")
async def gate(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """An API with limits, behind a proxy that it trusts."""
    async with running_api(limited(settings)) as url, http_client(base_url=url) as client:
        yield client


def an_address() -> str:
    """An address from which nobody has asked yet."""
    number = next(_numbers)
    return f"10.{secrets.randbelow(256)}.{number >> 8}.{number & 255}"


def from_(*addresses: str) -> dict[str, str]:
    return {"X-Forwarded-For": ", ".join(addresses)}


async def sign_up(gate: httpx.AsyncClient, headers: dict[str, str]) -> httpx.Response:
    return await gate.post(
        "/v1/accounts", json={"username": f"g{secrets.token_hex(8)}", "password": PASSWORD}, headers=headers
    )


async def log_in(gate: httpx.AsyncClient, username: str, password: str, address: str) -> httpx.Response:
    body = {"username": username, "password": password}
    return await gate.post("/v1/sessions", json=body, headers=from_(address))


async def use_up(res: Resources, policy: Policy, client: str, *, but: int = 0) -> None:
    """Ask until only `but` requests are left."""
    while (await check(res.rate_limiter, policy, client)).remaining > but:
        pass


def refused(answer: httpx.Response, policy: Policy) -> int:
    """Assert that the answer says that it was one request too many; returns after how many seconds to try again."""
    problem(answer, 429, "rate-limited")
    assert answer.headers["ratelimit-policy"] == f'"{policy.name}";q={policy.quota};w={policy.seconds}'
    assert answer.headers["ratelimit"].startswith(f'"{policy.name}";r=0;t=')
    seconds = int(answer.headers["retry-after"])
    assert 1 <= seconds <= policy.seconds
    return seconds


async def test_answers_tell_where_one_stands(gate: httpx.AsyncClient) -> None:
    client = await Client.sign_up(gate)
    answer = await gate.get("/v1/sessions?limit=1", headers=client.headers)
    assert answer.headers["ratelimit-policy"] == '"read";q=600;w=60'
    assert answer.headers["ratelimit"] == '"read";r=599;t=1'
    answer = await gate.delete("/v1/sessions", headers=client.headers)
    assert answer.headers["ratelimit-policy"] == '"write";q=120;w=60'
    assert "ratelimit" not in (await gate.get("/livez")).headers


async def test_one_request_too_many_is_refused_and_passes_later(gate: httpx.AsyncClient, res: Resources) -> None:
    client, other = await Client.sign_up(gate), await Client.sign_up(gate)
    await use_up(res, limits.READ, client.id)

    async def too_many() -> bool:
        answer = await gate.get("/v1/me", headers=client.headers)
        return answer.status_code == 429 and refused(answer, limits.READ) == 1

    # A tenth of a second later the next one passes, so it may take a few.
    await eventually(too_many)
    assert (await gate.get("/v1/me", headers=other.headers)).status_code == 200
    assert (await gate.delete("/v1/sessions", headers=client.headers)).status_code == 204

    async def passes() -> bool:
        return (await gate.get("/v1/me", headers=client.headers)).status_code == 200

    await eventually(passes)


@pytest.mark.parametrize(
    ("method", "path", "policy"),
    [
        ("GET", "/v1/me", limits.READ),
        ("GET", "/v1/%6d%65", limits.READ),
        ("GET", "/v1%2Fme", limits.READ),
        ("GET", "/v1/feed?limit=1", limits.READ),
        ("GET", "/v1/posts/1", limits.READ),
        ("PUT", "/v1/accounts/1/follow", limits.WRITE),
        ("DELETE", "/v1/accounts/1/follow", limits.WRITE),
        ("DELETE", "/v1/posts/1", limits.WRITE),
        ("DELETE", "/v1/sessions/current", limits.WRITE),
        ("POST", "/v1/posts", limits.WRITE),
        ("POST", "/v1/media", limits.UPLOAD),
    ],
)
async def test_every_way_counts(
    gate: httpx.AsyncClient, res: Resources, method: str, path: str, policy: Policy
) -> None:
    client = await Client.sign_up(gate)
    slow = Policy(policy.name, 1, 3600)  # nothing passes for an hour
    await check(res.rate_limiter, slow, client.id)
    body = {"media": [{"id": "1"}]} if path == "/v1/posts" else None
    answer = await gate.request(method, path, headers=client.headers, json=body)
    problem(answer, 429, "rate-limited")
    assert int(answer.headers["retry-after"]) > 3000


async def test_sign_ups_are_limited_by_address(gate: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGN_UP", policy := Policy("sign_up", 2, 3600))
    here = from_(an_address())
    assert [(await sign_up(gate, here)).status_code for _ in range(2)] == [201, 201]
    answer = await sign_up(gate, here)
    assert refused(answer, policy) > 1700
    assert (await sign_up(gate, from_(an_address()))).status_code == 201


async def test_guessing_one_password_is_limited_wherever_it_comes_from(gate: httpx.AsyncClient) -> None:
    client = await Client.sign_up(gate)
    name = client.account["username"]
    tries = [await log_in(gate, vary(name), "a wrong guess", an_address()) for vary in [str.upper, str.lower] * 5]
    assert {answer.status_code for answer in tries} == {401}
    # Not even the right one passes now; others are not concerned.
    assert refused(await log_in(gate, name, PASSWORD, an_address()), limits.LOG_IN_NAME) > 20
    other = await Client.sign_up(gate)
    assert (await log_in(gate, other.account["username"], PASSWORD, an_address())).status_code == 201
    # Who is logged in stays so.
    assert (await gate.get("/v1/me", headers=client.headers)).status_code == 200


async def test_guessing_a_password_to_delete_an_account_is_limited(gate: httpx.AsyncClient) -> None:
    client = await Client.sign_up(gate)

    async def leave(password: str) -> httpx.Response:
        headers = client.headers | from_(an_address())
        return await gate.request("DELETE", "/v1/me", json={"password": password}, headers=headers)

    assert {(await leave("a wrong guess")).status_code for _ in range(limits.PASSWORD.quota)} == {403}
    assert refused(await leave(PASSWORD), limits.PASSWORD) > 20


async def test_guessing_many_passwords_is_limited_by_address(
    gate: httpx.AsyncClient, res: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_IN", policy := Policy("log_in", 3, 300))
    here = an_address()
    tries = [await log_in(gate, f"nobody{number}", "a wrong guess", here) for number in range(4)]
    assert [answer.status_code for answer in tries] == [401, 401, 401, 429]
    refused(tries[-1], policy)
    assert (await log_in(gate, "nobody5", "a wrong guess", an_address())).status_code == 401


async def test_guessing_tokens_is_limited_by_address(gate: httpx.AsyncClient, res: Resources) -> None:
    here = an_address()
    client = await Client.sign_up(gate)
    await check(res.rate_limiter, Policy("anonymous", 1, 3600), here)
    for headers in ({}, {"Authorization": f"Bearer {client.id}.{'a' * 43}"}):
        problem(await gate.get("/v1/me", headers=headers | from_(here)), 429, "rate-limited")
        problem(await gate.get("/v1/me", headers=headers | from_(an_address())), 401, "unauthenticated")
    # A right token is not a guess.
    assert (await gate.get("/v1/me", headers=client.headers | from_(here))).status_code == 200


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::1", True),
        ("2001:db8:1:2::1", "2001:0DB8:0001:0002:0:0:0:9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("198.51.100.7", "::ffff:198.51.100.7", True),
        ("198.51.100.7", "198.51.100.8", False),
        # What stands left of the nearest address that is no proxy is hearsay.
        ("198.51.100.9", "203.0.113.1, 198.51.100.9", True),
        ("198.51.100.10", "203.0.113.1,  198.51.100.10 , 127.0.0.2", True),
        ("198.51.100.11", "198.51.100.11, not an address", False),
        ("198.51.100.12", "198.51.100.12, 203.0.113.9", False),
    ],
)
async def test_an_address_is_known_by_what_trusted_proxies_say(
    gate: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, first: str, second: str, same: bool
) -> None:
    # A name of its own: each pair begins anew.
    monkeypatch.setattr(limits, "SIGN_UP", Policy(f"sign_up_{secrets.token_hex(4)}", 1, 3600))
    assert (await sign_up(gate, from_(first))).status_code == 201
    assert (await sign_up(gate, from_(second))).status_code == (429 if same else 201)


async def test_several_forwarding_headers_are_one(gate: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGN_UP", Policy(f"sign_up_{secrets.token_hex(4)}", 1, 3600))
    assert (await sign_up(gate, from_("198.51.100.20"))).status_code == 201
    body = {"username": f"g{secrets.token_hex(8)}", "password": PASSWORD}
    headers = [("X-Forwarded-For", "203.0.113.1"), ("X-Forwarded-For", "198.51.100.20")]
    problem(await gate.post("/v1/accounts", json=body, headers=headers), 429, "rate-limited")


@pytest.mark.parametrize("proxies", ["", "10.0.0.0/8"])
async def test_without_a_trusted_proxy_nobody_speaks_for_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, proxies: str
) -> None:
    monkeypatch.setattr(limits, "SIGN_UP", Policy(f"sign_up_{secrets.token_hex(4)}", 1, 3600))
    async with (
        running_api(limited(settings, trusted_proxies=proxies)) as url,
        http_client(base_url=url) as client,
    ):
        assert (await sign_up(client, from_(an_address()))).status_code == 201
        for spoofed in (from_(an_address()), {}, {"Forwarded": "for=192.0.2.1", "X-Real-IP": "192.0.2.1"}):
            problem(await sign_up(client, spoofed), 429, "rate-limited")


async def test_without_redis_each_process_still_counts(settings: Settings) -> None:
    async with (
        running_api(limited(settings, redis_url=AWAY)) as url,
        http_client(base_url=url) as client,
    ):
        answers = [await log_in(client, "somebody", "a wrong guess", an_address()) for _ in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    refused(answers[-1], limits.LOG_IN_NAME)


async def test_requests_at_once_are_counted_one_by_one(res: Resources) -> None:
    policy, client = Policy("burst", 5, 3600), secrets.token_hex(8)
    verdicts = await asyncio.gather(*(check(res.rate_limiter, policy, client) for _ in range(20)))
    assert sorted(verdict.remaining for verdict in verdicts if not verdict.retry_after) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("quota", "seconds"), [(7, 60), (3, 1), (1, 1), (1000, 7), (13, 3600)])
async def test_the_whole_quota_passes_at_once(res: Resources, quota: int, seconds: int) -> None:
    async with without_redis() as stand_in:
        for limiter in (res.rate_limiter, stand_in):
            policy, client = Policy("whole", quota, seconds), secrets.token_hex(8)
            verdicts = [await check(limiter, policy, client) for _ in range(quota)]
            assert all(verdict.retry_after == 0 for verdict in verdicts)
            assert verdicts[0].remaining == quota - 1


@asynccontextmanager
async def without_redis() -> AsyncIterator[RateLimiter]:
    """A limiter whose Redis is away."""
    server = RedisServer(AWAY)
    yield RateLimiter(server)
    await server.close()


@given(
    quota=st.integers(1, 8),
    interval=st.integers(2, 50),
    steps=st.lists(st.one_of(st.just(0), st.integers(1, 120)), min_size=1, max_size=25),
)
@examples(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_redis_and_its_stand_in_judge_alike(res: Resources, quota: int, interval: int, steps: list[int]) -> None:
    """Each step is a request, and then so many seconds pass."""
    policy, client = Policy("alike", quota, quota * interval), secrets.token_hex(8)
    key = f"rate:alike:{client}"
    async with without_redis() as stand_in, redis_client(res.settings) as redis:
        for seconds in steps:
            real, local = await check(res.rate_limiter, policy, client), await check(stand_in, policy, client)
            assert (real.remaining, real.retry_after > 0) == (local.remaining, local.retry_after > 0)
            assert abs(real.retry_after - local.retry_after) < 0.5
            assert abs(real.reset - local.reset) < 0.5
            assert 0 <= real.remaining < quota
            assert 0 < real.reset <= policy.seconds
            # Time passes by what is remembered becoming older.
            await redis.decrby(key, seconds * 1_000_000)
            stand_in._local[key] -= seconds * 1_000_000


async def test_what_redis_remembers_is_forgotten_in_time(res: Resources) -> None:
    policy, client = Policy("forgotten", 10, 100), secrets.token_hex(8)
    await check(res.rate_limiter, policy, client)
    await check(res.rate_limiter, policy, client)
    async with redis_client(res.settings) as redis:
        assert 10_000 < cast("int", await redis.pttl(f"rate:forgotten:{client}")) <= 20_001


async def test_the_stand_in_remembers_so_many_clients_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limiter, "_LOCAL_CLIENTS", 3)
    policy = Policy("many", 1, 3600)
    async with without_redis() as limiter:
        for number in range(10):
            assert (await check(limiter, policy, str(number))).retry_after == 0
        assert len(limiter._local) == 3
        assert (await check(limiter, policy, "9")).retry_after > 0


async def test_reports_are_limited(gate: httpx.AsyncClient, res: Resources) -> None:
    one = await Client.sign_up(gate)
    await use_up(res, limits.REPORT, one.id)
    body = {"subject": {"kind": "account", "id": "1"}, "reason": "spam"}
    refused(await gate.post("/v1/reports", json=body, headers=one.headers), limits.REPORT)


async def test_of_what_is_for_admins_only_nobody_else_sees_a_count(gate: httpx.AsyncClient) -> None:
    one = await Client.sign_up(gate)
    found, nothing = [await gate.get(f"/v1/admin/{name}", headers=one.headers) for name in ("reports", "nothing")]
    assert anonymous(found) == anonymous(nothing)
