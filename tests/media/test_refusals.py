"""Uploads that are refused: each gets its answer, and leaves nothing behind."""

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import httpx
import pytest

from instafeed.api import server
from instafeed.settings import MIB, Settings
from tests.client import Client, http_client
from tests.conftest import running_api
from tests.media.test_receiving import encoded, pieces
from tests.media.traces import Traces
from tests.media.wire import Wire, wire
from tests.photos import jpeg, large_jpeg

pytestmark = pytest.mark.usefixtures("workers")  # they delete what is left of an upload
MAX_BYTES = 300_000


@pytest.fixture(scope="module")
async def strict(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API that takes small photos from quick clients only."""
    narrow = settings.model_copy(
        update={"upload_max_bytes": MAX_BYTES, "upload_min_bytes_per_second": 100_000, "upload_grace_seconds": 0.2}
    )
    async with running_api(narrow) as url, http_client(base_url=url) as http:
        yield http


@pytest.fixture
def hurried(strict: httpx.AsyncClient, author: Client) -> Client:
    """The author at the strict API."""
    return Client(strict, author.account, author.token)


def wired(client: Client) -> AbstractAsyncContextManager[Wire]:
    return wire(str(client.http.base_url))


@pytest.mark.parametrize("sent", ["with_length", "without_length"])
@pytest.mark.parametrize(
    ("data", "status", "problem"),
    [
        (b"", 400, "media-incomplete"),
        (b"\xff\xd8", 415, "media-unsupported"),
        (b"\x89PNG\r\n", 415, "media-unsupported"),
        (b"\x00" * 500, 415, "media-unsupported"),
        (b"%PDF-1.7 \xff\xd8\xff", 415, "media-unsupported"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "media-unsupported"),
        (b"GIF88a" + b"\x00" * 100, 415, "media-unsupported"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", 415, "media-unsupported"),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom", 415, "media-unsupported"),
        (b"BM" + b"\x00" * 100, 415, "media-unsupported"),
        (b"II*\x00" + b"\x00" * 100, 415, "media-unsupported"),
    ],
)
async def test_what_is_no_photo_is_refused(
    author: Client, traces: Traces, data: bytes, status: int, problem: str, sent: str
) -> None:
    body = data if sent == "with_length" else pieces(data)
    async with traces.none(author):
        answer = await author.call("POST", "/v1/media", status, content=body)
    assert answer["type"] == f"/problems/{problem}"


@pytest.mark.parametrize("declared", ["image/png", "text/plain", "application/x-www-form-urlencoded", "nonsense"])
async def test_the_content_decides_and_not_the_content_type(author: Client, declared: str) -> None:
    await author.call("POST", "/v1/media", 201, content=jpeg(), headers={"Content-Type": declared})


async def test_what_only_claims_to_be_a_photo_is_refused(author: Client, traces: Traces) -> None:
    async with traces.none(author):
        await author.call("POST", "/v1/media", 415, content=b"hello" * 20, headers={"Content-Type": "image/jpeg"})


async def test_too_long_a_photo_is_refused_before_any_of_it_is_sent(author: Client, traces: Traces) -> None:
    async with traces.none(author), wired(author) as connection:
        await connection.post("/v1/media", author.headers | {"Content-Length": str(10**12)})
        answer = await connection.answer()
    assert (answer.status, answer.json["type"]) == (413, "/problems/media-too-large")


async def test_a_client_that_asks_first_is_not_told_to_go_on_with_too_long_a_photo(author: Client) -> None:
    asking = {"Expect": "100-continue"}
    async with wired(author) as connection:
        await connection.post("/v1/media", author.headers | asking | {"Content-Length": str(10**9)})
        assert (await connection.answer()).status == 413
    async with wired(author) as connection:
        await connection.post("/v1/media", author.headers | asking | {"Content-Length": str(len(jpeg()))})
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"


async def test_a_photo_of_just_the_limit_is_taken_and_one_byte_more_is_not(hurried: Client, traces: Traces) -> None:
    await hurried.upload(large_jpeg(MAX_BYTES))
    async with traces.none(hurried):
        await hurried.call("POST", "/v1/media", 413, content=large_jpeg(MAX_BYTES + 1))


async def test_too_long_a_photo_without_a_length_is_refused_at_the_limit(hurried: Client, traces: Traces) -> None:
    await hurried.call("POST", "/v1/media", 201, content=pieces(large_jpeg(MAX_BYTES)))
    async with traces.none(hurried):
        answer = await hurried.call("POST", "/v1/media", 413, content=pieces(large_jpeg(MAX_BYTES + 1)))
    assert answer["type"] == "/problems/media-too-large"


@pytest.mark.parametrize("sent", ["with_length", "without_length"])
async def test_a_client_that_sends_on_and_on_reads_why_it_is_refused(
    hurried: Client, traces: Traces, sent: str
) -> None:
    data = large_jpeg(8 * MIB)
    body = data if sent == "with_length" else pieces(data)
    async with traces.none(hurried):
        answer = await hurried.call("POST", "/v1/media", 413, content=body)
    assert answer["type"] == "/problems/media-too-large"


@pytest.mark.parametrize("first", [jpeg(), b"no photo at all"])
async def test_a_body_that_never_ends_is_refused_and_its_connection_closed(
    hurried: Client, traces: Traces, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    monkeypatch.setattr(server, "_PASS_OVER_SECONDS", 0.3)
    async with traces.none(hurried), wired(hurried) as connection:
        await connection.post("/v1/media", hurried.headers | {"Transfer-Encoding": "chunked"})
        await connection.send_chunk(first.ljust(100, b"\0"))

        async def send_for_ever() -> None:
            while True:
                await connection.send_chunk(bytes(1 << 16))

        endless = asyncio.create_task(send_for_ever())
        answer = await connection.answer()
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(20):
                await endless
    assert answer.status in (413, 415)


async def test_a_photo_shorter_than_declared_is_not_stored(author: Client, traces: Traces) -> None:
    data = jpeg()
    async with traces.none(author), wired(author) as connection:
        await connection.post("/v1/media", author.headers | {"Content-Length": str(len(data) + 1)})
        await connection.send(data)
        await connection.close()


@pytest.mark.parametrize("then", [b"more", b"more" * 100_000])
async def test_a_photo_longer_than_declared_is_not_stored(author: Client, traces: Traces, then: bytes) -> None:
    data = jpeg()
    async with traces.none(author), wired(author) as connection:
        await connection.post("/v1/media", author.headers | {"Content-Length": str(len(data))})
        await connection.send(data + then)
        assert b"201" not in await connection.closed()


async def test_a_chunked_body_that_is_no_chunked_body_is_refused(author: Client, traces: Traces) -> None:
    async with traces.none(author), wired(author) as connection:
        await connection.post("/v1/media", author.headers | {"Transfer-Encoding": "chunked"})
        await connection.send_chunk(jpeg())
        await connection.send(b"zz\r\n")
        assert b"201" not in await connection.closed()


@pytest.mark.parametrize("headers", [{"Content-Length": "-1"}, {"Content-Length": "1_0"}, {"Content-Length": "9" * 40}])
async def test_a_length_that_is_no_number_is_refused(author: Client, traces: Traces, headers: dict[str, str]) -> None:
    async with traces.none(author), wired(author) as connection:
        await connection.post("/v1/media", author.headers | headers)
        assert b" 400 " in (await connection.closed()).partition(b"\r\n")[0]


@pytest.mark.parametrize("first", [b"", jpeg()[:10], jpeg()])
@pytest.mark.parametrize("headers", [{"Content-Length": "100000"}, {"Transfer-Encoding": "chunked"}])
async def test_a_client_slower_than_the_least_rate_is_refused_and_its_connection_closed(
    hurried: Client, traces: Traces, headers: dict[str, str], first: bytes
) -> None:
    async with traces.none(hurried), wired(hurried) as connection:
        await connection.post("/v1/media", hurried.headers | headers)
        if first:
            await (connection.send if "Content-Length" in headers else connection.send_chunk)(first)
        answer = await connection.answer()
        assert await connection.closed() == b""
    assert (answer.status, answer.json["type"]) == (408, "/problems/upload-too-slow")


async def test_a_client_that_was_quick_and_falls_silent_is_refused(settings: Settings, author: Client) -> None:
    strict = settings.model_copy(update={"upload_silence_seconds": 0.2})
    async with running_api(strict) as url, wire(url) as connection:
        await connection.post("/v1/media", author.headers | {"Content-Length": "2000000"})
        await connection.send(large_jpeg(1_000_000))
        answer = await connection.answer()
    assert (answer.status, answer.json["type"]) == (408, "/problems/upload-too-slow")


async def test_a_client_at_the_least_rate_is_waited_for(hurried: Client) -> None:
    data = large_jpeg(280_000)
    async with wired(hurried) as connection:
        await connection.post("/v1/media", hurried.headers | {"Content-Length": str(len(data))})
        # The first bytes are good for half a second, in which a crowded machine may stand still, and the others for more.
        await connection.send(data[:40_000])
        for at in range(40_000, len(data), 12_000):
            await asyncio.sleep(0.04)
            await connection.send(data[at : at + 12_000])
        assert (await connection.answer()).status == 201


def bomb(width: int, height: int) -> bytes:
    """A PNG of many pixels in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(1 + (width + 7) // 8) * height, 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (bomb(20_000, 20_000), "The photo has more pixels than are taken."),
        (jpeg()[:200], "The photo is damaged, incomplete, or of a variant that cannot be read."),
        (encoded("PNG")[:60], "The photo is damaged, incomplete, or of a variant that cannot be read."),
        (b"\xff\xd8\xff", "The photo is damaged, incomplete, or of a variant that cannot be read."),
    ],
    ids=["bomb", "truncated_jpeg", "truncated_png", "nothing_but_a_beginning"],
)
async def test_a_photo_that_cannot_be_decoded_is_taken_and_then_failed_with_a_reason(
    author: Client, data: bytes, failure: str
) -> None:
    media = await author.ready((await author.upload(data))["id"])
    assert (media["status"], media["failure"], media["renditions"]) == ("failed", failure, [])
