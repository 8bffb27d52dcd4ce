"""What answers must look like, and requests as bytes."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import httpx

ID = re.compile(r"[1-9][0-9]{17,18}")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
JSON = {"Content-Type": "application/json"}


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The body of an answer, which must be this problem."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert list(body) == ["type", "title", "status", "detail", "request_id", "errors"]
    assert body["type"] == f"/problems/{slug}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert all(list(field) == ["pointer", "detail"] for field in body["errors"])
    return body


def invalid(answer: httpx.Response, *pointers: str) -> dict[str, Any]:
    """The body of an answer, which must refuse exactly these fields."""
    body = problem(answer, 422, "invalid")
    assert [field["pointer"] for field in body["errors"]] == list(pointers), body
    return body


def anonymous(answer: httpx.Response) -> tuple[int, str, dict[str, str]]:
    """An answer without what differs between two that are the same: the request's id and the time."""
    request_id = answer.headers["x-request-id"]
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    return answer.status_code, answer.text.replace(request_id, ""), headers


def is_now(time: str) -> bool:
    """Whether a time in an answer has the right form, and was less than a minute ago."""
    assert TIME.fullmatch(time), time
    return 0 <= (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds() < 60


def request(method: str, path: str, headers: Mapping[str, str] = MappingProxyType({}), body: bytes = b"") -> bytes:
    """A request after which the connection is closed, with nothing tidied up."""
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in ({"Host": "x"} | dict(headers)).items()),
    ]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


async def send_on(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Send a piece, and let the server (it runs in our event loop) read it before the next one."""
    writer.write(piece)
    await writer.drain()
    for _ in range(5):
        await asyncio.sleep(0)


async def exchange(base_url: str, *pieces: bytes, half_close: bool = False, seconds: float = 60) -> bytes:
    """Everything that the server says to these bytes (and their end, if we say so), until it closes the connection."""
    host, _, port = base_url.removeprefix("http://").partition(":")
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            for piece in pieces:
                await send_on(writer, piece)
            if half_close:
                writer.write_eof()
            return await reader.read()
        finally:
            writer.close()
