"""Who may ask how often."""

import math
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address

from fastapi import Request

from instafeed.errors import RateLimited
from instafeed.resources import Resources
from instafeed.settings import Network
from instafeed.storage.rate_limiter import Policy, Verdict

READ = Policy("read", 600, 60)
WRITE = Policy("write", 120, 60)
UPLOAD = Policy("upload", 60, 60)
ANONYMOUS = Policy("anonymous", 120, 60)
SIGN_UP = Policy("sign_up", 30, 3600)
LOG_IN = Policy("log_in", 30, 300)
LOG_IN_NAME = Policy("log_in_name", 10, 300)
ALL = (READ, WRITE, UPLOAD, ANONYMOUS, SIGN_UP, LOG_IN, LOG_IN_NAME)


def client_address(request: Request, trusted: Sequence[Network]) -> str:
    """The address that a request comes from; an IPv6 network of 64 bits counts as one.

    `X-Forwarded-For` is believed from the right, for as long as it was written by a trusted proxy.
    """
    if request.client is None:
        return "unknown"
    address = request.client.host
    forwarded = [part.strip() for header in request.headers.getlist("x-forwarded-for") for part in header.split(",")]
    try:
        while forwarded and any(ip_address(address) in network for network in trusted):
            nearer = forwarded.pop()
            ip_address(nearer)
            address = nearer
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        return str(parsed.ipv4_mapped) if parsed.ipv4_mapped else f"{int(parsed) >> 64:x}::/64"
    return address


async def count(request: Request, res: Resources, policy: Policy, client: str) -> None:
    """Count a request of `client` and say in the response where it stands.

    Raises:
        RateLimited: it was one too many.
    """
    if res.settings.rate_limits == "off":
        return
    verdict = await res.rate_limiter.check(policy, client)
    request.scope["state"]["headers"] = _headers(verdict)
    if verdict.retry_after:
        raise RateLimited(
            f"At most {policy.quota} such requests in {policy.seconds} seconds.", retry_after=verdict.retry_after
        )


def _headers(verdict: Verdict) -> dict[str, str]:
    policy = verdict.policy
    return {
        "RateLimit-Policy": f'"{policy.name}";q={policy.quota};w={policy.seconds}',
        "RateLimit": f'"{policy.name}";r={verdict.remaining};t={math.ceil(verdict.reset)}',
    }
