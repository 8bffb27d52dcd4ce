"""A browser and its push service: takes pushes over HTTP, and reads them as RFC 8291 and RFC 8292 say, with nothing of ours."""

import asyncio
import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.client import eventually


def decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _hkdf(salt: bytes, secret: bytes, info: bytes, length: int) -> bytes:
    extracted = hmac.digest(salt, secret, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)[:length]


def decrypt(body: bytes, key: ec.EllipticCurvePrivateKey, auth: bytes) -> bytes:
    """What a push says to the browser with these keys."""
    salt, size, length = body[:16], int.from_bytes(body[16:20]), body[20]
    sender, record = body[21 : 21 + length], body[21 + length :]
    assert len(record) <= size
    mine = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    shared = key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender))
    secret = _hkdf(auth, shared, b"WebPush: info\x00" + mine + sender, 32)
    content_key = _hkdf(salt, secret, b"Content-Encoding: aes128gcm\x00", 16)
    nonce = _hkdf(salt, secret, b"Content-Encoding: nonce\x00", 12)
    padded = AESGCM(content_key).decrypt(nonce, record, None).rstrip(b"\x00")
    assert padded[-1:] == b"\x02"
    return padded[:-1]


def check_sender(authorization: str, origin: str) -> tuple[str, dict[str, Any]]:
    """The public key and the claims of who sent a push, whose signature is right."""
    scheme, _, rest = authorization.partition(" ")
    assert scheme == "vapid"
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    head, claims, signature = parts["t"].split(".")
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decode(parts["k"]))
    raw = decode(signature)
    assert len(raw) == 64
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    public.verify(der, f"{head}.{claims}".encode(), ec.ECDSA(SHA256()))
    assert json.loads(decode(head)) == {"typ": "JWT", "alg": "ES256"}
    told: dict[str, Any] = json.loads(decode(claims))
    assert told["aud"] == origin
    assert time.time() < told["exp"] <= time.time() + 24 * 3600
    return parts["k"], told


@dataclass
class Push:
    """One that arrived."""

    headers: dict[str, str]
    body: bytes


@dataclass
class Browser:
    """A subscription to pushes."""

    service: "PushService"
    number: int
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    auth: bytes = b"0123456789abcdef"

    @property
    def endpoint(self) -> str:
        return f"{self.service.origin}/send/{self.number}"

    @property
    def p256dh(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    @property
    def subscription(self) -> dict[str, str]:
        """The body that registers it."""
        keys = {"p256dh": encode(self.p256dh), "auth": encode(self.auth)}
        return {"platform": "web", "endpoint": self.endpoint} | keys

    @property
    def pushes(self) -> list[Push]:
        """What the service took for it."""
        return self.service.taken.get(self.number, [])

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What they say, oldest first."""
        return [json.loads(decrypt(push.body, self.key, self.auth)) for push in self.pushes]

    async def reads(self, count: int) -> list[dict[str, Any]]:
        """What they say, once there are so many."""

        async def probe() -> bool:
            return len(self.pushes) >= count

        await eventually(probe)
        return self.messages


class PushService:
    """A push service of browsers."""

    def __init__(self) -> None:
        self.origin = ""
        self.taken: dict[int, list[Push]] = {}
        self.answers: dict[int, tuple[int, dict[str, str]]] = {}
        """Status and headers for some browsers; the others' pushes are taken."""
        self.asked: list[int] = []
        self.gate = asyncio.Event()
        """While it is not set, nothing is answered."""
        self.gate.set()
        self.busiest = 0
        """The most requests that were under way at once."""
        self._under_way = 0
        self._browsers = 0

    def browser(self) -> Browser:
        """A new subscription."""
        self._browsers += 1
        return Browser(self, self._browsers)

    async def take(self, request: web.Request) -> web.Response:
        """Take a push."""
        number = int(request.match_info["number"])
        body = await request.read()
        self.asked.append(number)
        self._under_way += 1
        self.busiest = max(self.busiest, self._under_way)
        try:
            await self.gate.wait()
        finally:
            self._under_way -= 1
        status, headers = self.answers.get(number, (201, {}))
        if status == 201:
            self.taken.setdefault(number, []).append(Push(dict(request.headers), body))
        return web.Response(status=status, headers=headers)


@asynccontextmanager
async def running_push_service() -> AsyncIterator[PushService]:
    """A push service on a port of its own."""
    service = PushService()
    app = web.Application()
    app.router.add_post("/send/{number}", service.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    service.origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield service
    finally:
        service.gate.set()
        await runner.cleanup()
