"""What uploads cost the API's process in memory, however many there are at once."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from instafeed.settings import Settings
from tests.client import Client, http_client
from tests.media.wire import Answer, wire
from tests.photos import large_jpeg
from tests.processes import MIB, Api, running_api_process

PARTS = 12
PHOTO = large_jpeg(20_000_000)
SMALL = large_jpeg(100_000)
BEFORE = b'--line\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
AFTER = b"\r\n--line--\r\n"


@pytest.fixture
async def api(fresh_settings: Settings) -> AsyncIterator[Api]:
    """The API in a process of its own. No worker sees what it takes."""
    async with running_api_process(fresh_settings.model_copy(update={"upload_parts_in_memory": PARTS})) as running:
        yield running


@pytest.fixture
async def author(api: Api) -> Client:
    """Somebody with large photos."""
    async with http_client(base_url=api.url) as http:
        return await Client.sign_up(http)


async def upload(api: Api, author: Client, photo: bytes, sent: str) -> None:
    """Upload a photo in one of three ways; once more where the photo store was too busy to answer in time."""
    for _ in range(4):
        answer = await _upload(api, author, photo, sent)
        if answer.status != 503:
            break
    assert answer.status == 201, answer.body


async def _upload(api: Api, author: Client, photo: bytes, sent: str) -> Answer:
    path = "/v1/posts/form" if sent == "form" else "/v1/media"
    headers = author.headers | {"Content-Type": "multipart/form-data; boundary=line"}
    headers |= {"Content-Length": str(len(photo))} if sent == "with_length" else {"Transfer-Encoding": "chunked"}
    async with wire(api.url) as connection:
        await connection.post(path, headers)
        send = connection.send if sent == "with_length" else connection.send_chunk
        if sent == "form":
            await send(BEFORE)
        for at in range(0, len(photo), MIB):
            await send(memoryview(photo)[at : at + MIB])
        if sent == "form":
            await send(AFTER)
        if sent != "with_length":
            await send(b"")
        return await connection.answer(60)


# Without a length, 12 parts of 5 MiB are the most that may be held; 20 of them would be seen.
@pytest.mark.parametrize(
    ("sent", "at_once", "mib"), [("with_length", 20, 40), ("without_length", 20, 100), ("form", 5, 60)]
)
async def test_photos_of_20_mb_at_once_take_a_bounded_memory(
    api: Api, author: Client, sent: str, at_once: int, mib: int
) -> None:
    await asyncio.gather(*(upload(api, author, SMALL, sent) for _ in range(at_once)))
    idle = api.memory
    api.forget_peak()
    await asyncio.gather(*(upload(api, author, PHOTO, sent) for _ in range(at_once)))
    assert api.peak_memory - idle < mib * MIB
