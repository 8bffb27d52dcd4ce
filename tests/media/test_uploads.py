"""Resumable uploads: parts through us or straight to S3, in any order, over connections that break."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from instafeed import sweep
from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.settings import MIB, Settings
from instafeed.storage.blobs import PART_BYTES
from tests.client import Client, eventually, http_client
from tests.conftest import running_api
from tests.media.test_receiving import digest, pieces, stored
from tests.media.traces import Traces
from tests.media.wire import wire
from tests.photos import jpeg, jpeg_of_a_camera, large_jpeg

pytestmark = pytest.mark.usefixtures("workers")  # they delete what is left of an upload

SignUp = Callable[..., Awaitable[Client]]
Json = dict[str, Any]
LARGE = large_jpeg(2 * PART_BYTES + 70_000, seed=7)
SMALL = large_jpeg(90_000, seed=8)


@pytest.fixture
async def author(sign_up: SignUp) -> Client:
    """Somebody who has sent nothing yet."""
    return await sign_up()


@pytest.fixture
async def phone() -> AsyncIterator[httpx.AsyncClient]:
    """Speaks to S3."""
    async with http_client(timeout=30) as client:
        yield client


def announced(data: bytes) -> Json:
    """What an upload of `data` begins with."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


async def begin(author: Client, data: bytes, **headers: str) -> Json:
    """Begin an upload of `data`."""
    found: Json = await author.call("POST", "/v1/media/uploads", 201, json=announced(data), headers=headers)
    return found


def part(upload: Json, data: bytes, number: int) -> bytes:
    """The bytes of a part."""
    at = (number - 1) * upload["part_size"]
    return data[at : at + upload["part_size"]]


async def send(
    author: Client, upload: Json, data: bytes, number: int, status: int = 204, content_digest: str | None = None
) -> Any:
    """Send a part through us."""
    path = f"/v1/media/uploads/{upload['id']}/parts/{number}"
    headers = {"Content-Digest": content_digest} if content_digest else {}
    return await author.call("PUT", path, status, content=part(upload, data, number), headers=headers)


async def send_straight(phone: httpx.AsyncClient, upload: Json, data: bytes, number: int) -> None:
    """Send a part straight to S3."""
    answer = await phone.put(upload["parts"][number - 1]["url"], content=part(upload, data, number))
    assert answer.status_code == 200, answer.text


async def complete(author: Client, upload: Json, status: int = 201) -> Json:
    """Complete an upload."""
    found: Json = await author.call("POST", f"/v1/media/uploads/{upload['id']}/complete", status)
    return found


async def arrived(author: Client, upload: Json) -> list[int]:
    """The numbers of the parts that have arrived."""
    found = await author.call("GET", f"/v1/media/uploads/{upload['id']}")
    for item in found["parts"]:
        assert (item["url"] is None) == item["arrived"]
    return [item["number"] for item in found["parts"] if item["arrived"]]


async def is_stored(res: Resources, traces: Traces, media: Json, data: bytes) -> None:
    """Assert that the photo is on record and in S3 as it was sent."""
    assert await stored(res, traces, media["id"]) == (data, hashlib.sha256(data).digest(), len(data), "image/jpeg")


async def rows(res: Resources, author: Client) -> int:
    """How many uploads of the author are on record."""
    account_id = int(author.id)
    async with res.db.acquire() as connection:
        found: int = await connection.fetchval(
            "select count(*) from uploads where shard = $1 and account_id = $2", shard_of(account_id), account_id
        )
    return found


async def nothing_is_left(res: Resources, traces: Traces, author: Client, before: set[str]) -> None:
    """Assert that soon nothing is left of the author's uploads."""

    async def gone() -> bool:
        return not await rows(res, author) and await traces.of(author) <= before

    await eventually(gone)


async def test_parts_straight_to_s3_arrive_in_parallel_and_in_any_order(
    author: Client, phone: httpx.AsyncClient, res: Resources, traces: Traces
) -> None:
    before = await traces.open_uploads()
    upload = await begin(author, LARGE)
    assert [item["size"] for item in upload["parts"]] == [PART_BYTES, PART_BYTES, 70_000]
    assert await arrived(author, upload) == []
    await asyncio.gather(*(send_straight(phone, upload, LARGE, number) for number in (3, 1)))
    assert await arrived(author, upload) == [1, 3]
    fresh = await author.call("GET", f"/v1/media/uploads/{upload['id']}")
    await send_straight(phone, fresh, LARGE, 2)
    media = await complete(author, upload)
    assert (media["id"], media["status"]) == (upload["id"], "processing")
    await is_stored(res, traces, media, LARGE)
    assert await rows(res, author) == 0
    assert await traces.open_uploads() <= before
    assert (await author.ready(media["id"]))["status"] == "ready"
    await author.call("POST", "/v1/posts", 201, json={"media": [{"id": media["id"]}]})


async def test_a_part_url_takes_no_other_number_of_bytes(author: Client, phone: httpx.AsyncClient) -> None:
    upload = await begin(author, SMALL)
    for wrong in (SMALL + b"x", SMALL[:-1], b""):
        assert (await phone.put(upload["parts"][0]["url"], content=wrong)).status_code == 403
    assert await arrived(author, upload) == []


async def test_parts_through_us_and_straight_to_s3_may_be_mixed_and_sent_again(
    author: Client, phone: httpx.AsyncClient, res: Resources, traces: Traces
) -> None:
    upload = await begin(author, LARGE)
    await send_straight(phone, upload, LARGE, 2)
    await asyncio.gather(*(send(author, upload, LARGE, number) for number in (3, 1, 2, 1, 3)))
    assert await arrived(author, upload) == [1, 2, 3]
    await is_stored(res, traces, await complete(author, upload), LARGE)


async def test_an_upload_goes_on_where_the_connection_broke(
    author: Client, base_url: str, res: Resources, traces: Traces
) -> None:
    upload = await begin(author, LARGE)
    await send(author, upload, LARGE, 1)
    path, second = f"/v1/media/uploads/{upload['id']}/parts/2", part(upload, LARGE, 2)
    for sent in (0, 1, PART_BYTES // 2, PART_BYTES - 1):
        async with wire(base_url) as connection:
            await connection.request("PUT", path, author.headers | {"Content-Length": str(len(second))})
            await connection.send(second[:sent])
            connection.vanish()
    assert await arrived(author, upload) == [1]
    problem = await complete(author, upload, 400)
    assert (problem["type"], problem["detail"]) == ("/problems/media-incomplete", "Parts are missing: 2, 3.")
    for number in (2, 3):
        await send(author, upload, LARGE, number)
    await is_stored(res, traces, await complete(author, upload), LARGE)


@pytest.mark.parametrize("sent", ["with_length", "without_length"])
@pytest.mark.parametrize("change", [-1, 1, -len(SMALL), 2 * MIB])
async def test_a_part_of_another_size_is_refused_and_the_one_before_stays(
    author: Client, res: Resources, traces: Traces, sent: str, change: int
) -> None:
    upload = await begin(author, SMALL)
    await send(author, upload, SMALL, 1)
    wrong = SMALL[: len(SMALL) + change] if change < 0 else SMALL + bytes(change)
    body = wrong if sent == "with_length" else pieces(wrong)
    problem = await author.call("PUT", f"/v1/media/uploads/{upload['id']}/parts/1", 400, content=body)
    assert problem["type"] == "/problems/media-incomplete"
    await is_stored(res, traces, await complete(author, upload), SMALL)


async def test_a_part_without_a_length_arrives(author: Client, res: Resources, traces: Traces) -> None:
    upload = await begin(author, SMALL)
    await author.call("PUT", f"/v1/media/uploads/{upload['id']}/parts/1", 204, content=pieces(SMALL))
    await is_stored(res, traces, await complete(author, upload), SMALL)


async def test_a_part_is_taken_with_its_own_content_digest_only_and_the_one_before_stays(
    author: Client, res: Resources, traces: Traces
) -> None:
    upload = await begin(author, SMALL)
    await send(author, upload, SMALL, 1, content_digest=digest(SMALL))
    other = large_jpeg(len(SMALL), seed=9)
    problem = await send(author, upload, other, 1, 400, digest(SMALL))
    assert problem["type"] == "/problems/digest-mismatch"
    await send(author, upload, other, 1, 422, "md5=:AAAA:")
    await is_stored(res, traces, await complete(author, upload), SMALL)


async def test_a_part_of_the_wrong_length_is_refused_before_any_of_it_is_sent(author: Client, base_url: str) -> None:
    upload = await begin(author, SMALL)
    path = f"/v1/media/uploads/{upload['id']}/parts/1"
    for headers in ({}, {"Expect": "100-continue"}):
        async with wire(base_url) as connection:
            await connection.request("PUT", path, author.headers | headers | {"Content-Length": str(10**9)})
            assert (await connection.answer()).status == 400


async def test_a_client_that_sends_a_part_too_slowly_is_refused(
    settings: Settings, author: Client, res: Resources, traces: Traces
) -> None:
    impatient = settings.model_copy(update={"upload_grace_seconds": 0.2, "upload_min_bytes_per_second": 100_000})
    upload = await begin(author, SMALL)
    async with running_api(impatient) as url, wire(url) as connection:
        path = f"/v1/media/uploads/{upload['id']}/parts/1"
        await connection.request("PUT", path, author.headers | {"Content-Length": str(len(SMALL))})
        await connection.send(SMALL[:100])
        assert (await connection.answer()).status == 408
    assert await arrived(author, upload) == []


async def test_an_upload_that_is_not_what_was_announced_is_refused_and_leaves_nothing(
    author: Client, res: Resources, traces: Traces
) -> None:
    before = await traces.of(author)
    upload = await begin(author, SMALL)
    await send(author, upload, large_jpeg(len(SMALL), seed=9), 1)
    assert (await complete(author, upload, 400))["type"] == "/problems/digest-mismatch"
    await nothing_is_left(res, traces, author, before)
    await complete(author, upload, 404)


async def test_an_upload_that_is_no_photo_is_refused_and_leaves_nothing(
    author: Client, res: Resources, traces: Traces
) -> None:
    before, data = await traces.of(author), b"%PDF-1.7 and so on"
    upload = await begin(author, data)
    await send(author, upload, data, 1)
    assert (await complete(author, upload, 415))["type"] == "/problems/media-unsupported"
    await nothing_is_left(res, traces, author, before)


async def test_completing_again_finds_the_photo(author: Client, res: Resources, traces: Traces) -> None:
    before = await traces.of(author)
    upload = await begin(author, SMALL)
    await send(author, upload, SMALL, 1)
    made = await complete(author, upload)
    assert (await complete(author, upload, 200))["id"] == made["id"]
    await author.call("GET", f"/v1/media/uploads/{upload['id']}", 404)
    await send(author, upload, SMALL, 1, 404)
    assert len(await traces.of(author) - before) == 2, "a row and an original"


async def test_of_many_who_complete_at_once_all_get_the_one_photo(
    author: Client, res: Resources, traces: Traces
) -> None:
    before = await traces.of(author)
    upload = await begin(author, LARGE)
    for number in (1, 2, 3):
        await send(author, upload, LARGE, number)
    path = f"/v1/media/uploads/{upload['id']}/complete"
    answers = await asyncio.gather(*(author.http.post(path, headers=author.headers) for _ in range(4)))
    # One may have come while S3 was at it for another one.
    assert {answer.status_code for answer in answers} <= {200, 201, 503}
    assert [answer.status_code for answer in answers].count(201) == 1
    assert {answer.json()["id"] for answer in answers if answer.is_success} == {upload["id"]}
    await is_stored(res, traces, await complete(author, upload, 200), LARGE)
    assert len(await traces.of(author) - before) == 2, "a row and an original"


async def test_deleting_drops_the_parts_and_may_be_repeated(author: Client, res: Resources, traces: Traces) -> None:
    before = await traces.of(author)
    upload = await begin(author, LARGE)
    await send(author, upload, LARGE, 3)
    for _ in range(2):
        await author.call("DELETE", f"/v1/media/uploads/{upload['id']}", 204)
    for method, path, options in (
        ("GET", "", {}),
        ("PUT", "/parts/1", {"content": part(upload, LARGE, 1)}),
        ("POST", "/complete", {}),
    ):
        await author.call(method, f"/v1/media/uploads/{upload['id']}{path}", 404, **options)
    await nothing_is_left(res, traces, author, before)


async def test_deleting_leaves_the_photo_that_it_has_become(author: Client) -> None:
    upload = await begin(author, SMALL)
    await send(author, upload, SMALL, 1)
    media = await complete(author, upload)
    await author.call("DELETE", f"/v1/media/uploads/{upload['id']}", 204)
    assert (await author.ready(media["id"]))["status"] == "ready"


async def test_an_upload_is_its_owners_alone(author: Client, sign_up: SignUp) -> None:
    upload, stranger = await begin(author, SMALL), await sign_up()
    missing = str(int(upload["id"]) + 1)
    for method, path in (("GET", ""), ("PUT", "/parts/1"), ("POST", "/complete")):
        told = [await stranger.call(method, f"/v1/media/uploads/{id_}{path}", 404) for id_ in (upload["id"], missing)]
        assert told[0] | {"request_id": ""} == told[1] | {"request_id": ""}
    await stranger.call("DELETE", f"/v1/media/uploads/{upload['id']}", 204)
    await send(author, upload, SMALL, 1)
    media = await complete(author, upload)
    await stranger.call("POST", f"/v1/media/uploads/{media['id']}/complete", 404)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"size": 0}, "/size"),
        ({"size": -1}, "/size"),
        ({"size": "1"}, "/size"),
        ({"size": 1.5}, "/size"),
        ({"size": 2**63}, "/size"),
        ({"size": None}, "/size"),
        ({"sha256": ""}, "/sha256"),
        ({"sha256": "0" * 63}, "/sha256"),
        ({"sha256": "g" * 64}, "/sha256"),
        ({"sha256": "0" * 64 + "\n"}, "/sha256"),
        ({"sha256": digest(SMALL)}, "/sha256"),
        ({"sha256": 7}, "/sha256"),
        ({"part_size": 7}, "/part_size"),
    ],
)
async def test_what_is_announced_wrongly_is_refused(author: Client, res: Resources, body: Json, pointer: str) -> None:
    problem = await author.call("POST", "/v1/media/uploads", 422, json=announced(SMALL) | body)
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert await rows(res, author) == 0


@pytest.mark.parametrize("number", ["0", "-1", "4", "10000", "1.0", "01x", "%201", "9" * 50])
async def test_what_is_no_part_of_it_is_refused(author: Client, number: str) -> None:
    upload = await begin(author, SMALL)
    answer = await author.http.put(
        f"/v1/media/uploads/{upload['id']}/parts/{number}", content=SMALL, headers=author.headers
    )
    assert answer.status_code == (404 if number == "4" else 422), answer.text


async def test_too_large_a_photo_is_refused_when_it_is_announced(author: Client, settings: Settings) -> None:
    for more, status in ((0, 201), (1, 413)):
        body = announced(SMALL) | {"size": settings.upload_max_bytes + more}
        await author.call("POST", "/v1/media/uploads", status, json=body)


async def test_an_account_has_a_bounded_number_of_uploads_open(
    settings: Settings, author: Client, res: Resources
) -> None:
    narrow = settings.model_copy(update={"upload_max_open": 2})
    async with running_api(narrow) as url, http_client(base_url=url) as http:
        assert (await http.get("/v1/limits")).json()["upload_max_open"] == 2
        answers = await asyncio.gather(
            *(http.post("/v1/media/uploads", json=announced(SMALL), headers=author.headers) for _ in range(6))
        )
        assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409, 409, 409]
        refused = next(answer for answer in answers if answer.status_code == 409)
        assert refused.json()["type"] == "/problems/too-many-uploads"
        opened = next(answer for answer in answers if answer.status_code == 201).json()
        guest = Client(http, author.account, author.token)
        await guest.call("DELETE", f"/v1/media/uploads/{opened['id']}", 204)
        await begin(guest, SMALL)


async def test_an_upload_that_is_begun_again_with_its_key_is_one(
    author: Client, res: Resources, traces: Traces
) -> None:
    key, opened = {"Idempotency-Key": "one upload"}, await traces.open_uploads()
    first = await begin(author, SMALL, **key)
    assert await begin(author, SMALL, **key) == first
    # As after a crash between the commit and the answer.
    account_id = int(author.id)
    async with res.db.acquire() as connection:
        await connection.execute(
            "update idempotency_keys set status = null, locked_until = '-infinity'"
            " where shard = $1 and account_id = $2",
            shard_of(account_id),
            account_id,
        )
    assert (await begin(author, SMALL, **key))["id"] == first["id"]
    assert len(await traces.open_uploads() - opened) == 1
    # As after a crash before S3's answer was kept.
    async with res.db.acquire() as connection:
        await connection.execute(
            "update idempotency_keys set status = null, locked_until = '-infinity'"
            " where shard = $1 and account_id = $2",
            shard_of(account_id),
            account_id,
        )
        await connection.execute("update uploads set s3_upload_id = null where account_id = $1", account_id)
    again = await begin(author, SMALL, **key)
    assert again["id"] == first["id"]
    await send(author, again, SMALL, 1)
    await is_stored(res, traces, await complete(author, again), SMALL)

    async def only_others() -> bool:
        return await traces.open_uploads() <= opened

    await eventually(only_others)


async def test_an_upload_that_is_begun_again_when_it_has_expired_waits_for_the_sweep(
    poster: Client, fresh_res: Resources
) -> None:
    key, account_id = {"Idempotency-Key": "one upload"}, int(poster.id)
    first = await begin(poster, SMALL, **key)
    async with fresh_res.db.acquire() as connection:
        await connection.execute(
            "update idempotency_keys set status = null, locked_until = '-infinity'"
            " where shard = $1 and account_id = $2",
            shard_of(account_id),
            account_id,
        )
        await connection.execute("update uploads set expires_at = now() where account_id = $1", account_id)
    await poster.call("POST", "/v1/media/uploads", 503, json=announced(SMALL), headers=key)
    await sweep.clear(fresh_res)
    assert (await begin(poster, SMALL, **key))["id"] == first["id"]


async def test_an_upload_that_is_not_completed_in_time_is_gone_and_the_sweep_leaves_nothing(
    author: Client, res: Resources, traces: Traces
) -> None:
    before = await traces.of(author)
    upload = await begin(author, LARGE)
    await send(author, upload, LARGE, 3)
    await sweep.clear(res)
    assert await arrived(author, upload) == [3]
    async with res.db.acquire() as connection:
        await connection.execute("update uploads set expires_at = now() where id = $1", int(upload["id"]))
    await complete(author, upload, 404)
    await author.call("GET", f"/v1/media/uploads/{upload['id']}", 404)
    await sweep.clear(res)
    await nothing_is_left(res, traces, author, before)


async def test_a_photo_that_was_sent_before_is_answered_instead_of_an_upload(
    author: Client, sign_up: SignUp, res: Resources
) -> None:
    media = await author.upload(SMALL)
    found = await author.call("POST", "/v1/media/uploads", 200, json=announced(SMALL))
    assert found["id"] == media["id"]
    assert await rows(res, author) == 0
    await begin(await sign_up(), SMALL)  # another one's photo is not theirs


async def test_of_a_photo_that_was_posted_a_copy_can_be_posted_too(
    author: Client, res: Resources, traces: Traces
) -> None:
    first = await author.upload(SMALL)
    post = await author.call("POST", "/v1/posts", 201, json={"media": [{"id": first["id"]}]})
    copy = await author.call("POST", "/v1/media/uploads", 200, json=announced(SMALL))
    assert copy["id"] != first["id"]
    await is_stored(res, traces, copy, SMALL)
    other = await author.call("POST", "/v1/posts", 201, json={"media": [{"id": copy["id"]}]})
    await author.call("DELETE", f"/v1/posts/{post['id']}", 204)
    assert (await author.published(other["id"]))["media"][0]["status"] == "ready"
    await author.call("DELETE", f"/v1/posts/{other['id']}", 204)
    await begin(author, SMALL)  # nothing is there any more


async def test_what_the_camera_wrote_is_kept_if_that_was_chosen_at_the_beginning(author: Client) -> None:
    data = jpeg_of_a_camera()
    for choice, model in ((False, None), (True, "Model 1")):
        changed = data + bytes([choice])
        body = announced(changed) | {"camera_facts": choice}
        upload = await author.call("POST", "/v1/media/uploads", 201, json=body)
        await send(author, upload, changed, 1)
        camera = (await author.ready((await complete(author, upload))["id"]))["camera"]
        assert (camera and camera["model"]) == model


async def test_a_photo_that_failed_is_to_be_sent_again(author: Client) -> None:
    broken = jpeg()[:200]
    assert (await author.ready((await author.upload(broken))["id"]))["status"] == "failed"
    await begin(author, broken)


async def test_a_client_that_announces_a_photo_need_not_send_it_again(author: Client, base_url: str) -> None:
    media, body = await author.upload(SMALL), json.dumps(announced(SMALL)).encode()
    headers = author.headers | {"Content-Type": "application/json", "Content-Length": str(len(body))}
    async with wire(base_url) as connection:
        await connection.request("POST", "/v1/media/uploads", headers)
        await connection.send(body)
        answer = await connection.answer()
        assert (answer.status, answer.json["id"]) == (200, media["id"])


async def test_a_client_that_asks_first_need_not_send_a_photo_again(
    author: Client, base_url: str, res: Resources, traces: Traces
) -> None:
    asking = author.headers | {
        "Expect": "100-continue",
        "Content-Digest": digest(SMALL),
        "Content-Length": str(len(SMALL)),
    }
    async with wire(base_url) as connection:
        await connection.request("POST", "/v1/media", asking)
        assert await connection.line() == b"HTTP/1.1 100 Continue\r\n"
        await connection.line()
        await connection.send(SMALL)
        first = await connection.answer()
        assert first.status == 201
    async with wire(base_url) as connection:
        await connection.request("POST", "/v1/media", asking)
        answer = await connection.answer()
        assert (answer.status, answer.json["id"]) == (200, first.json["id"])
        assert await connection.closed() == b""
    # Where a post has it, a copy of its own is answered.
    await author.call("POST", "/v1/posts", 201, json={"media": [{"id": first.json["id"]}]})
    async with wire(base_url) as connection:
        await connection.request("POST", "/v1/media", asking)
        copy = await connection.answer()
        assert copy.status == 200
        assert copy.json["id"] != first.json["id"]
        await is_stored(res, traces, copy.json, SMALL)
    # Who does not ask sends anyway, and is not kept from it.
    again = await author.call("POST", "/v1/media", 201, content=SMALL, headers={"Content-Digest": digest(SMALL)})
    assert again["id"] != first.json["id"]
