"""Rate limits: the generic cell rate algorithm (GCRA, ITU-T I.371) in Redis, one number a client.

The number is the client's theoretical arrival time: when it would be back at rest. A request moves it on by one
interval; it passes if that stays within the burst. Without Redis each process counts for itself, so that guessing
passwords stays limited.
"""

import asyncio
import time
from collections import OrderedDict
from typing import Any, NamedTuple

from instafeed.errors import RedisAway
from instafeed.storage.redis import RedisServer, Script

_LOCAL_CLIENTS = 10_000

# ARGV: interval and burst. Returns how long until the next request passes (0: this one did), and how far the client is
# from rest. All are whole microseconds.
_GCRA = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local wait = arrival + interval - burst - now
if wait > 0 then return {wait, arrival - now} end
arrival = arrival + interval
redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000) + 1)
return {0, arrival - now}
""")


class Policy(NamedTuple):
    """`quota` requests in `seconds`, all at once or spread out."""

    name: str
    quota: int
    seconds: int


class Verdict(NamedTuple):
    """What the limiter says of one request."""

    policy: Policy
    remaining: int
    """Requests that would still pass now."""
    reset: float
    """Seconds until the full quota is back."""
    retry_after: float
    """Seconds until a request passes; 0 if this one did."""


class Count(NamedTuple):
    """A request that is being counted; `asked` is Redis's answer, under way, or None where Redis is away."""

    policy: Policy
    client: str
    asked: "asyncio.Future[Any] | None"


_SECOND = 1_000_000  # microseconds


class RateLimiter:
    """Counts requests by policy and client."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis
        self._local: OrderedDict[str, int] = OrderedDict()

    async def begin(self, policy: Policy, client: str) -> Count:
        """Count one request of `client`; `finish` says what comes of it."""
        key = self._key(policy, client)
        try:
            return Count(policy, client, (await self._redis.node(key)).run(_GCRA, [key], *self._terms(policy)))
        except RedisAway:
            return Count(policy, client, None)

    async def finish(self, count: Count) -> Verdict:
        """What comes of a request. Without Redis this process counts."""
        policy = count.policy
        interval, burst = self._terms(policy)
        try:
            if count.asked is None:
                raise RedisAway("Redis does not answer.")
            wait, ahead = await count.asked
        except RedisAway:
            wait, ahead = self._check_locally(self._key(policy, count.client), interval, burst)
        return Verdict(policy, max(0, burst - ahead) // interval, ahead / _SECOND, wait / _SECOND)

    @staticmethod
    def _key(policy: Policy, client: str) -> str:
        return f"rate:{policy.name}:{client}"

    @staticmethod
    def _terms(policy: Policy) -> tuple[int, int]:
        burst = policy.seconds * _SECOND
        return burst // policy.quota, burst

    def _check_locally(self, key: str, interval: int, burst: int) -> tuple[int, int]:
        now = time.monotonic_ns() // 1000
        arrival = max(self._local.get(key, 0), now)
        wait = arrival + interval - burst - now
        if wait > 0:
            return wait, arrival - now
        arrival += interval
        self._local[key] = arrival
        self._local.move_to_end(key)
        if len(self._local) > _LOCAL_CLIENTS:
            self._local.popitem(last=False)
        return 0, arrival - now
