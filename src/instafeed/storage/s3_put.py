"""PUT requests to S3 over connections that are kept.

aiohttp does everything else over HTTP, but took a sixth of what a small photo cost, and more of a large one: it has a task for
each body, and a timer for each piece (docs/decisions/0039-puts-of-our-own.md).
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools

CONNECT_SECONDS = 3
ANSWER_SECONDS = 15
"""What S3 has for each answer, and each piece that it takes."""
# Less than S3 keeps one: a request that meets the close on its way fails.
_IDLE_SECONDS = 4
_BODY_BYTES = 2000


@dataclass(slots=True)
class Answer:
    """What S3 said: names of headers in lower case, and the first 2,000 bytes of the body."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    keeps: bool = False
    """The connection stays open."""


class Putter:
    """Sends PUT requests to one server. Every method raises `OSError` if it does not answer, or not in time."""

    def __init__(self, origin: str) -> None:
        """`origin` has a scheme, a host and maybe a port."""
        parts = urlsplit(origin)
        assert parts.hostname
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._host_header = parts.netloc
        self._idle: deque[_Connection] = deque()
        """Those used last are taken first."""

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().abort()

    async def put(self, target: str, headers: Mapping[str, str], body: AsyncIterator[bytes], *, size: int) -> Answer:
        """Send the first `size` bytes of `body`. S3 has 15 s for each piece, and for its answer; how long the pieces may take
        to come is for others. If it raises, or answers before the body's end, S3 has not got all of it.

        Raises:
            EOFError: the body has fewer bytes.
        """
        lines = [f"PUT {target} HTTP/1.1", f"Host: {self._host_header}", f"Content-Length: {size}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "\r\n"]).encode()
        connection = self._kept() or await self._connect()
        try:
            answer = await connection.exchange(head, body, size)
        except BaseException:
            connection.abort()
            raise
        if connection.is_reusable:
            self._idle.append(connection)
        else:
            connection.abort()
        return answer

    def _kept(self) -> "_Connection | None":
        while self._idle and time.monotonic() - self._idle[0].since > _IDLE_SECONDS:
            self._idle.popleft().abort()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable:
                return connection
        return None

    async def _connect(self) -> "_Connection":
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            _, connection = await loop.create_connection(_Connection, self._host, self._port, ssl=self._ssl)
        return connection


class _Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._answered: asyncio.Future[Answer] | None = None
        self._answer = Answer()
        self._full: asyncio.Future[None] | None = None
        self.since = 0.0
        """Since when it is idle, by the monotonic clock."""
        self.is_reusable = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It is open."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """S3 has closed it, or we have. An answer whose end did not come is none."""
        self.is_reusable = False
        self._fail(exc or ConnectionResetError("S3 has closed the connection"))
        self.resume_writing()

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self._full = self._loop.create_future()

    def resume_writing(self) -> None:
        """The socket takes more, or nobody waits for that any longer."""
        if self._full is not None and not self._full.done():
            self._full.set_result(None)
        self._full = None

    def abort(self) -> None:
        """Close it: of a body that has not ended, nothing is stored."""
        self._transport.abort()

    async def exchange(self, head: bytes, body: AsyncIterator[bytes], size: int) -> Answer:
        """Send a request and wait for its answer."""
        self.is_reusable = False
        self._answer = Answer()
        answered: asyncio.Future[Answer] = self._loop.create_future()
        self._answered = answered
        write = self._transport.write
        async for piece in body:
            if answered.done() or self._transport.is_closing():
                break
            # No head before there is something to send: of a body that fails at once, S3 never hears. And in one with it: whoever
            # is woken by a head alone has to wait once more.
            write(head + piece[:size] if head else piece[:size])
            head, size = b"", size - len(piece)
            if self._full is not None:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._full
            if size <= 0:
                break
        is_open = not (answered.done() or self._transport.is_closing())
        if is_open and size > 0:
            raise EOFError("the body ended early")
        if is_open and head:
            write(head)  # and no body
        # Not `asyncio.timeout`, which costs as much as a send: whoever waits is told through the future anyhow.
        late = self._loop.call_later(ANSWER_SECONDS, self._fail, TimeoutError("S3 does not answer in time"))
        try:
            answer = await answered
        finally:
            late.cancel()
        if size > 0 and answer.status < 300:
            raise ConnectionError("S3 took a body whose end it has not got")
        self.is_reusable = size <= 0 and answer.keeps and not self._transport.is_closing()
        self.since = time.monotonic()
        return answer

    def data_received(self, data: bytes) -> None:
        """Something of an answer. What comes unasked ends the connection."""
        if self._answered is None or self._answered.done():
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(str(error)))
            self.abort()

    def _fail(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
            self._answered.exception()  # whoever waited may have given up: nothing is to be said of it then

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        self._answer.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        """A piece of its body."""
        self._answer.body += body[: _BODY_BYTES - len(self._answer.body)]

    def on_message_complete(self) -> None:
        """It has ended; one that only says "go on" is none."""
        answer, self._answer = self._answer, Answer()
        answer.status = self._parser.get_status_code()
        answer.keeps = self._parser.should_keep_alive()  # the parser forgets it with what comes next
        if answer.status < 200:
            return
        if self._answered is None or self._answered.done():
            self.abort()
            return
        self._answered.set_result(answer)
        self.resume_writing()
