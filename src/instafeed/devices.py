"""The devices that pushes go to. Each belongs to the session that registered it last, and goes with that session."""

import re
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import ec

from instafeed import access, base64url
from instafeed.errors import Invalid, Unauthenticated
from instafeed.ids import shard_of
from instafeed.models import Device, Page, Platform, Viewer
from instafeed.resources import Resources
from instafeed.storage import devices as device_rows
from instafeed.storage import sessions as session_rows
from instafeed.storage.database import Connection
from instafeed.storage.push.web import may_be_endpoint

PER_ACCOUNT = 20
"""Of more than so many, those that registered last stay."""

_TOKENS = {
    Platform.APNS: re.compile("(?:[0-9a-fA-F]{2}){32,100}"),
    Platform.FCM: re.compile("[A-Za-z0-9_:-]{16,1000}"),
}
_POINT_BYTES = 65
_AUTH_BYTES = 16


async def register(
    res: Resources,
    viewer: Viewer,
    name: str,
    platform: Platform,
    *,
    token: str | None,
    endpoint: str | None,
    p256dh: str | None,
    auth: str | None,
) -> Device:
    """Have pushes sent to a device, and to no other account's any more that registered the same.

    Args:
        res: the resources.
        viewer: whose pushes, and the session that the device goes with.
        name: what the viewer calls it; it takes the place of one of the same name.
        platform: whose token or endpoint it is.
        token: an app's, of APNs or FCM; None of a browser.
        endpoint: of a browser's `PushSubscription`, as the other two; None of an app.
        p256dh: its public key.
        auth: its secret.

    Raises:
        Invalid: something is missing, too much, no token, no key, or no endpoint of a push service on the internet.
        Unauthenticated: the session has ended.
    """
    is_browser = platform is Platform.WEB
    for field, value, belongs in (
        ("token", token, not is_browser),
        ("endpoint", endpoint, is_browser),
        ("p256dh", p256dh, is_browser),
        ("auth", auth, is_browser),
    ):
        if (value is not None) is not belongs:
            raise Invalid.at(f"/{field}", f"Is {'missing' if belongs else 'too much'} with this platform.")
    id_ = res.ids.next(shard_of(viewer.account_id))
    device = Device(viewer.account_id, name, id_, viewer.session_id, platform, token or endpoint or "")
    if is_browser:
        anywhere = res.settings.web_push_anywhere == "on"
        if not may_be_endpoint(device.address, anywhere=anywhere):
            raise Invalid.at("/endpoint", "Not the https:// URL of a push service.")
        device = replace(device, p256dh=_public_key(p256dh or ""), auth=_secret(auth or ""))
    elif not _TOKENS[platform].fullmatch(device.address):
        raise Invalid.at("/token", f"Not a token of {platform}.")
    return await _register(res, viewer, device)


def _public_key(text: str) -> bytes:
    try:
        key = base64url.decode(text)
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key)
    except ValueError:
        key = b""
    if len(key) != _POINT_BYTES:
        raise Invalid.at("/p256dh", "Not a public key of P-256, uncompressed, in URL-safe base64.")
    return key


def _secret(text: str) -> bytes:
    try:
        secret = base64url.decode(text)
    except ValueError:
        secret = b""
    if len(secret) != _AUTH_BYTES:
        raise Invalid.at("/auth", f"Not {_AUTH_BYTES} bytes in URL-safe base64.")
    return secret


async def _register(res: Resources, viewer: Viewer, device: Device) -> Device:
    async def body(connection: Connection) -> None:
        await access.lock_self(connection, viewer)
        if not await session_rows.share(connection, viewer.account_id, viewer.session_id):
            raise Unauthenticated
        await device_rows.put(connection, device)
        await device_rows.keep_newest(connection, viewer.account_id, limit=PER_ACCOUNT)

    await res.db.transact(body)
    return device


async def remove(res: Resources, viewer: Viewer, name: str) -> None:
    """Have no more pushes sent to a device of the viewer's; nothing happens if there is none of this name."""
    async with res.db.acquire() as connection:
        await device_rows.delete(connection, viewer.account_id, name)


async def page(res: Resources, viewer: Viewer, *, below: int, limit: int) -> Page[Device]:
    """The viewer's devices, the one that registered last first."""
    async with res.db.acquire() as connection:
        found = await device_rows.page(connection, viewer.account_id, below=below, limit=limit + 1)
    return Page(found[:limit], next=found[limit - 1].id if len(found) > limit else None)
