"""What is served ahead of the framework: its routing, its reading of parameters and its layers would take longer than the
handler itself.
"""

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from instafeed.api.errors import from_error
from instafeed.errors import InstafeedError

Serve = Callable[[Request, Send], Awaitable[None]]
"""Answers a request; what it raises of ours is answered for it."""

Look = Callable[[Scope], Serve | None]
"""Looks at a request's parameters; None leaves a request to the framework that is not quite ordinary."""


class Ahead:
    """Serves some methods and paths itself. Their routes in the framework do the same; they describe it, and take the rest."""

    def __init__(self, app: ASGIApp, looks: Mapping[tuple[str, str], Look]) -> None:
        """Stand before `app`; `looks` is by method and path."""
        self._app = app
        self._looks = looks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        look = self._looks.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        serve = look(scope) if look else None
        if serve is None:
            await self._app(scope, receive, send)
            return
        scope["state"]["route"] = scope["path"]
        request = Request(scope, receive)
        try:
            await serve(request, send)
        except InstafeedError as error:
            await from_error(request, error)(scope, receive, send)
