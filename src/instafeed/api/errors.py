"""Errors as HTTP says them: one table of statuses, one form of body (`application/problem+json`, RFC 9457)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from instafeed import errors
from instafeed.api import schemas
from instafeed.errors import FieldError, InstafeedError

STATUSES: dict[type[InstafeedError], int] = {
    errors.MalformedBody: 400,
    errors.MediaIncomplete: 400,
    errors.DigestMismatch: 400,
    errors.Unauthenticated: 401,
    errors.WrongCredentials: 401,
    errors.WrongPassword: 403,
    errors.NotFound: 404,
    errors.BodyTooSlow: 408,
    errors.UploadTooSlow: 408,
    errors.UsernameTaken: 409,
    errors.EmailTaken: 409,
    errors.Conflict: 409,
    errors.IdempotencyConflict: 409,
    errors.TooManyUploads: 409,
    errors.TooManyTags: 409,
    errors.BodyTooLarge: 413,
    errors.MediaTooLarge: 413,
    errors.MediaUnsupported: 415,
    errors.Invalid: 422,
    errors.MediaUnusable: 422,
    errors.TokenUnusable: 422,
    errors.IdempotencyMismatch: 422,
    errors.RateLimited: 429,
    errors.Unavailable: 503,
    errors.RedisAway: 503,
}

# What the framework refuses before any of our code runs: a slug and a title.
FRAMEWORK = {
    400: ("bad-request", "The request cannot be read"),
    404: ("not-found", errors.NotFound.title),
    405: ("method-not-allowed", "The path does not take this method"),
    408: ("headers-too-slow", "The headers took too long"),
    413: (errors.BodyTooLarge.slug, errors.BodyTooLarge.title),
    431: ("headers-too-large", "The headers are too large"),
}
_MOST_FIELDS = 100
FOREIGN_HOST = ("foreign-host", "The request is for another host")
INTERNAL = (InstafeedError.slug, InstafeedError.title)


def problem(
    request: Request,
    status: int,
    slug: str,
    title: str,
    detail: str,
    *,
    fields: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as a response."""
    body = schemas.Problem(
        type=f"/problems/{slug}",
        title=title,
        status=status,
        detail=detail,
        request_id=request.scope["state"]["request_id"],
        errors=[schemas.ProblemField(pointer=field.pointer, detail=field.detail) for field in fields],
    )
    return Response(body.model_dump_json(), status, headers=dict(headers or {}), media_type="application/problem+json")


def from_error(request: Request, error: InstafeedError) -> Response:
    """The response to an error of the domain."""
    status = STATUSES[type(error)]
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 408:
        # The rest may never come. After other errors it is passed over: closing while a client sends would take the
        # answer away from it.
        headers["Connection"] = "close"
    return problem(request, status, error.slug, error.title, error.detail, fields=error.errors, headers=headers)


def internal(request: Request) -> Response:
    """The response to an error that nobody foresaw: it says nothing of the cause."""
    return problem(request, 500, *INTERNAL, "The error is logged under the request id.")


def foreign_host(request: Request) -> Response:
    """The response to a request for a host that is not ours."""
    return problem(request, 400, *FOREIGN_HOST, "This host is not served here.")


def install(app: FastAPI) -> None:
    """Answer every error as a problem."""

    async def domain(request: Request, error: Exception) -> Response:
        assert isinstance(error, InstafeedError)
        return from_error(request, error)

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        fields = tuple(FieldError(_pointer(item["loc"]), _detail(item)) for item in error.errors()[:_MOST_FIELDS])
        return from_error(request, errors.Invalid(errors=fields))

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        slug, title = FRAMEWORK.get(error.status_code, FRAMEWORK[400])
        detail = {
            404: errors.NotFound().detail,
            405: f"{request.method} is not for this path.",
        }.get(error.status_code, title + ".")
        # The framework names the methods of one route only.
        headers = {"Allow": _methods(request)} if error.status_code == 405 else error.headers
        return problem(request, error.status_code, slug, title, detail, headers=headers)

    async def gone(request: Request, error: Exception) -> Response:
        # Nobody reads this; the connection is closed.
        return problem(request, 400, errors.MalformedBody.slug, errors.MalformedBody.title, "The body broke off.")

    async def unforeseen(request: Request, error: Exception) -> Response:
        # The framework raises the error once more, for what surrounds every request to report.
        return internal(request)

    app.add_exception_handler(InstafeedError, domain)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(ClientDisconnect, gone)
    app.add_exception_handler(Exception, unforeseen)


def _methods(request: Request) -> str:
    """The methods that the path takes."""
    found: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.path_regex.match(request.scope["path"]):
            found |= route.methods or set()
    return ", ".join(sorted(found))


def body_pointer(parts: Iterable[str | int]) -> str:
    """A JSON pointer into the body (RFC 6901); of long names as much as tells them apart."""
    return "".join(f"/{str(part)[:100].replace('~', '~0').replace('/', '~1')}" for part in parts)


def _pointer(location: Sequence[str | int]) -> str:
    """A JSON pointer for what is in the body, the plain name for a parameter."""
    return body_pointer(location[1:]) if location[0] == "body" else str(location[-1])


def _detail(item: Mapping[str, Any]) -> str:
    """What is wrong, without what was sent."""
    text = str(item["msg"]).removeprefix("Value error, ")
    return f"{text[:1].upper()}{text[1:]}."
