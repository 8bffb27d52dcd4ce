"""HTTP by hand: for what no well-behaved client would send, and for seeing when the answer comes."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """What its body says."""
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, headers: Mapping[str, str]) -> None:
        """Send the head of a POST."""
        await self.request("POST", path, headers)

    async def request(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Send the head of a request."""
        lines = [f"{method} {path} HTTP/1.1", "Host: test", *(f"{name}: {value}" for name, value in headers.items())]
        await self.send("".join(line + "\r\n" for line in [*lines, ""]).encode())

    async def send(self, data: bytes | memoryview) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    async def send_chunk(self, data: bytes | memoryview) -> None:
        """Send a chunk of a body without a length; an empty one ends it."""
        await self.send(b"%x\r\n" % len(data))
        await self.send(data)
        await self.send(b"\r\n")

    async def answer(self, seconds: float = 60) -> Answer:
        """The response."""
        async with asyncio.timeout(seconds):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            return Answer(
                int(head[0].split()[1]), headers, await self._reader.readexactly(int(headers["content-length"]))
            )

    async def line(self, seconds: float = 60) -> bytes:
        """The next line."""
        async with asyncio.timeout(seconds):
            return await self._reader.readline()

    async def closed(self, seconds: float = 60) -> bytes:
        """What still comes until the other side closes, or resets the connection."""
        found = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(seconds):
                while piece := await self._reader.read(1 << 16):
                    found += piece
        return found

    def vanish(self) -> None:
        """Be gone in the middle of whatever goes on."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close our side."""
        self._writer.close()


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    """A connection to the server of `url`."""
    parts = urlsplit(url)
    connection = Wire(*await asyncio.open_connection(parts.hostname, parts.port))
    try:
        yield connection
    finally:
        connection.vanish()
