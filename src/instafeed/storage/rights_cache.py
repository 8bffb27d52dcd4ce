"""Whose posts a viewer's home feed may show, in Redis: what every page of the feed asks. PostgreSQL is the truth behind it.

An entry is a set of account ids, the viewer's own among them, and lives in the slot of the viewer's feed. Beside it stands
which of them are celebrities, whose posts are merged when the feed is read, and as of which *generation* of the list of all
celebrities that is so: the generation changes with the list, and an entry of another one is not believed. There too stand the
tags that the viewer follows. If there are any, the set also has, as negative numbers, the accounts that are kept away from
the viewer, whose posts no tag brings in, and 0: a reader who knows of tags from the entry before may meet one that was made
when none was followed, which says nothing of who is kept away. Each entry has a *name*, which no other ever has: what was read
by an entry's authors is believed only while that entry is there.

Whoever is about to change the truth *holds* the
entry first: it is gone then, and nobody can fill it until the hold is released after the commit. A hold that nobody
releases ends by itself, long after the transaction that took it was ended by PostgreSQL's own limits. A fill names itself
before it asks the database, and is dropped when a hold came in between. Keys carry the server's epoch: what a restarted
server still knows is never believed.
"""

import asyncio
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from instafeed import telemetry
from instafeed.ids import shard_of
from instafeed.storage.redis import RedisServer, Script

HOLD_SECONDS = 60
FILL_SECONDS = 10
_SECONDS = 86_400

# KEYS: entry, hold, fill, celebrities. ARGV: token, seconds. Changes that take a right away must pass where Redis is full.
_HOLD = Script("""#!lua flags=allow-oom
redis.call('DEL', KEYS[1], KEYS[3], KEYS[4])
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
""")

# ARGV: token. A fill that began before the commit is dropped, and so is an entry: this may be another server than was held.
_RELEASE = Script("""
redis.call('DEL', KEYS[1], KEYS[3], KEYS[4])
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
""")

# ARGV: token, seconds to live, ids, what stands beside them.
_FILL = Script("""
if redis.call('GET', KEYS[3]) ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.call('DEL', KEYS[1], KEYS[3])
local ids = {}
for id in string.gmatch(ARGV[3], '[^,]+') do ids[#ids + 1] = id end
for i = 1, #ids, 1000 do redis.call('SADD', KEYS[1], unpack(ids, i, math.min(i + 999, #ids))) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[4], ARGV[4], 'EX', ARGV[2])
return 1
""")

_GENERATION = "{celebrities}"
_KNOWS_AWAY = 0

_HIT, _MISS = (telemetry.CACHE_READS.labels("rights", outcome) for outcome in ("hit", "miss"))


class Known(NamedTuple):
    """What the cache says at once of an entry: its name, and which celebrities and tags the viewer follows."""

    name: bytes
    celebrities: list[int]
    tags: list[str]


class Sides(NamedTuple):
    """Accounts: those whose posts the viewer's feed may show, and those whose posts no tag brings into it."""

    authors: Collection[int]
    away: Collection[int]


class Look(NamedTuple):
    """A question under way: which celebrities and tags a viewer follows, and of which generation the list of celebrities is:
    one answer with both, or one for each.
    """

    asked: "tuple[asyncio.Future[Any], ...]"


@dataclass(frozen=True, slots=True)
class Fill:
    """The database is being asked for a viewer's rights."""

    account_id: int
    token: str
    epoch: str
    generation: bytes


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

    def _key(self, account_id: int, epoch: str) -> str:
        return f"{self.tag(account_id)}:{epoch}:{account_id}"

    def _keys(self, account_id: int, epoch: str) -> list[str]:
        key = self._key(account_id, epoch)
        return [key, f"{key}:hold", f"{key}:fill", f"{key}:celebrities"]

    async def begin_look(self, account_id: int) -> Look:
        """Ask whether there is an entry; `finish_look` understands the answer."""
        node = await self._redis.node(self.tag(account_id))
        key = f"{self._key(account_id, node.epoch)}:celebrities"
        if not node.cluster:
            return Look((node.send("MGET", key, f"{_GENERATION}:{node.epoch}"),))
        other = await self._redis.node(_GENERATION)
        return Look((node.send("GET", key), other.send("GET", f"{_GENERATION}:{other.epoch}")))

    async def finish_look(self, look: Look) -> Known | None:
        """What there is to know of the entry; None if there is none to be believed."""
        asked = look.asked
        header, generation = await asked[0] if len(asked) == 1 else (await asked[0], await asked[1])
        if header is None or generation is None:
            _MISS.inc()
            return None
        name, _, rest = header.partition(b" ")
        of, _, rest = rest.partition(b" ")
        if of != generation:
            _MISS.inc()
            return None
        _HIT.inc()
        ids, _, tags = rest.partition(b" ")
        celebrities = [int(id_) for id_ in ids.split(b",")] if ids else []
        return Known(name, celebrities, tags.decode().split(",") if tags else [])

    async def begin_ask(self, account_id: int, author_ids: Sequence[int], *, away: bool) -> "asyncio.Future[Any]":
        """Ask on which side of the viewer these authors are, of `away` only if asked; `finish_ask` understands the answer."""
        node = await self._redis.node(self.tag(account_id))
        key = self._key(account_id, node.epoch)
        if not away:
            return node.send("SMISMEMBER", key, account_id, *author_ids)
        return node.send("SMISMEMBER", key, _KNOWS_AWAY, *author_ids, *(-author_id for author_id in author_ids))

    def finish_ask(self, found: Sequence[int], author_ids: Collection[int]) -> Sides | None:
        """What `begin_ask` was answered; None if there is no entry any more, or one that does not know who is away."""
        if not found[0]:
            return None
        after = 1 + len(author_ids)
        if 0 not in found and len(found) == after:
            return Sides(author_ids, ())
        authors = {author_id for author_id, is_in in zip(author_ids, found[1:after], strict=True) if is_in}
        if len(found) == after:
            return Sides(authors, ())
        return Sides(authors, {author_id for author_id, is_in in zip(author_ids, found[after:], strict=True) if is_in})

    async def members(self, account_id: int) -> Sides | None:
        """Everybody on either side of the viewer, as far as the entry knows, who is one of the authors; None if there is none."""
        node = await self._redis.node(self.tag(account_id))
        found = set(map(int, await node.send("SMEMBERS", self._key(account_id, node.epoch))))
        if _KNOWS_AWAY in found:
            return Sides({id_ for id_ in found if id_ > 0}, {-id_ for id_ in found if id_ < 0})
        return Sides(found, ()) if found else None

    async def begin_fill(self, account_id: int) -> Fill | None:
        """Say that the database is about to be asked for a viewer's rights; None if somebody else is at it."""
        node = await self._redis.node(_GENERATION)
        key, token = f"{_GENERATION}:{node.epoch}", secrets.token_hex(4)
        await node.send("SET", key, token, "NX")
        generation: bytes = await node.send("GET", key)
        node = await self._redis.node(self.tag(account_id))
        token = secrets.token_hex(8)
        fill = self._keys(account_id, node.epoch)[2]
        if not await node.send("SET", fill, token, "NX", "EX", FILL_SECONDS):
            return None
        return Fill(account_id, token, node.epoch, generation)

    async def finish_fill(self, fill: Fill, sides: Sides, celebrities: Iterable[int], tags: Collection[str]) -> None:
        """What the database said after `begin_fill`; dropped if it may be no longer true."""
        node = await self._redis.node(self.tag(fill.account_id))
        away = [_KNOWS_AWAY, *(-account_id for account_id in sides.away)] if tags else []
        ids = ",".join(map(str, [fill.account_id, *sides.authors, *away]))
        header = f"{fill.token} {fill.generation.decode()} {','.join(map(str, celebrities))} {','.join(tags)}"
        await node.run(_FILL, self._keys(fill.account_id, fill.epoch), fill.token, _SECONDS, ids, header)

    async def renew_celebrities(self) -> None:
        """The list of celebrities is another one than before: believe no entry that knows the old one."""
        node = await self._redis.node(_GENERATION)
        await node.send("SET", f"{_GENERATION}:{node.epoch}", secrets.token_hex(4))

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
