"""Text that people write: taken as it is meant, or refused, and never anything else."""

import secrets
from collections.abc import Awaitable, Callable

import httpx
import pytest

from tests.api.answers import JSON, invalid, problem
from tests.client import PASSWORD, Client

Write = Callable[[str], Awaitable[httpx.Response]]


async def display_name(http: httpx.AsyncClient, text: str) -> httpx.Response:
    body = {"username": f"t{secrets.token_hex(8)}", "password": PASSWORD, "display_name": text}
    return await http.post("/v1/accounts", json=body)


async def caption(ada: Client, text: str) -> httpx.Response:
    body = {"caption": text, "media": [{"id": (await ada.upload())["id"], "alt_text": text[:1500]}]}
    return await ada.http.post("/v1/posts", json=body, headers=ada.headers)


_CONTROLS = [
    pytest.param("\x00", id="NUL"),
    pytest.param("\x01", id="control"),
    pytest.param("\x08", id="backspace"),
    pytest.param("\x1b[31m", id="escape"),
    pytest.param("\x7f", id="delete"),
    pytest.param("\x85", id="C1"),
    pytest.param("\x9f", id="last C1"),
    pytest.param("\r", id="carriage return"),
    pytest.param("\uffff", id="noncharacter"),
]


@pytest.mark.parametrize("text", _CONTROLS)
async def test_control_characters_are_refused(http: httpx.AsyncClient, ada: Client, text: str) -> None:
    invalid(await display_name(http, f"a{text}b"), "/display_name")
    body = {"caption": f"a{text}b", "media": [{"id": "1", "alt_text": f"a{text}b"}]}
    answer = await ada.http.post("/v1/posts", json=body, headers=ada.headers)
    invalid(answer, "/caption", "/media/0/alt_text")


@pytest.mark.parametrize("text", ["\n", "\t", "\r\n", "\u2028", "\u2029"])
async def test_a_name_has_one_line(http: httpx.AsyncClient, text: str) -> None:
    invalid(await display_name(http, f"a{text}b"), "/display_name")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        pytest.param("a\nb\tc", "a\nb\tc", id="lines and tabs"),
        pytest.param("a\r\nb", "a\nb", id="lines of Windows"),
        pytest.param("  \n a \n ", "a", id="space around"),
        pytest.param("e\u0301", "\u00e9", id="composed"),
        pytest.param("\u202eevil\u202c", "evil", id="direction override"),
        pytest.param("\u2066a\u2069", "a", id="isolate"),
        pytest.param("\u200f\u05d0\u05d1", "\u200f\u05d0\u05d1", id="right to left"),
        pytest.param("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧", id="joined emoji"),
        pytest.param("<script>alert(1)</script> & \"'", "<script>alert(1)</script> & \"'", id="mark-up"),
        pytest.param("'; drop table posts; --", "'; drop table posts; --", id="SQL"),
        pytest.param("{} %s $1 \\ {{7*7}} ${7*7}", "{} %s $1 \\ {{7*7}} ${7*7}", id="templates"),
        pytest.param("\ue000", "\ue000", id="private use"),
        pytest.param("😀" * 2200, "😀" * 2200, id="the longest"),
        pytest.param("@" * 2200, "@" * 2200, id="many mentions"),
        pytest.param("\u200b\u200d", "", id="invisible"),
        pytest.param("\u3000\u00a0", "", id="wide spaces"),
        pytest.param("\u3164", "", id="Hangul filler"),
        pytest.param("\u2800", "", id="empty Braille"),
        pytest.param("\u0301\ufe0f", "", id="marks on nothing"),
        pytest.param("", "", id="empty"),
    ],
)
async def test_a_caption_is_kept_as_it_was_meant(ada: Client, written: str, kept: str) -> None:
    answer = await caption(ada, written)
    assert answer.status_code == 201, answer.text
    post = await ada.call("GET", f"/v1/posts/{answer.json()['id']}")
    assert (post["caption"], post["media"][0]["alt_text"]) == (kept, kept[:1500])


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("  Ada \u202eLovelace ", "Ada Lovelace"),
        ("<b>Ada</b>", "<b>Ada</b>"),
        ("\u3164", ""),
        ("\U000e0041", ""),
        ("名" * 64, "名" * 64),
    ],
)
async def test_a_display_name_is_kept_as_it_was_meant(http: httpx.AsyncClient, written: str, kept: str) -> None:
    answer = await display_name(http, written)
    assert answer.status_code == 201
    assert answer.json()["account"]["display_name"] == kept


async def test_longer_text_is_refused(http: httpx.AsyncClient) -> None:
    invalid(await display_name(http, "a" * 65), "/display_name")
    invalid(await display_name(http, "a" * 100_000), "/display_name")


async def test_a_megabyte_of_text_is_too_much(http: httpx.AsyncClient, ada: Client) -> None:
    problem(await display_name(http, "a" * 1_000_000), 413, "body-too-large")
    body = {"caption": "a" * 20_000_000, "media": [{"id": "1"}]}
    problem(await ada.http.post("/v1/posts", json=body, headers=ada.headers), 413, "body-too-large")
    # The connection is as good as before.
    assert (await ada.call("GET", "/v1/me"))["id"] == ada.id


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(rb'{"caption":"\ud800","media":[{"id":"1"}]}', id="escaped"),
        pytest.param(rb'{"caption":"\ud83d x","media":[{"id":"1"}]}', id="first half"),
        pytest.param(rb'{"caption":"\ude00\ud83d","media":[{"id":"1"}]}', id="the wrong way round"),
        pytest.param(rb'{"caption":"","media":[{"id":"1","alt_text":"\uDFFF"}]}', id="nested"),
        pytest.param(rb'{"caption":"","\ud800":1}', id="in a name"),
        pytest.param(b'{"caption":"\xed\xa0\x80","media":[{"id":"1"}]}', id="raw"),
        pytest.param(b'{"caption":"\xed\xa0\xbd\xed\xb8\x80","media":[{"id":"1"}]}', id="raw pair"),
    ],
)
async def test_halves_of_characters_are_no_text(ada: Client, body: bytes) -> None:
    problem(await ada.http.post("/v1/posts", content=body, headers=ada.headers | JSON), 400, "malformed-body")


async def test_a_whole_character_may_be_escaped(ada: Client) -> None:
    photo = (await ada.upload())["id"].encode()
    body = rb'{"caption":"\ud83d\ude00","media":[{"id":"%s"}]}' % photo
    answer = await ada.http.post("/v1/posts", content=body, headers=ada.headers | JSON)
    assert answer.json()["caption"] == "\U0001f600"
