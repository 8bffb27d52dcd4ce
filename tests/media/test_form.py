"""`POST /v1/posts/form`: a photo and its texts in one call, for scripts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.settings import Settings
from tests.client import Client, eventually, http_client
from tests.conftest import running_api
from tests.media.test_receiving import digest, stored
from tests.media.traces import Traces
from tests.media.wire import wire
from tests.photos import jpeg, large_jpeg

pytestmark = pytest.mark.usefixtures("workers")
PATH = "/v1/posts/form"


def part(name: str, value: bytes, more: str = "") -> bytes:
    """A part of a form."""
    return f'--line\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


def photo(data: bytes | None = None) -> bytes:
    """The part with the photo."""
    return part("photo", jpeg() if data is None else data, '; filename="a.jpg"\r\nContent-Type: image/jpeg')


END = b"--line--\r\n"


async def send(
    author: Client, body: bytes, status: int, kind: str = "multipart/form-data; boundary=line", **headers: str
) -> Any:
    """Send a form as it is."""
    return await author.call("POST", PATH, status, content=body, headers={"Content-Type": kind, **headers})


@pytest.mark.parametrize(
    "body",
    [
        part("caption", b"Sea") + part("alt_text", b"Waves") + photo() + END,
        photo() + part("caption", b"Sea") + part("alt_text", b"Waves") + END,
        part("caption", b"Sea") + photo() + part("alt_text", b"Waves") + END,
        b"\r\n"
        + photo()
        + part("alt_text", b"Waves")
        + part("caption", b"Sea")
        + END
        + b"an epilogue, which is nothing",
    ],
    ids=["before", "after", "around", "with_epilogue"],
)
async def test_texts_may_stand_before_and_after_the_photo(author: Client, body: bytes) -> None:
    made = await send(author, body, 201)
    assert (made["caption"], made["media"][0]["alt_text"]) == ("Sea", "Waves")
    post = await author.published(made["id"])
    assert [media["status"] for media in post["media"]] == ["ready"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_however_a_form_is_cut_into_pieces_it_is_the_same(
    author: Client, res: Resources, traces: Traces, size: int
) -> None:
    body = part("caption", "Meer \N{WATER WAVE}\r\n--lin".encode()) + photo() + part("alt_text", b"Waves") + END

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    made = await author.call(
        "POST", PATH, 201, content=pieces(), headers={"Content-Type": "multipart/form-data; boundary=line"}
    )
    assert (made["caption"], made["media"][0]["alt_text"]) == ("Meer \N{WATER WAVE}\n--lin", "Waves")
    assert (await stored(res, traces, made["media"][0]["id"]))[0] == jpeg()


async def test_a_photo_needs_no_texts(author: Client) -> None:
    made = await send(author, photo() + END, 201)
    assert (made["caption"], made["media"][0]["alt_text"]) == ("", "")


async def test_curl_sends_such_forms(author: Client, base_url: str, tmp_path: Path) -> None:
    data = large_jpeg(20_000_000)
    (tmp_path / "sunset.jpg").write_bytes(data)
    curl = await asyncio.create_subprocess_exec(
        "curl",
        *("-sS", "-F", f"photo=@{tmp_path / 'sunset.jpg'}", "-F", "caption=Sunset"),
        *("-H", f"Authorization: Bearer {author.token}", "-o", "-", "-w", " %{http_code}", base_url + PATH),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await curl.communicate()
    assert out.endswith(b" 201"), out


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        (part("caption", b"Sea") + END, 422, "/photo"),
        (END, 422, "/photo"),
        (photo() + photo() + END, 422, "/photo"),
        (part("caption", b"1") + part("caption", b"2") + photo() + END, 422, "/caption"),
        (part("caption", b"1") + photo() + part("caption", b"2") + END, 422, "/caption"),
        (part("title", b"1") + photo() + END, 422, "/title"),
        (photo() + part("title", b"1") + END, 422, "/title"),
        (photo() + part("", b"1") + END, 422, "/"),
        (photo() + part("a/b~" + "c" * 100, b"1") + END, 422, "/a~1b~0" + "c" * 96),
        (part("caption", b"x" * 2201) + photo() + END, 422, "/caption"),
        (photo() + part("caption", b"x" * 2201) + END, 422, "/caption"),
        (part("caption", b"x" * 1_000_000) + photo() + END, 422, "/caption"),
        (photo() + part("alt_text", b"x" * 1_000_000) + END, 422, "/alt_text"),
        (photo() + part("caption", b"a\0b") + END, 422, "/caption"),
        (photo() + part("caption", b"\xff\xfe") + END, 400, None),
        (part("caption", b"\xff\xfe") + photo() + END, 400, None),
        (photo(), 400, None),
        (photo()[:-2], 400, None),
        (photo()[:300], 400, None),
        (photo() + part("caption", b"Sea"), 400, None),
        (b"", 400, None),
        (b"no form", 400, None),
        (photo().replace(b"--line", b"--other") + END, 400, None),
        (b"--line\r\nno header\r\n\r\nvalue\r\n" + photo() + END, 400, None),
        (b"--line\r\nX: " + b"y" * 5000 + b"\r\n\r\nvalue\r\n" + photo() + END, 400, None),
        (b"--line\r\n" + b"y" * 1_000_000, 400, None),
        (b"--line\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(20)) + b"\r\nvalue\r\n" + photo() + END, 400, None),
        (photo(b"") + END, 400, None),
        (photo(b"no photo, only text") + END, 415, None),
    ],
)
async def test_a_form_that_is_not_right_leaves_nothing(
    author: Client, traces: Traces, body: bytes, status: int, pointer: str | None
) -> None:
    posts = await author.walk(f"/v1/accounts/{author.id}/posts")
    async with traces.none(author):
        problem = await send(author, body, status)
    assert [error["pointer"] for error in problem["errors"]] == ([pointer] if pointer else [])
    assert await author.walk(f"/v1/accounts/{author.id}/posts") == posts


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 300,
        "multipart/mixed; boundary=line",
        "application/x-www-form-urlencoded",
        "application/json",
        "",
    ],
)
async def test_what_is_sent_as_something_else_is_no_form(author: Client, traces: Traces, kind: str) -> None:
    async with traces.none(author):
        problem = await send(author, photo() + END, 400, kind)
    assert problem["type"] == "/problems/malformed-body"


async def test_a_boundary_within_the_photo_is_part_of_it_if_it_is_no_boundary(author: Client) -> None:
    made = await send(author, photo(jpeg() + b"\r\n--lin\r\n--lines\r\n-line\r\n--lin") + END, 201)
    assert (await author.ready(made["media"][0]["id"]))["status"] == "ready"


async def test_a_photo_over_the_limit_is_refused_and_leaves_nothing(
    settings: Settings, author: Client, traces: Traces
) -> None:
    narrow = settings.model_copy(update={"upload_max_bytes": 100_000})
    async with running_api(narrow) as url, http_client(base_url=url) as http, traces.none(author):
        guest = Client(http, author.account, author.token)
        await send(guest, photo(large_jpeg(100_001)) + END, 413)
        await send(guest, photo(large_jpeg(8_000_000)) + END, 413)


async def test_a_form_that_cannot_be_within_the_limit_is_refused_before_any_of_it_is_sent(
    author: Client, base_url: str, traces: Traces
) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=line", "Content-Length": str(10**12)}
    for asking in ({}, {"Expect": "100-continue"}):
        async with traces.none(author), wire(base_url) as connection:
            await connection.post(PATH, author.headers | kind | asking)
            answer = await connection.answer()
        assert (answer.status, answer.json["type"]) == (413, "/problems/media-too-large")


@pytest.mark.parametrize(
    "begin", [b"", photo() + b"--line\r\n"], ids=["before the first part", "in the headers of a part"]
)
async def test_a_form_without_a_length_that_never_ends_is_refused(
    settings: Settings, author: Client, traces: Traces, begin: bytes
) -> None:
    on = b"X: y\r\n" * 10_000 if begin else b"\r\n" * 30_000
    narrow = settings.model_copy(update={"upload_max_bytes": 100_000})
    kind = {"Content-Type": "multipart/form-data; boundary=line", "Transfer-Encoding": "chunked"}
    async with running_api(narrow) as url, wire(url) as connection, traces.none(author):
        await connection.post(PATH, author.headers | kind)
        for piece in (begin, *[on] * 5):
            if piece:
                await connection.send_chunk(piece)
        answer = await connection.answer()
    # The newest parser itself counts headers.
    assert answer.status in ({400, 413} if begin else {413})


@pytest.mark.parametrize("sent", [b"", part("caption", b"Sea"), photo()[:300], photo()])
async def test_a_client_that_stops_in_the_middle_of_a_form_is_not_waited_for(
    settings: Settings, author: Client, traces: Traces, sent: bytes
) -> None:
    impatient = settings.model_copy(update={"upload_grace_seconds": 0.2, "upload_min_bytes_per_second": 100_000})
    async with running_api(impatient) as url, wire(url) as connection, traces.none(author):
        kind = {"Content-Type": "multipart/form-data; boundary=line", "Transfer-Encoding": "chunked"}
        await connection.post(PATH, author.headers | kind)
        if sent:
            await connection.send_chunk(sent)
        assert (await connection.answer()).status == 408


async def test_a_form_that_is_sent_again_with_its_key_is_one_post(
    author: Client, res: Resources, traces: Traces
) -> None:
    before = await traces.of(author)
    body = photo() + part("caption", b"Sea") + END
    first = await author.http.post(
        PATH,
        content=body,
        headers=author.headers | {"Content-Type": "multipart/form-data; boundary=line", "Idempotency-Key": "form"},
    )
    assert first.status_code == 201
    made = first.json()
    assert first.headers["location"] == f"/v1/posts/{made['id']}"
    assert await send(author, body, 201, **{"Idempotency-Key": "form"}) == made
    # As after a crash between the commit and the answer.
    async with res.db.acquire() as connection:
        await connection.execute(
            "update idempotency_keys set status = null, locked_until = '-infinity' where shard = $1 and key = 'form'",
            shard_of(int(author.id)),
        )
    again = await send(author, body, 201, **{"Idempotency-Key": "form"})
    assert (again["id"], again["caption"]) == (made["id"], "Sea")

    async def one_is_left() -> bool:
        return len(await traces.of(author) - before) == 2  # a row and an original

    await eventually(one_is_left)


EPILOGUE = b" an epilogue" * 20_000  # it comes by itself


@pytest.mark.parametrize("epilogue", [b"", EPILOGUE], ids=["", "with_epilogue"])
async def test_a_content_digest_of_the_whole_form_is_checked(author: Client, traces: Traces, epilogue: bytes) -> None:
    body = photo() + part("caption", b"Sea") + END + epilogue
    await send(author, body, 201, **{"Content-Digest": digest(body)})
    before = await traces.of(author)
    for other in (photo() + part("caption", b"Lake") + END + epilogue, body + b".", jpeg()):
        problem = await send(author, body, 400, **{"Content-Digest": digest(other)})
        assert problem["type"] == "/problems/digest-mismatch"
    assert await traces.of(author) == before


async def test_a_content_digest_without_a_sha_256_is_refused_before_the_form_is_read(
    author: Client, traces: Traces
) -> None:
    before = await traces.of(author)
    for nonsense in ("md5=:AAAA:", f"{digest(b'a')}, {digest(b'b')}"):
        problem = await send(author, b"no form at all", 422, **{"Content-Digest": nonsense})
        assert [error["pointer"] for error in problem["errors"]] == ["Content-Digest"]
    assert await traces.of(author) == before


async def test_many_forms_of_one_author_at_once_do_not_wait_for_each_other_in_a_circle(author: Client) -> None:
    body = photo() + part("caption", b"Sea") + END
    posted = await asyncio.gather(*(send(author, body, 201) for _ in range(8)))
    assert len({post["id"] for post in posted}) == 8
