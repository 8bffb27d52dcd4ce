"""What the bucket promises beyond what uploads show: bounds, keys, deletion, and URLs that can be cached."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from instafeed import telemetry
from instafeed.errors import Unavailable
from instafeed.resources import Resources
from instafeed.settings import Settings
from instafeed.storage import blobs
from instafeed.storage.blobs import PART_BYTES, Blobs, began_at, new_object_key, original_key, rendition_prefix
from tests.client import http_client
from tests.media.traces import Traces, tracing


@pytest.fixture(scope="module")
async def traces(res: Resources) -> AsyncIterator[Traces]:
    """Looks at what is stored."""
    async with tracing(res) as found:
        yield found


async def body(*pieces: bytes) -> AsyncIterator[bytes]:
    """A body in pieces."""
    for piece in pieces:
        yield piece


def test_keys_cannot_be_guessed_and_tell_when_the_upload_began() -> None:
    keys = [new_object_key() for _ in range(100)]
    assert len(set(keys)) == 100
    for key in keys:
        assert re.fullmatch(r"[0-9a-f]{8}-[A-Za-z0-9_-]{24}", key), "needs no escaping in a URL; 144 random bits"
        assert abs(began_at(key) - time.time()) < 5


def test_who_knows_a_renditions_key_does_not_know_the_originals() -> None:
    key = new_object_key()
    assert key[9:21] not in rendition_prefix(key)
    assert rendition_prefix(key) != rendition_prefix(new_object_key())


async def test_a_url_is_the_same_for_the_time_of_the_setting_and_valid_for_as_long_again(
    res: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, key = res.settings.media_url_seconds, "renditions/x/640.webp"
    today = int(time.time())
    monkeypatch.setattr(blobs, "time", SimpleNamespace(time=lambda: today))
    began = today + res.blobs.url_seconds_left(key)
    urls = []
    for now in (began, began + 1, began + step - 1, began + step):
        monkeypatch.setattr(blobs, "time", SimpleNamespace(time=lambda now=now: now))
        assert res.blobs.url_seconds_left(key) == step - (now - began) % step
        urls.append(res.blobs.url(key))
        assert parse_qs(urlsplit(urls[-1]).query)["X-Amz-Expires"] == [str(2 * step)]
    assert urls[0] == urls[1] == urls[2] != urls[3]


async def test_the_urls_of_all_photos_do_not_change_at_once(res: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(blobs, "time", SimpleNamespace(time=lambda: now))
    left = [res.blobs.url_seconds_left(f"renditions/{number}/640.webp") for number in range(200)]
    assert len(set(left)) > 10
    assert len({res.blobs.url_seconds_left(f"renditions/7/{name}.jpeg") for name in (150, 320, 640)}) == 1


async def test_urls_are_of_the_servers_public_name(settings: Settings) -> None:
    async def url(**values: str | None) -> str:
        return Blobs(settings.model_copy(update=values)).url("x")

    assert (await url(s3_public_endpoint="https://cdn.test")).startswith(f"https://cdn.test/{settings.s3_bucket}/")
    assert (await url()).startswith(f"{settings.s3_endpoint}/")
    aws = await url(s3_endpoint=None, s3_region="eu-west-1")
    assert aws.startswith(f"https://s3.eu-west-1.amazonaws.com/{settings.s3_bucket}/")


async def test_a_stored_file_is_fetched_as_it_was(res: Resources, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    (tmp_path / "in").write_bytes(data)
    await res.blobs.put_file("files/one", tmp_path / "in", content_type="image/webp")
    assert await res.blobs.fetch("files/one", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data
    async with http_client() as phone:
        assert (await phone.get(res.blobs.url("files/one"))).headers["content-type"] == "image/webp"


async def test_an_object_that_is_not_there_is_not_fetched(res: Resources, tmp_path: Path) -> None:
    assert not await res.blobs.fetch("files/none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_deleting_takes_more_keys_than_s3_takes_at_once_and_those_that_are_not_there(
    res: Resources, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "_DELETE_BATCH", 2)
    keys = [f"many/{number}" for number in range(5)]
    for key in keys:
        await res.blobs.put(key, body(b"x"), size=1, content_type="text/plain")
    assert await res.blobs.keys("many/") == keys
    await res.blobs.delete(["many/none", *keys])
    assert await traces.objects("many/") == {}


async def test_deleting_a_photo_deletes_no_other(res: Resources, traces: Traces) -> None:
    one, other = new_object_key(), new_object_key()
    for key in (one, other):
        for name in (original_key(key), rendition_prefix(key) + "640.webp", rendition_prefix(key) + "640.jpg"):
            await res.blobs.put(name, body(b"x"), size=1, content_type="text/plain")
    await res.blobs.delete_photo(one)
    assert await traces.objects(original_key(one)) == await traces.objects(rendition_prefix(one)) == {}
    assert len(await traces.objects(rendition_prefix(other))) == 2
    assert len(await traces.objects(original_key(other))) == 1


async def test_open_uploads_to_a_key_are_aborted_and_no_others(res: Resources, traces: Traces) -> None:
    async def breaking_off() -> AsyncIterator[bytes]:
        yield bytes(PART_BYTES)
        raise ConnectionError

    for key in ("open/one", "open/two"):
        with pytest.raises(ConnectionError):
            await res.blobs.put_unsized(key, breaking_off(), content_type="text/plain")
    one, two = await traces.open_uploads("open/one"), await traces.open_uploads("open/two")
    assert len(one) == len(two) == 1
    await res.blobs.abort_uploads("open/one")
    assert (await traces.open_uploads("open/one"), await traces.open_uploads("open/two")) == (set(), two)
    await res.blobs.abort_uploads("open/two")


@pytest.mark.parametrize("piece", [PART_BYTES * 2 + 5, 700_001])
async def test_parts_hold_whatever_size_the_pieces_have(res: Resources, traces: Traces, piece: int) -> None:
    data = bytes(range(251)) * (3 * PART_BYTES // 251)
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    await res.blobs.put_unsized("parts/pieces", body(*pieces), content_type="text/plain")
    assert await traces.content("parts/pieces") == data


async def test_an_object_is_stored_when_its_last_byte_is_sent_whatever_the_body_does_then(
    res: Resources, traces: Traces
) -> None:
    async def going_on() -> AsyncIterator[bytes]:
        yield b"all of it"
        await asyncio.Event().wait()

    async with asyncio.timeout(60):
        await res.blobs.put("all", going_on(), size=9, content_type="text/plain")
    assert await traces.content("all") == b"all of it"


async def test_there_are_never_more_parts_in_memory_than_the_setting_says(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = most = shown = 0

    class Counted(blobs._Part):
        def __init__(self) -> None:
            nonlocal held, most, shown
            super().__init__()
            held += 1
            most, shown = max(most, held), max(shown, telemetry.UPLOAD_MEMORY._value.get())

        def free(self) -> None:
            nonlocal held
            super().free()
            held -= 1

    monkeypatch.setattr(blobs, "_Part", Counted)
    store = Blobs(settings.model_copy(update={"upload_parts_in_memory": 2}))
    await store.open()
    try:
        await asyncio.gather(
            *(
                store.put_unsized(f"few/{n}", body(bytes(PART_BYTES), b"rest"), content_type="text/plain")
                for n in range(4)
            ),
            store.put_unsized("few/large", body(b"begin", bytes(2 * PART_BYTES)), content_type="text/plain"),
        )
    finally:
        await store.close()
    assert (most, held) == (2, 0)
    assert shown >= 2 * PART_BYTES
    assert telemetry.UPLOAD_MEMORY._value.get() == 0


async def test_everything_says_that_s3_is_away(settings: Settings, tmp_path: Path) -> None:
    store = Blobs(settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"}))
    await store.open()
    (tmp_path / "file").write_bytes(b"x")
    try:
        answers = await asyncio.gather(
            store.put("x", body(b"x"), size=1, content_type="text/plain"),
            store.put_unsized("x", body(b"x"), content_type="text/plain"),
            store.put_unsized("x", body(bytes(PART_BYTES)), content_type="text/plain"),
            store.put_file("x", tmp_path / "file", content_type="text/plain"),
            store.fetch("x", tmp_path / "out"),
            store.delete(["x"]),
            store.keys("x"),
            store.abort_uploads("x"),
            store.ping(),
            return_exceptions=True,
        )
    finally:
        await store.close()
    assert [type(answer) for answer in answers] == [Unavailable] * 9


async def test_a_bucket_that_is_not_there_is_told(settings: Settings) -> None:
    store = Blobs(settings.model_copy(update={"s3_bucket": "no-such-bucket"}))
    await store.open()
    try:
        with pytest.raises(Unavailable):
            await store.ping()
    finally:
        await store.close()
