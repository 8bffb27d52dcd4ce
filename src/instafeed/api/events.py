"""What happens in the home feed, as it happens."""

import functools
import random
from typing import Annotated, Literal, cast

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from instafeed.api import present
from instafeed.api.context import LASTING
from instafeed.api.dependencies import Reader
from instafeed.api.server import Http
from instafeed.events import Beginning, EventHub, Item, Signal, Stream
from instafeed.models import Event, Viewer

router = APIRouter(tags=["feeds"])

_HINT = b"retry: 1000\n"
"""After how many milliseconds a client comes back."""
_SPREAD_MILLISECONDS = 1000, 10_000
"""The same after an end: a process that stops ends thousands of streams at once, and they are not to return at once."""


@router.get(
    "/v1/feed/events",
    summary="What happens in my feed, as it happens",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events; the data of each is an Event.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def stream_feed_events(
    request: Request,
    viewer: Reader,
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            description="Where a connection broke off: nothing after it is left out.",
            max_length=100,
            examples=["1795341662123-0"],
        ),
    ] = None,
) -> Response:
    """Tells of new and deleted posts within a moment of their reaching your feed, until the log-in ends."""
    return _EventStream(cast("EventHub", request.state.hub), viewer, last_event_id)


class _EventStream(Response):
    """An answer that lasts until its stream or its client ends."""

    media_type = "text/event-stream"

    def __init__(self, hub: EventHub, viewer: Viewer, last_id: str | None) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"X-Accel-Buffering": "no", "Cache-Control": "no-cache"})
        self._hub = hub
        self._viewer = viewer
        self._last_id = last_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin it; what is wrong before its first byte is answered like any error."""
        stream = await self._hub.open(self._viewer, self._last_id)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            # What the next line says belongs to it: the first item.
            await send({"type": "http.response.body", "body": _HINT, "more_body": True})
        except BaseException:
            await self._hub.leave(stream)
            raise
        scope["state"][LASTING] = functools.partial(_go_on, self._hub, stream, scope["state"]["connection"])


async def _go_on(hub: EventHub, stream: Stream, connection: Http, receive: Receive, send: Send) -> None:
    async def write(item: Item) -> None:
        if item is Signal.END:
            hint = b"retry: %d\n\n" % random.randint(*_SPREAD_MILLISECONDS)  # noqa: S311 - no secret
            await send({"type": "http.response.body", "body": hint, "more_body": False})
        else:
            await send({"type": "http.response.body", "body": _text(item), "more_body": True})

    try:
        stream.start(write, lambda item: connection.write_now(_text(item)), connection.abort)
        # The end of the stream completes the response, which is a disconnect too.
        while (await receive())["type"] != "http.disconnect":
            pass
    finally:
        await hub.leave(stream)


@functools.lru_cache(maxsize=256)  # one event is the same for thousands of streams
def _text(item: Event | Beginning | Literal[Signal.ALIVE]) -> bytes:
    match item:
        case Beginning(id):
            return f"id: {id}\n\n".encode()
        case Event():
            data = present.event(item).model_dump_json()
            return f"id: {item.id}\nevent: {item.type.value}\ndata: {data}\n\n".encode()
        case Signal.ALIVE:
            return b":\n\n"
