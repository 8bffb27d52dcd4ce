"""What clients' authors read in a browser: the documentation page, and what each problem means.

Everything is served from here, so that it works offline and asks no foreign host.
"""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles

from instafeed.api.problems import KINDS
from instafeed.errors import NotFound

router = APIRouter(include_in_schema=False)

_CACHED = {"Cache-Control": "public, max-age=3600"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_files = StaticFiles(directory=Path(__file__).parent / "static")


@router.get("/docs")
async def get_docs(request: Request) -> Response:
    """The documentation page."""
    page = await _files.get_response("docs.html", request.scope)
    page.headers.update(
        {"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"}
    )
    return page


@router.get("/docs/{path:path}")
async def get_docs_file(request: Request, path: str) -> Response:
    """What the documentation page is made of."""
    file = await _files.get_response(path, request.scope)
    file.headers.update(_CACHED)
    return file


@router.get("/problems/{slug}")
async def get_problem(slug: Annotated[str, PathParameter(max_length=100)]) -> PlainTextResponse:
    """What a problem's `type` means.

    Raises:
        NotFound: there is no such kind of problem.
    """
    kind = KINDS.get(slug)
    if kind is None:
        raise NotFound
    return PlainTextResponse(f"{kind.title} ({kind.status})\n\n{kind.meaning}\n", headers=_CACHED)
