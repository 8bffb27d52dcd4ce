"""Uploads when the client, S3, the database or our own process goes away in the middle: stored whole, or not at all."""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg
import httpx
import pytest
from aiohttp import web
from pydantic import SecretStr

from instafeed import media, sweep, work
from instafeed.errors import Unauthenticated, Unavailable
from instafeed.ids import shard_of
from instafeed.leftovers import Sweep
from instafeed.models import Media, Viewer
from instafeed.resources import Resources
from instafeed.settings import Settings
from instafeed.storage import blobs, s3_put
from instafeed.storage import media as media_rows
from instafeed.storage.blobs import PART_BYTES
from instafeed.storage.database import Connection, Database
from instafeed.storage.outbox import Kind
from tests.client import Client, eventually, http_client
from tests.conftest import running_api, serving
from tests.media import s3_proxy
from tests.media.s3_proxy import Fault, S3Proxy, Which, answering, answering_early, running_s3_proxy
from tests.media.test_receiving import stored
from tests.media.traces import Traces, tracing
from tests.media.wire import Wire, wire
from tests.photos import large_jpeg
from tests.processes import running_api_process
from tests.relay import running_relay

pytestmark = pytest.mark.usefixtures("workers")  # they delete what is left of an upload

SMALL = large_jpeg(200_000)
LARGE = large_jpeg(PART_BYTES + 200_000)
FORM = b'--line\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
XML_ERROR = '<?xml version="1.0"?><Error><Code>InternalError</Code><Message>We failed.</Message></Error>'


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
async def author(settings: Settings, proxy: S3Proxy) -> AsyncIterator[Client]:
    """Somebody at an API whose S3 fails to order."""
    async with (
        running_api(settings.model_copy(update={"s3_endpoint": proxy.url})) as url,
        http_client(base_url=url) as http,
    ):
        yield await Client.sign_up(http)


@asynccontextmanager
async def half_an_upload(url: str, author: Client, traces: Traces, sent: str, **headers: str) -> AsyncIterator[Wire]:
    """An upload, to be continued, of which something has come, and where it is in parts, has reached S3."""
    path = "/v1/posts/form" if sent.startswith("form") else "/v1/media"
    length = {"Content-Length": "9000000"} if sent == "with_length" else {"Transfer-Encoding": "chunked"}
    kind = {"Content-Type": "multipart/form-data; boundary=line"}
    data = LARGE if sent.endswith("in_parts") else SMALL
    uploads = await traces.open_uploads()
    async with http_client(base_url=url) as http, wire(url) as connection:
        before = await received(http)
        await connection.post(path, author.headers | length | kind | headers)
        send = connection.send if sent == "with_length" else connection.send_chunk
        if sent.startswith("form"):
            await send(FORM)
        await send(data)

        async def under_way() -> bool:
            if sent.endswith("in_parts"):
                return bool(await traces.open_uploads() - uploads)
            # Of a form the end of what has come may still turn out to be its boundary.
            return await received(http) - before >= len(data) - 100

        await eventually(under_way)
        yield connection


async def received(http: httpx.AsyncClient) -> float:
    """How many bytes of photos the process at `http` has received."""
    [found] = re.findall(r"^instafeed_upload_bytes_total (\S+)", (await http.get("/metrics")).text, re.MULTILINE)
    return float(found)


WAYS = ["with_length", "without_length", "without_length_in_parts", "form", "form_in_parts"]


@pytest.mark.parametrize("sent", WAYS)
async def test_of_a_client_that_vanishes_nothing_is_left(author: Client, traces: Traces, sent: str) -> None:
    async with traces.none(author), half_an_upload(str(author.http.base_url), author, traces, sent) as connection:
        connection.vanish()


@pytest.mark.parametrize("how", ["vanishes", "sends_what_is_no_request"])
async def test_of_a_client_that_is_gone_before_it_is_answered_nothing_is_left(
    author: Client, traces: Traces, proxy: S3Proxy, how: str
) -> None:
    stored, go_on = asyncio.Event(), asyncio.Event()

    async def held(request: web.Request, proxy: S3Proxy) -> web.StreamResponse:
        answer = await proxy.pass_on(request)
        stored.set()
        await go_on.wait()
        return answer

    async with (
        traces.none(author),
        proxy.failing(s3_proxy.put, held),
        wire(str(author.http.base_url)) as connection,
    ):
        await connection.post("/v1/media", author.headers | {"Content-Length": str(len(SMALL))})
        await connection.send(SMALL)
        await stored.wait()
        if how == "vanishes":
            connection.vanish()
        else:
            await connection.send(b"more than was announced")
            assert await connection.closed() == b""
        await author.call("GET", "/v1/me")  # until then the API has seen it
        go_on.set()


def later(monkeypatch: pytest.MonkeyPatch, res: Resources, seconds: float) -> None:
    """Let the sweep's clock be ahead, so that uploads which began so many seconds ago are over."""
    longest = res.settings.upload_longest_seconds
    monkeypatch.setattr(sweep, "time", SimpleNamespace(time=lambda: time.time() + longest + seconds))


async def test_of_a_process_that_is_killed_in_mid_upload_the_sweep_leaves_nothing(
    settings: Settings, res: Resources, author: Client, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await traces.of(author)
    async with traces.none(author):
        async with (
            running_api_process(settings) as api,
            half_an_upload(api.url, author, traces, "with_length"),
            half_an_upload(api.url, author, traces, "without_length_in_parts"),
            half_an_upload(api.url, author, traces, "form_in_parts"),
        ):
            await api.kill()
        left = await traces.of(author) - before
        assert left == await traces.open_uploads() - before
        assert len(left) == 2, "of the third one S3 has not got all, and keeps nothing"
        await Sweep(res).some()
        assert await traces.of(author) >= left, "it might still be coming"
        later(monkeypatch, res, 3601)
        await Sweep(res).some()


async def test_of_a_process_that_is_killed_between_s3s_answer_and_the_commit_the_sweep_leaves_nothing(
    settings: Settings,
    res: Resources,
    author: Client,
    traces: Traces,
    proxy: S3Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with traces.none(author):
        originals = set(await traces.objects("originals/"))
        async with (
            running_api_process(settings.model_copy(update={"s3_endpoint": proxy.url})) as api,
            proxy.failing(s3_proxy.put, s3_proxy.hanging_after),
            wire(api.url) as connection,
        ):
            await connection.post("/v1/media", author.headers | {"Content-Length": str(len(SMALL))})
            await connection.send(SMALL)

            async def stored() -> bool:
                return bool(set(await traces.objects("originals/")) - originals)

            await eventually(stored)
            await api.kill()
        left = set(await traces.objects("originals/")) - originals
        await Sweep(res).some()
        assert await traces.of(author) >= left, "it might still become a photo"
        later(monkeypatch, res, 3601)
        await Sweep(res).some()


async def unlock(res: Resources, key: str) -> None:
    """As if the first request with this Idempotency-Key had lasted too long."""
    async with res.db.acquire() as connection:
        await connection.execute("update idempotency_keys set locked_until = now() where key = $1", key)


async def test_an_upload_that_is_sent_again_under_its_key_after_a_kill_is_stored_once(
    settings: Settings, res: Resources, author: Client, traces: Traces
) -> None:
    rows, originals = await traces.rows(author), set(await traces.objects("originals/"))
    key = {"Idempotency-Key": "killed in mid upload"}
    # A body without a length may be sent again with any other one.
    async with (
        running_api_process(settings) as api,
        half_an_upload(api.url, author, traces, "without_length_in_parts", **key),
    ):
        await api.kill()
    await author.call("POST", "/v1/media", 409, content=pieces(SMALL), headers=key)
    await unlock(res, *key.values())
    taken = await author.call("POST", "/v1/media", 201, content=pieces(SMALL), headers=key)
    assert await author.call("POST", "/v1/media", 201, content=pieces(SMALL), headers=key) == taken
    assert await traces.rows(author) - rows == {taken["id"]}
    assert len(set(await traces.objects("originals/")) - originals) == 1


async def test_an_upload_that_was_taken_over_while_it_dragged_on_ends_without_a_trace(
    res: Resources, author: Client, traces: Traces
) -> None:
    rows, originals = await traces.rows(author), set(await traces.objects("originals/"))
    opened = await traces.open_uploads()
    key = {"Idempotency-Key": "dragging on"}
    url = str(author.http.base_url)
    async with half_an_upload(url, author, traces, "without_length_in_parts", **key) as connection:
        await unlock(res, *key.values())
        taken = await author.call("POST", "/v1/media", 201, content=pieces(SMALL), headers=key)
        await connection.send_chunk(b"")
        assert (await connection.answer()).status in {400, 503}
    assert await author.call("POST", "/v1/media", 201, content=pieces(SMALL), headers=key) == taken

    async def one_is_left() -> bool:
        found = set(await traces.objects("originals/")) - originals
        return len(found) == 1 and await traces.open_uploads() <= opened

    await eventually(one_is_left)
    assert await traces.rows(author) - rows == {taken["id"]}
    assert (await author.ready(taken["id"]))["status"] == "ready"


async def test_an_upload_that_was_taken_over_does_not_pass_for_the_one_that_took_over(
    res: Resources, author: Client, traces: Traces
) -> None:
    originals, url, key = set(await traces.objects("originals/")), str(author.http.base_url), "taken over"
    before, now = (large_jpeg(9_000_000, seed=seed) for seed in (11, 12))
    headers = author.headers | {"Idempotency-Key": key, "Content-Length": str(len(now))}
    async with half_an_upload(url, author, traces, "with_length", **{"Idempotency-Key": key}) as first:
        await unlock(res, key)
        async with wire(url) as second:
            await second.post("/v1/media", headers)
            await second.send(now)
            answer = await second.answer()
        assert answer.status == 201
        await first.send(before[len(SMALL) :])
        assert (await first.answer()).status == 400
    assert (await stored(res, traces, answer.json["id"]))[:2] == (now, hashlib.sha256(now).digest())

    async def one_is_left() -> bool:
        return len(set(await traces.objects("originals/")) - originals) == 1

    await eventually(one_is_left)


async def test_an_upload_that_took_longer_than_the_sweep_waits_is_refused_and_leaves_nothing(
    res: Resources, author: Client, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traces.none(author), half_an_upload(str(author.http.base_url), author, traces, "with_length") as wire:
        longest = res.settings.upload_longest_seconds
        monkeypatch.setattr(media, "time", SimpleNamespace(time=lambda: time.time() + longest + 901))
        await wire.send(large_jpeg(9_000_000)[len(SMALL) :])
        answer = await wire.answer()
        assert (answer.status, answer.json["type"]) == (400, "/problems/media-incomplete")


REFUSALS: dict[str, Fault] = {
    "500": answering(500, XML_ERROR),
    "503": answering(503),
    "403": answering(403),
    "early_503": answering_early(503),
    "error_in_200": answering(200, XML_ERROR),
    "nothing_in_200": answering(200),
    "other_in_200": answering(200, "<html><body>Welcome</body></html>"),
    "gone": answering(404, XML_ERROR.replace("InternalError", "NoSuchUpload")),
    "reset": s3_proxy.resetting,
    "lost_answer": s3_proxy.losing_the_answer,
    "hanging": s3_proxy.hanging,
    "hanging_after": s3_proxy.hanging_after,
}


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """A body without a length."""
    for at in range(0, len(data), 1 << 16):
        yield data[at : at + (1 << 16)]


@pytest.mark.parametrize(
    ("which", "large", "fault"),
    [
        *((s3_proxy.put, False, fault) for fault in REFUSALS),
        *((s3_proxy.put, True, fault) for fault in ("500", "error_in_200", "reset", "hanging")),
        *((s3_proxy.create, True, fault) for fault in ("503", "403", "reset", "lost_answer", "hanging_after")),
        *((s3_proxy.create, True, fault) for fault in ("nothing_in_200", "other_in_200")),
        *(
            (s3_proxy.complete, True, fault)
            for fault in ("503", "error_in_200", "gone", "lost_answer", "hanging_after")
        ),
    ],
)
async def test_what_s3_does_not_take_is_answered_with_503_and_leaves_nothing(
    author: Client,
    traces: Traces,
    proxy: S3Proxy,
    monkeypatch: pytest.MonkeyPatch,
    which: Which,
    large: bool,
    fault: str,
) -> None:
    monkeypatch.setattr(s3_put, "ANSWER_SECONDS", 0.5)
    async with traces.none(author):
        async with proxy.failing(which, REFUSALS[fault]):
            answer = await author.http.post(
                "/v1/media", content=pieces(LARGE) if large else SMALL, headers=author.headers
            )
        assert answer.status_code == 503, answer.text
        assert answer.json()["type"] == "/problems/unavailable"
        assert int(answer.headers["retry-after"]) > 0


async def test_s3_that_is_away_is_answered_with_503(
    settings: Settings, author: Client, traces: Traces, res: Resources
) -> None:
    away = settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})
    async with traces.none(author), running_api(away) as url, http_client(base_url=url) as http:
        for body in (SMALL, pieces(LARGE)):
            answer = await http.post("/v1/media", content=body, headers=author.headers)
            assert answer.status_code == 503
            assert "retry-after" in answer.headers


async def test_s3_that_takes_nothing_is_not_the_clients_fault(
    author: Client, traces: Traces, proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_put, "ANSWER_SECONDS", 0.5)
    async with traces.none(author), proxy.failing(s3_proxy.put, s3_proxy.hanging):
        await author.call("POST", "/v1/media", 503, content=large_jpeg(30_000_000))


async def test_a_slow_client_is_not_s3s_fault(author: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async with wire(str(author.http.base_url)) as connection:
        with monkeypatch.context() as hasty:
            hasty.setattr(s3_put, "ANSWER_SECONDS", 1)
            await connection.post("/v1/media", author.headers | {"Content-Length": str(len(SMALL))})
            await connection.send(SMALL[:100_000])
            await asyncio.sleep(1.2)  # longer than S3 may take
        await connection.send(SMALL[100_000:])
        assert (await connection.answer()).status == 201


async def test_uploads_go_on_when_s3_is_back(author: Client, proxy: S3Proxy) -> None:
    async with proxy.failing(s3_proxy.put, s3_proxy.resetting):
        await author.call("POST", "/v1/media", 503, content=SMALL)
    await author.upload(SMALL)


async def test_without_room_for_a_part_there_is_a_503_soon_and_room_again_later(
    settings: Settings, author: Client, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "_ROOM_SECONDS", 0.1)
    narrow = settings.model_copy(update={"upload_parts_in_memory": 1})
    async with running_api(narrow) as url, http_client(base_url=url) as http:
        guest = Client(http, author.account, author.token)
        async with half_an_upload(url, author, traces, "without_length"):
            await guest.call("POST", "/v1/media", 503, content=pieces(SMALL))
            await guest.upload(SMALL)

        async def room() -> bool:
            answer = await http.post("/v1/media", content=pieces(SMALL), headers=author.headers)
            return answer.status_code == 201

        await eventually(room)


async def doubts(res: Resources, author: Client) -> list[tuple[int, float]]:
    """Work that waits for what is in doubt of the author's photos: its entry, and for how many seconds."""
    async with res.db.acquire() as connection:
        records = await connection.fetch(
            "select id, extract(epoch from due_at - now())::float as seconds from outbox"
            " where shard = $1 and kind = 'discard' and done_at is null and due_at > now() + interval '1 minute'",
            shard_of(int(author.id)),
        )
    return [(record["id"], record["seconds"]) for record in records]


async def settle(res: Resources, author: Client) -> None:
    """Let the time be over for which what is in doubt stays."""
    for entry, _ in await doubts(res, author):
        await work.perform(res, entry, Kind.DISCARD, media.discard)


@asynccontextmanager
async def trigger(res: Resources, author: Client, body: str) -> AsyncIterator[None]:
    """Something happens in the database whenever a photo of the author's is about to be committed."""

    # Workers are at the same tables: a deadlock with them is tried again.
    async def begin(connection: Connection) -> None:
        await connection.execute(f"create function spoil() returns trigger language plpgsql as $$ begin {body} end $$")
        await connection.execute(
            "create trigger spoil before insert on media for each row"
            f" when (new.account_id = {int(author.id)}) execute function spoil()"
        )

    async def end(connection: Connection) -> None:
        await connection.execute("drop function spoil cascade")

    await res.db.transact(begin)
    try:
        yield
    finally:
        await res.db.transact(end)


@pytest.mark.parametrize(
    "body",
    [
        "raise exception 'no' using errcode = '40001';",
        "raise exception 'no' using errcode = '53300';",
        "perform pg_terminate_backend(pg_backend_pid()); return new;",
    ],
    ids=["serialization", "no_connections", "lost_connection"],
)
@pytest.mark.parametrize("path", ["media", "form"])
async def test_what_the_database_does_not_commit_is_answered_with_503_and_leaves_nothing(
    res: Resources, author: Client, traces: Traces, body: str, path: str
) -> None:
    posts = await author.walk(f"/v1/accounts/{author.id}/posts")
    async with traces.none(author), trigger(res, author, body):
        if path == "media":
            answer = await author.http.post("/v1/media", content=SMALL, headers=author.headers)
        else:
            answer = await author.http.post("/v1/posts/form", files={"photo": SMALL}, headers=author.headers)
        assert answer.status_code == 503, answer.text
        assert "retry-after" in answer.headers
        await settle(res, author)  # who loses a connection is not told how it ended
    assert await author.walk(f"/v1/accounts/{author.id}/posts") == posts


async def test_while_the_database_is_away_nothing_is_stored_but_what_was_under_way_which_the_sweep_finds(
    settings: Settings,
    res: Resources,
    author: Client,
    traces: Traces,
    proxy: S3Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with traces.none(author), running_relay(settings.database_url.get_secret_value()) as database:
        behind = settings.model_copy(
            update={"database_url": SecretStr(database.url), "s3_endpoint": proxy.url, "database_pool_size": 2}
        )
        async with (
            running_api(behind) as url,
            http_client(base_url=url) as http,
            half_an_upload(url, author, traces, "with_length") as connection,
        ):
            before = await traces.of(author)
            await database.cut()
            await connection.send(large_jpeg(9_000_000)[len(SMALL) :])
            answer = await connection.answer()
            assert (answer.status, answer.json["type"]) == (503, "/problems/unavailable")
            assert len(await traces.of(author) - before) == 1
            sent = proxy.body_bytes
            for path, options in (("media", {"content": SMALL}), ("posts/form", {"files": {"photo": SMALL}})):
                refused = await http.post(f"/v1/{path}", headers=author.headers, **options)
                assert refused.status_code == 503
            assert proxy.body_bytes == sent
        later(monkeypatch, res, 3601)
        await Sweep(res).some()


@asynccontextmanager
async def unanswered(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[Connection], Awaitable[Any]]]:
    """Within the block the statement that makes a photo is lost with its connection; what is yielded executes it, late."""
    insert, lost = media_rows.insert, []

    async def lose(_: Connection, photo: Media, *, entry_id: int) -> None:
        lost.append((photo, entry_id))
        raise asyncpg.ConnectionDoesNotExistError

    async def execute(connection: Connection) -> None:
        photo, entry_id = lost.pop()
        assert await insert(connection, photo, entry_id=entry_id)

    with monkeypatch.context() as patch:
        patch.setattr(media_rows, "insert", lose)
        yield execute


@pytest.mark.parametrize("path", ["media", "form"])
async def test_what_may_have_been_committed_stays_for_a_while_and_goes_if_it_was_not(
    res: Resources, author: Client, traces: Traces, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    before = await traces.of(author)
    async with traces.none(author):
        async with unanswered(monkeypatch):
            if path == "media":
                await author.call("POST", "/v1/media", 503, content=SMALL)
            else:
                await author.call("POST", "/v1/posts/form", 503, files={"photo": SMALL})
        [(_, seconds)] = await doubts(res, author)
        assert 600 < seconds <= 900
        assert len(await traces.of(author) - before) == 1, "its original"
        await settle(res, author)


async def test_what_was_committed_late_after_all_is_a_photo_and_stays(
    res: Resources, author: Client, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, key = await traces.rows(author), {"Idempotency-Key": "committed late"}
    async with unanswered(monkeypatch) as execute, res.db.acquire() as connection:
        await author.call("POST", "/v1/media", 503, content=SMALL, headers=key)
        assert await traces.rows(author) == before
        await execute(connection)
    await settle(res, author)
    taken = await author.call("POST", "/v1/media", 201, content=SMALL, headers=key)
    assert await traces.rows(author) - before == {taken["id"]}
    assert (await author.ready(taken["id"]))["status"] == "ready"


@asynccontextmanager
async def losing_an_answer(settings: Settings, author: Client) -> AsyncIterator[Client]:
    """The author at another API, which is not told how its first transaction ended."""
    async with serving(settings) as (url, server), http_client(base_url=url) as http:
        database: Database = server.lifespan.state["resources"].db
        statement, is_first = database.statement, True

        async def losing(body: Callable[[Connection], Any]) -> Any:
            nonlocal is_first
            done = await statement(body)  # `transact` comes here, too
            if is_first:
                is_first = False
                raise Unavailable("The database does not answer.")
            return done

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(database, "statement", losing)
            yield Client(http, author.account, author.token)
        assert not is_first, "nothing was lost"


async def test_a_commit_whose_answer_was_lost_counts(settings: Settings, res: Resources, author: Client) -> None:
    async with losing_an_answer(settings, author) as guest:
        taken = await guest.upload()
    # Nobody could ring for the work: the sweep does.
    async with res.db.acquire() as connection:
        await connection.execute(
            "update outbox set due_at = '-infinity' where payload ->> 'media' = $1 and done_at is null", taken["id"]
        )
    await sweep.ring(res)
    assert (await author.ready(taken["id"]))["status"] == "ready"


async def test_somebody_elses_photo_is_never_taken_for_ones_own(res: Resources, author: Client) -> None:
    taken = await author.upload()
    # Ids of one shard can meet: two processes may make the same one within a millisecond.
    stranger = Viewer(account_id=res.ids.next(shard_of(int(author.id))), session_id=0, session_key="")
    async with res.db.acquire() as connection:
        await connection.execute(
            "insert into accounts (shard, id, username, password_hash) values ($1, $2, 'a.stranger', '')",
            shard_of(stranger.account_id),
            stranger.account_id,
        )
    with pytest.raises(Unavailable):
        await media.receive(res, stranger, int(taken["id"]), pieces(SMALL), size=None, sha256=None)
    assert (await author.ready(taken["id"]))["status"] == "ready"


async def test_a_photo_of_an_account_that_was_just_suspended_is_not_taken_and_leaves_nothing(
    res: Resources, author: Client, traces: Traces
) -> None:
    account_id = int(author.id)
    async with res.db.acquire() as connection:
        await connection.execute("update accounts set suspended_at = now() where id = $1", account_id)
    try:
        async with traces.none(author):
            with pytest.raises(Unauthenticated):
                # Its session was looked at before.
                await media.receive(
                    res,
                    Viewer.of(account_id),
                    res.ids.next(shard_of(account_id)),
                    pieces(SMALL),
                    size=len(SMALL),
                    sha256=None,
                )
    finally:
        async with res.db.acquire() as connection:
            await connection.execute("update accounts set suspended_at = null where id = $1", account_id)
