"""Posts as ready-made JSON in Redis, shared by all processes. PostgreSQL is the truth behind it.

A post has two keys in the slot of its author's bucket: its *state* and its JSON. The state is

- a version: the JSON that carries the same version may be shown;
- `x`: there is no such post that anybody may see;
- `?…`: somebody fills it, having said so before asking the database;
- `-…`: it is *held*, because a change is about to be committed: nobody can fill it.

Whoever changes a post holds it before the commit and releases it after it. A fill is accepted only if its own mark is still
there, so one that began before a change never ends after it. An author can be held as a whole. Holds that nobody releases
end by themselves, long after PostgreSQL's limits have ended the transaction that took them; marks of fills end earlier.
Keys carry the server's epoch: what a restarted server still knows is never believed.

States are asked for at every read. The JSON of one version never changes, so each process keeps what it has fetched.
"""

import secrets
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from instafeed.ids import shard_of
from instafeed.storage.redis import RedisServer, Script
from instafeed.storage.rights_cache import HOLD_SECONDS

_GONE = b"x"
_GONE_SECONDS = 3600
_VERSION_BYTES = 8
_AUTHOR_DIGITS = 19
_NEAR_BYTES = 64 << 20
_AT_ONCE = 500

# KEYS: states, each followed by its JSON. ARGV: token, seconds. Deletions must pass where Redis is full.
_HOLD = Script("""#!lua flags=allow-oom
for i = 1, #KEYS, 2 do
  redis.call('SET', KEYS[i], ARGV[1], 'EX', ARGV[2])
  redis.call('DEL', KEYS[i + 1])
end
""")

# KEYS: states. ARGV: token.
_RELEASE = Script("""
for i = 1, #KEYS do if redis.call('GET', KEYS[i]) == ARGV[1] then redis.call('DEL', KEYS[i]) end end
""")

# KEYS: state, JSON, the author's hold. ARGV: token, version, JSON, seconds.
_FILL = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('DEL', KEYS[1]) return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[4])
if ARGV[3] ~= '' then redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4]) end
return 1
""")


@dataclass(frozen=True, slots=True)
class CachedPost:
    """A post as it is sent."""

    author_id: int
    json: bytes


@dataclass(frozen=True, slots=True)
class Hold:
    """Keeps posts out of the cache until it is released: some, or all of an author."""

    token: str
    post_ids: tuple[int, ...]
    author_id: int | None = None


class PostCache:
    """Every method raises `RedisAway` when Redis does not answer."""

    def __init__(self, redis: RedisServer, *, buckets: int) -> None:
        self._redis = redis
        self._buckets = buckets
        self._near: OrderedDict[int, tuple[bytes, CachedPost]] = OrderedDict()
        self._near_bytes = 0

    def _tag(self, id_: int) -> str:
        return f"post:{{{shard_of(id_) % self._buckets}}}"

    def _keys(self, post_id: int, epoch: str) -> tuple[str, str]:
        key = f"{self._tag(post_id)}:{epoch}:{post_id}"
        return key, f"{key}:json"

    def _hold_key(self, author_id: int, epoch: str) -> str:
        return f"{self._tag(author_id)}:{epoch}:author:{author_id}:hold"

    async def hold(self, post_ids: Iterable[int]) -> Hold:
        """From now on, until `release` or for a minute, the database is asked for these posts."""
        hold = Hold(f"-{secrets.token_hex(8)}", tuple(post_ids))
        for post_id in hold.post_ids:
            node = await self._redis.node(self._tag(post_id))
            await node.run(_HOLD, self._keys(post_id, node.epoch), hold.token, HOLD_SECONDS)
        return hold

    async def hold_author(self, author_id: int, post_ids: Sequence[int]) -> Hold:
        """Like `hold` for all posts of the author, which are these; of posts that come later too."""
        node = await self._redis.node(self._tag(author_id))
        token = f"-{secrets.token_hex(8)}"
        await node.send("SET", self._hold_key(author_id, node.epoch), token, "EX", HOLD_SECONDS)
        hold = Hold(token, tuple(post_ids), author_id)
        await self._forget(hold)
        return hold

    async def release(self, hold: Hold) -> None:
        """The change is committed, or will never be."""
        if hold.author_id is None:
            for post_id in hold.post_ids:
                node = await self._redis.node(self._tag(post_id))
                await node.run(_RELEASE, [self._keys(post_id, node.epoch)[0]], hold.token)
            return
        await self._forget(hold)  # with the marks of fills that began before the commit
        node = await self._redis.node(self._tag(hold.author_id))
        await node.run(_RELEASE, [self._hold_key(hold.author_id, node.epoch)], hold.token)

    async def _forget(self, hold: Hold) -> None:
        for at in range(0, len(hold.post_ids), _AT_ONCE):
            some = hold.post_ids[at : at + _AT_ONCE]
            node = await self._redis.node(self._tag(some[0]))
            await node.send("DEL", *(key for post_id in some for key in self._keys(post_id, node.epoch)))
