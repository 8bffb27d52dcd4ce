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
        self.size = 0
        self.error: InstafeedError | None = None
        """Why the body ended early: the HTTP client that is fed with it reports an error of its own."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of what has passed."""
        return self._hash.digest()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._body:
                self.size += len(piece)
                if self.size > self._max_bytes:
                    raise self._too_large()
                self._hash.update(piece)
                telemetry.UPLOAD_BYTES.inc(len(piece))
                yield piece
        except InstafeedError as error:
            self.error = error
            raise

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
