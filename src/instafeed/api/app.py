"""The ASGI application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypedDict

from fastapi import FastAPI

from instafeed import tasks
from instafeed.api import accounts, docs, errors, events, feeds, follows, media, openapi, operations, posts, sessions
from instafeed.api.context import RequestContext
from instafeed.events import EventHub
from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from instafeed.version import VERSION


class _State(TypedDict):
    resources: Resources
    hub: EventHub


def create_app(settings: Settings) -> FastAPI:
    """The API with these settings. Nothing is opened before its lifespan begins."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[_State]:
        async with open_resources(settings) as res:
            hub = EventHub(res)
            running = asyncio.create_task(hub.run())
            app.state.hub = hub
            try:
                yield {"resources": res, "hub": hub}
            finally:
                hub.close()
                await tasks.end(running)

    app = FastAPI(
        title="instafeed",
        version=VERSION,
        summary="A photo-sharing community: people post photos, the people who follow them see them at once.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
    )
    for part in (accounts, sessions, follows, media, posts, feeds, events, operations, docs):
        app.include_router(part.router)
    errors.install(app)
    openapi.install(app)
    app.add_middleware(RequestContext, allowed_hosts=settings.allowed_hosts)
    return app
