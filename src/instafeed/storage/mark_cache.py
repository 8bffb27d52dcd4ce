"""Which posts a viewer likes and has saved, in Redis: what every page of the feed asks. PostgreSQL is the truth behind it.

An entry is a hash of the viewer's newest marks, by post: 1 liked, 2 saved, 3 both. Its *floor* says from which id on it lacks
none; of older posts the database is asked, so that an entry stays small however many posts somebody likes. Without its
floor an entry is not believed.

Whoever changes a mark *holds* the entry before the commit, which takes the floor away, and after it changes the entry and
gives the floor back: somebody who likes post after post does not have it filled anew each time. A hold that nobody releases
ends by itself, and the entry stays unbelieved. A fill names itself before it asks the database, and is dropped when a hold
came in between. Keys carry the server's epoch: what a restarted server still knows is never believed.
"""

import asyncio
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instafeed import telemetry
from instafeed.ids import shard_of
from instafeed.models import Marks
from instafeed.storage.redis import RedisServer, Script
from instafeed.storage.rights_cache import FILL_SECONDS, HOLD_SECONDS

NEWEST = 500
"""How many likes, and how many saves, an entry is filled with."""
_SECONDS = 86_400
_MOST = 4 * NEWEST
_BITS = {
    b"1": Marks(liked=True, saved=False),
    b"2": Marks(liked=False, saved=True),
    b"3": Marks(liked=True, saved=True),
}

# KEYS: entry, hold, fill. ARGV: token, seconds. In the hold stands what the floor was; none if it was held by another, who
# may not have come to change the entry.
_HOLD = Script("""#!lua flags=allow-oom
local floor = redis.call('HGET', KEYS[1], 'floor')
redis.call('HDEL', KEYS[1], 'floor')
redis.call('DEL', KEYS[3])
redis.call('SET', KEYS[2], ARGV[1] .. (floor or ''), 'EX', ARGV[2])
""")

# ARGV: token, post or '', bit, whether it is set, seconds, most. Where somebody else holds, or nobody does any more, the entry
# may be of this server or that time, and is dropped.
_RELEASE = Script("""#!lua flags=allow-oom
local held = redis.call('GET', KEYS[2])
redis.call('DEL', KEYS[3])
if not held or string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then redis.call('DEL', KEYS[1]) return end
redis.call('DEL', KEYS[2])
local floor = string.sub(held, #ARGV[1] + 1)
if floor == '' or redis.call('HLEN', KEYS[1]) > tonumber(ARGV[6]) then redis.call('DEL', KEYS[1]) return end
if ARGV[2] ~= '' then
  local bit = tonumber(ARGV[3])
  local marks = tonumber(redis.call('HGET', KEYS[1], ARGV[2]) or 0)
  if math.floor(marks / bit) % 2 == 1 then marks = marks - bit end
  if ARGV[4] == '1' then marks = marks + bit end
  if marks == 0 then redis.call('HDEL', KEYS[1], ARGV[2]) else redis.call('HSET', KEYS[1], ARGV[2], marks) end
end
redis.call('HSET', KEYS[1], 'floor', floor)
redis.call('EXPIRE', KEYS[1], ARGV[5])
""")

# ARGV: token, seconds to live, the hash as one text.
_FILL = Script("""
if redis.call('GET', KEYS[3]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 1 then return end
redis.call('DEL', KEYS[1], KEYS[3])
local fields = {}
for field in string.gmatch(ARGV[3], '[^,]+') do fields[#fields + 1] = field end
for i = 1, #fields, 1000 do redis.call('HSET', KEYS[1], unpack(fields, i, math.min(i + 999, #fields))) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
""")

_HIT, _MISS = (telemetry.CACHE_READS.labels("marks", outcome) for outcome in ("hit", "miss"))


@dataclass(frozen=True, slots=True)
class Fill:
    """The database is being asked for a viewer's marks."""

    account_id: int
    token: str
    epoch: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Keeps a viewer's entry from being believed until it is released, and then changed so."""

    account_id: int
    post_id: int
    bit: int
    is_set: bool
    token: str


class MarkCache:
    """Every method raises `RedisAway` when Redis does not answer."""

    def __init__(self, redis: RedisServer, *, buckets: int) -> None:
        self._redis = redis
        self._buckets = buckets

    def _tag(self, account_id: int) -> str:
        return f"marks:{{{shard_of(account_id) % self._buckets}}}"

    def _keys(self, account_id: int, epoch: str) -> list[str]:
        key = f"{self._tag(account_id)}:{epoch}:{account_id}"
        return [key, f"{key}:hold", f"{key}:fill"]

    async def begin_look(self, account_id: int, post_ids: Sequence[int]) -> "asyncio.Future[Any]":
        """Ask how the account has marked these posts; `finish_look` understands the answer."""
        tag = self._tag(account_id)
        node = await self._redis.node(tag)
        return node.send("HMGET", f"{tag}:{node.epoch}:{account_id}", "floor", *post_ids)

    def finish_look(
        self, found: Sequence[bytes | None], post_ids: Sequence[int]
    ) -> tuple[dict[int, Marks], int] | None:
        """The marks, and the id below which they are not known; None if there is no entry to be believed."""
        floor, *marks = found
        if floor is None:
            _MISS.inc()
            return None
        _HIT.inc()
        if not any(marks):
            return {}, int(floor)
        return {id_: _BITS[bits] for id_, bits in zip(post_ids, marks, strict=True) if bits is not None}, int(floor)

    async def begin_fill(self, account_id: int) -> Fill | None:
        """Say that the database is about to be asked for an account's marks; None if somebody else is at it."""
        node = await self._redis.node(self._tag(account_id))
        token = secrets.token_hex(8)
        mark = self._keys(account_id, node.epoch)[2]
        if not await node.send("SET", mark, token, "NX", "EX", FILL_SECONDS):
            return None
        return Fill(account_id, token, node.epoch)

    async def finish_fill(self, fill: Fill, marks: Mapping[int, Marks], floor: int) -> None:
        """What the database said after `begin_fill`; dropped if it may be no longer true."""
        node = await self._redis.node(self._tag(fill.account_id))
        fields = [f"{id_},{liked + 2 * saved}" for id_, (liked, saved) in marks.items()]
        text = ",".join([f"floor,{floor}", *fields])
        await node.run(_FILL, self._keys(fill.account_id, fill.epoch), fill.token, _SECONDS, text)

    async def forget(self, account_id: int) -> None:
        """Nobody will ask how the account marked posts any more."""
        node = await self._redis.node(self._tag(account_id))
        await node.send("DEL", *self._keys(account_id, node.epoch))

    async def hold_like(self, account_id: int, post_id: int, *, liked: bool) -> Hold:
        """From now on, until `release` or for a minute, the database is asked how the account marks posts."""
        return await self._hold(Hold(account_id, post_id, 1, liked, secrets.token_hex(8)))

    async def hold_save(self, account_id: int, post_id: int, *, saved: bool) -> Hold:
        """Like `hold_like`, for a save."""
        return await self._hold(Hold(account_id, post_id, 2, saved, secrets.token_hex(8)))

    async def _hold(self, hold: Hold) -> Hold:
        node = await self._redis.node(self._tag(hold.account_id))
        await node.run(_HOLD, self._keys(hold.account_id, node.epoch), hold.token, HOLD_SECONDS)
        return hold

    async def release(self, holds: Iterable[Hold], *, committed: bool) -> None:
        """The changes are committed, or will never be."""
        for hold in holds:
            node = await self._redis.node(self._tag(hold.account_id))
            post = hold.post_id if committed else ""
            change = (post, hold.bit, int(hold.is_set), _SECONDS, _MOST)
            await node.run(_RELEASE, self._keys(hold.account_id, node.epoch), hold.token, *change)
