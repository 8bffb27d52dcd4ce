"""What handlers ask for: the resources, who is there, which page."""

from dataclasses import dataclass
from typing import Annotated, Self, cast
from urllib.parse import quote

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
    return cast("Resources", request.scope["state"]["resources"])


async def _resources(request: Request) -> Resources:
    # Dependencies are coroutines even where they await nothing: the framework runs others in threads.
    return resources(request)


Res = Annotated[Resources, Depends(_resources)]


def bearer_token(request: Request) -> str:
    """The token that a request carries.

    Raises:
        Unauthenticated: none, several, or of another scheme.
    """
    given = [value for name, value in request.scope["headers"] if name == b"authorization"]
    scheme, _, token = given[0].decode("latin-1").partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer":
        raise Unauthenticated
    return token.strip()


async def count_stranger(request: Request, res: Resources) -> None:
    """Count a request of whom we do not know, by where it comes from."""
    await limits.count(request, res, limits.ANONYMOUS, limits.client_address(request, res.settings.trusted_proxies))


async def authenticate(request: Request, res: Resources) -> Viewer:
    """Who sends a request.

    Raises:
        Unauthenticated: it has no valid token; it was counted as a stranger's.
    """
    try:
        viewer = await sessions.authenticate(res, bearer_token(request))
    except Unauthenticated:
        await count_stranger(request, res)
        raise
    request.scope["state"]["account"] = str(viewer.account_id)
    return viewer


async def admit(request: Request, res: Resources, policy: Policy) -> Viewer:
    """Who sends a request, which is counted under a policy.

    Raises:
        Unauthenticated: as `authenticate`.
        RateLimited: it was one request too many.
    """
    viewer = await authenticate(request, res)
    await limits.count(request, res, policy, str(viewer.account_id))
    return viewer


class _Authenticated:
    """Asks for a valid token and counts the request under a policy."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def __call__(self, request: Request, res: Res, _: Annotated[object, Depends(bearer)]) -> Viewer:
        return await admit(request, res, self._policy)


Reader = Annotated[Viewer, Depends(_Authenticated(limits.READ))]
"""Who reads."""
Writer = Annotated[Viewer, Depends(_Authenticated(limits.WRITE))]
"""Who changes something."""
Uploader = Annotated[Viewer, Depends(_Authenticated(limits.UPLOAD))]
"""Who sends a photo."""
PartUploader = Annotated[Viewer, Depends(_Authenticated(limits.UPLOAD_PART))]
"""Who sends a part of a photo."""
Reporter = Annotated[Viewer, Depends(_Authenticated(limits.REPORT))]
"""Who reports something."""


def number(value: object) -> object:
    """Up to four decimal digits as a number; for parameters, of which the framework's own reading takes more."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 4):
            raise ValueError("is not a number")
        return int(value)
    return value


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page of a list is asked for: its cursor is bound to the list and to the viewer."""

    scope: str
    below: int
    limit: int
    key: bytes

    @classmethod
    def of(cls, res: Resources, account_id: int, path: str, *, limit: int, cursor: str | None) -> Self:
        """The page that begins at the cursor, or the first one.

        Raises:
            Invalid: not a cursor of this list and viewer.
        """
        key = res.settings.secret_key.get_secret_value().encode()
        scope = f"{account_id} {path}"
        return cls(scope, MAX_ID if cursor is None else cursors.decode(key, scope, cursor), limit, key)

    @property
    def above(self) -> int:
        """Where a list goes on that is oldest first: its positions are lower ends, and it begins at 0."""
        return 0 if self.below == MAX_ID else self.below

    def link(self, position: int | None) -> tuple[str | None, dict[str, str]]:
        """The cursor of the page after this one, and the headers that name it too."""
        if position is None:
            return None, {}
        cursor = cursors.encode(self.key, self.scope, position)
        path = quote(self.scope.partition(" ")[2])
        return cursor, {"Link": f'<{path}?limit={self.limit}&cursor={cursor}>; rel="next"'}

    def next_cursor(self, response: Response, position: int | None) -> str | None:
        """The cursor of the page after this one, which goes into the response's headers too."""
        cursor, headers = self.link(position)
        response.headers.update(headers)
        return cursor


DEFAULT_LIMIT = 30
MAX_LIMIT = 100
Limit = Annotated[
    int, Field(ge=1, le=MAX_LIMIT), BeforeValidator(number), Query(description="How many items, at most.")
]
Cursor = Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before.")]


async def page_request(
    request: Request, res: Res, viewer: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> PageRequest:
    """The page."""
    return PageRequest.of(res, viewer.account_id, request.url.path, limit=limit, cursor=cursor)


Page = Annotated[PageRequest, Depends(page_request)]
