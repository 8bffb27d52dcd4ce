"""The home feed."""

from functools import partial
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from starlette.types import Scope, Send

from instafeed import captions, feeds, models, sessions
from instafeed.api import limits, mentions, present, schemas
from instafeed.api.ahead import Serve
from instafeed.api.dependencies import (
    DEFAULT_LIMIT,
    MAX_LIMIT,
    Page,
    PageRequest,
    Reader,
    Res,
    bearer_token,
    count_stranger,
    resources,
)
from instafeed.errors import Invalid, Unauthenticated, Unavailable
from instafeed.resources import Resources

router = APIRouter(tags=["feeds"])

_Answer = tuple[bytes, list[tuple[bytes, bytes]]]
"""Body and headers of a page."""

PATH = "/v1/feed"
_CURSOR_CHARACTERS = 100


@router.get(PATH, summary="My home feed", response_model=schemas.PostList)
async def get_feed(res: Res, viewer: Reader, page: Page) -> Response:
    """The posts of the accounts that you follow and your own, newest first, to the very end."""
    found = await feeds.read_home(
        res, viewer, below=page.below, limit=page.limit, render=partial(mentions.post_json, res)
    )
    body, headers = await _answer(res, viewer, page, found)
    return Response(body, headers={name.decode(): value.decode() for name, value in headers})


def ahead(scope: Scope) -> Serve | None:
    """Asks Redis for the session, the rate limit and the page in two trips. None for a query that is not quite ordinary."""
    query = _query(scope["query_string"])
    return None if query is None else partial(_serve, query)


async def _serve(query: tuple[int, str | None], request: Request, send: Send) -> None:
    body, headers = await _get_feed(request, *query)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _query(query_string: bytes) -> tuple[int, str | None] | None:
    """Limit and cursor; None if there is anything else."""
    if not query_string:
        return DEFAULT_LIMIT, None
    fields = parse_qsl(query_string.decode("latin-1"), keep_blank_values=True)
    found = dict(fields)
    limit, cursor = found.pop("limit", str(DEFAULT_LIMIT)), found.pop("cursor", None)
    if found or len(fields) > 2 or not (limit.isascii() and limit.isdigit() and len(limit) <= 4):
        return None
    return (int(limit), cursor) if 1 <= int(limit) <= MAX_LIMIT and len(cursor or "") <= _CURSOR_CHARACTERS else None


async def _get_feed(request: Request, limit: int, cursor: str | None) -> _Answer:
    res = resources(request)
    page = look = refused = None
    try:
        claim = await sessions.begin_authenticate(res, bearer_token(request))
        try:
            page = PageRequest.of(res, claim.account_id, PATH, limit=limit, cursor=cursor)
            look = await feeds.begin_read(res, claim.account_id, below=page.below, limit=limit)
        except Invalid as error:
            refused = error
        viewer = await sessions.finish_authenticate(res, claim)
    except Unauthenticated:
        await count_stranger(request, res)
        raise
    request.scope["state"]["account"] = str(viewer.account_id)
    counted = await limits.begin(res, limits.READ, str(viewer.account_id))

    async def admit() -> None:
        nonlocal counted
        asked, counted = counted, None
        await limits.finish(request, res, asked)

    # Only what costs no SQL may begin before it is known whether the viewer has requests left.
    if page is None or look is None or not look.is_warm or cursor is not None:
        await admit()
    if page is None:
        assert refused is not None
        raise refused
    found = await feeds.read_home(
        res, viewer, below=page.below, limit=limit, render=partial(mentions.post_json, res), look=look, admit=admit
    )
    await admit()
    return await _answer(res, viewer, page, found)


async def _answer(res: Resources, viewer: models.Viewer, page: PageRequest, found: feeds.HomePage) -> _Answer:
    posts = await _with_mentions(res, viewer, [post.json for _, post in found.items])
    cursor, link = page.link(found.next)
    next_cursor = b"null" if cursor is None else b'"%b"' % cursor.encode()
    counts, counts_json = found.counts, present.counts_json
    marks = {id_: present.marks_json(of_post) for id_, of_post in found.marks.items()}
    unmarked = present.marks_json(models.NO_MARKS)
    parts: list[bytes] = []
    for (id_, _), sent in zip(found.items, posts, strict=True):
        parts += (sent, counts_json[counts[id_]], marks.get(id_, unmarked))
    body = b'{"items":[%b],"next_cursor":%b}' % (b"".join(parts)[:-1], next_cursor)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return body, headers + [(name.lower().encode(), value.encode()) for name, value in link.items()]


async def _with_mentions(res: Resources, viewer: models.Viewer, posts: list[bytes]) -> list[bytes]:
    """Cached posts as the viewer sees them; nobody is named where the database is away."""
    marked = mentions.marked(posts)
    if marked:
        try:
            accounts = await captions.mentioned(
                res, viewer, {id_ for at in marked for id_ in mentions.marked_in(posts[at])}
            )
        except Unavailable:
            accounts = {}
        for at in marked:
            posts[at] = mentions.fill(res, posts[at], accounts)
    return posts
