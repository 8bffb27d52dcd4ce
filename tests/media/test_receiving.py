"""`POST /v1/media`: bytes stream straight through to S3, unchanged, and within a fixed memory."""

import base64
import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from PIL import Image

from instafeed.resources import Resources
from instafeed.settings import Settings
from instafeed.storage import media as media_rows
from instafeed.storage.blobs import PART_BYTES, original_key
from tests.client import Client, eventually
from tests.conftest import running_api
from tests.media.s3_proxy import S3Proxy, running_s3_proxy
from tests.media.traces import Traces
from tests.media.wire import wire
from tests.photos import jpeg, large_jpeg

pytestmark = pytest.mark.usefixtures("workers")  # they delete what is left of an upload


async def pieces(data: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    """A body without a length."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


def digest(data: bytes) -> str:
    """A Content-Digest."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def encoded(kind: str) -> bytes:
    """A small picture of a kind."""
    out = io.BytesIO()
    Image.new("RGB", (32, 24), "orange").save(out, kind)
    return out.getvalue()


async def stored(res: Resources, traces: Traces, media_id: str) -> tuple[bytes, bytes | None, int | None, str | None]:
    """Of a photo: the original's bytes, and the SHA-256, size and type that are on record."""
    async with res.db.acquire() as connection:
        media = await media_rows.get(connection, int(media_id))
    assert media is not None
    return await traces.content(original_key(media.object_key)), media.sha256, media.size, media.content_type


@pytest.fixture(scope="module")
async def proxy(settings: Settings) -> AsyncIterator[S3Proxy]:
    """S3 behind an observer."""
    assert settings.s3_endpoint
    async with running_s3_proxy(settings.s3_endpoint) as running:
        yield running


@pytest.fixture(scope="module")
async def observed_url(settings: Settings, proxy: S3Proxy) -> AsyncIterator[str]:
    """An API whose S3 is observed."""
    async with running_api(settings.model_copy(update={"s3_endpoint": proxy.url})) as url:
        yield url


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
async def test_the_original_is_stored_byte_for_byte_with_its_digest_and_its_real_type(
    author: Client, res: Resources, traces: Traces, kind: str
) -> None:
    data = encoded(kind)
    media = await author.upload(data)
    assert media["status"] == "processing"
    assert media["renditions"] == []
    assert await stored(res, traces, media["id"]) == (
        data,
        hashlib.sha256(data).digest(),
        len(data),
        f"image/{kind.lower()}",
    )


@pytest.mark.parametrize("size", [1000, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES + 7])
async def test_a_body_without_a_length_arrives_whole_around_the_edges_of_parts(
    author: Client, res: Resources, traces: Traces, size: int
) -> None:
    data, before = large_jpeg(size), await traces.open_uploads()
    media = await author.call("POST", "/v1/media", 201, content=pieces(data))
    assert (await stored(res, traces, media["id"]))[:3] == (data, hashlib.sha256(data).digest(), size)
    assert await traces.open_uploads() <= before


@pytest.mark.parametrize("size", [1, 1000])
async def test_a_body_in_small_chunks_that_come_at_once_arrives_whole(
    author: Client, base_url: str, res: Resources, traces: Traces, size: int
) -> None:
    data = large_jpeg(150_000)
    chunks = (data[at : at + size] for at in range(0, len(data), size))
    async with wire(base_url) as connection:
        await connection.post("/v1/media", author.headers | {"Transfer-Encoding": "chunked"})
        await connection.send(b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n")
        answer = await connection.answer()
    assert answer.status == 201
    assert (await stored(res, traces, answer.json["id"]))[0] == data


async def test_the_answer_names_the_photo_and_where_it_is(author: Client) -> None:
    answer = await author.http.post("/v1/media", content=jpeg(), headers=author.headers)
    assert answer.headers["location"] == f"/v1/media/{answer.json()['id']}"
    found = await author.call("GET", answer.headers["location"])
    assert found["id"] == answer.json()["id"]


async def test_a_photo_that_is_sent_again_with_its_key_is_stored_once(author: Client, traces: Traces) -> None:
    before = await traces.of(author)
    key = {"Idempotency-Key": "one photo"}
    taken = [await author.call("POST", "/v1/media", 201, content=jpeg(), headers=key) for _ in range(2)]
    assert taken[0] == taken[1]
    assert len(await traces.of(author) - before) == 2, "a row and an original"


async def test_a_photo_is_its_owners_alone(author: Client, sign_up: Callable[..., Awaitable[Client]]) -> None:
    media = await author.upload()
    stranger = await sign_up()
    await stranger.call("GET", f"/v1/media/{media['id']}", 404)


async def test_s3_has_the_first_bytes_before_the_client_has_sent_the_last(
    author: Client, observed_url: str, proxy: S3Proxy
) -> None:
    data = large_jpeg(1_000_000)
    before = proxy.body_bytes
    async with wire(observed_url) as connection:
        await connection.post("/v1/media", author.headers | {"Content-Length": str(len(data))})
        await connection.send(data[:100_000])

        async def arrived() -> bool:
            return proxy.body_bytes - before == 100_000

        await eventually(arrived)
        await connection.send(data[100_000:])
        assert (await connection.answer()).status == 201


async def test_s3_has_the_first_part_before_the_client_has_sent_the_second(
    author: Client, observed_url: str, proxy: S3Proxy
) -> None:
    data = large_jpeg(PART_BYTES + 1)
    before = proxy.body_bytes
    async with wire(observed_url) as connection:
        await connection.post("/v1/media", author.headers | {"Transfer-Encoding": "chunked"})
        await connection.send_chunk(data[:PART_BYTES])

        async def arrived() -> bool:
            return proxy.body_bytes - before >= PART_BYTES

        await eventually(arrived)
        await connection.send_chunk(data[PART_BYTES:])
        await connection.send_chunk(b"")
        assert (await connection.answer()).status == 201


@pytest.mark.parametrize("sent", ["with_length", "without_length"])
async def test_a_right_content_digest_is_taken(author: Client, sent: str) -> None:
    data = jpeg()
    body = data if sent == "with_length" else pieces(data)
    await author.call("POST", "/v1/media", 201, content=body, headers={"Content-Digest": digest(data)})


async def test_a_digest_of_another_algorithm_beside_the_right_one_does_not_matter(author: Client) -> None:
    data = jpeg()
    both = f"md5=:{base64.b64encode(b'x' * 16).decode()}:, {digest(data)}, unixsum=:AAAA:"
    await author.call("POST", "/v1/media", 201, content=data, headers={"Content-Digest": both})


@pytest.mark.parametrize("sent", ["with_length", "without_length"])
async def test_a_wrong_content_digest_is_refused_and_leaves_nothing(author: Client, traces: Traces, sent: str) -> None:
    data = jpeg()
    body = data if sent == "with_length" else pieces(data)
    async with traces.none(author):
        problem = await author.call(
            "POST", "/v1/media", 400, content=body, headers={"Content-Digest": digest(data + b".")}
        )
    assert problem["type"] == "/problems/digest-mismatch"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "sha-256",
        "sha-256=:AAAA:",
        "sha-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=",
        "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:more",
        "md5=:hPSZ3F3YgWyr5PeQz4IFbw==:",
        f"{digest(b'a')},{digest(b'b')}",
    ],
)
async def test_a_content_digest_that_holds_no_sha_256_is_refused_and_leaves_nothing(
    author: Client, traces: Traces, value: str
) -> None:
    async with traces.none(author):
        problem = await author.call("POST", "/v1/media", 422, content=jpeg(), headers={"Content-Digest": value})
    assert problem["errors"][0]["pointer"] == "Content-Digest"


async def test_digests_in_several_headers_are_one_list(author: Client, traces: Traces) -> None:
    data = jpeg()

    async def send(status: int, *digests: str) -> None:
        headers = [*author.headers.items(), *(("Content-Digest", value) for value in digests)]
        answer = await author.http.post("/v1/media", content=data, headers=headers)
        assert answer.status_code == status, answer.text

    await send(201, "md5=:AAAA:", digest(data))
    await send(201, digest(data), digest(data))
    async with traces.none(author):
        await send(422, digest(data), digest(data + b"."))


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ([], jpeg(), 201),
        ([("Idempotency-Key", "k" * 200)], jpeg(), 201),
        ([("Idempotency-Key", "k" * 201)], jpeg(), 422),
        ([("Idempotency-Key", "\xe9")], jpeg(), 422),
        ([("Idempotency-Key", "a"), ("Idempotency-Key", "b")], jpeg(), 422),
        ([("Content-Digest", "sha-256=:AAAA:")], jpeg(), 422),
        ([("Content-Digest", "x" * 1001)], jpeg(), 422),
        ([("Authorization", "Bearer x")], jpeg(), 401),
        ([("Content-Type", "text/plain")], jpeg(), 201),
        ([], b"", 400),
        ([], b"no photo", 415),
    ],
)
async def test_what_is_served_ahead_of_the_framework_is_answered_as_by_it(
    sign_up: Callable[..., Awaitable[Client]], headers: list[tuple[str, str]], content: bytes, status: int
) -> None:
    told = []
    for query in ("", "?camera_facts=false"):  # parameters are the framework's
        sender = await sign_up()
        encoded_headers = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        if not any(name == "Authorization" for name, _ in headers):
            encoded_headers.append((b"Authorization", sender.headers["Authorization"].encode()))
        answer = await sender.http.post(f"/v1/media{query}", content=content, headers=encoded_headers)
        assert answer.status_code == status, answer.text
        body = answer.json()
        assert answer.headers.get("location") == (f"/v1/media/{body['id']}" if status == 201 else None)
        told.append((set(answer.headers), answer.headers["content-type"], body | {"id": "", "request_id": ""}))
    assert told[0] == told[1]
