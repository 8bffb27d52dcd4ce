"""The OpenAPI document, in the form from which generators make good clients."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from instafeed import errors
from instafeed.api import schemas
from instafeed.api.problems import KINDS, Kind
from instafeed.errors import InstafeedError

_Json = dict[str, Any]

_DESCRIPTION = """\
- **Ids** are strings of decimal digits. **Times** are RFC 3339 in UTC with milliseconds.
- **Tokens** are sent as `Authorization: Bearer …`. Signing up and logging in give one.
- **Errors** are `application/problem+json` (RFC 9457). `type` is a stable name, and a path that explains it; `errors` names
  the fields that are wrong.
- **Lists** come in pages: send `next_cursor` as `cursor` for the next one, until it is null.
- **`Idempotency-Key`** on a call that creates: sent again within 24 hours, it is done once and answered the same.
- **Limits**: `RateLimit` tells how many requests are left, and `Retry-After` on 429 and 503 when to try again.
- **`X-Request-Id`** is on every answer. Send your own, of 8 to 128 letters, digits, dots, dashes and underscores, to find
  it again.
- New fields, and new values where a field says so, may come at any time: pass over what you do not know.
"""

_TAGS = {
    "accounts": "People: signing up, profiles, finding somebody.",
    "sessions": "Logging in and out, and the devices that are logged in.",
    "graph": "Who follows whom; blocks and mutes.",
    "media": "Photos: sending them, and how far they are.",
    "posts": "Photos with a caption, seen by those who follow their author; likes and comments.",
    "feeds": "The home feed, page by page and as it happens; tags.",
    "activity": "What others did that concerns you, and where to push it.",
    "integrators": "Applications of third parties and their webhooks.",
    "trust": "Reports, moderation, and a copy of your data.",
    "admin": "What admins see and do. To everybody else these calls answer as if they were not there.",
    "operations": "Limits for clients; health and metrics for operators.",
}

_HEADERS: _Json = {
    "X-Request-Id": {
        "description": "The request's id: your own if you sent one, and what to name when you ask for help.",
        "required": True,
        "schema": {"type": "string", "examples": ["2b8f0c6e5d1a4f7b9c3e8a6d4f2b1c0e"]},
    },
    "RateLimit-Policy": {
        "description": "The limit that the request was counted under: its name, quota and window in seconds.",
        "schema": {"type": "string", "examples": ['"read";q=600;w=60']},
    },
    "RateLimit": {
        "description": "How many requests are left, and in how many seconds all of them are back.",
        "schema": {"type": "string", "examples": ['"read";r=599;t=1']},
    },
    "Retry-After": {
        "description": "After how many seconds another try makes sense.",
        "schema": {"type": "integer", "minimum": 1, "examples": [3]},
    },
    "Location": {
        "description": "The path of the new thing, if it has one.",
        "schema": {"type": "string", "format": "uri-reference", "examples": [f"/v1/posts/{schemas.EXAMPLE_ID}"]},
    },
    "Idempotency-Replayed": {
        "description": "`true` if this is the answer to an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string", "examples": ["true"]},
    },
    "Link": {
        "description": 'The next page as `rel="next"`, if there is one.',
        "schema": {"type": "string", "examples": ['</v1/feed?limit=30&cursor=AAEC>; rel="next"']},
    },
}


def operation_id(route: APIRoute) -> str:
    """An operation is called like its handler."""
    return route.name


def problems(*own: type[InstafeedError]) -> dict[int | str, _Json]:
    """`responses` of a route whose call can fail with `own`, besides what every call of its kind can fail with."""
    return {"default": {"x-problems": [error.slug for error in own]}}


def install(app: FastAPI) -> None:
    """Make `app.openapi` answer our document."""

    def document() -> _Json:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> _Json:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=_DESCRIPTION,
        license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        servers=[{"url": "/"}],
        routes=app.routes,
    )
    models = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        models.pop(name, None)
    # Not the response of any route to the framework's eyes.
    for model in (schemas.Problem, schemas.Event):
        schema = model.model_json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        models |= schema.pop("$defs", {})
        models[model.__name__] = schema
    document["components"]["headers"] = _HEADERS
    _simplify(models)
    for model in models.values():
        for field in model.get("properties", {}).values():
            field.pop("default", None)  # some generators demand what has a default
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    for operation in operations:
        _simplify(operation)
        _complete(operation, models)
    used = {tag for operation in operations for tag in operation["tags"]}
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items() if name in used]
    return document


def _simplify(node: Any) -> None:
    """Drop titles, which repeat names, and write "or null" as a second type, which generators read best."""
    if isinstance(node, list):
        for item in node:
            _simplify(item)
    elif isinstance(node, dict):
        if isinstance(node.get("title"), str):
            del node["title"]
        match node.get("anyOf"):
            case [{"type": str(kind), **rest}, {"type": "null"}] if "enum" not in rest:
                del node["anyOf"]
                node |= rest | node | {"type": [kind, "null"]}
        for item in node.values():
            _simplify(item)


def _complete(operation: _Json, models: _Json) -> None:
    """Add what the framework does not know: problems, headers, examples."""
    parameters = {parameter["name"]: parameter for parameter in operation.get("parameters", [])}
    for parameter in parameters.values():
        schema = parameter["schema"]
        schema.pop("description", None)
        if isinstance(schema.get("type"), list):
            schema["type"] = schema["type"][0]  # a parameter is left out, it is never null
    responses = operation["responses"]
    responses.pop("422", None)
    own = responses.pop("default", {}).get("x-problems", [])
    kinds = [KINDS[slug] for slug in dict.fromkeys([*own, *_usual_problems(operation)])]
    limited = errors.RateLimited.slug in (kind.slug for kind in kinds)
    responses["default"] = _refusal(kinds, models)
    for status, response in responses.items():
        names = ["X-Request-Id"]
        if limited:
            names += ["RateLimit-Policy", "RateLimit"]
        if status == "default":
            names.append("Retry-After")
        elif status == "201":
            names += ["Location", "Idempotency-Replayed"]
        elif "cursor" in parameters:
            names.append("Link")
        if response["description"] == "Successful Response":  # the framework's
            response["description"] = "Created." if status == "201" else "Done."
        response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    for media_type, content in _contents(operation):
        if media_type == "application/json":
            content["example"] = _example(content["schema"], models)
        elif media_type == "text/event-stream":
            event = _example(models["Event"], models)
            content["example"] = f"id: {event['id']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n"


def _refusal(kinds: Sequence[Kind], models: _Json) -> _Json:
    """The one response that stands for every error."""
    named = ", ".join(f"[{kind.slug}](/problems/{kind.slug})" for kind in kinds)
    first = kinds[0]
    example = {"type": f"/problems/{first.slug}", "title": first.title, "status": first.status, "detail": first.meaning}
    return {
        "description": f"What went wrong. `type` is one of {named}; more may come.",
        "content": {
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": _example(models["Problem"], models) | example,
            }
        },
    }


def _usual_problems(operation: _Json) -> Iterator[str]:
    parameters = {(parameter["in"], parameter["name"]) for parameter in operation.get("parameters", [])}
    body = operation.get("requestBody", {}).get("content", {})
    if any(place == "path" for place, _ in parameters):
        yield errors.NotFound.slug
    if parameters or body:
        yield errors.Invalid.slug
    if "application/json" in body:
        yield from (errors.MalformedBody.slug, errors.BodyTooLarge.slug, errors.BodyTooSlow.slug)
    if ("header", "Idempotency-Key") in parameters:
        yield from (errors.IdempotencyConflict.slug, errors.IdempotencyMismatch.slug)
    if "security" in operation:
        yield from (errors.Unauthenticated.slug, errors.RateLimited.slug, errors.Unavailable.slug)
    yield InstafeedError.slug


def _contents(operation: _Json) -> Iterator[tuple[str, _Json]]:
    for part in (operation.get("requestBody", {}), *operation["responses"].values()):
        yield from part.get("content", {}).items()


def _example(schema: _Json, models: _Json) -> Any:
    """A value of the schema, put together from the examples of its parts."""
    match schema:
        case {"examples": [value, *_]}:
            return value
        case {"$ref": str(reference)}:
            return _example(models[reference.rpartition("/")[2]], models)
        case {"anyOf": [dict(part), *_]}:
            return _example(part, models)
        case {"properties": dict(parts)}:
            return {name: _example(part, models) for name, part in parts.items()}
        case {"items": dict(item)}:
            return [_example(item, models)]
        case _:  # a truth value: everything else has examples
            return True
