"""Cursors: where a list goes on, opaque to clients and bound to the list and to who reads it."""

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode

from instafeed.errors import FieldError, Invalid

_MAC_BYTES = 10
_KEY_BYTES = 64  # all that BLAKE2 takes


def _mac(key: bytes, scope: str, position: bytes) -> bytes:
    # BLAKE2's own keyed mode: a page of the feed has a cursor, and HMAC takes ten times as long.
    text = scope.encode() + b"\0" + position
    return hashlib.blake2b(text, key=key[:_KEY_BYTES], digest_size=_MAC_BYTES, person=b"cursor").digest()


def encode(key: bytes, scope: str, position: int) -> str:
    """The cursor of the page that begins below the id `position` of the list that `scope` names."""
    raw = position.to_bytes(8, "big")
    return urlsafe_b64encode(raw + _mac(key, scope, raw)).decode()


def decode(key: bytes, scope: str, cursor: str) -> int:
    """The position in a cursor; it need not exist any more.

    Raises:
        Invalid: not a cursor of this list and reader.
    """
    try:
        data = urlsafe_b64decode(cursor.encode("ascii"))
    except ValueError:
        data = b""
    position, mac = data[:8], data[8:]
    if not hmac.compare_digest(mac, _mac(key, scope, position)) or urlsafe_b64encode(data).decode() != cursor:
        raise Invalid(
            "The cursor does not belong to this list.", errors=(FieldError("cursor", "Not a cursor of this list."),)
        )
    return int.from_bytes(position, "big")
