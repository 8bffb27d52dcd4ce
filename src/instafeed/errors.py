"""What can go wrong, in the domain's words.

Every error carries the text that a client may read. `slug` is its stable name: the last part of the problem's `type`,
documented in docs/errors.md. How an error is spoken over HTTP is decided in `api/errors.py`, not here.
"""

from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True)
class FieldError:
    """One field that is wrong: `pointer` is a JSON pointer into the body, or the parameter's name."""

    pointer: str
    detail: str


class InstafeedError(Exception):
    """The base of everything that is told to a client."""

    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, detail: str, *, errors: tuple[FieldError, ...] = (), retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors
        self.retry_after = retry_after
        """Seconds until another try makes sense; None where waiting does not help."""


class NotFound(InstafeedError):
    """It does not exist, or the viewer may not know that it does."""

    slug = "not-found"
    title = "Not found"

    def __init__(self, detail: str = "There is nothing here that you may see.") -> None:
        super().__init__(detail)


class Invalid(InstafeedError):
    """The input is well-formed but cannot be accepted."""

    slug = "invalid"
    title = "The request is not valid"

    def __init__(self, detail: str = "Some fields are not valid.", *, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(detail, errors=errors)

    @classmethod
    def at(cls, pointer: str, detail: str) -> Self:
        """One field is wrong."""
        return cls(errors=(FieldError(pointer, detail),))


class Unauthenticated(InstafeedError):
    """No token, or one that is not (or no longer) valid."""

    slug = "unauthenticated"
    title = "Authentication is needed"

    def __init__(self, detail: str = "Send a valid token as 'Authorization: Bearer ...'.") -> None:
        super().__init__(detail)


class WrongCredentials(InstafeedError):
    """Log-in failed; which of the two was wrong is not said."""

    slug = "wrong-credentials"
    title = "Log-in failed"

    def __init__(self) -> None:
        super().__init__("There is no account with this username and password.")


class WrongPassword(InstafeedError):
    """A change that asks for the password got another one."""

    slug = "wrong-password"
    title = "The password is wrong"

    def __init__(self) -> None:
        super().__init__("This is not your current password.")


class UsernameTaken(InstafeedError):
    """Somebody has the name, or it is reserved."""

    slug = "username-taken"
    title = "Username is taken"


class EmailTaken(InstafeedError):
    """Another account has confirmed the address."""

    slug = "email-taken"
    title = "E-mail address is taken"


class TokenUnusable(InstafeedError):
    """The token of a mail is wrong, was used, or has expired."""

    slug = "token-unusable"
    title = "The token cannot be used"

    def __init__(self) -> None:
        super().__init__("The token is wrong, was used, or has expired. Ask for another mail.")


class Conflict(InstafeedError):
    """It contradicts what is there already."""

    slug = "conflict"
    title = "Conflict"


class MediaUnusable(InstafeedError):
    """A photo of a post is not there, is not the author's, or belongs to a post already."""

    slug = "media-unusable"
    title = "A photo cannot be used"


class MediaTooLarge(InstafeedError):
    """More bytes than the published limit."""

    slug = "media-too-large"
    title = "The photo is too large"


class MediaUnsupported(InstafeedError):
    """The content is no image of a kind that is taken."""

    slug = "media-unsupported"
    title = "Not a photo that can be taken"


class MediaIncomplete(InstafeedError):
    """Empty, shorter or longer than declared."""

    slug = "media-incomplete"
    title = "The photo did not arrive whole"


class DigestMismatch(InstafeedError):
    """The bytes do not match the digest that was sent with them, or ahead of them."""

    slug = "digest-mismatch"
    title = "The bytes do not match their digest"


class TooManyUploads(InstafeedError):
    """The account has as many open uploads as it may have."""

    slug = "too-many-uploads"
    title = "Too many uploads are open"


class TooManyTags(InstafeedError):
    """The account follows as many tags as it may."""

    slug = "too-many-tags"
    title = "Too many tags are followed"


class UploadTooSlow(InstafeedError):
    """Slower than the published rate."""

    slug = "upload-too-slow"
    title = "The upload is too slow"


class RateLimited(InstafeedError):
    """Too many requests; `retry_after` says when the next one passes."""

    slug = "rate-limited"
    title = "Too many requests"


class Unavailable(InstafeedError):
    """A server that this needs does not answer; nothing was done."""

    slug = "unavailable"
    title = "Temporarily unavailable"


class RedisAway(Unavailable):
    """Redis does not answer; whoever can do without it catches this."""

    def __init__(self, detail: str, *, retry_after: float | None = 1, gone: bool = False) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.gone = gone
        """Whether the server that was asked certainly runs no more, and what it held in memory is no more either. False:
        it may still serve others.
        """


class IdempotencyConflict(InstafeedError):
    """A request with the same Idempotency-Key is still under way."""

    slug = "idempotency-in-flight"
    title = "The first request is still under way"


class IdempotencyMismatch(InstafeedError):
    """The Idempotency-Key was used for another request."""

    slug = "idempotency-mismatch"
    title = "The Idempotency-Key belongs to another request"


class MalformedBody(InstafeedError):
    """The body cannot be read as what it should be."""

    slug = "malformed-body"
    title = "The body cannot be read"


class BodyTooLarge(InstafeedError):
    """The body is larger than this call takes."""

    slug = "body-too-large"
    title = "The body is too large"


class BodyTooSlow(InstafeedError):
    """The body did not come in time."""

    slug = "body-too-slow"
    title = "The body took too long"
