"""The form of `POST /v1/posts/form`, parsed as it comes: its photo is passed on and never kept."""

import hashlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from instafeed.api.dependencies import resources
from instafeed.api.errors import body_pointer
from instafeed.api.media import sent_bytes, sent_digest, sent_length
from instafeed.api.schemas import TimeIn
from instafeed.api.text import AltText, Caption
from instafeed.errors import DigestMismatch, FieldError, Invalid, MalformedBody
from instafeed.media import too_large

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_TEXT_BYTES = 16 * 1024
_HEADER_BYTES = 4096
_MORE_BYTES = 128 * 1024  # of a form, besides its photo
_TEXTS = ("caption", "alt_text", "publish_at")

_Piece = tuple[Literal["part", "data", "end"], bytes]


class Fields(BaseModel):
    """The form's texts."""

    model_config = ConfigDict(extra="forbid")

    caption: Caption = ""
    alt_text: AltText = ""
    publish_at: TimeIn | None = None


def _validated(texts: dict[str, bytes]) -> Fields:
    try:
        return Fields.model_validate({name: text.decode() for name, text in texts.items()})
    except UnicodeDecodeError:
        raise MalformedBody("A text of the form is not UTF-8.") from None
    except ValidationError as error:
        fields = tuple(
            FieldError(body_pointer(item["loc"]), item["msg"].removeprefix("Value error, "))
            for item in error.errors(include_input=False, include_url=False)
        )
        raise Invalid(errors=fields) from None


class PhotoForm:
    """One form. Call `begin`, then `photo`; the texts are there when the photo has ended, wherever they stand.

    Each raises:
        MalformedBody: the body is no form.
        Invalid: a field is unknown, there twice, or wrong.
        MediaTooLarge: it cannot be within the limit, by what came.
        DigestMismatch: the body has another SHA-256 than its Content-Digest.
        MediaIncomplete, UploadTooSlow: as `sent_bytes`.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._max_bytes = resources(request).settings.upload_max_bytes
        self._sha256: bytes | None = None
        self._pieces = self._parse()
        self._texts: dict[str, bytes] = {}
        self._fields = Fields()

    async def begin(self) -> None:
        """Read up to the photo.

        Raises:
            MediaTooLarge: it cannot be within the limit, by the length that is announced.
            Invalid: its Content-Digest has no SHA-256, or several.
        """
        self._sha256 = sent_digest(self._request)
        if (sent_length(self._request) or 0) > self._max_bytes + _MORE_BYTES:
            raise too_large(self._max_bytes)
        if not await self._read_texts():
            raise Invalid.at("/photo", "Is missing.")

    async def photo(self) -> AsyncIterator[bytes]:
        """The photo's bytes. They have not ended before the whole form is read: who takes them takes all or nothing."""
        async for kind, value in self._pieces:
            if kind == "end":
                break
            yield value
        if await self._read_texts():
            raise Invalid.at("/photo", "Is there twice.")

    def texts(self) -> tuple[str, str, datetime | None]:
        """Caption, alternative text, and when to publish it."""
        return self._fields.caption, self._fields.alt_text, self._fields.publish_at

    async def _read_texts(self) -> bool:
        """Collect texts up to a photo; False if the form ends first."""
        name = ""
        async for kind, value in self._pieces:
            if kind == "part":
                name = value.decode("utf-8", "replace")
                if name == "photo":
                    break
                if name not in _TEXTS:
                    raise Invalid.at(body_pointer([name]), "Is not a field of this form.")
                if name in self._texts:
                    raise Invalid.at(f"/{name}", "Is there twice.")
                self._texts[name] = b""
            elif kind == "data":
                self._texts[name] += value
                if len(self._texts[name]) > _TEXT_BYTES:
                    raise Invalid.at(f"/{name}", "Is too long.")
        self._fields = _validated(self._texts)
        return name == "photo"

    async def _parse(self) -> AsyncIterator[_Piece]:
        content_type, options = parse_options_header(self._request.headers.get("content-type", ""))
        if content_type != b"multipart/form-data" or not 0 < len(options.get(b"boundary", b"")) <= 200:
            raise MalformedBody("Send the form as 'Content-Type: multipart/form-data' with a boundary.")
        events = _Events()
        parser = MultipartParser(options[b"boundary"], events.callbacks())
        digest = hashlib.sha256()
        try:
            room = self._max_bytes + _MORE_BYTES
            async for chunk in sent_bytes(self._request):
                room -= len(chunk)
                if room < 0:  # the parser passes over what comes before the first part, for ever
                    raise too_large(self._max_bytes)
                if self._sha256 is not None:
                    digest.update(chunk)
                if not events.ended:  # what may follow is no part of it
                    parser.write(chunk)
                    for piece in events.take():
                        yield piece
                if events.ended and self._sha256 is None:
                    return
            parser.finalize()
        except FormParserError:
            raise MalformedBody("The body is no form: its parts are not as the boundary says.") from None
        if not events.ended:
            raise MalformedBody("The form broke off.")
        if digest.digest() != self._sha256:
            raise DigestMismatch("The SHA-256 of what came is not the one in Content-Digest.")


class _Events:
    """What the parser calls back, as pieces."""

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._name = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self.ended = False

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def take(self) -> list[_Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _on_part_begin(self) -> None:
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name = self._bounded(self._name + data[start:end])

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value = self._bounded(self._value + data[start:end])

    def _bounded(self, text: bytes) -> bytes:
        if len(text) > _HEADER_BYTES or len(self._headers) > 10:
            raise MalformedBody("A part's headers are too long.")
        return text

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._pieces.append(("part", options.get(b"name", b"")))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._pieces.append(("data", data[start:end]))

    def _on_part_end(self) -> None:
        self._pieces.append(("end", b""))

    def _on_end(self) -> None:
        self.ended = True
