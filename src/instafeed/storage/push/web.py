"""Web Push: pushes to browsers, through whichever service a browser names.

Sources: RFC 8030 (the protocol), RFC 8291 and RFC 8188 (what is sent only the browser can read), RFC 8292 (who sends it).
"""

import asyncio
import ipaddress
import json
import os
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from instafeed import base64url
from instafeed.models import Device, Push
from instafeed.storage.push.verdicts import GONE, SENT, Breaker, Outcome, Verdict, later

MAX_BYTES = 3993
"""Of a message, before it is encrypted: push services need not take more."""
_CURVE = ec.SECP256R1()
_RECORD_BYTES = 4096
_LAST_RECORD = b"\x02"
_URL_CHARACTERS = 2000
_SECONDS = 5
_CONNECT_SECONDS = 3
_NAMES_SECONDS = 300
_AT_ONCE = 100
_TOKEN_SECONDS = 12 * 3600
_GONE = frozenset({404, 410})


class _InnerAddress(OSError):
    """A push service's name leads to an address that is not the internet's."""


def may_be_endpoint(url: str, *, anywhere: bool) -> bool:
    """Whether a browser's push service can have this URL; `anywhere` takes those that are not the internet's too."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if len(url) > _URL_CHARACTERS or not (url.isascii() and url.isprintable()) or " " in url or not host:
        return False
    if parts.username is not None or parts.password is not None or parts.fragment:
        return False
    if anywhere:
        return parts.scheme in {"http", "https"}
    # Names that lead inward are found out when they are connected to; addresses name no push service.
    named = not _is_address(host) and "." in host.rstrip(".")
    return parts.scheme == "https" and port in {None, 443} and named


def _is_address(host: str) -> bool:
    # Also what a resolver reads as one: 127.1, 0x7f000001, 2130706433.
    try:
        socket.inet_aton(host)
    except OSError:
        return ":" in host
    return True


def _socket(found: tuple[Any, ...]) -> socket.socket:
    """A socket to an address that a name led to, which is the very one that is connected to."""
    family, kind, protocol, _, address = found
    given = ipaddress.ip_address(address[0].partition("%")[0])
    plain = getattr(given, "ipv4_mapped", None) or given
    if not plain.is_global or plain.is_multicast:
        raise _InnerAddress(f"{given} is not an address of the internet")
    return socket.socket(family, kind, protocol)


def _derive(secret: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(secret)


def encrypt(message: bytes, *, p256dh: bytes, auth: bytes) -> bytes:
    """What only the browser with these keys can read: one record, its header before it.

    Raises:
        ValueError: the message has more than `MAX_BYTES`.
    """
    if len(message) > MAX_BYTES:
        raise ValueError("the message is too long")
    key, salt = ec.generate_private_key(_CURVE), os.urandom(16)
    public = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, p256dh))
    secret = _derive(shared, salt=auth, info=b"WebPush: info\0" + p256dh + public, length=32)
    content_key = _derive(secret, salt=salt, info=b"Content-Encoding: aes128gcm\0", length=16)
    nonce = _derive(secret, salt=salt, info=b"Content-Encoding: nonce\0", length=12)
    header = salt + _RECORD_BYTES.to_bytes(4) + bytes([len(public)]) + public
    return header + AESGCM(content_key).encrypt(nonce, message + _LAST_RECORD, None)


class WebPush:
    """Sends pushes to browsers, in the name of one key."""

    def __init__(self, key: str, *, contact: str, anywhere: bool) -> None:
        """`key` is the setting `web_push_key`, `contact` the mail address where push services find us; for `anywhere` see
        `may_be_endpoint`.
        """
        self._key = ec.derive_private_key(int.from_bytes(base64url.decode(key)), _CURVE)
        self._contact = contact
        self._anywhere = anywhere
        self._breaker = Breaker()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self.public_key = base64url.encode(
            self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        )
        """What a browser wants to know as `applicationServerKey`."""
        self._http: aiohttp.ClientSession

    async def open(self) -> None:
        """Make the client."""
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_SECONDS, sock_connect=_CONNECT_SECONDS),
            connector=aiohttp.TCPConnector(
                limit=0, ttl_dns_cache=_NAMES_SECONDS, socket_factory=None if self._anywhere else _socket
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Close the client."""
        await self._http.close()

    async def send(self, device: Device, push: Push) -> Verdict:
        """Hand a push over to the browser's service."""
        parts = urlsplit(device.address)
        origin = f"{parts.scheme}://{parts.netloc}"
        async with self._room:
            # Asked here: while a push waited for room, others may have found the service away.
            return later() if self._breaker.is_open(origin) else await self._post(device, push, origin)

    async def _post(self, device: Device, push: Push, origin: str) -> Verdict:
        assert device.p256dh is not None
        assert device.auth is not None
        body = encrypt(_message(push), p256dh=device.p256dh, auth=device.auth)
        headers = {
            "TTL": str(push.seconds),
            "Topic": push.topic,
            "Urgency": "normal",
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "Authorization": f"vapid t={self._token(origin)}, k={self.public_key}",
        }
        try:
            async with self._http.post(device.address, data=body, headers=headers, allow_redirects=False) as answer:
                status, retry_after = answer.status, answer.headers.get("Retry-After")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            if isinstance(getattr(error, "os_error", error), _InnerAddress):
                return Verdict(Outcome.GONE, reason="an inner address")
            self._breaker.failed(origin)
            return later()
        self._breaker.answered(origin)
        return _verdict(status, retry_after, origin)

    def _token(self, origin: str) -> str:
        claims = {"aud": origin, "exp": int(time.time()) + _TOKEN_SECONDS, "sub": f"mailto:{self._contact}"}
        signed = ".".join(
            base64url.encode(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ES256"}, claims)
        )
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(SHA256())))
        return f"{signed}.{base64url.encode(r.to_bytes(32) + s.to_bytes(32))}"


def _verdict(status: int, retry_after: str | None, service: str) -> Verdict:
    if 200 <= status < 300:
        return SENT
    if status in _GONE:
        return GONE
    if status == 429 or status >= 500:
        return later(retry_after)
    return Verdict(Outcome.REFUSED, reason=f"{service} answers {status}")


def _message(push: Push) -> bytes:
    message: dict[str, Any] = push.data | {
        "text": push.text,
        "loc_key": push.loc_key,
        "loc_args": push.loc_args,
        "topic": push.topic,
    }
    if push.unread is not None:
        message["unread"] = push.unread
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
