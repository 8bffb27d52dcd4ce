"""What holds for every call: ids, lists, errors, ids of requests, methods and paths."""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from urllib.parse import quote

import httpx
import pytest

from instafeed import accounts, cursors
from instafeed.api.app import create_app
from instafeed.api.problems import KINDS
from instafeed.ids import MAX_ID
from instafeed.settings import Settings
from tests.api.answers import ID, TIME, anonymous, exchange, invalid, problem, request
from tests.client import Client

WRONG_IDS = [
    "0",
    "-1",
    "+1",
    "01",
    "1.0",
    "1e3",
    "1_0",
    "0x10",
    "%201",
    "1%20",
    "1%00",
    "%EF%BC%91",  # full width
    "%D9%A1",  # Arabic
    "%C2%B2",  # superscript
    "abc",
    "null",
    "9223372036854775808",
    "18446744073709551616",
    "9" * 1000,
]
OF_AN_ID = [
    ("GET", "/v1/accounts/{}", "account_id"),
    ("GET", "/v1/accounts/{}/posts", "account_id"),
    ("GET", "/v1/accounts/{}/followers", "account_id"),
    ("GET", "/v1/accounts/{}/following", "account_id"),
    ("PUT", "/v1/accounts/{}/follow", "account_id"),
    ("DELETE", "/v1/accounts/{}/follow", "account_id"),
    *(
        (method, f"/v1/accounts/{{}}/{edge}", "account_id")
        for edge in ("block", "mute")
        for method in ("PUT", "DELETE")
    ),
    ("PUT", "/v1/me/follow-requests/{}", "account_id"),
    ("DELETE", "/v1/me/follow-requests/{}", "account_id"),
    ("DELETE", "/v1/me/followers/{}", "account_id"),
    ("GET", "/v1/me/exports/{}", "export_id"),
    ("GET", "/v1/posts/{}", "post_id"),
    ("PATCH", "/v1/posts/{}", "post_id"),
    ("DELETE", "/v1/posts/{}", "post_id"),
    ("GET", "/v1/media/{}", "media_id"),
    ("DELETE", "/v1/sessions/{}", "session_id"),
]
LISTS = [
    "/v1/feed",
    "/v1/sessions",
    "/v1/me/blocks",
    "/v1/me/mutes",
    "/v1/me/follow-requests",
    "/v1/me/warnings",
    *(f"/v1/accounts/{{me}}/{name}" for name in ("posts", "followers", "following")),
    "/v1/tags/harbour/posts",
]


@pytest.mark.parametrize("wrong", WRONG_IDS)
async def test_what_is_no_id_is_refused(ada: Client, wrong: str) -> None:
    invalid(await ada.http.get(f"/v1/posts/{wrong}", headers=ada.headers), "post_id")


@pytest.mark.parametrize(("method", "path", "name"), OF_AN_ID)
async def test_what_is_no_id_is_refused_everywhere(ada: Client, method: str, path: str, name: str) -> None:
    for wrong in ("0", "1%00", "9223372036854775808"):
        body: dict[str, str] | None = {} if method == "PATCH" else None
        invalid(await ada.http.request(method, path.format(wrong), json=body, headers=ada.headers), name)


@pytest.mark.parametrize(
    "wrong",
    [
        "0",
        "-1",
        "+1",
        "01",
        " 1",
        "1 ",
        "1\n",
        "1\u0000",
        "1_0",
        "\uff11",
        "",
        "9223372036854775808",
        "9" * 1000,
        1,
        1.0,
        True,
    ],
)
async def test_what_is_no_id_is_refused_in_a_body(ada: Client, wrong: object) -> None:
    answer = await ada.http.post("/v1/posts", json={"media": [{"id": wrong}]}, headers=ada.headers)
    invalid(answer, "/media/0/id")


@pytest.mark.parametrize(("method", "path", "name"), OF_AN_ID)
async def test_without_a_token_nobody_is_told_what_an_id_is(
    http: httpx.AsyncClient, ada: Client, method: str, path: str, name: str
) -> None:
    for id_ in (ada.id, "1", "abc"):
        problem(await http.request(method, path.format(id_)), 401, "unauthenticated")


async def test_ids_are_texts_and_times_have_milliseconds(http: httpx.AsyncClient) -> None:
    one = await Client.sign_up(http)
    post = await one.post("a")
    seen = [
        await one.call("GET", path)
        for path in ("/v1/me", f"/v1/posts/{post['id']}", "/v1/sessions", f"/v1/accounts/{one.id}/posts")
    ]
    found = {"id": 0, "time": 0}

    def look(value: object, name: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                look(inner, key)
        elif isinstance(value, list):
            for inner in value:
                look(inner, name)
        elif name == "id":
            assert isinstance(value, str)
            assert ID.fullmatch(value)
            found["id"] += 1
        elif name.endswith("_at") and value is not None:
            assert isinstance(value, str)
            assert TIME.fullmatch(value)
            found["time"] += 1

    look(seen, "")
    assert min(found.values()) >= 4


@pytest.mark.parametrize(
    "limit",
    ["0", "101", "-1", "+1", "abc", "", "1_0", "1.0", "1e1", " 1", "\uff11", "1\u0000", "9" * 5, "9" * 1000, "true"],
)
async def test_what_is_no_limit_is_refused(ada: Client, limit: str) -> None:
    invalid(await ada.http.get("/v1/sessions", params={"limit": limit}, headers=ada.headers), "limit")


@pytest.mark.parametrize(
    "cursor",
    ["", "a", "AAAA", "A" * 24, "=" * 24, "\u00e9" * 24, "\u0000", " ", "1", str(MAX_ID), "..", "A" * 10_000, "null"],
)
async def test_what_is_no_cursor_is_refused(ada: Client, cursor: str) -> None:
    invalid(await ada.http.get("/v1/sessions", params={"cursor": cursor}, headers=ada.headers), "cursor")


@pytest.mark.parametrize("path", LISTS)
async def test_every_list_has_pages(ada: Client, path: str) -> None:
    for name, wrong in (("limit", "0"), ("limit", "101"), ("cursor", "A" * 24)):
        answer = await ada.http.get(path.format(me=ada.id), params={name: wrong}, headers=ada.headers)
        invalid(answer, name)


@pytest.fixture(scope="session")
async def reader(http: httpx.AsyncClient, workers: None, ada: Client, bob: Client) -> Client:
    """Somebody all of whose lists go on after one item."""
    client = await Client.sign_up(http)
    for other in (ada, bob):
        await client.follow(other)
    for _ in range(2):
        await client.published((await client.post())["id"])  # nothing of a page changes between two reads
        body = {"username": client.account["username"], "password": "correct horse battery staple"}
        assert (await http.post("/v1/sessions", json=body)).status_code == 201
    return client


GOING_ON = ["/v1/sessions", "/v1/accounts/{}/posts", "/v1/accounts/{}/following"]


async def cursor_of(client: Client, path: str) -> str:
    page = await client.call("GET", path, params={"limit": "1"})
    assert len(page["items"]) == 1
    cursor: str = page["next_cursor"]
    assert cursor
    return cursor


@pytest.mark.parametrize("path", GOING_ON)
async def test_a_page_links_to_the_next_one(reader: Client, path: str) -> None:
    path = path.format(reader.id)
    first = await reader.http.get(path, params={"limit": "1"}, headers=reader.headers)
    link = re.fullmatch(r'<(.+)>; rel="next"', first.headers["link"])
    assert link is not None
    assert link[1] == f"{path}?limit=1&cursor={first.json()['next_cursor']}"
    second = await reader.http.get(link[1], headers=reader.headers)
    assert second.status_code == 200
    assert second.json()["items"] != first.json()["items"]
    last = await reader.http.get(path, params={"limit": "100"}, headers=reader.headers)
    assert last.json()["next_cursor"] is None
    assert "link" not in last.headers
    assert [*first.json()["items"], *second.json()["items"]] == last.json()["items"][:2]


async def test_without_a_limit_a_page_has_thirty_items(reader: Client, settings: Settings) -> None:
    page = await reader.http.get(f"/v1/accounts/{reader.id}/posts", headers=reader.headers)
    assert len(page.json()["items"]) == 2
    parameters = create_app(settings).openapi()["paths"]["/v1/feed"]["get"]["parameters"]
    [limit] = [parameter["schema"] for parameter in parameters if parameter["name"] == "limit"]
    assert (limit["default"], limit["minimum"], limit["maximum"]) == (30, 1, 100)


async def test_a_cursor_is_of_use_for_its_list_and_its_reader_only(reader: Client, ada: Client) -> None:
    paths = [path.format(reader.id) for path in GOING_ON]
    for path in paths:
        cursor = await cursor_of(reader, path)
        for other in {*paths, "/v1/feed", f"/v1/accounts/{ada.id}/posts", f"/v1/accounts/{ada.id}/following"} - {path}:
            invalid(await reader.http.get(other, params={"cursor": cursor}, headers=reader.headers), "cursor")
        invalid(await ada.http.get(path, params={"cursor": cursor}, headers=ada.headers), "cursor")


async def test_a_changed_cursor_is_refused(reader: Client) -> None:
    path = f"/v1/accounts/{reader.id}/posts"
    cursor = await cursor_of(reader, path)
    data = bytearray(urlsafe_b64decode(cursor))
    changed = [cursor[:-1], cursor + "=", f" {cursor}", cursor.replace("=", ""), cursor.lower(), cursor[::-1]]
    for at in range(len(data)):
        forged = data.copy()
        forged[at] ^= 1
        changed.append(urlsafe_b64encode(forged).decode())
    forged_by_another_key = cursors.encode(b"another key", f"{reader.id} {path}", int(reader.id))
    for wrong in [*changed, forged_by_another_key]:
        if wrong != cursor:
            invalid(await reader.http.get(path, params={"cursor": wrong}, headers=reader.headers), "cursor")


async def test_another_device_of_the_same_account_may_go_on_with_a_cursor(reader: Client) -> None:
    path = f"/v1/accounts/{reader.id}/posts"
    body = {"username": reader.account["username"], "password": "correct horse battery staple"}
    token = (await reader.http.post("/v1/sessions", json=body)).json()["token"]
    other = Client(reader.http, reader.account, token)
    page = await other.call("GET", path, params={"cursor": await cursor_of(reader, path)})
    assert len(page["items"]) == 1


@pytest.mark.parametrize("given", ["a" * 8, "A.b_c-9" * 18, "0" * 128, "7c9e6679-7425-40de-944b-e07fc1f90ae7"])
async def test_a_well_formed_request_id_is_taken_over(http: httpx.AsyncClient, given: str) -> None:
    for path, status in (("/livez", 200), ("/v1/me", 401), ("/nowhere", 404)):
        answer = await http.get(path, headers={"X-Request-Id": given})
        assert answer.status_code == status
        assert answer.headers["x-request-id"] == given
        assert status == 200 or answer.json()["request_id"] == given


@pytest.mark.parametrize(
    "given", [None, "", "a" * 7, "a" * 129, "a b c d e f", "a" * 8 + "\xe9", "<script>", '{"a":"b"}', "a" * 30_000]
)
async def test_any_other_request_gets_an_id_of_its_own(http: httpx.AsyncClient, given: str | None) -> None:
    headers = httpx.Headers({} if given is None else {"X-Request-Id": given}, encoding="latin-1")
    ids = [(await http.get("/livez", headers=headers)).headers["x-request-id"] for _ in range(2)]
    assert all(re.fullmatch("[0-9a-f]{32}", id_) for id_ in ids)
    assert ids[0] != ids[1]


async def test_answers_are_neither_cached_nor_sniffed(http: httpx.AsyncClient, ada: Client) -> None:
    for path, headers in (("/livez", {}), ("/v1/me", ada.headers), ("/v1/me", {}), ("/nowhere", {})):
        answer = await http.get(path, headers=headers)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/",
        "/v2/me",
        "/v1/nothing",
        "/v1/me/",
        "/v1/feed/",
        "/v1/accounts/",
        "//v1/me",
        "/v1//me",
        "/v1/./me",
        "/v1/%2e/me",
        "/v1/x/%2e%2e/me",
        "/V1/me",
        "/v1/ME",
        "/v1/me%00",
        "/v1/me%20",
        "/v1/me;x=1",
        "/v1/accounts/by-username/",
        "/v1/accounts/by-username/a%2Fb",
        "/v1/%ff",
        "/..%2f..%2fetc%2fpasswd",
        "/" + "a" * 30_000,
    ],
)
async def test_other_paths_are_not_found(base_url: str, ada: Client, path: str) -> None:
    # As bytes: a client would tidy the path up.
    said = await exchange(base_url, request("GET", path, ada.headers))
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"content-type: application/problem+json" in head
    missing = problem(await ada.http.get("/v1/posts/1", headers=ada.headers), 404, "not-found")
    assert json.loads(body) | {"request_id": ""} == missing | {"request_id": ""}


async def test_an_escaped_path_is_the_path_itself(ada: Client) -> None:
    plain = await ada.http.get("/v1/me", headers=ada.headers)
    for path in ("/v1/%6de", "/v1%2Fme", "/%76%31/me"):
        assert anonymous(plain) == anonymous(await ada.http.get(path, headers=ada.headers))
    assert (await ada.http.get(f"/v1/accounts/{quote(ada.id[0])}{ada.id[1:]}", headers=ada.headers)).status_code == 200


ALLOWED = {
    "/v1/accounts": "POST",
    "/v1/me": "DELETE, GET, PATCH",
    "/v1/accounts/1": "GET",
    "/v1/accounts/1/posts": "GET",
    "/v1/accounts/1/follow": "DELETE, PUT",
    "/v1/accounts/1/block": "DELETE, PUT",
    "/v1/accounts/1/mute": "DELETE, PUT",
    "/v1/accounts/1/followers": "GET",
    "/v1/me/followers/1": "DELETE",
    "/v1/me/follow-requests": "GET",
    "/v1/me/follow-requests/1": "DELETE, PUT",
    "/v1/accounts/by-username/ada": "GET",
    "/v1/sessions": "DELETE, GET, POST",
    "/v1/sessions/1": "DELETE",
    "/v1/sessions/current": "DELETE",
    "/v1/media": "POST",
    "/v1/media/1": "GET",
    "/v1/posts": "POST",
    "/v1/posts/1": "DELETE, GET, PATCH",
    "/v1/feed": "GET",
    "/v1/reports": "POST",
    "/v1/me/warnings": "GET",
    "/v1/tags/harbour": "GET",
    "/v1/tags/harbour/posts": "GET",
    "/v1/search/accounts": "GET",
    "/v1/search/tags": "GET",
    "/v1/limits": "GET",
    "/livez": "GET, HEAD",
    "/readyz": "GET, HEAD",
    "/status": "GET, HEAD",
    "/status.xml": "GET, HEAD",
    "/metrics": "GET",
}


@pytest.mark.parametrize(("path", "allowed"), ALLOWED.items())
async def test_a_method_that_a_path_does_not_take_is_told_with_those_that_it_takes(
    ada: Client, path: str, allowed: str
) -> None:
    for method in {"HEAD", "POST", "PUT", "OPTIONS", "PROPFIND"} - {*allowed.split(", ")}:
        answer = await ada.http.request(method, path, headers=ada.headers)
        assert answer.status_code == 405, f"{method} {path}"
        assert answer.headers["allow"] == allowed
        if method == "HEAD":
            assert answer.content == b""
            assert answer.headers["x-request-id"]
        else:
            problem(answer, 405, "method-not-allowed")


async def test_an_error_that_nobody_foresaw_tells_nothing_of_its_cause(
    ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the cause")

    monkeypatch.setattr(accounts, "get_own", fail)
    answer = await ada.http.get("/v1/me", headers=ada.headers | {"X-Request-Id": "the-request"})
    body = problem(answer, 500, "internal")
    assert body["request_id"] == "the-request"
    assert "cause" not in answer.text
    assert "RuntimeError" not in answer.text


async def test_every_kind_of_problem_is_documented() -> None:
    assert all(kind.meaning for kind in KINDS.values())
    assert len(KINDS) > 20
