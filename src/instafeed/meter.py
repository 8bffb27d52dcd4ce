"""The body of an upload on its way: counted, hashed and bounded."""

import hashlib
from collections.abc import AsyncIterator, Callable

from instafeed import telemetry
from instafeed.errors import DigestMismatch, InstafeedError, MediaIncomplete


class Meter:
    """Passes a body on, and counts, hashes and bounds it on the way."""

    def __init__(self, body: AsyncIterator[bytes], *, max_bytes: int, too_large: Callable[[], InstafeedError]) -> None:
        """Take a body; `too_large` makes what is raised when more than `max_bytes` come."""
        self._body = body
        self._max_bytes = max_bytes
        self._too_large = too_large
        self._hash = hashlib.sha256()
        self._head = b""
        self.size = 0
        self.error: InstafeedError | None = None
        """Why the body ended early: the HTTP client that is fed with it reports an error of its own."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of what has passed."""
        return self._hash.digest()

    async def head(self, size: int) -> bytes:
        """The first `size` bytes, or some more, or all there are; they are passed on all the same."""
        while len(self._head) < size and (piece := await self._next()):
            self._head += piece
        return self._head

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._head:
            yield self._head
        while piece := await self._next():
            yield piece

    async def _next(self) -> bytes:
        try:
            piece = await anext(self._body, b"")
            self.size += len(piece)
            if self.size > self._max_bytes:
                raise self._too_large()
        except InstafeedError as error:
            self.error = error
            raise
        self._hash.update(piece)
        telemetry.UPLOAD_BYTES.inc(len(piece))
        return piece

    async def whole(self, *, sha256: bytes | None) -> AsyncIterator[bytes]:
        """The body, of which the last piece is held back until all of it has come and is right: whoever is fed with a
        wrong one never has it whole.

        Raises:
            MediaIncomplete: it has less than `max_bytes`.
            DigestMismatch: its SHA-256 is another one; None for any.
        """
        held = b""
        async for piece in self:
            if held:
                yield held
            held = piece
        if self.size != self._max_bytes:
            self.error = MediaIncomplete(f"{self.size} bytes came instead of {self._max_bytes}.")
        elif sha256 not in {None, self.digest}:
            self.error = DigestMismatch("The SHA-256 of what came is not the one in Content-Digest.")
        if self.error is not None:
            raise self.error
        yield held
