"""How HTTP comes in: uvicorn, with what comes before a body bounded, and an answer of ours to what is no HTTP."""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from starlette.types import ASGIApp
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from instafeed.api.errors import FRAMEWORK, problem

_MAX_HEAD_BYTES = 64 * 1024
_SMALL_BODY_BYTES = 256 * 1024
_HEAD_SECONDS = 15.0
_LINGER_SECONDS = 2.0
_PASS_OVER_SECONDS = 30.0
_DRAIN_SECONDS = 1.0
_STOP_SECONDS = 20


def configure(app: ASGIApp, **options: Any) -> uvicorn.Config:
    """How the API is served, by a program and in tests; `options` are uvicorn's."""
    return uvicorn.Config(
        app,
        http=Http,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # Whom a request comes from is decided in `limits`.
        proxy_headers=False,
        # Longer than a client or a proxy keeps an idle connection: whoever closes first may cut a request off.
        timeout_keep_alive=75,
        **options,
    )


class Server(uvicorn.Server):
    """The API's program, which stops without a request that fails, behind a proxy that tries a refused one elsewhere.

    New connections are refused from the moment at which the last is taken in. On those that are there requests are answered
    for 1 s more and the client is told that each is the last; only then are idle ones closed, for a close that meets a request
    on its way is one that a proxy may not repeat. What still runs has 20 s.
    """

    def __init__(self, app: FastAPI, **options: Any) -> None:
        self._app = app
        super().__init__(configure(app, timeout_graceful_shutdown=_STOP_SECONDS, **options))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop soon. Open event streams would hold that up until its time limit: they end now."""
        if hub := getattr(self._app.state, "hub", None):
            hub.close()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse, drain, close."""
        await self._refuse_new()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        if self.server_state.connections:
            await asyncio.sleep(_DRAIN_SECONDS)
        await super().shutdown(sockets)

    async def _refuse_new(self) -> None:
        # The system has completed connections that nobody has taken in yet, and would reset them with their requests.
        queues = [socket.socket(fileno=os.dup(one.fileno())) for server in self.servers for one in server.sockets]
        for server in self.servers:
            server.close()
        waiting = [connection for queue in queues for connection in _rest_of(queue)]
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> "Http":
        return Http(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)


def _rest_of(queue: socket.socket) -> Iterator[socket.socket]:
    with queue, contextlib.suppress(OSError):  # none is left, or no descriptor for it
        queue.setblocking(False)
        while True:
            yield queue.accept()[0]


class Http(HttpToolsProtocol):
    """One connection."""

    _in_head = False
    _in_body = False
    _head_bytes = 0
    _refused = False
    _slow: asyncio.TimerHandle | None = None
    _closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait no longer for a first request than for another one."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is to come any more."""
        self._head_ended()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; give up on a request whose headers do not end, or not soon."""
        if self._refused:
            return
        went_on = self._in_head
        super().data_received(data)
        # The piece in which a request begins is not counted: it is bounded, and may hold the end of another.
        if went_on and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _MAX_HEAD_BYTES:
                self._refuse(431)
        if self._in_head and self._slow is None and not self._refused:
            self._slow = self.loop.call_later(_HEAD_SECONDS, self._refuse, 408)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["state"]["connection"] = self
        self._in_head = True
        self._head_bytes = 0

    def _head_ended(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    @property
    def is_closing(self) -> bool:
        """Whether the client is gone, or what it sent was refused as no request."""
        return bool(self.transport.is_closing())

    @property
    def has_piece(self) -> bool:
        """Whether there is something of a request's body, or its end, that has not been received."""
        return self.cycle is not None and self.cycle.message_event.is_set()

    def abort(self) -> None:
        """Cut the connection off: closing would wait for a client that takes nothing."""
        self.transport.abort()

    def write_now(self, body: bytes) -> bool:
        """Write a piece of a chunked answer that goes on, without a task for it; False if the client does not take it now."""
        cycle = self.cycle
        if cycle is None or cycle.disconnected or cycle.response_complete or self.flow.write_paused:
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def on_headers_complete(self) -> None:
        """Its headers are there."""
        self._in_head = False
        self._head_ended()
        self._in_body = True
        super().on_headers_complete()
        if self.cycle is not None:
            self.cycle.transport = _HeadWithBody(self.cycle)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """A piece of its body. One that nothing waits before is kept as it is: each byte of a photo was copied twice."""
        cycle: Any = self.cycle
        if cycle.response_complete:
            return
        if not cycle.body:
            cycle.body = body
        else:
            if isinstance(cycle.body, bytes):
                cycle.body = bytearray(cycle.body)  # for many small ones: it grows in place
            cycle.body += body
        # To stop reading and go on takes longer than to read the rest of a small photo.
        if len(cycle.body) > HIGH_WATER_LIMIT and not self._is_small():
            self.flow.pause_reading()
        cycle.message_event.set()

    def _is_small(self) -> bool:
        length = next((value for name, value in self.headers if name == b"content-length"), b"")
        return length.isdigit() and int(length) <= _SMALL_BODY_BYTES

    def on_message_complete(self) -> None:
        """Its body has ended."""
        self._in_body = False
        if self._closing:
            self._closing.cancel()
        super().on_message_complete()
        if not self.pipeline:
            # Reading stopped if much of the body came at once. Nothing of it can come any more, but the client's end can.
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """It is answered. If its body has not ended, the rest is passed over, but not for ever."""
        super().on_response_complete()
        if self._in_body and self.cycle is not None and self.cycle.response_complete:
            self._closing = self.loop.call_later(_PASS_OVER_SECONDS, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400)

    def _refuse(self, status: int) -> None:
        self._refused = True
        self._head_ended()
        if self.cycle is not None and not self.cycle.response_complete:
            # It comes after a request that is being answered: nothing may be said in between.
            self.transport.close()
            return
        request_id = secrets.token_hex(16)
        answer = problem(
            Request({"type": "http", "state": {"request_id": request_id}}),
            status,
            *FRAMEWORK[status],
            f"{FRAMEWORK[status][1]}.",
            headers={"X-Request-Id": request_id, "Cache-Control": "no-store", "Connection": "close"},
        )
        head = b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + bytes(answer.body))
        self.transport.write_eof()
        # What the client still sends is read for a while and dropped: closing would take the answer away from it.
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)


class _HeadWithBody:
    """What an exchange does with its connection; the head of an answer goes out with the beginning of its body.

    So a process that is killed leaves no short answer begun: of what it has nothing of, a proxy may ask another process.
    """

    def __init__(self, exchange: RequestResponseCycle) -> None:
        self._exchange = exchange
        self._transport = exchange.transport
        self._begun = False
        self._head = b""
        self.close = self._transport.close
        self.is_closing = self._transport.is_closing

    def write(self, data: bytes) -> None:
        """Write this; a head is kept if a body of known length comes next."""
        if self._head:
            self._transport.writelines((self._head, data))
            self._head = b""
        elif self._is_head_of_body():
            self._head = data
        else:
            self._transport.write(data)

    def _is_head_of_body(self) -> bool:
        exchange = self._exchange
        if self._begun or not exchange.response_started:  # "100 Continue" comes before
            return False
        self._begun = True
        return exchange.expected_content_length > 0 and exchange.scope["method"] != "HEAD"
