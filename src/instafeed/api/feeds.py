"""The home feed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, cast

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from instafeed import feeds
from instafeed.api import present, schemas
from instafeed.api.dependencies import Page, Reader, Res
from instafeed.errors import InstafeedError
from instafeed.events import EventHub
from instafeed.models import Event

router = APIRouter(tags=["feeds"])

_KEEP_ALIVE_SECONDS = 15
_RETRY_MILLISECONDS = 1000


@router.get("/v1/feed", summary="My home feed")
async def get_feed(request: Request, response: Response, res: Res, viewer: Reader, page: Page) -> schemas.PostList:
    """The posts of the accounts that you follow and your own, newest first, to the very end."""
    found = await feeds.read_home(res, viewer, below=page.below, limit=page.limit)
    return schemas.PostList(
        items=[present.post(res, post) for post in found.items],
        next_cursor=page.next_cursor(request, response, found.next),
    )


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
) -> StreamingResponse:
    """Tells of new and deleted posts within a moment of their reaching your feed, until the log-in ends."""
    hub = cast("EventHub", request.state.hub)
    events = hub.stream(viewer, last_event_id)
    first = await anext(events)
    return StreamingResponse(
        _lines(first, events),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no", "Cache-Control": "no-cache"},
    )


async def _lines(
    first: tuple[str, Event | None], events: AsyncIterator[tuple[str, Event | None]]
) -> AsyncIterator[str]:
    yield f"retry: {_RETRY_MILLISECONDS}\n{_line(*first)}"
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=_KEEP_ALIVE_SECONDS)
            if not done:
                yield ":\n\n"
                continue
            try:
                item = coming.result()
            except InstafeedError:
                return  # the client comes back, and is told again from where it was
            if item is None:
                return
            yield _line(*item)
            coming = asyncio.ensure_future(anext(events, None))
    finally:
        coming.cancel()


def _line(id_: str, event: Event | None) -> str:
    if event is None:
        return f"id: {id_}\n\n"
    return f"id: {id_}\nevent: {event.type.value}\ndata: {present.event(event).model_dump_json()}\n\n"
