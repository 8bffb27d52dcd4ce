"""Who may ask how often."""

import math
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from fastapi import Request

from instafeed.errors import RateLimited
from instafeed.resources import Resources
from instafeed.settings import Network
from instafeed.storage.rate_limiter import Count, Policy, Verdict

READ = Policy("read", 600, 60)
WRITE = Policy("write", 120, 60)
UPLOAD = Policy("upload", 60, 60)
UPLOAD_PART = Policy("upload_part", 600, 60)
REPORT = Policy("report", 30, 600)
ANONYMOUS = Policy("anonymous", 120, 60)
SIGN_UP = Policy("sign_up", 30, 3600)
LOG_IN = Policy("log_in", 30, 300)
LOG_IN_NAME = Policy("log_in_name", 10, 300)
PASSWORD = Policy("password", 10, 300)
EMAIL = Policy("email", 5, 3600)
RESET = Policy("password_reset", 20, 3600)
RESET_NAME = Policy("password_reset_name", 5, 3600)
ALL = (
    *(READ, WRITE, UPLOAD, UPLOAD_PART, REPORT, ANONYMOUS),
    *(SIGN_UP, LOG_IN, LOG_IN_NAME, PASSWORD, EMAIL, RESET, RESET_NAME),
)


def client_address(request: Request, trusted: Sequence[Network]) -> str:
    """The address that a request comes from; an IPv6 network of 64 bits counts as one.

    `X-Forwarded-For` is believed from the right, for as long as it was written by a trusted proxy.
    """
    address = _parse(request.client.host) if request.client else None
    if address is None:
        return "unknown"
    forwarded = [part for header in request.headers.getlist("x-forwarded-for") for part in header.split(",")]
    while forwarded and any(address in network for network in trusted):
        nearer = _parse(forwarded.pop())
        if nearer is None:
            break
        address = nearer
    return str(ip_network((address, 64), strict=False)) if address.version == 6 else str(address)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.strip())
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


async def count(request: Request, res: Resources, policy: Policy, client: str) -> None:
    """Count a request of `client` and say in the response where it stands.

    Raises:
        RateLimited: it was one too many.
    """
    await finish(request, res, await begin(res, policy, client))


async def begin(res: Resources, policy: Policy, client: str) -> Count | None:
    """Count a request; `finish` must follow. None where nothing is counted."""
    return None if res.settings.rate_limits == "off" else await res.rate_limiter.begin(policy, client)


async def finish(request: Request, res: Resources, count: Count | None) -> None:
    """Say in the response where the client stands.

    Raises:
        RateLimited: it was one request too many.
    """
    if count is None:
        return
    verdict = await res.rate_limiter.finish(count)
    policy = verdict.policy
    request.scope["state"]["headers"] = _headers(verdict)
    if verdict.retry_after:
        raise RateLimited(
            f"At most {policy.quota} such requests in {policy.seconds} seconds.", retry_after=verdict.retry_after
        )


def _headers(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    policy = verdict.policy
    return [
        (b"ratelimit-policy", f'"{policy.name}";q={policy.quota};w={policy.seconds}'.encode()),
        (b"ratelimit", f'"{policy.name}";r={verdict.remaining};t={math.ceil(verdict.reset)}'.encode()),
    ]
