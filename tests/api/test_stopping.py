"""An API that is told to stop, while others go on: nobody's request fails."""

import asyncio
import re
import signal
import socket
from contextlib import AsyncExitStack

from instafeed.api.app import create_app
from instafeed.api.server import Server
from instafeed.settings import Settings
from tests.api.answers import request
from tests.client import Client, eventually, http_client
from tests.photos import jpeg
from tests.processes import running_api_process

LAST = "connection: close"


async def test_what_has_begun_is_finished_and_nothing_new_begins(settings: Settings) -> None:
    photo = jpeg()
    async with running_api_process(settings) as api, http_client(base_url=api.url, timeout=20) as http:
        client = await Client.sign_up(http)
        port = int(api.url.rpartition(":")[2])
        idle, uploading = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        idle[1].write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert LAST not in (await idle[0].readuntil(b"\r\n\r\n")).decode()
        assert await idle[0].readuntil(b"}") == b'{"alive":true}'
        head = f"POST /v1/media HTTP/1.1\r\nHost: x\r\nContent-Length: {len(photo)}\r\n"
        uploading[1].write(f"{head}Authorization: Bearer {client.token}\r\n\r\n".encode() + photo[:100])
        await http.aclose()
        api.child.send(signal.SIGTERM)

        async def refused() -> bool:
            with socket.socket() as attempt:
                return attempt.connect_ex(("127.0.0.1", port)) != 0

        await eventually(refused)
        idle[1].write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        said = (await idle[0].read()).decode()
        assert said.startswith("HTTP/1.1 200 ")
        assert LAST in said
        uploading[1].write(photo[100:])
        assert (await uploading[0].read()).startswith(b"HTTP/1.1 201 ")
        assert await api.child.wait() in {0, -signal.SIGTERM}
        for _, writer in (idle, uploading):
            writer.close()


async def test_who_is_connected_but_not_taken_in_is_answered_too(settings: Settings) -> None:
    server = Server(create_app(settings), host="127.0.0.1", port=0)
    # Without its signals: they are those of all tests.
    serving = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    place = server.servers[0].sockets[0].getsockname()
    clients = [socket.create_connection(place) for _ in range(5)]
    for client in clients:
        client.sendall(request("GET", "/livez"))
    # Nothing was awaited since: the system has the connections, and the server knows nothing of them.
    await server._refuse_new()
    server.should_exit = True
    await serving
    for client in clients:
        with client:
            client.settimeout(10)
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


async def test_streams_that_end_together_do_not_come_back_together(settings: Settings) -> None:
    async with running_api_process(settings) as api, AsyncExitStack() as stack:
        http = await stack.enter_async_context(http_client(base_url=api.url, timeout=20))
        client = await Client.sign_up(http)
        streams = [
            await stack.enter_async_context(http.stream("GET", "/v1/feed/events", headers=client.headers))
            for _ in range(8)
        ]
        api.child.send(signal.SIGTERM)
        told = ["".join([piece async for piece in stream.aiter_text()]) for stream in streams]
    hints = [[int(hint) for hint in re.findall(r"(?m)^retry: (\d+)$", text)] for text in told]
    assert all(first == 1000 and 1000 <= last <= 10_000 for first, last in hints)
    assert len({last for _, last in hints}) > 1
