"""The counts of posts in Redis, which every page of the feed shows. PostgreSQL is the truth behind them.

They are the same for all viewers, and may be a second old: whoever counts neither removes nor changes what is cached, but
lets it end within half a second. So a post that is liked a thousand times a second is counted twice a second, and no count is
lost or counted twice by being kept in two places. A fill names itself before it asks the database; if something was counted
since, what it found ends as soon. What a process has fetched it keeps for the other half second: it asks for few of the posts
that everybody reads.
"""

import asyncio
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from instafeed import telemetry
from instafeed.ids import shard_of
from instafeed.models import Counts
from instafeed.storage.redis import RedisServer, Script
from instafeed.storage.rights_cache import FILL_SECONDS

NEAR_SECONDS = 0.5
LAG_MILLISECONDS = 500
_MILLISECONDS = 3_600_000

# KEYS: counts, fill. ARGV: milliseconds.
_RECOUNT = Script("""#!lua flags=allow-oom
redis.call('PEXPIRE', KEYS[1], ARGV[1], 'LT')
redis.call('PEXPIRE', KEYS[2], ARGV[1], 'LT')
""")

# KEYS: counts, fill. ARGV: token, counts, milliseconds, milliseconds if something was counted since.
_FILL = Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return end
local left = redis.call('PTTL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'PX', left > tonumber(ARGV[4]) and ARGV[3] or ARGV[4])
redis.call('DEL', KEYS[2])
""")

_NEAR, _HIT, _MISS = (telemetry.CACHE_READS.labels("counts", outcome) for outcome in ("near", "hit", "miss"))


@dataclass(frozen=True, slots=True)
class Fill:
    """The database is being asked for the counts of a post."""

    post_id: int
    token: str
    epoch: str


class Look(NamedTuple):
    """A question under way: what this process knows, and the counts of the other posts, in their places."""

    near: dict[int, Counts]
    asked: Sequence[tuple[Sequence[int], "asyncio.Future[Any]"]]


@lru_cache(maxsize=100_000)
def _key(post_id: int, buckets: int, epoch: str) -> str:
    return f"counts:{{{shard_of(post_id) % buckets}}}:{epoch}:{post_id}"


@lru_cache(maxsize=100_000)
def _read(value: bytes) -> Counts:
    likes, comments = value.split()
    return Counts(int(likes), int(comments))


class CountCache:
    """Every method raises `RedisAway` when Redis does not answer."""

    def __init__(self, redis: RedisServer, *, buckets: int) -> None:
        self._redis = redis
        self._buckets = buckets
        self._near: dict[int, Counts] = {}
        self._near_until = 0.0

    def _tag(self, post_id: int) -> str:
        return f"counts:{{{shard_of(post_id) % self._buckets}}}"

    def _keys(self, post_id: int, epoch: str) -> tuple[str, str]:
        key = _key(post_id, self._buckets, epoch)
        return key, f"{key}:fill"

    async def begin_look(self, post_ids: Sequence[int]) -> Look:
        """Ask for the counts of posts; `finish_look` understands the answer."""
        now = time.monotonic()
        if now >= self._near_until:
            self._near, self._near_until = {}, now + NEAR_SECONDS
        near = self._near
        known = {post_id: near[post_id] for post_id in post_ids if post_id in near}
        if len(known) == len(post_ids):
            return Look(known, [])
        by_bucket: dict[int, list[int]] = {}  # one command may speak of one slot only
        missing = [post_id for post_id in post_ids if post_id not in known]
        node = await self._redis.node(self._tag(missing[0]))
        for post_id in missing:
            by_bucket.setdefault(shard_of(post_id) % self._buckets if node.cluster else 0, []).append(post_id)
        asked = []
        for some in by_bucket.values():
            node = await self._redis.node(self._tag(some[0]))
            asked.append((some, node.send("MGET", *[_key(post_id, self._buckets, node.epoch) for post_id in some])))
        return Look(known, asked)

    async def finish_look(self, look: Look) -> dict[int, Counts]:
        """The counts of the posts that are cached."""
        found = look.near
        _NEAR.inc(len(found))
        for post_ids, asked in look.asked:
            values = await asked
            fresh = {id_: _read(value) for id_, value in zip(post_ids, values, strict=True) if value is not None}
            _HIT.inc(len(fresh))
            _MISS.inc(len(post_ids) - len(fresh))
            found |= fresh
            self._near |= fresh
        return found

    async def begin_fill(self, post_ids: Sequence[int]) -> list[Fill]:
        """Say that the database is about to be asked for these; those that somebody else fills are left out."""
        asked = []
        for post_id in post_ids:
            node = await self._redis.node(self._tag(post_id))
            fill = Fill(post_id, secrets.token_hex(8), node.epoch)
            mark = self._keys(post_id, node.epoch)[1]
            asked.append((fill, node.send("SET", mark, fill.token, "NX", "EX", FILL_SECONDS)))
        return [fill for fill, sent in asked if await sent]

    async def finish_fill(self, fills: Iterable[Fill], counts: Mapping[int, Counts]) -> None:
        """What the database said after `begin_fill`."""
        sent = []
        for fill in fills:
            node = await self._redis.node(self._tag(fill.post_id))
            keys = self._keys(fill.post_id, fill.epoch)
            value = "{} {}".format(*counts[fill.post_id])
            sent.append(node.run(_FILL, keys, fill.token, value, _MILLISECONDS, LAG_MILLISECONDS))
        for answer in sent:
            await answer

    async def recount(self, post_id: int) -> None:
        """Something was counted for the post: a second from now nobody is told what is cached now."""
        node = await self._redis.node(self._tag(post_id))
        await node.run(_RECOUNT, self._keys(post_id, node.epoch), LAG_MILLISECONDS)
