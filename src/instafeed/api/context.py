"""What surrounds every request: its id, its line in the log, its metrics, and an answer to errors that nobody foresaw."""

import functools
import itertools
import re
import secrets
import time
from collections.abc import Sequence

import sentry_sdk
import structlog
from fastapi import Request
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from instafeed import sentry, telemetry
from instafeed.api.errors import foreign_host, internal

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,128}")
_PORT = re.compile(r":[0-9]*$")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_ALWAYS = ((b"x-content-type-options", b"nosniff"),)
_NOT_CACHED = (b"cache-control", b"no-store")

# Ids of requests: unlike those of all other processes, and cheaper than a random number each.
_PROCESS = secrets.token_hex(8)
_numbers = itertools.count()

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
        self._any_host = "*" in self._allowed_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = _request_id(scope)
        # Each request is a task of its own: what is bound here ends with it.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Written as they are: the framework's mutable headers search all of them for each.
                headers = [(b"x-request-id", request_id.encode()), *_ALWAYS, *message.get("headers", ())]
                headers += state.get("headers", ())
                for name, _ in headers:
                    if name == b"cache-control":
                        break
                else:
                    headers.append(_NOT_CACHED)
                message["headers"] = headers
            await send(message)

        try:
            if self._any_host or self._is_ours(_header(scope, b"host")):
                await self._app(scope, receive, send_on)
                if (lasting := state.pop(LASTING, None)) is not None:
                    await lasting(receive, send)
            else:
                await foreign_host(Request(scope))(scope, receive, send_on)
        except Exception as error:
            structlog.contextvars.bind_contextvars(route=_route(scope), account=state.get("account"))
            sentry_sdk.capture_exception(error)
            _log.error("request failed", exc_info=error)
            if not status:
                await internal(Request(scope))(scope, receive, send_on)
        finally:
            _record(scope, status, time.perf_counter() - began)

    def _is_ours(self, host: str) -> bool:
        return _PORT.sub("", host).lower() in self._allowed_hosts


def _header(scope: Scope, wanted: bytes) -> str:
    """A header's first value; empty if there is none."""
    for name, value in scope["headers"]:
        if name == wanted:
            return str(value, "latin-1")
    return ""


def _request_id(scope: Scope) -> str:
    given = _header(scope, b"x-request-id")
    return given if given and _REQUEST_ID.fullmatch(given) else f"{_PROCESS}{next(_numbers):016x}"


def _record(scope: Scope, status: int, seconds: float) -> None:
    state = scope["state"]
    route = _route(scope)
    method = scope["method"] if scope["method"] in _METHODS else "other"
    requests, durations = _metrics(method, route, status)
    requests.inc()
    # By it the request's line in the log is found. An exemplar has 128 characters, its name included.
    durations.observe(seconds, {"request_id": state["request_id"][:118]})
    _log.info(
        "request", method=method, route=route, status=status, seconds=round(seconds, 4), account=state.get("account")
    )
    sentry.note_request(f"{method} {route}", status, seconds)


def _route(scope: Scope) -> str:
    """The template, never the path: a label must have few values."""
    route: str = scope["state"].get("route") or getattr(scope.get("route"), "path", "none")
    return route


@functools.lru_cache(maxsize=4096)
def _metrics(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return (
        telemetry.REQUESTS.labels(method, route, str(status)),
        telemetry.REQUEST_SECONDS.labels(method, route),
    )
