"""Resumable uploads when S3, the database or our own process goes away at any step: they go on, or nothing is left."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web

from instafeed import sweep
from instafeed.resources import Resources
from instafeed.settings import Settings
from instafeed.storage import s3_put
from instafeed.storage.blobs import PART_BYTES, original_key
from tests.client import Client, eventually, http_client
from tests.conftest import running_api
from tests.faults.test_uploads import LARGE, REFUSALS, SMALL, losing_an_answer, pieces
from tests.media import s3_proxy
from tests.media.s3_proxy import S3Proxy, Which, first, running_s3_proxy
from tests.media.test_receiving import stored
from tests.media.test_uploads import announced, arrived, begin, complete, nothing_is_left, rows, send
from tests.media.traces import Traces, tracing
from tests.media.wire import wire
from tests.processes import running_api_process

pytestmark = pytest.mark.usefixtures("workers")  # they delete what is left of an upload


@pytest.fixture(scope="module")
async def traces(res: Resources) -> AsyncIterator[Traces]:
    """Looks for what uploads left behind."""
    async with tracing(res) as found:
        yield found


@pytest.fixture(scope="module")
async def proxy(settings: Settings) -> AsyncIterator[S3Proxy]:
    """S3 that fails to order."""
    assert settings.s3_endpoint
    async with running_s3_proxy(settings.s3_endpoint) as running:
        yield running


@pytest.fixture(scope="module")
async def http_behind(settings: Settings, proxy: S3Proxy) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API whose S3 fails to order."""
    async with (
        running_api(settings.model_copy(update={"s3_endpoint": proxy.url})) as url,
        http_client(base_url=url) as http,
    ):
        yield http


@pytest.fixture
async def author(http_behind: httpx.AsyncClient) -> Client:
    """Somebody at that API who has sent nothing yet."""
    return await Client.sign_up(http_behind)


@asynccontextmanager
async def failing(proxy: S3Proxy, which: Which, fault: str) -> AsyncIterator[None]:
    """Spoil S3's answers to such requests; who waits for one that does not come, waits for less long than usual."""
    with pytest.MonkeyPatch.context() as patch:
        if fault.startswith("hanging"):
            patch.setattr(s3_put, "ANSWER_SECONDS", 0.5)
        async with proxy.failing(which, REFUSALS[fault]):
            yield


async def is_whole(res: Resources, traces: Traces, media_id: str, data: bytes) -> bool:
    """Whether the photo is on record and in S3 as it was sent."""
    return (await stored(res, traces, media_id))[:3] == (data, hashlib.sha256(data).digest(), len(data))


async def closed(traces: Traces, opened: set[str]) -> None:
    """Wait until no more uploads are open in S3 than these."""

    async def probe() -> bool:
        return await traces.open_uploads() <= opened

    await eventually(probe)


async def photo_in_parts(author: Client) -> dict[str, Any]:
    """An upload of `LARGE` whose parts have all arrived."""
    upload = await begin(author, LARGE)
    for number in (1, 2):
        await send(author, upload, LARGE, number)
    return upload


@pytest.mark.parametrize(
    ("which", "fault"),
    [
        *((s3_proxy.create, fault) for fault in ("500", "reset", "lost_answer")),
        *((s3_proxy.parts, fault) for fault in ("500", "reset")),
        *((s3_proxy.complete, fault) for fault in ("500", "error_in_200", "reset", "lost_answer")),
        *((s3_proxy.read, fault) for fault in ("500", "reset")),
    ],
)
async def test_what_fails_once_is_made_again(
    author: Client, res: Resources, traces: Traces, proxy: S3Proxy, which: Which, fault: str
) -> None:
    opened = await traces.open_uploads()
    async with failing(proxy, first(which), fault):
        upload = await photo_in_parts(author)
        media = await complete(author, upload)
    assert await is_whole(res, traces, media["id"], LARGE)
    await closed(traces, opened)


@pytest.mark.parametrize(
    ("which", "fault", "large"),
    [
        *((s3_proxy.put, fault, large) for fault in ("500", "error_in_200", "lost_answer") for large in (False, True)),
        (s3_proxy.create, "lost_answer", True),
        *((s3_proxy.complete, fault, True) for fault in ("500", "error_in_200", "lost_answer")),
    ],
)
async def test_of_a_body_without_a_length_what_fails_once_is_made_again(
    author: Client, res: Resources, traces: Traces, proxy: S3Proxy, which: Which, fault: str, large: bool
) -> None:
    data, opened = (LARGE if large else SMALL), await traces.open_uploads()
    async with failing(proxy, first(which), fault):
        media = await author.call("POST", "/v1/media", 201, content=pieces(data))
    assert await is_whole(res, traces, media["id"], data)
    await closed(traces, opened)


@pytest.mark.parametrize("fault", ["503", "lost_answer", "hanging_after"])
async def test_an_upload_that_s3_does_not_begin_leaves_nothing(
    author: Client, res: Resources, traces: Traces, proxy: S3Proxy, fault: str
) -> None:
    before = await traces.of(author)
    async with failing(proxy, s3_proxy.create, fault):
        answer = await author.http.post("/v1/media/uploads", json=announced(LARGE), headers=author.headers)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/unavailable")
    assert int(answer.headers["retry-after"]) > 0
    await nothing_is_left(res, traces, author, before)


@pytest.mark.parametrize("fault", ["500", "early_503", "error_in_200", "reset", "hanging"])
async def test_a_part_that_s3_does_not_take_is_missing_and_can_be_sent_again(
    author: Client, res: Resources, traces: Traces, proxy: S3Proxy, fault: str
) -> None:
    upload = await begin(author, LARGE)
    await send(author, upload, LARGE, 2)
    async with failing(proxy, s3_proxy.put, fault):
        await send(author, upload, LARGE, 1, 503)
    assert await arrived(author, upload) == [2]
    await send(author, upload, LARGE, 1)
    assert await is_whole(res, traces, (await complete(author, upload))["id"], LARGE)


@pytest.mark.parametrize(
    ("which", "fault"),
    [
        *((s3_proxy.parts, fault) for fault in ("503", "nothing_in_200", "other_in_200")),
        *((s3_proxy.complete, fault) for fault in ("503", "error_in_200", "hanging", "hanging_after")),
        *((s3_proxy.complete, fault) for fault in ("nothing_in_200", "other_in_200")),
        *((s3_proxy.read, fault) for fault in ("503", "error_in_200", "hanging")),
    ],
)
async def test_completing_goes_on_when_s3_is_back(
    author: Client, res: Resources, traces: Traces, proxy: S3Proxy, which: Which, fault: str
) -> None:
    upload = await photo_in_parts(author)
    async with failing(proxy, which, fault):
        await complete(author, upload, 503)
    assert await arrived(author, upload) == [1, 2]
    assert await is_whole(res, traces, (await complete(author, upload))["id"], LARGE)
    assert await rows(res, author) == 0


async def test_a_part_that_came_half_when_the_process_was_killed_is_missing(
    settings: Settings, author: Client, res: Resources, traces: Traces, proxy: S3Proxy
) -> None:
    upload = await begin(author, LARGE)
    await send(author, upload, LARGE, 2)
    seen = proxy.body_bytes

    async def under_way() -> bool:
        return proxy.body_bytes > seen

    async with (
        running_api_process(settings.model_copy(update={"s3_endpoint": proxy.url})) as api,
        wire(api.url) as connection,
    ):
        path = f"/v1/media/uploads/{upload['id']}/parts/1"
        await connection.request("PUT", path, author.headers | {"Content-Length": str(PART_BYTES)})
        await connection.send(LARGE[: PART_BYTES // 2])
        await eventually(under_way)
        await api.kill()
    assert await arrived(author, upload) == [2]
    await send(author, upload, LARGE, 1)
    assert await is_whole(res, traces, (await complete(author, upload))["id"], LARGE)


async def test_a_process_that_is_killed_between_s3_and_the_commit_is_gone_on_from(
    settings: Settings, author: Client, res: Resources, traces: Traces, proxy: S3Proxy
) -> None:
    upload = await photo_in_parts(author)
    reached = asyncio.Event()

    async def held(request: Any, proxy: S3Proxy) -> Any:
        await proxy.pass_on(request)
        reached.set()
        return await s3_proxy.hanging(request, proxy)

    async with (
        running_api_process(settings.model_copy(update={"s3_endpoint": proxy.url})) as api,
        proxy.failing(s3_proxy.complete, held),
        http_client(base_url=api.url, timeout=60) as http,
    ):
        path = f"/v1/media/uploads/{upload['id']}/complete"
        lost = asyncio.create_task(http.post(path, headers=author.headers))
        await asyncio.wait_for(reached.wait(), 30)
        await api.kill()
        with pytest.raises(httpx.TransportError):
            await lost
    assert await arrived(author, upload) == [1, 2], "nothing is left to send"
    assert await is_whole(res, traces, (await complete(author, upload))["id"], LARGE)


async def test_a_process_that_is_killed_while_it_begins_leaves_what_the_sweep_finds(
    settings: Settings, author: Client, res: Resources, traces: Traces, proxy: S3Proxy
) -> None:
    before = await traces.of(author)
    reached = asyncio.Event()

    async def held(request: Any, proxy: S3Proxy) -> Any:
        await proxy.pass_on(request)
        reached.set()
        return await s3_proxy.hanging(request, proxy)

    async with (
        running_api_process(settings.model_copy(update={"s3_endpoint": proxy.url})) as api,
        proxy.failing(s3_proxy.create, held),
        http_client(base_url=api.url, timeout=60) as http,
    ):
        lost = asyncio.create_task(http.post("/v1/media/uploads", json=announced(LARGE), headers=author.headers))
        await asyncio.wait_for(reached.wait(), 30)
        await api.kill()
        with pytest.raises(httpx.TransportError):
            await lost
    assert await rows(res, author) == 1
    assert await traces.of(author) - before
    async with res.db.acquire() as connection:
        await connection.execute("update uploads set expires_at = now() where account_id = $1", int(author.id))
    await sweep.clear(res)
    await nothing_is_left(res, traces, author, before)


async def test_a_commit_whose_answer_was_lost_counts(
    settings: Settings, author: Client, res: Resources, traces: Traces
) -> None:
    upload = await photo_in_parts(author)
    async with losing_an_answer(settings, author) as guest:
        await complete(guest, upload, 503)
    media = await complete(author, upload, 200)
    assert await is_whole(res, traces, media["id"], LARGE)


async def test_an_upload_that_is_deleted_while_it_is_completed_leaves_nothing(
    author: Client, res: Resources, traces: Traces, proxy: S3Proxy
) -> None:
    before, upload = await traces.of(author), await photo_in_parts(author)
    path = f"/v1/media/uploads/{upload['id']}"
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def held(request: Any, proxy: S3Proxy) -> Any:
        reached.set()
        await go_on.wait()
        return await proxy.pass_on(request)

    async with proxy.failing(s3_proxy.parts, held):
        completing = asyncio.create_task(author.http.post(f"{path}/complete", headers=author.headers))
        await asyncio.wait_for(reached.wait(), 30)
        await author.call("DELETE", path, 204)
        go_on.set()
        assert (await completing).status_code == 404
    await nothing_is_left(res, traces, author, before)


async def test_an_upload_that_s3_puts_together_when_it_was_deleted_leaves_nothing(
    author: Client, res: Resources, traces: Traces, proxy: S3Proxy
) -> None:
    before, upload = await traces.of(author), await photo_in_parts(author)
    path = f"/v1/media/uploads/{upload['id']}"
    async with res.db.acquire() as connection:
        key = await connection.fetchval("select object_key from uploads where id = $1", int(upload["id"]))

    async def late(request: web.Request, proxy: S3Proxy) -> web.StreamResponse:
        answer = await proxy.pass_on(request)
        await author.call("DELETE", path, 204)
        await nothing_is_left(res, traces, author, before)
        # As if S3 had been so late.
        await res.blobs.put(original_key(key), pieces(LARGE), size=len(LARGE), content_type="image/jpeg")
        return answer

    async with proxy.failing(s3_proxy.complete, late):
        await complete(author, upload, 404)
    await nothing_is_left(res, traces, author, before)


async def test_a_part_that_arrives_when_its_upload_was_deleted_leaves_nothing(
    author: Client, res: Resources, traces: Traces, proxy: S3Proxy
) -> None:
    before, upload = await traces.of(author), await begin(author, LARGE)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def held(request: Any, proxy: S3Proxy) -> Any:
        reached.set()
        await go_on.wait()
        return await proxy.pass_on(request)

    async with proxy.failing(s3_proxy.put, held):
        sending = asyncio.create_task(send(author, upload, LARGE, 1, 404))
        await asyncio.wait_for(reached.wait(), 30)
        await author.call("DELETE", f"/v1/media/uploads/{upload['id']}", 204)
        await nothing_is_left(res, traces, author, before)
        go_on.set()
        await sending
    await nothing_is_left(res, traces, author, before)


@pytest.mark.parametrize("fault", ["500", "error_in_200", "lost_answer"])
async def test_a_copy_that_fails_once_is_made_again_and_one_that_goes_on_failing_leaves_nothing(
    author: Client, res: Resources, traces: Traces, proxy: S3Proxy, fault: str
) -> None:
    first_one = await author.upload(SMALL)
    await author.call("POST", "/v1/posts", 201, json={"media": [{"id": first_one["id"]}]})
    async with traces.none(author), failing(proxy, s3_proxy.copy, fault):
        await author.call("POST", "/v1/media/uploads", 503, json=announced(SMALL))
    async with failing(proxy, first(s3_proxy.copy), fault):
        copy = await author.call("POST", "/v1/media/uploads", 200, json=announced(SMALL))
    assert await is_whole(res, traces, copy["id"], SMALL)


async def test_a_copy_that_s3_says_it_made_and_has_not_kept_is_none(
    author: Client, traces: Traces, proxy: S3Proxy
) -> None:
    first_one = await author.upload(SMALL)
    await author.call("POST", "/v1/posts", 201, json={"media": [{"id": first_one["id"]}]})
    async with traces.none(author), failing(proxy, s3_proxy.copy, "nothing_in_200"):
        await author.call("POST", "/v1/media/uploads", 503, json=announced(SMALL))


async def test_a_part_of_which_s3_has_kept_less_is_missing(author: Client, traces: Traces, proxy: S3Proxy) -> None:
    upload = await begin(author, LARGE)
    await send(author, upload, LARGE, 2)

    async def shortened(request: web.Request, _: S3Proxy) -> web.StreamResponse:
        answer = await proxy.pass_on(request)
        assert isinstance(answer, web.Response)
        text = (answer.text or "").replace(f">{len(LARGE) - PART_BYTES}<", ">7<")
        return web.Response(text=text, content_type="text/xml")

    async with proxy.failing(s3_proxy.parts, shortened):
        assert await arrived(author, upload) == []
    assert await arrived(author, upload) == [2]


async def test_an_original_that_is_gone_is_to_be_sent_again(author: Client, res: Resources, traces: Traces) -> None:
    media = await author.upload(SMALL)
    await author.call("POST", "/v1/posts", 201, json={"media": [{"id": media["id"]}]})
    await author.ready(media["id"])
    async with res.db.acquire() as connection:
        key = await connection.fetchval("select object_key from media where id = $1", int(media["id"]))
    await res.blobs.delete([original_key(key)])
    async with traces.none(author):
        upload = await begin(author, SMALL)
        await author.call("DELETE", f"/v1/media/uploads/{upload['id']}", 204)
