"""The ASGI application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, TypedDict

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from instafeed import tasks
from instafeed.api import (
    accounts,
    activity,
    admin,
    avatars,
    blocks,
    comments,
    credentials,
    devices,
    docs,
    errors,
    events,
    explore,
    feeds,
    follow_requests,
    follows,
    leaving,
    likes,
    media,
    mutes,
    openapi,
    operations,
    posts,
    reports,
    saves,
    search,
    sessions,
    tags,
    uploads,
)
from instafeed.api.ahead import Ahead
from instafeed.api.context import RequestContext
from instafeed.checks import Watch
from instafeed.events import EventHub
from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from instafeed.version import VERSION


class _State(TypedDict):
    resources: Resources
    hub: EventHub
    watch: Watch


class Api(FastAPI):
    """The framework's application, within what surrounds every request and behind what is served ahead of it."""

    def __init__(self, settings: Settings, **options: Any) -> None:
        super().__init__(**options)
        ahead = Ahead(
            super().__call__,
            {("GET", feeds.PATH): feeds.ahead, ("POST", media.PATH): media.ahead},
        )
        self._outermost = RequestContext(ahead, allowed_hosts=settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._outermost(scope, receive, send)


def create_app(settings: Settings) -> FastAPI:
    """The API with these settings. Nothing is opened before its lifespan begins."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[_State]:
        async with open_resources(settings) as res:
            hub, watch = EventHub(res), Watch(res)
            running = asyncio.create_task(hub.run())
            app.state.hub = hub
            try:
                yield {"resources": res, "hub": hub, "watch": watch}
            finally:
                hub.close()
                await tasks.end(running)
                await watch.close()

    app = Api(
        settings,
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
    graph = (follows, follow_requests, blocks, mutes)
    reactions = (likes, saves, comments)
    for part in (
        *(accounts, avatars, credentials, leaving, sessions),
        *graph,
        *(uploads, media, posts),
        *reactions,
        *(feeds, tags, search, explore, events, activity, devices),
        *(reports, admin, operations, docs),
    ):
        app.include_router(part.router)
    errors.install(app)
    openapi.install(app)
    return app
