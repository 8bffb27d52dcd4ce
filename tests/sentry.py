"""A server that takes what Sentry's clients send."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from sentry_sdk.envelope import Envelope


class Sentry:
    """What it was sent."""

    def __init__(self) -> None:
        self.dsn = ""
        self.taken: list[bytes] = []
        """Whole envelopes, unpacked."""

    async def take(self, request: web.Request) -> web.Response:
        """Take an envelope; what packs it is undone by the server."""
        self.taken.append(await request.read())
        return web.json_response({})

    def events(self, kind: str = "event") -> list[dict[str, Any]]:
        """Errors, or another kind of what envelopes carry."""
        items = [item for body in self.taken for item in Envelope.deserialize(body).items]
        return [item.payload.json for item in items if item.type == kind and item.payload.json is not None]

    def about(self, **tags: str) -> list[dict[str, Any]]:
        """Errors with these tags."""
        return [event for event in self.events() if tags.items() <= event["tags"].items()]


@asynccontextmanager
async def running_sentry() -> AsyncIterator[Sentry]:
    """A server on this machine, of project 1."""
    sentry = Sentry()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/api/1/envelope/", sentry.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sentry.dsn = f"http://publickey@127.0.0.1:{runner.addresses[0][1]}/1"
        yield sentry
    finally:
        await runner.cleanup()
