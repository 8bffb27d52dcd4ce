"""JSON bodies, read within bounds and without the leniency of the standard parser."""

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from instafeed.errors import BodyTooLarge, BodyTooSlow, MalformedBody

MAX_BYTES = 128 * 1024
_SECONDS = 15
_MAX_DEPTH = 64
_MAX_DIGITS = 30
_SURROGATE = re.compile("[\ud800-\udfff]")


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedBody(f"{name} is not JSON.")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise MalformedBody("A number has too many digits.")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedBody("An object names a field twice.")
    return found


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_integer, object_pairs_hook=_object)


def parse(body: bytes) -> Any:
    """What a JSON text says.

    Raises:
        MalformedBody: not UTF-8, not JSON, nested too deeply, with duplicate names, NaN, enormous numbers, or halves of
            characters (lone surrogates).
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise MalformedBody("The body is not UTF-8.") from None
    # An upper bound of the nesting, cheap and before the parser recurses.
    if text.count("[") + text.count("{") > _MAX_DEPTH and _depth(text) > _MAX_DEPTH:
        raise MalformedBody("The body is nested too deeply.")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise MalformedBody(f"The body is not JSON: {error.msg} at character {error.pos}.") from None
    if "\\u" in text and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise MalformedBody("The body has half of a character (a lone surrogate).")
    return value


def _depth(text: str) -> int:
    deepest = depth = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


class JsonRequest(Request):
    """A request whose body is JSON."""

    async def read(self) -> None:
        """Read the body within bounds and parse it, if it says that it is JSON."""
        declared = self.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > MAX_BYTES:
            raise BodyTooLarge(f"A body has at most {MAX_BYTES} bytes.")
        body = bytearray()
        try:
            async with asyncio.timeout(_SECONDS):
                async for chunk in self.stream():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise BodyTooLarge(f"A body has at most {MAX_BYTES} bytes.")
        except TimeoutError:
            raise BodyTooSlow(f"Send the body within {_SECONDS} seconds.") from None
        except ClientDisconnect:
            raise MalformedBody("The body broke off.") from None
        self._body = bytes(body)
        if body and self.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise MalformedBody("Send the body as 'Content-Type: application/json'.")
        self._json = parse(self._body) if body else None


class JsonRoute(APIRoute):
    """A route whose body, if it has one, is JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handler, behind our reading of the body."""
        handler = super().get_route_handler()
        if self.body_field is None:
            return handler

        async def strict(request: Request) -> Response:
            json_request = JsonRequest(request.scope, request.receive)
            await json_request.read()
            return await handler(json_request)

        return strict
