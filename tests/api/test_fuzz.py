"""Whatever a client sends: a clear answer, and never an error of ours."""

import json
import string
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.api.answers import JSON
from tests.client import PASSWORD, Client

T = TypeVar("T", bound=Callable[..., Any])


def some(number: int) -> Callable[[T], T]:
    return examples(max_examples=number, deadline=None, suppress_health_check=[*HealthCheck])


def clear(answer: httpx.Response) -> None:
    """Assert that the answer is a success, or a problem of the client's making."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert len(answer.content) < 50_000


texts = st.text(max_size=40) | st.sampled_from(
    ["", "\x00", "\ud800", "\u202e", "ada", PASSWORD, "412345678901234567", "0", "-1"]
)
atoms = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(atoms, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4))
FIELDS = [
    "username", "password", "email", "display_name", "device_name", "caption", "media", "id", "alt_text", "notify", "text",
    "reply_to",
]  # fmt: skip
photo = st.dictionaries(st.sampled_from(["id", "alt_text", "more"]), atoms, max_size=3)
bodies = values | st.dictionaries(st.sampled_from(FIELDS), values | st.lists(photo, max_size=12), max_size=6)
CALLS = [
    ("POST", "/v1/accounts"),
    ("POST", "/v1/sessions"),
    ("POST", "/v1/posts"),
    ("POST", "/v1/posts/{}/comments"),
    ("PUT", "/v1/accounts/{}/follow"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
@given(body=bodies)
@some(30)
async def test_any_json_gets_a_clear_answer(ada: Client, bob: Client, method: str, path: str, body: object) -> None:
    # As Python writes it: lone surrogates escaped, NaN and Infinity spelt out.
    content = json.dumps(body)
    clear(await ada.http.request(method, path.format(bob.id), content=content, headers=ada.headers | JSON))


@pytest.mark.parametrize(("method", "path"), CALLS)
@given(body=st.binary(max_size=200) | st.text(alphabet='{}[]":,\\u0123dD8\x00 \ufeff', max_size=200).map(str.encode))
@some(20)
async def test_any_bytes_get_a_clear_answer(ada: Client, bob: Client, method: str, path: str, body: bytes) -> None:
    clear(await ada.http.request(method, path.format(bob.id), content=body, headers=ada.headers | JSON))


@given(
    fields=st.fixed_dictionaries(
        {"username": texts, "password": texts}, optional={"email": texts, "display_name": texts, "device_name": texts}
    )
)
@some(25)
async def test_any_texts_get_a_clear_answer(ada: Client, fields: dict[str, str]) -> None:
    for path in ("/v1/accounts", "/v1/sessions"):
        clear(await ada.http.post(path, content=json.dumps(fields), headers=JSON))


@given(name=st.text(max_size=60))
@some(25)
async def test_any_path_gets_a_clear_answer(ada: Client, name: str) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in name.encode("utf-8", "surrogatepass"))
    for path in (f"/v1/accounts/by-username/{escaped}", f"/v1/posts/{escaped}", f"/{escaped}"):
        clear(await ada.http.get(path, headers=ada.headers))


@given(query=st.dictionaries(st.sampled_from(["limit", "cursor", "x"]), st.text(max_size=30), max_size=3))
@some(25)
async def test_any_query_gets_a_clear_answer(ada: Client, query: dict[str, str]) -> None:
    pairs = "&".join(
        f"{name}=" + "".join(f"%{byte:02x}" for byte in value.encode("utf-8", "surrogatepass"))
        for name, value in query.items()
    )
    clear(await ada.http.get(f"/v1/accounts/{ada.id}/posts?{pairs}", headers=ada.headers))


header_texts = st.text(alphabet=st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=60).map(str.strip)


@given(
    headers=st.fixed_dictionaries(
        {},
        optional={
            "Authorization": header_texts | header_texts.map("Bearer {}".format),
            "Idempotency-Key": header_texts,
            "X-Request-Id": header_texts,
            "X-Forwarded-For": header_texts,
            "Host": header_texts,
            "Accept": header_texts,
            "Content-Type": header_texts,
            "Content-Digest": header_texts,
            "Last-Event-ID": st.text(alphabet=string.digits + "-", max_size=20),
        },
    )
)
@some(25)
async def test_any_headers_get_a_clear_answer(ada: Client, headers: dict[str, str]) -> None:
    sent = httpx.Headers(ada.headers | {name: value.strip() for name, value in headers.items()}, encoding="latin-1")
    clear(await ada.http.get("/v1/me", headers=sent))
    clear(await ada.http.post("/v1/posts", content=b"{}", headers=sent))
    clear(await ada.http.post("/v1/media", content=b"no photo", headers=sent))


@pytest.mark.parametrize("path", ["/v1/search/accounts", "/v1/search/tags"])
@given(q=texts)
@some(20)
async def test_any_search_gets_a_clear_answer(ada: Client, path: str, q: str) -> None:
    clear(await ada.http.get(path, params={"q": q.encode("utf-8", "surrogatepass")}, headers=ada.headers))


@pytest.mark.parametrize("path", ["/v1/tags/{}", "/v1/tags/{}/posts"])
@given(tag=st.binary(min_size=1, max_size=20) | texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
@some(20)
async def test_any_tag_gets_a_clear_answer(ada: Client, path: str, tag: bytes) -> None:
    clear(await ada.http.get(path.format(quote(tag, safe="")), headers=ada.headers))
