"""Bodies that are no JSON, or not what they say."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest

from instafeed.api import strict_json
from instafeed.errors import MalformedBody
from tests.api.answers import JSON, exchange, invalid, problem
from tests.client import PASSWORD, Client

SECRET = "the text that must not come back"
CREATING = ["/v1/accounts", "/v1/sessions", "/v1/posts"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="cut short"),
        pytest.param(b'{"username":"a', id="cut in a text"),
        pytest.param(b'{"username":"a"}}', id="more than one value"),
        pytest.param(b'{"username":"a"}{"username":"b"}', id="two values"),
        pytest.param(b'{"username":"a",}', id="trailing comma"),
        pytest.param(b"{'username':'a'}", id="single quotes"),
        pytest.param(b"{username:1}", id="no quotes"),
        pytest.param(b'// a\n{"username":"a"}', id="comment"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param('{"username":"a"}'.encode("utf-16"), id="UTF-16"),
        pytest.param(b'{"username":"\xff"}', id="bad UTF-8"),
        pytest.param(b'{"username":"\xc0\x80"}', id="overlong NUL"),
        pytest.param(b"[" * 100_000, id="deep and open"),
        pytest.param(b"[" * 50_000 + b"]" * 50_000, id="deep"),
        pytest.param(b'{"a":' * 20_000 + b"1" + b"}" * 20_000, id="deep objects"),
        pytest.param(b'{"username":"a","username":"b"}', id="a field twice"),
        pytest.param(b'{"media":[{"id":"1","id":"1"}]}', id="a nested field twice"),
        pytest.param(rb'{"username":"a","\u0075sername":"b"}', id="a field twice, once escaped"),
        pytest.param(b'{"username":NaN}', id="NaN"),
        pytest.param(b'{"username":Infinity}', id="Infinity"),
        pytest.param(b'{"username":-Infinity}', id="minus Infinity"),
        pytest.param(b'{"username":' + b"9" * 100_000 + b"}", id="huge integer"),
        pytest.param(b'{"username":01}', id="leading zero"),
        pytest.param(b'{"username":+1}', id="plus"),
        pytest.param(b'{"username":1_0}', id="underscore"),
        pytest.param(b'{"username":0x10}', id="hexadecimal"),
        pytest.param(b'{"username":"a\nb"}', id="raw line break"),
        pytest.param(b'{"username":"a\x00b"}', id="raw NUL"),
        pytest.param(b"\x00", id="NUL"),
        pytest.param(b" ", id="space"),
        pytest.param(b"\x1f\x8b\x08\x00", id="compressed"),
    ],
)
async def test_what_is_no_json_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    answer = await http.post("/v1/sessions", content=body, headers=JSON)
    problem(answer, 400, "malformed-body")
    assert len(answer.content) < 500


@pytest.mark.parametrize("path", CREATING)
async def test_every_call_is_strict(ada: Client, path: str) -> None:
    for body in (b"{", b'{"a":1,"a":1}', b"[" * 1000):
        problem(await ada.http.post(path, content=body, headers=ada.headers | JSON), 400, "malformed-body")
    for body in (b"", b"null", b"[]", b"[{}]", b'"a"', b"1", b"1e999", b"true", b"-0.0"):
        invalid(await ada.http.post(path, content=body, headers=ada.headers | JSON), "")


@pytest.mark.parametrize("value", [None, True, 0, 1.5, 12345678901234567890, [], ["a"], {}, {"a": 1}])
async def test_nothing_else_passes_for_a_text(http: httpx.AsyncClient, value: object) -> None:
    fields = {"username": value, "password": value, "display_name": value, "device_name": value}
    invalid(await http.post("/v1/accounts", json=fields), *(f"/{name}" for name in fields))
    email = await http.post("/v1/accounts", json={"username": "a", "password": PASSWORD, "email": value or 7})
    invalid(email, "/email")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/octet-stream"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application"},
        {"Content-Type": "x" * 10_000},
    ],
)
async def test_a_body_must_say_that_it_is_json(ada: Client, headers: dict[str, str]) -> None:
    for method, path in (*(("POST", path) for path in CREATING), ("PUT", f"/v1/accounts/{ada.id}/follow")):
        answer = await ada.http.request(method, path, content=b"{}", headers=ada.headers | headers)
        assert "application/json" in problem(answer, 400, "malformed-body")["detail"]


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON", "application/json; charset=utf-8"])
async def test_json_is_json_however_its_type_is_spelt(ada: Client, kind: str) -> None:
    body = json.dumps({"username": ada.account["username"], "password": PASSWORD})
    answer = await ada.http.post("/v1/sessions", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "fields",
    [
        {"password": SECRET[:7]},
        {"password": [SECRET]},
        {"password": {SECRET[:1]: SECRET}},
        {"username": SECRET},
        {"email": SECRET},
        {"display_name": SECRET + "\x00"},
        {"display_name": SECRET * 10},
        {"is_admin": SECRET},
    ],
)
async def test_what_is_refused_is_not_repeated(http: httpx.AsyncClient, fields: dict[str, object]) -> None:
    right = {"username": "never.made", "password": SECRET, "display_name": ""}
    answer = await http.post("/v1/accounts", json=right | fields)
    problem(answer, 422, "invalid")
    assert SECRET[:7] not in answer.text
    broken = await http.post("/v1/accounts", content=json.dumps(right | fields)[:-1], headers=JSON)
    problem(broken, 400, "malformed-body")
    assert SECRET[:7] not in broken.text


async def test_of_very_many_wrong_fields_the_first_are_told(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/sessions", json={f"field{number}": 1 for number in range(8000)})
    assert len(problem(answer, 422, "invalid")["errors"]) == 100
    name = "~/" * 5000
    body = invalid(
        await http.post("/v1/sessions", json={"username": "a", "password": PASSWORD, name: 1}), f"/{'~0~1' * 50}"
    )
    assert len(json.dumps(body)) < 500


async def test_a_body_that_comes_in_pieces_is_bounded_too(ada: Client) -> None:
    async def pieces(number: int) -> AsyncIterator[bytes]:
        yield b'{"caption":"'
        for _ in range(number):
            yield b"a" * 10_000
        yield b'","media":[]}'

    async def send(number: int) -> httpx.Response:
        return await ada.http.post("/v1/posts", content=pieces(number), headers=ada.headers | JSON)

    invalid(await send(12), "/caption", "/media")
    problem(await send(14), 413, "body-too-large")
    problem(await send(2000), 413, "body-too-large")


async def test_a_body_that_does_not_come_is_not_waited_for(base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "_SECONDS", 0.2)
    head = b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    said = await exchange(base_url, head)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/body-too-slow" in said
    assert b"connection: close" in said.lower()


async def test_a_body_that_breaks_off_does_no_harm(base_url: str, http: httpx.AsyncClient) -> None:
    head = b"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    reader_closed = await exchange(base_url, head, half_close=True)
    assert not reader_closed or reader_closed.startswith(b"HTTP/1.1 4")
    assert (await http.get("/livez")).status_code == 200


def test_braces_inside_texts_are_no_nesting() -> None:
    text = json.dumps({"caption": '[{"\\' * 500})
    assert strict_json.parse(text.encode()) == json.loads(text)
    with pytest.raises(MalformedBody):
        strict_json.parse(b'["]", ' * 65 + b"1" + b"]" * 65)
    assert strict_json.parse(b"[" * 64 + b"]" * 64)
