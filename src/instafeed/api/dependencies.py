"""What handlers ask for: the resources, who is there, which page."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Query, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BeforeValidator, Field

from instafeed import cursors, sessions
from instafeed.api import limits
from instafeed.errors import Unauthenticated
from instafeed.ids import MAX_ID
from instafeed.models import Viewer
from instafeed.resources import Resources
from instafeed.storage.rate_limiter import Policy

bearer = HTTPBearer(auto_error=False, scheme_name="bearer", description="The token of a log-in.")


def resources(request: Request) -> Resources:
    """What the process holds."""
    return cast("Resources", request.state.resources)


async def _resources(request: Request) -> Resources:
    # Dependencies are coroutines even where they await nothing: the framework runs others in threads.
    return resources(request)


Res = Annotated[Resources, Depends(_resources)]


async def _authenticate(request: Request, res: Resources) -> Viewer:
    given = request.headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    try:
        if scheme.lower() != "bearer":
            raise Unauthenticated
        viewer = await sessions.authenticate(res, token.strip())
    except Unauthenticated:
        await limits.count(request, res, limits.ANONYMOUS, limits.client_address(request, res.settings.trusted_proxies))
        raise
    request.scope["state"]["account"] = str(viewer.account_id)
    return viewer


class _Authenticated:
    """Asks for a valid token and counts the request under a policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def __call__(self, request: Request, res: Res, _: Annotated[object, Depends(bearer)]) -> Viewer:
        viewer = await _authenticate(request, res)
        await limits.count(request, res, self._policy, str(viewer.account_id))
        return viewer


Reader = Annotated[Viewer, Depends(_Authenticated(limits.READ))]
"""Who reads."""
Writer = Annotated[Viewer, Depends(_Authenticated(limits.WRITE))]
"""Who changes something."""
Uploader = Annotated[Viewer, Depends(_Authenticated(limits.UPLOAD))]
"""Who sends a photo."""


def _number(value: object) -> object:
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 4):
            raise ValueError("is not a number")
        return int(value)
    return value


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a list is asked for."""

    scope: str
    below: int
    limit: int
    key: bytes

    def next_cursor(self, request: Request, response: Response, position: int | None) -> str | None:
        """The cursor of the page after this one, which goes into the `Link` header too."""
        if position is None:
            return None
        cursor = cursors.encode(self.key, self.scope, position)
        response.headers["Link"] = f'<{request.url.path}?limit={self.limit}&cursor={cursor}>; rel="next"'
        return cursor


async def page_request(
    request: Request,
    res: Res,
    viewer: Reader,
    limit: Annotated[
        int, Field(ge=1, le=100), BeforeValidator(_number), Query(description="How many items, at most.")
    ] = 30,
    cursor: Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before.")] = None,
) -> PageRequest:
    """The page; its cursor is bound to the list and to the viewer."""
    key = res.settings.secret_key.get_secret_value().encode()
    scope = f"{viewer.account_id} {request.url.path}"
    below = MAX_ID if cursor is None else cursors.decode(key, scope, cursor)
    return PageRequest(scope, below, limit, key)


Page = Annotated[PageRequest, Depends(page_request)]
