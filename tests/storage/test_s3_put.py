"""PUT requests as a server sees them that does what S3, and what is between it and us, sometimes does."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from instafeed.storage import s3_put
from instafeed.storage.s3_put import Answer, Putter
from tests.client import eventually

PIECE = b"0123456789abcdef" * 4096
STORED = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 0\r\n\r\n'
REFUSED = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"


class Server:
    """Reads requests and answers them as told."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.closes = False
        """After each answer."""
        self.reads = True
        self.patience: int | None = None
        """How much of a body it reads before it answers; None for all."""
        self.came: list[list[bytes]] = []
        """What has come, by connection: heads and bodies in turn."""
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        came: list[bytes] = []
        self.came.append(came)
        self._writers.append(writer)
        while self.reads:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                came.append(head)
                size = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
                came.append(await reader.readexactly(size if self.patience is None else self.patience))
            except (OSError, asyncio.IncompleteReadError):
                break
            writer.write(self.answer)
            if self.closes:
                break
        if self.reads:
            writer.close()

    async def hang_up(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()
            with suppress(OSError):  # reset already
                await writer.wait_closed()

    def __len__(self) -> int:
        """How many connections there were."""
        return len(self.came)


@asynccontextmanager
async def serving(answer: bytes = STORED, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Server, Putter]]:
    """A server, and who sends to it."""
    server = Server(answer)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    putter = Putter(f"{'https' if tls else 'http'}://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    try:
        yield server, putter
    finally:
        putter.close()
        listener.close()
        await server.hang_up()


async def pieces(count: int, then: Callable[[], Awaitable[None]] | None = None) -> AsyncIterator[bytes]:
    """A body, and what happens before it ends."""
    for _ in range(count):
        yield PIECE
    if then:
        await then()


async def put(putter: Putter, count: int = 3) -> Answer:
    """Send a body."""
    return await putter.put("/b/k?a=b", {"Content-Type": "image/jpeg"}, pieces(count), size=count * len(PIECE))


async def test_a_body_arrives_as_it_is_and_the_connection_is_kept() -> None:
    async with serving() as (server, putter):
        for count in (3, 0, 1):
            answer = await put(putter, count)
            assert (answer.status, answer.headers[b"etag"], answer.body) == (200, b'"1"', b"")
    [[head, first, _, second, _, third]] = server.came
    request, *headers = head.decode().split("\r\n")
    assert request == "PUT /b/k?a=b HTTP/1.1"
    port = headers[0].rpartition(":")[2]
    assert headers == [f"Host: 127.0.0.1:{port}", "Content-Length: 196608", "Content-Type: image/jpeg", "", ""]
    assert [first, second, third] == [3 * PIECE, b"", PIECE]


async def test_over_tls(tls: ssl.SSLContext, trusted: None) -> None:
    async with serving(tls=tls) as (server, putter):
        for _ in range(2):
            assert (await put(putter, 40)).status == 200
    assert [len(piece) for piece in server.came[0][1::2]] == [40 * len(PIECE)] * 2


async def test_a_server_that_nobody_vouches_for_is_told_nothing(tls: ssl.SSLContext) -> None:
    async with serving(tls=tls) as (server, putter):
        with pytest.raises(ssl.SSLCertVerificationError):
            await put(putter)
    assert not any(server.came)


async def test_bodies_at_once_have_a_connection_each() -> None:
    async with serving() as (server, putter):
        for _ in range(2):
            assert [answer.status for answer in await asyncio.gather(*(put(putter) for _ in range(5)))] == [200] * 5
    assert len(server) == 5


async def test_no_more_is_sent_than_was_said() -> None:
    async with serving() as (server, putter):
        for _ in range(2):
            assert (await putter.put("/k", {}, pieces(3), size=len(PIECE) + 10)).status == 200
    assert server.came[0][1::2] == [PIECE + PIECE[:10]] * 2


async def test_a_server_that_ends_a_connection_gets_a_new_one() -> None:
    async with serving() as (server, putter):
        await put(putter)
        await server.hang_up()
        await asyncio.sleep(0.1)  # the end has to come, or the next one meets it
        assert (await put(putter)).status == 200
        server.answer = STORED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        await put(putter)
        await put(putter)
    assert len(server) == 3


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_connection_that_ends_before_the_body_has_begun_is_told(loop: str) -> None:
    """In uvloop, too, which does not let a closed one be written to."""

    async def end_early() -> None:
        async with serving() as (server, putter):
            await put(putter)
            [connection] = putter._idle

            async def lost() -> bool:
                return connection._answered is not None and connection._answered.done()

            async def late() -> AsyncIterator[bytes]:
                await server.hang_up()
                await eventually(lost)
                yield PIECE

            with pytest.raises(ConnectionError):
                await putter.put("/b/k", {}, late(), size=len(PIECE))

    factory = asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(end_early())


async def test_what_was_idle_for_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (server, putter):
        await put(putter)
        monkeypatch.setattr(s3_put, "_IDLE_SECONDS", -1)
        await put(putter)
    assert len(server) == 2


class Endless:
    """A body that goes on until nobody asks for more."""

    def __init__(self) -> None:
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.sent += 1
            yield PIECE
            await asyncio.sleep(0.001)


async def test_an_early_answer_ends_the_body() -> None:
    async with serving(REFUSED) as (server, putter):
        server.patience, server.closes = 10, True
        body = Endless()
        answer = await putter.put("/k", {}, aiter(body), size=1 << 40)
        assert (answer.status, answer.body) == (403, b"no")
        assert body.sent < 10_000
        server.patience, server.answer = None, STORED
        assert (await put(putter)).status == 200
    assert len(server) == 2, "the rest of the body would have been the next request"


async def test_what_is_stored_before_its_end_is_not_stored() -> None:
    async with serving() as (server, putter):
        server.patience = 10
        with pytest.raises(ConnectionError, match="end"):
            await putter.put("/k", {}, aiter(Endless()), size=1 << 40)


async def test_go_on_is_no_answer() -> None:
    async with serving(b"HTTP/1.1 100 Continue\r\n\r\n" + STORED) as (server, putter):
        for _ in range(2):
            assert (await put(putter)).status == 200
    assert len(server) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nETag: ",
        b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 5\r\n\r\n<Err',
        b'HTTP/1.1 200 OK\r\nETag: "1"\r\n\r\n',
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ],
)
async def test_half_an_answer_is_none(answer: bytes) -> None:
    async with serving(answer) as (server, putter):
        server.closes = True
        for _ in range(2):
            with pytest.raises(OSError):  # noqa: PT011 - of every kind
                await put(putter)
    assert len(server) == 2


async def test_an_error_in_a_200_is_told() -> None:
    body = b"<Error>" + b"x" * 100_000
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)) as (_, putter):
        answer = await put(putter)
        assert answer.body == body[:2000]


async def test_what_comes_unasked_ends_the_connection() -> None:
    async with serving(STORED + REFUSED) as (server, putter):
        for _ in range(2):
            assert (await put(putter)).status == 200
            await asyncio.sleep(0.1)  # it may come later than the answer
    assert len(server) == 2


async def test_silence_and_a_server_that_takes_nothing_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_put, "ANSWER_SECONDS", 0.2)
    async with serving(b"") as (server, putter):
        with pytest.raises(TimeoutError):
            await put(putter)
        server.reads = False
        with pytest.raises(TimeoutError):
            await put(putter, 1000)


async def test_a_slow_body_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_put, "ANSWER_SECONDS", 1.0)

    async def slow() -> AsyncIterator[bytes]:
        for _ in range(2):
            yield PIECE
            await asyncio.sleep(1.2)

    async with serving() as (_, putter):
        assert (await putter.put("/k", {}, slow(), size=2 * len(PIECE))).status == 200


async def test_a_body_that_fails_is_not_stored() -> None:
    async def fail() -> None:
        raise LookupError

    async with serving() as (server, putter):
        with pytest.raises(LookupError):
            await putter.put("/k", {}, pieces(1, fail), size=2 * len(PIECE))
        with pytest.raises(EOFError):
            await putter.put("/k", {}, pieces(1), size=2 * len(PIECE))
        with pytest.raises(LookupError):
            await putter.put("/k", {}, pieces(0, fail), size=len(PIECE))

        async def all_came() -> bool:
            return len(server) == 3

        await eventually(all_came)
        assert (await put(putter)).status == 200
    assert [[len(piece) for piece in came[1:]] for came in server.came] == [[], [], [], [3 * len(PIECE)]]
    assert server.came[2] == [], "of a body that fails at once nothing is heard, not even its head"


async def test_a_cancelled_one_ends_its_connection() -> None:
    async with serving(b"") as (server, putter):
        task = asyncio.create_task(put(putter))

        async def has_come() -> bool:
            return any(len(came) == 2 for came in server.came)

        await eventually(has_come)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.answer = STORED
        assert (await put(putter)).status == 200
    assert len(server) == 2


async def test_where_nobody_listens() -> None:
    async with serving() as (_, putter):
        pass
    with pytest.raises(OSError):  # noqa: PT011 - of every kind
        await put(putter)
