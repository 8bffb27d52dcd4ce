"""Whose posts a viewer's home feed may show, in Redis: what every page of the feed asks. PostgreSQL is the truth behind it.

An entry is a set of account ids and lives in the slot of the viewer's feed. Whoever is about to change the truth *holds* the
entry first: it is gone then, and nobody can fill it until the hold is released after the commit. A hold that nobody
releases ends by itself, long after the transaction that took it was ended by PostgreSQL's own limits. A fill names itself
before it asks the database, and is dropped when a hold came in between. Keys carry the server's epoch: what a restarted
server still knows is never believed.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from instafeed.ids import shard_of
from instafeed.storage.redis import RedisServer, Script

HOLD_SECONDS = 60
FILL_SECONDS = 10
_SECONDS = 86_400

# KEYS: entry, hold, fill. ARGV: token, seconds. Changes that take a right away must pass where Redis is full.
_HOLD = Script("""#!lua flags=allow-oom
redis.call('DEL', KEYS[1], KEYS[3])
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
""")

# ARGV: token. A fill that began before the commit is dropped.
_RELEASE = Script("""
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2], KEYS[3]) end
""")

# ARGV: token, seconds to live, ids.
_FILL = Script("""
if redis.call('GET', KEYS[3]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('DEL', KEYS[1], KEYS[3])
local ids = {}
for id in string.gmatch(ARGV[3], '[^,]+') do ids[#ids + 1] = id end
for i = 1, #ids, 1000 do redis.call('SADD', KEYS[1], unpack(ids, i, math.min(i + 999, #ids))) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
""")


@dataclass(frozen=True, slots=True)
class Hold:
    """Keeps a viewer's entry out of the cache until it is released."""

    account_id: int
    token: str


class RightsCache:
    """Every method raises `RedisAway` when Redis does not answer."""

    def __init__(self, redis: RedisServer, *, buckets: int) -> None:
        self._redis = redis
        self._buckets = buckets

    def tag(self, account_id: int) -> str:
        """The hash slot of what is kept for an account."""
        return f"rights:{{{shard_of(account_id) % self._buckets}}}"

    def _keys(self, account_id: int, epoch: str) -> list[str]:
        key = f"{self.tag(account_id)}:{epoch}:{account_id}"
        return [key, f"{key}:hold", f"{key}:fill"]

    async def hold(self, account_ids: Iterable[int]) -> list[Hold]:
        """From now on, until `release` or for a minute, the database is asked for the rights of these viewers."""
        holds = [Hold(account_id, secrets.token_hex(8)) for account_id in account_ids]
        for hold in holds:
            node = await self._redis.node(self.tag(hold.account_id))
            await node.run(_HOLD, self._keys(hold.account_id, node.epoch), hold.token, HOLD_SECONDS)
        return holds

    async def release(self, holds: Iterable[Hold]) -> None:
        """The change is committed, or will never be."""
        for hold in holds:
            node = await self._redis.node(self.tag(hold.account_id))
            await node.run(_RELEASE, self._keys(hold.account_id, node.epoch), hold.token)
