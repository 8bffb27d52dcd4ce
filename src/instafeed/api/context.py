"""What surrounds every request: its id, its line in the log, its metrics, and an answer to errors that nobody foresaw."""

import re
import secrets
import time
from collections.abc import Sequence
from typing import Any

import sentry_sdk
import structlog
from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from instafeed import telemetry
from instafeed.api.errors import foreign_host, internal

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
_PORT = re.compile(r":[0-9]*$")
_log = telemetry.logger()

LASTING = "lasting"
"""Where in `scope["state"]` a response that has begun leaves what is to go on with it, `(receive, send)`: of an answer that
lasts for hours, what the framework holds for a request is let go of first.
"""


class RequestContext:
    """The outermost middleware."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Sequence[str]) -> None:
        self._app = app
        self._allowed_hosts = frozenset(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        sent = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = sent
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = sent
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
                for name, value in scope["state"].get("headers", {}).items():
                    headers[name] = value
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=sent):
            try:
                if self._is_ours(Headers(scope=scope).get("host", "")):
                    await self._app(scope, receive, send_on)
                    if (lasting := scope["state"].pop(LASTING, None)) is not None:
                        await lasting(receive, send)
                else:
                    await foreign_host(Request(scope))(scope, receive, send_on)
            except Exception as error:
                sentry_sdk.capture_exception(error)
                _log.error("request failed", path=scope["path"], exc_info=error)
                if not status:
                    await internal(Request(scope))(scope, receive, send_on)
            finally:
                _record(scope, status, time.perf_counter() - began)

    def _is_ours(self, host: str) -> bool:
        return "*" in self._allowed_hosts or _PORT.sub("", host).lower() in self._allowed_hosts


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
    return secrets.token_hex(16)


def _record(scope: dict[str, Any] | Scope, status: int, seconds: float) -> None:
    # The template, never the path: a label must have few values.
    route = getattr(scope.get("route"), "path", "none")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    telemetry.REQUESTS.labels(method, route, str(status)).inc()
    telemetry.REQUEST_SECONDS.labels(method, route).observe(seconds)
    _log.info(
        "request",
        method=method,
        route=route,
        status=status,
        seconds=round(seconds, 4),
        account=scope["state"].get("account"),
    )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
