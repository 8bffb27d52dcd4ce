"""The home feed is served ahead of the framework, as the framework would serve it; and what that costs, and whom."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

import httpx
import pytest

from instafeed import accounts, telemetry
from instafeed import feeds as verbs
from instafeed.api import limits
from instafeed.events import EventHub
from instafeed.resources import Resources
from instafeed.settings import Settings
from instafeed.storage.connection import Node
from instafeed.storage.database import Connection, Database
from tests.api.answers import anonymous, exchange, problem, request
from tests.api.test_rate_limits import limited
from tests.client import Client, http_client
from tests.conftest import serving
from tests.redis import redis_client

SignUp = Callable[..., Awaitable[Client]]
BY_THE_FRAMEWORK = "x=1"
"""In a query, leaves the request to the framework, which knows of no `x` and passes over it."""


@dataclass
class Server:
    """An API with limits in this process, and what it holds."""

    url: str
    http: httpx.AsyncClient
    res: Resources


@pytest.fixture(scope="module")
async def server(settings: Settings) -> AsyncIterator[Server]:
    async with serving(limited(settings)) as (url, running), http_client(base_url=url) as http:
        hub = cast("EventHub", running.config.loaded_app.state.hub)
        yield Server(url, http, hub._res)


@pytest.fixture(scope="module")
async def reader(http: httpx.AsyncClient, workers: None) -> Client:
    """Somebody with a feed of three posts, two of them somebody else's."""
    someone, author = await Client.sign_up(http), await Client.sign_up(http)
    await someone.follow(author)
    for who in (author, someone, author):
        post = await who.post("in the feed")
        await someone.sees(post["id"])
    return someone


def alike(answer: httpx.Response) -> tuple[int, str, dict[str, str]]:
    """An answer without what differs between two requests for the same."""
    status, text, headers = anonymous(answer)
    # Each of the two is counted.
    limit = re.sub(r"[rt]=\d+", "", headers.pop("ratelimit", ""))
    return (
        status,
        text,
        headers | {"ratelimit": limit, "retry-after": re.sub(r"\d+", "", headers.get("retry-after", ""))},
    )


async def twins(
    server: Server, query: str, headers: dict[str, str] | list[tuple[str, str]]
) -> tuple[httpx.Response, httpx.Response]:
    """The answer to a request, and the framework's to the same one."""
    ours = await server.http.get(f"/v1/feed?{query}" if query else "/v1/feed", headers=headers)
    theirs = await server.http.get(f"/v1/feed?{query}&{BY_THE_FRAMEWORK}", headers=headers)
    return ours, theirs


QUERIES = [
    ("", 200),
    ("&", 200),
    ("limit=2", 200),
    ("limit=05", 200),
    ("limit=0001", 200),
    ("limit=100", 200),
    ("limit=30&limit=1", 200),
    ("limit=1&limit=30", 200),
    ("limit=nonsense&limit=2", 200),
    ("limit=%32", 200),
    ("%6cimit=1", 200),
    ("&&limit=2&", 200),
    ("LIMIT=1", 200),
    ("x=2&limit=1", 200),
    ("limit=2;cursor=1", 422),
    ("limit=00001", 422),
    ("limit=0", 422),
    ("limit=101", 422),
    ("limit=-1", 422),
    ("limit=+1", 422),
    ("limit=%2B1", 422),
    ("limit=1_0", 422),
    ("limit=1.0", 422),
    ("limit=%D9%A1", 422),
    ("limit=", 422),
    ("limit", 422),
    ("limit=2&limit=0", 422),
    ("cursor=", 422),
    ("cursor", 422),
    ("cursor=forged", 422),
    ("cursor=%00", 422),
    ("cursor=%ff%C3%A9", 422),
    (f"cursor={'A' * 32}", 422),
    (f"cursor={'A' * 100}", 422),
    (f"cursor={'A' * 101}", 422),
    ("cursor=forged&limit=0", 422),
    ("cursor=forged&limit=1&limit=2&limit=3", 422),
]


@pytest.mark.parametrize(("query", "status"), QUERIES)
async def test_any_query_is_answered_as_by_the_framework(
    server: Server, reader: Client, query: str, status: int
) -> None:
    for _ in range(2):
        ours, theirs = await twins(server, query, reader.headers)
        assert ours.status_code == status, ours.text
        assert alike(ours) == alike(theirs)
        assert {"x-request-id", "x-content-type-options", "cache-control", "ratelimit", "ratelimit-policy"} <= set(
            ours.headers
        )
        if status == 422:
            problem(ours, 422, "invalid")


async def test_pages_and_their_links_are_the_frameworks(server: Server, reader: Client, sign_up: SignUp) -> None:
    query, cursors = "limit=1", []
    while True:
        ours, theirs = await twins(server, query, reader.headers)
        assert alike(ours) == alike(theirs)
        cursor = ours.json()["next_cursor"]
        assert ("link" in ours.headers) == (cursor is not None)
        if cursor is None:
            break
        cursors.append(cursor)
        assert ours.headers["link"] == f'</v1/feed?limit=1&cursor={cursor}>; rel="next"'
        query = f"cursor={quote(cursor)}&limit=1"
    assert len(cursors) == 2
    for repeated in (
        f"cursor={cursors[0]}&cursor={cursors[1]}",
        f"cursor={cursors[0]}&cursor=",
        "cursor=&cursor=" + cursors[1],
    ):
        ours, theirs = await twins(server, repeated, reader.headers)
        assert alike(ours) == alike(theirs)
    other = await sign_up()
    posts = (await reader.http.get(f"/v1/accounts/{reader.id}/posts?limit=1", headers=reader.headers)).json()
    for foreign, who in ((cursors[0], other), (posts["next_cursor"] or "", reader), (cursors[0].lower(), reader)):
        ours, theirs = await twins(server, f"cursor={quote(foreign)}", who.headers)
        assert alike(ours) == alike(theirs)
        problem(ours, 422, "invalid")


async def test_whatever_the_credentials_the_answer_is_the_frameworks(
    server: Server, reader: Client, sign_up: SignUp
) -> None:
    other, token = await sign_up(), reader.token
    account, _, secret = token.partition(".")
    valid, bad = (
        [f"Bearer {token}", f"bearer {token}", f"BEARER   {token}"],
        [
            "",
            "Bearer",
            f"Basic {token}",
            f"Token {token}",
            token,
            f"Bearer{token}",
            f"Bearer {token} {token}",
            f"Bearer {token}.",
            f"Bearer {token[:-1]}",
            f"Bearer {other.id}.{secret}",
            f"Bearer 0{token}",
            f"Bearer +{token}",
            f"Bearer {2**63}.{secret}",
            f"Bearer {account}.{'A' * len(secret)}",
            f"Bearer {'1' * 9000}",
            f"Bearer {account}.{'a' * 9000}",
        ],
    )
    for value in valid + bad:
        ours, theirs = await twins(server, "", {"Authorization": value})
        assert alike(ours) == alike(theirs), value
        assert ours.status_code == (200 if value in valid else 401), value
    for several in ([("Authorization", valid[0])] * 2, [("Authorization", valid[0]), ("Authorization", "")], []):
        ours, theirs = await twins(server, "cursor=forged", several)
        assert alike(ours) == alike(theirs)
        problem(ours, 401, "unauthenticated")
        assert ours.headers["www-authenticate"] == "Bearer"
    for query in ("", "?x=1"):
        raw = await exchange(
            server.url, request("GET", f"/v1/feed{query}", {"Authorization": f"Bearer {account}.\xe9\xff"})
        )
        assert raw.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_methods_are_refused(server: Server, reader: Client, method: str) -> None:
    for query in ("", "?limit=1"):
        answer = await server.http.request(method, f"/v1/feed{query}", headers=reader.headers)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET"
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/feed/", "//v1/feed", "/v1//feed", "/V1/feed", "/v1/feed%00", "/v1/feed;a=1"])
async def test_other_paths_are_not_the_feed(server: Server, reader: Client, path: str) -> None:
    raw = await exchange(server.url, request("GET", path, reader.headers))
    assert raw.startswith(b"HTTP/1.1 404 "), raw


async def test_every_answer_carries_what_all_carry(server: Server, reader: Client) -> None:
    for query, headers, status in (
        ("", reader.headers, 200),
        ("?cursor=forged", reader.headers, 422),
        ("", {}, 401),
    ):
        answer = await server.http.get(f"/v1/feed{query}", headers=headers | {"X-Request-Id": "given-by-the-client"})
        assert answer.status_code == status
        assert answer.headers["x-request-id"] == "given-by-the-client"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-type"] == ("application/json" if status == 200 else "application/problem+json")
        policy = limits.ANONYMOUS if status == 401 else limits.READ
        assert answer.headers["ratelimit-policy"].startswith(f'"{policy.name}";')


async def test_an_error_that_nobody_foresaw_is_the_frameworks(
    server: Server, reader: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the cause")

    monkeypatch.setattr(verbs, "read_home", fail)
    ours, theirs = await twins(server, "", reader.headers)
    problem(ours, 500, "internal")
    assert "cause" not in ours.text
    status, text, headers = alike(ours)
    # Where the page is asked for together with the limit, an error comes first.
    assert (status, text, headers["content-type"]) == (*alike(theirs)[:2], theirs.headers["content-type"])


async def test_requests_are_counted_under_the_route(server: Server, reader: Client) -> None:
    def count(status: str) -> float:
        value: float = telemetry.REQUESTS.labels("GET", "/v1/feed", status)._value.get()
        return value

    for query, headers, status in (("", reader.headers, "200"), ("?cursor=a", reader.headers, "422"), ("", {}, "401")):
        before = count(status)
        await server.http.get(f"/v1/feed{query}", headers=headers)
        assert count(status) == before + 1


@asynccontextmanager
async def counting_sql(res: Resources, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[None]]:
    """How often this process's API asks the database."""
    acquire, asked = Database.acquire, list[None]()

    @asynccontextmanager
    async def counted(db: Database) -> AsyncIterator[Connection]:
        if db is res.db:
            asked.append(None)
        async with acquire(db) as connection:
            yield connection

    with monkeypatch.context() as patched:
        patched.setattr(Database, "acquire", counted)
        yield asked


async def test_a_warm_page_takes_two_trips_to_redis_and_no_sql(
    server: Server, reader: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        expected = (await server.http.get("/v1/feed", headers=reader.headers)).content
    node = await server.res.redis.node("")
    flush, trips = Node._flush, []

    def counted(self: Node) -> None:
        if self is node and self._unsent:
            trips.append(len(self._unsent))
        flush(self)

    monkeypatch.setattr(Node, "_flush", counted)
    async with counting_sql(server.res, monkeypatch) as sql:
        answer = await server.http.get("/v1/feed", headers=reader.headers)
    assert answer.content == expected
    assert len(answer.json()["items"]) == 3
    assert len(sql) == 0
    assert len(trips) == 2, f"commands a trip: {trips}"


COLD = {
    "nothing": [],
    "rights": ["rights:*"],
    "posts": ["post:*"],
    "the window": ["feed:*"],
    "all": ["rights:*", "post:*", "feed:*"],
}


@pytest.mark.parametrize("cold", COLD)
@pytest.mark.parametrize("query", ["", "?limit=2", "?x=1"])
async def test_a_client_without_requests_left_costs_no_sql(
    server: Server, reader: Client, monkeypatch: pytest.MonkeyPatch, cold: str, query: str
) -> None:
    await server.http.get("/v1/feed", headers=reader.headers)
    async with redis_client(server.res.settings) as redis:
        seconds, microseconds = await redis.time()
        rest = (seconds + limits.READ.seconds + 30) * 1_000_000 + microseconds
        await redis.set(f"rate:{limits.READ.name}:{reader.id}", rest)
        for pattern in COLD[cold]:
            if keys := await redis.keys(pattern):
                await redis.delete(*keys)
        async with counting_sql(server.res, monkeypatch) as sql:
            for _ in range(3):
                answer = await server.http.get(f"/v1/feed{query}", headers=reader.headers)
                problem(answer, 429, "rate-limited")
                assert answer.headers["ratelimit"].startswith('"read";r=0;')
                assert 25 < int(answer.headers["retry-after"]) <= 31
        assert len(sql) == 0
        if cold == "posts":
            assert await redis.keys("post:*") == [], "no fill was begun either"
        await redis.delete(f"rate:{limits.READ.name}:{reader.id}")
    assert len((await server.http.get("/v1/feed", headers=reader.headers)).json()["items"]) == 3


async def test_a_page_counts_once(server: Server, reader: Client) -> None:
    key = f"rate:{limits.READ.name}:{reader.id}"
    interval = limits.READ.seconds * 1_000_000 // limits.READ.quota
    async with redis_client(server.res.settings) as redis:
        # Half of the quota is used up: as long as it is not back at rest, each request moves it on by one interval.
        arrival = int((time.time() + limits.READ.seconds / 2) * 1_000_000)
        await redis.set(key, arrival)
        for query in ("", "?limit=1", "?cursor=forged", "?x=1"):
            await server.http.get(f"/v1/feed{query}", headers=reader.headers)
            arrival += interval
            assert int(await redis.get(key)) == arrival


async def test_an_ended_session_is_refused_at_once(server: Server, reader: Client) -> None:
    body = {"username": reader.account["username"], "password": "correct horse battery staple"}
    phone = Client(server.http, reader.account, (await reader.http.post("/v1/sessions", json=body)).json()["token"])
    for _ in range(3):
        await phone.call("GET", "/v1/feed")
    await phone.call("DELETE", "/v1/sessions/current", 204)
    for query in ("", "?cursor=forged", "?x=1"):
        problem(await server.http.get(f"/v1/feed{query}", headers=phone.headers), 401, "unauthenticated")
    await reader.call("GET", "/v1/feed")


async def test_a_suspended_reader_is_refused_and_a_suspended_authors_posts_are_gone_at_once(
    server: Server, sign_up: SignUp, workers: None
) -> None:
    someone, author = await sign_up(), await sign_up()
    await someone.follow(author)
    post = await author.post()
    await someone.sees(post["id"])
    for query in ("", "?x=1"):
        page = (await server.http.get(f"/v1/feed{query}", headers=someone.headers)).json()
        assert [item["id"] for item in page["items"]] == [post["id"]]
    await accounts.suspend(server.res, author.account["username"])
    for query in ("", "?x=1"):
        assert (await server.http.get(f"/v1/feed{query}", headers=someone.headers)).json()["items"] == []
    await accounts.suspend(server.res, someone.account["username"])
    for query in ("", "?x=1"):
        problem(await server.http.get(f"/v1/feed{query}", headers=someone.headers), 401, "unauthenticated")


async def test_many_requests_at_once_get_each_their_own_feed(server: Server, reader: Client, sign_up: SignUp) -> None:
    others = [await sign_up() for _ in range(5)]

    async def ids(client: Client) -> list[Any]:
        page = (await server.http.get("/v1/feed", headers=client.headers)).json()
        return [item["author"]["id"] for item in page["items"]]

    for _ in range(3):
        found = await asyncio.gather(*(ids(client) for client in [reader, *others] * 5))
        assert all(len(page) == (3 if number % 6 == 0 else 0) for number, page in enumerate(found))
