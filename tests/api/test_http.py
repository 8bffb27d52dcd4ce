"""HTTP itself, by raw sockets: what no well-behaved client sends."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from instafeed.api import server
from instafeed.settings import Settings
from tests.api.answers import exchange, problem, request, send_on
from tests.client import Client, http_client
from tests.conftest import listening, running_api, serving
from tests.media.wire import wire

OPEN = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


def lasting(**headers: str) -> bytes:
    """A request after which the connection may go on."""
    return request("GET", "/livez", headers).replace(b"Connection: close\r\n", b"")


def parsed(said: bytes) -> tuple[int, dict[str, str], dict[str, object]]:
    """Status, headers and body of the only answer in `said`, which must be a problem with its own id."""
    head, _, body = said.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert headers["content-type"] == "application/problem+json"
    assert int(headers["content-length"]) == len(body)
    told = json.loads(body)
    assert told["status"] == int(status.split(" ")[1])
    assert told["request_id"] == headers["x-request-id"]
    return told["status"], headers, told


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([b"\x00\x01\x02\x03\r\n\r\n"], id="no HTTP"),
        pytest.param([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], id="TLS"),
        pytest.param([b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n"], id="HTTP 9.9"),
        pytest.param([b"BREW /livez HTTP/1.1\r\nHost: x\r\n\r\n"], id="unknown method"),
        pytest.param([b"get /livez HTTP/1.1\r\nHost: x\r\n\r\n"], id="lower-case method"),
        pytest.param([b"GET /liv\xc3\xa9z HTTP/1.1\r\nHost: x\r\n\r\n"], id="raw path"),
        pytest.param([b"GET /livez?\xff HTTP/1.1\r\nHost: x\r\n\r\n"], id="raw query"),
        pytest.param([b"GET livez HTTP/1.1\r\nHost: x\r\n\r\n"], id="relative path"),
        pytest.param([b"GET /livez HTTP/1.1\r\nHost x\r\n\r\n"], id="no colon"),
        pytest.param([b"GET /livez HTTP/1.1\r\nHo st: x\r\n\r\n"], id="space in a name"),
        pytest.param([OPEN + b"X: a\x00b\r\n\r\n"], id="NUL in a value"),
        pytest.param([OPEN + b"X: a\r\n b\r\n\r\n"], id="folded value"),
        pytest.param([OPEN + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na"], id="two lengths"),
        pytest.param([OPEN + b"Content-Length: -1\r\n\r\n"], id="negative length"),
        pytest.param([OPEN + b"Content-Length: +1\r\n\r\na"], id="signed length"),
        pytest.param([OPEN + b"Content-Length: 99999999999999999999\r\n\r\n"], id="length past 64 bits"),
        pytest.param(
            [OPEN + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], id="length and chunks"
        ),
        pytest.param([OPEN + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"], id="chunked not last"),
    ],
)
async def test_what_is_no_http_is_refused(base_url: str, pieces: list[bytes]) -> None:
    said = await exchange(base_url, *pieces)
    status, headers, told = parsed(said)
    assert (status, told["type"]) == (400, "/problems/bad-request")
    assert headers["connection"] == "close"


async def test_chunks_that_lie_end_the_connection(base_url: str, ada: Client) -> None:
    headers = ada.headers | {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    for chunks in (b"zz\r\n", b"-1\r\na\r\n", b"1\r\nab\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n"):
        said = await exchange(base_url, request("POST", "/v1/posts", headers, chunks))
        assert not said or said.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"X: " + b"a" * 1_000_000, id="one header"),
        pytest.param(b"".join(b"X%d: a\r\n" % number for number in range(60_000)), id="many headers"),
        pytest.param(b"Authorization: Bearer " + b"a" * 1_000_000 + b"\r\n\r\n", id="token"),
    ],
)
async def test_giant_headers_are_refused(base_url: str, endless: bytes) -> None:
    said = await exchange(base_url, OPEN, *(endless[at : at + 20_000] for at in range(0, len(endless), 20_000)))
    status, _, told = parsed(said)
    assert (status, told["type"]) == (431, "/problems/headers-too-large")


async def test_a_giant_path_is_refused(base_url: str) -> None:
    said = await exchange(base_url, b"GET /", *[b"a" * 20_000] * 50)
    assert parsed(said)[0] == 431


async def test_headers_that_come_too_slowly_are_refused(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.3)
    for before in (b"", lasting()):
        async with wire(base_url) as connection:
            if before:
                await connection.send(before)
                assert (await connection.answer()).status == 200
            await connection.send(OPEN + b"X: ")
            answer = asyncio.create_task(connection.answer())
            while not answer.done():
                await connection.send(b"a")
                await asyncio.sleep(0.05)
            assert (answer.result().status, answer.result().json["type"]) == (408, "/problems/headers-too-slow")
            assert answer.result().headers["connection"] == "close"
            await connection.closed()


async def test_headers_that_came_are_not_late(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.8)
    one = lasting()
    async with wire(base_url) as connection:
        for pause in (0.0, 1.0, 0.0):
            await connection.send(one[:20])
            await asyncio.sleep(0.01)
            await connection.send(one[20:])
            assert (await connection.answer()).status == 200
            await asyncio.sleep(pause)


async def test_a_connection_on_which_nothing_is_asked_is_closed(settings: Settings) -> None:
    async with serving(settings) as (url, api):
        assert api.config.timeout_keep_alive == 75
        api.config.timeout_keep_alive = 1
        async with wire(url) as connection:
            assert await connection.closed() == b""


async def test_headers_of_common_size_pass_also_in_small_pieces(base_url: str, ada: Client) -> None:
    whole = request("GET", "/v1/me", ada.headers | {"Cookie": "a" * 30_000})
    said = await exchange(base_url, *(whole[at : at + 1000] for at in range(0, len(whole), 1000)))
    assert said.startswith(b"HTTP/1.1 200 ")


async def test_headers_of_requests_on_one_connection_do_not_add_up(base_url: str, ada: Client) -> None:
    one = lasting(Cookie="a" * 30_000)
    host, _, port = base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for _ in range(5):
        for at in range(0, len(one), 10_000):
            await send_on(writer, one[at : at + 10_000])
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        await reader.readexactly(len(b'{"alive":true}'))
    writer.close()


async def test_requests_may_follow_each_other_before_the_answers(base_url: str) -> None:
    said = await exchange(base_url, OPEN + b"\r\n" + OPEN + b"\r\n" + request("GET", "/nowhere"))
    assert said.count(b"HTTP/1.1 200 ") == 2
    assert said.count(b"HTTP/1.1 404 ") == 1
    assert said.rindex(b"HTTP/1.1 404 ") > said.rindex(b"HTTP/1.1 200 ")


async def test_a_refused_body_does_not_become_the_next_request(base_url: str, ada: Client) -> None:
    smuggled = request("GET", "/v1/me", ada.headers)
    for path, length in (("/nowhere", len(smuggled)), ("/v1/sessions", 200_000)):
        body = smuggled.ljust(length)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        said = await exchange(base_url, head.encode() + body, request("GET", "/livez"))
        assert said.count(b"HTTP/1.1 ") == 2
        assert said.count(b"HTTP/1.1 200 ") == 1
        assert ada.id.encode() not in said


async def test_old_and_hostless_requests_are_answered(base_url: str) -> None:
    for head in (
        b"GET /livez\r\n\r\n",
        b"GET /livez HTTP/1.0\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n",
    ):
        assert (await exchange(base_url, head)).startswith(b"HTTP/1.1 200 ")


async def test_a_websocket_is_not_opened(base_url: str) -> None:
    headers = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    said = await exchange(base_url, request("GET", "/v1/feed/events", headers))
    assert said.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("expects", ["/v1/sessions", "/v1/media"])
async def test_a_refusal_comes_before_the_body_is_sent(base_url: str, expects: str) -> None:
    headers = {"Expect": "100-continue", "Content-Type": "application/json", "Content-Length": "10000000"}
    said = await exchange(base_url, request("POST", expects, headers))
    assert said.startswith(b"HTTP/1.1 4")
    assert b"100 Continue" not in said


@pytest.mark.parametrize(
    ("method", "headers", "begun"),
    [
        pytest.param("GET", [(b"content-length", b"4")], False, id="a length"),
        pytest.param("GET", [], True, id="chunks"),
        pytest.param("GET", [(b"content-length", b"0")], True, id="no body"),
        pytest.param("HEAD", [(b"content-length", b"4")], True, id="HEAD"),
    ],
)
async def test_an_answer_of_known_length_does_not_begin_before_its_body(
    method: str, headers: list[tuple[bytes, bytes]], begun: bool
) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        raise AssertionError("as if it were killed")

    api = uvicorn.Server(server.configure(fails, lifespan="off"))
    async with listening(api) as url, wire(url) as connection:
        await connection.request(method, "/", {"Expect": "100-continue", "Content-Length": "1"})
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        assert await connection.line() == b"\r\n"
        await connection.send(b"x")
        said = await connection.closed()
    assert said.startswith(b"HTTP/1.1 200 OK\r\n") is begun
    assert begun or not said


async def test_a_body_in_pieces_comes_whole() -> None:
    pieces = [b"ab", b"", b"c" * 100_000, b"d"]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        length = sum(map(len, pieces))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % length)]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": piece != b"d"})

    api = uvicorn.Server(server.configure(app, lifespan="off"))
    async with listening(api) as url, wire(url) as connection:
        for _ in range(2):
            await connection.request("GET", "/", {})
            assert (await connection.answer()).body == b"".join(pieces)


@pytest.fixture(scope="module")
async def choosy(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """An API that serves two hosts."""
    named = settings.model_copy(update={"allowed_hosts": ("api.example.org", "127.0.0.1")})
    async with running_api(named) as url, http_client(base_url=url) as client:
        yield client


@pytest.mark.parametrize(
    "host", ["api.example.org", "API.Example.ORG", "api.example.org:8443", "127.0.0.1:1", "127.0.0.1"]
)
async def test_its_own_hosts_are_served(choosy: httpx.AsyncClient, host: str) -> None:
    assert (await choosy.get("/livez", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.org",
        "api.example.org.evil.example",
        "evil.example:80@api.example.org",
        "api.example.org@evil.example",
        "api.example.org:80:80",
        "api.example.org/",
        "[api.example.org]",
        "[",
        "xapi.example.org",
        "*",
        "a" * 10_000,
        "\xe9",
    ],
)
async def test_other_hosts_are_not(choosy: httpx.AsyncClient, ada: Client, host: str) -> None:
    headers = httpx.Headers(ada.headers | {"Host": host}, encoding="latin-1")
    body = problem(await choosy.get("/v1/me", headers=headers), 400, "foreign-host")
    assert not host or host not in body["detail"]


async def test_what_a_proxy_would_say_of_the_host_is_not_believed(choosy: httpx.AsyncClient) -> None:
    foreign = {"Host": "evil.example", "X-Forwarded-Host": "api.example.org", "Forwarded": "host=api.example.org"}
    problem(await choosy.get("/livez", headers=foreign), 400, "foreign-host")
    ours = {"Host": "api.example.org", "X-Forwarded-Host": "evil.example"}
    assert (await choosy.get("/livez", headers=ours)).status_code == 200
    without = b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n"
    assert parsed(await exchange(str(choosy.base_url).rstrip("/"), without))[0] == 400


@pytest.mark.parametrize("host", ["[", "]", "a b", "[::1", "a:b:c", "\xe9"])
async def test_an_odd_host_does_no_harm_where_every_host_is_served(ada: Client, host: str) -> None:
    headers = httpx.Headers(ada.headers | {"Host": host}, encoding="latin-1")
    for path in ("/v1/me", "/v1/feed", f"/v1/accounts/{ada.id}/posts"):
        assert (await ada.http.get(path, headers=headers)).status_code == 200
