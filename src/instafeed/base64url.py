"""Base64 for URLs, without padding (RFC 4648, section 5), as JSON Web Keys and browsers write it."""

from base64 import b64decode, urlsafe_b64encode


def encode(data: bytes) -> str:
    """The text of bytes."""
    return urlsafe_b64encode(data).decode().rstrip("=")


def decode(text: str) -> bytes:
    """The bytes of a text.

    Raises:
        ValueError: it is none of these.
    """
    return b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
