"""Posts as ready-made JSON in Redis, shared by all processes. PostgreSQL is the truth behind it.

A post has two keys in the slot of its author's bucket: its *state*, and its JSON with what decides who sees it. The state is

- a version: the JSON that carries the same version may be shown. It begins with the *format* of the release that made the
  JSON: to another release the post is not cached, and it may fill it anew;
- `x`: there is no such post;
- `h`: it is hidden from everybody;
- `?…`: somebody fills it, having said so before asking the database;
- `-…`: it is *held*, because a change is about to be committed: nobody can fill it.

Whoever changes a post holds it before the commit and releases it after it. A fill is accepted only if its own mark is still
there, so one that began before a change never ends after it. An author can be held as a whole. Holds that nobody releases
end by themselves, long after PostgreSQL's limits have ended the transaction that took them; marks of fills end earlier.
Keys carry the server's epoch: what a restarted server still knows is never believed.

States are asked for at every read. The JSON of one version never changes, so each process keeps what it has fetched.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from instafeed import telemetry
from instafeed.ids import shard_of
from instafeed.storage.redis import RedisServer, Script
from instafeed.storage.rights_cache import FILL_SECONDS, HOLD_SECONDS
from instafeed.version import VERSION

_GONE = b"x"
_HIDDEN = b"h"
_UNSEEN_SECONDS = 3600
_FORMAT = hashlib.sha256(VERSION.encode()).hexdigest()[:4].encode()
_RANDOM_BYTES = 8
_VERSION_CHARACTERS = len(_FORMAT) + 2 * _RANDOM_BYTES
_NEAR_BYTES = 64 << 20
_AUTHOR_DIGITS = 19
_NO_TAGS: frozenset[str] = frozenset()
_AT_ONCE = 500

# KEYS: states, each followed by its JSON. ARGV: token, seconds. Deletions must pass where Redis is full.
_HOLD = Script("""#!lua flags=allow-oom
for i = 1, #KEYS, 2 do
  redis.call('SET', KEYS[i], ARGV[1], 'EX', ARGV[2])
  redis.call('DEL', KEYS[i + 1])
end
""")

# KEYS: states. ARGV: token. Where nobody holds, Redis was emptied since, and may have been filled with what was true before
# the commit.
_RELEASE = Script("""
for i = 1, #KEYS do
  local state = redis.call('GET', KEYS[i])
  if state == ARGV[1] or state and string.byte(state) ~= 45 then redis.call('DEL', KEYS[i]) end
end
""")

# KEYS: states, each followed by its JSON. What others hold stays held.
_FORGET = Script("""
for i = 1, #KEYS, 2 do
  local state = redis.call('GET', KEYS[i])
  if not state or string.byte(state) ~= 45 then redis.call('DEL', KEYS[i], KEYS[i + 1]) end
end
""")

# KEYS: state. ARGV: token, seconds, format. Also where the post was made by another release.
_MARK = Script("""
local state = redis.call('GET', KEYS[1])
if state and (#state < 12 or string.find('-?', string.sub(state, 1, 1), 1, true) or string.sub(state, 1, 4) == ARGV[3]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
""")

# KEYS: state, JSON, the author's hold. ARGV: token, version, JSON, seconds.
_FILL = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('DEL', KEYS[1]) return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[4])
if ARGV[3] ~= '' then redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[4]) end
return 1
""")


_NEAR, _HIT, _MISS = (telemetry.CACHE_READS.labels("posts", outcome) for outcome in ("near", "hit", "miss"))


@dataclass(frozen=True, slots=True)
class CachedPost:
    """A post as it is sent."""

    author_id: int
    json: bytes
    tags: frozenset[str] = frozenset()
    """Those by which it comes into feeds of people who do not follow its author."""


@dataclass(frozen=True, slots=True)
class _Copy:
    """One version of a post, kept in this process, and the key of its state on the server with this epoch."""

    key: str
    epoch: str
    version: bytes
    post: CachedPost


class Look(NamedTuple):
    """A question under way: the states of posts, in places of `post_ids`."""

    post_ids: Sequence[int]
    known: Sequence[_Copy | None]
    asked: Sequence[tuple[Sequence[int], "asyncio.Future[Any]"]]

    @property
    def authors(self) -> set[int]:
        """Whose posts they are, which never changes, as far as this process knows."""
        return {copy.post.author_id for copy in self.known if copy is not None}


class Found(NamedTuple):
    """What the cache knows of some posts; those that are hidden are not named."""

    posts: dict[int, CachedPost]
    gone: list[int]
    missing: list[int]
    """Not cached: ask the database."""


@dataclass(frozen=True, slots=True)
class Fill:
    """The database is being asked for a post."""

    post_id: int
    token: str
    epoch: str


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
        self._near: dict[int, _Copy] = {}
        self._near_bytes = 0

    def _tag(self, id_: int) -> str:
        return f"post:{{{shard_of(id_) % self._buckets}}}"

    def _keys(self, post_id: int, epoch: str) -> tuple[str, str]:
        key = f"{self._tag(post_id)}:{epoch}:{post_id}"
        return key, f"{key}:json"

    def _hold_key(self, author_id: int, epoch: str) -> str:
        return f"{self._tag(author_id)}:{epoch}:author:{author_id}:hold"

    async def begin_look(self, post_ids: Sequence[int]) -> Look:
        """Ask for the states of posts; `finish_look` understands the answer."""
        node = await self._redis.node(self._tag(post_ids[0]))
        near = self._near
        known = [near.get(post_id) for post_id in post_ids]
        epoch = node.epoch
        keys = [copy.key for copy in known if copy is not None and copy.epoch == epoch]
        if len(keys) < len(post_ids):
            keys = [self._keys(post_id, epoch)[0] for post_id in post_ids]
        if not node.cluster:
            return Look(post_ids, known, [(range(len(keys)), node.send("MGET", *keys))])
        by_bucket: dict[int, list[int]] = {}  # one command may speak of one slot only
        for place, post_id in enumerate(post_ids):
            by_bucket.setdefault(shard_of(post_id) % self._buckets, []).append(place)
        asked: list[tuple[Sequence[int], asyncio.Future[Any]]] = []
        for places in by_bucket.values():
            node = await self._redis.node(self._tag(post_ids[places[0]]))
            some = (self._keys(post_ids[place], node.epoch)[0] for place in places)
            asked.append((places, node.send("MGET", *some)))
        return Look(post_ids, known, asked)

    async def finish_look(self, look: Look) -> Found:
        """The posts as far as they are cached."""
        states = await self._states(look)
        known = look.known
        if states == [copy.version for copy in known if copy is not None]:
            _NEAR.inc(len(states))
            posts = [copy.post for copy in known if copy is not None]
            return Found(dict(zip(look.post_ids, posts, strict=True)), [], [])
        found = Found({}, [], [])
        elsewhere: list[tuple[int, bytes]] = []
        for post_id, copy, state in zip(look.post_ids, known, states, strict=True):
            if copy is not None and copy.version == state:
                found.posts[post_id] = copy.post
            elif state == _GONE:
                found.gone.append(post_id)
            elif state is None or (state != _HIDDEN and state[:4] != _FORMAT):  # held, being filled, another release's
                found.missing.append(post_id)
            elif state != _HIDDEN:
                elsewhere.append((post_id, state))
        near = len(found.posts)
        if elsewhere:
            await self._fetch(elsewhere, found)
        _NEAR.inc(near)
        _HIT.inc(len(states) - near - len(found.missing))
        _MISS.inc(len(found.missing))
        return found

    async def _states(self, look: Look) -> list[bytes | None]:
        if len(look.asked) == 1:
            return list(await look.asked[0][1])
        states: list[bytes | None] = [None] * len(look.post_ids)
        for places, asked in look.asked:
            for place, state in zip(places, await asked, strict=True):
                states[place] = state
        return states

    async def _fetch(self, wanted: list[tuple[int, bytes]], found: Found) -> None:
        asked = []
        for post_id, version in wanted:
            node = await self._redis.node(self._tag(post_id))
            state, json = self._keys(post_id, node.epoch)
            asked.append((post_id, version, state, node.epoch, node.send("GET", json)))
        for post_id, version, state, epoch, sent in asked:
            value = await sent
            if value is None or not value.startswith(version):
                found.missing.append(post_id)
                continue
            head, _, json = value.partition(b"\n")
            author_id = int(head[_VERSION_CHARACTERS : _VERSION_CHARACTERS + _AUTHOR_DIGITS])
            tags = head[_VERSION_CHARACTERS + _AUTHOR_DIGITS :].decode()
            post = CachedPost(author_id, json, frozenset(tags.split(",")) if tags else _NO_TAGS)
            found.posts[post_id] = post
            self._keep_near(post_id, _Copy(state, epoch, version, post))

    def _keep_near(self, post_id: int, copy: _Copy) -> None:
        old = self._near.pop(post_id, None)
        self._near[post_id] = copy
        self._near_bytes += len(copy.post.json) - (len(old.post.json) if old else 0)
        while self._near_bytes > _NEAR_BYTES:
            dropped = self._near.pop(next(iter(self._near)))  # the oldest: to order them by use would cost each read
            self._near_bytes -= len(dropped.post.json)

    async def begin_fill(self, post_ids: Sequence[int]) -> list[Fill]:
        """Say that the database is about to be asked for these posts; those that somebody else fills are left out."""
        asked = []
        for post_id in post_ids:
            node = await self._redis.node(self._tag(post_id))
            fill = Fill(post_id, f"?{secrets.token_hex(8)}", node.epoch)
            keys = self._keys(post_id, node.epoch)[:1]
            asked.append((fill, node.run(_MARK, keys, fill.token, FILL_SECONDS, _FORMAT)))
        return [fill for fill, sent in asked if await sent]

    async def finish_fill(
        self,
        fills: Iterable[Fill],
        authors: Mapping[int, int],
        posts: Mapping[int, CachedPost],
        *,
        seconds: Mapping[int, int],
    ) -> None:
        """What the database said after `begin_fill`.

        Args:
            fills: what was begun.
            authors: of the posts that exist.
            posts: those that may be shown; of the others it is remembered that they are hidden or gone.
            seconds: how long each of these stays as it is shown.
        """
        sent = []
        for fill in fills:
            node = await self._redis.node(self._tag(fill.post_id))
            keys = [
                *self._keys(fill.post_id, fill.epoch),
                self._hold_key(authors.get(fill.post_id, fill.post_id), fill.epoch),
            ]
            post = posts.get(fill.post_id)
            if post is None:
                state = _HIDDEN if fill.post_id in authors else _GONE
                sent.append(node.run(_FILL, keys, fill.token, state, "", _UNSEEN_SECONDS))
                continue
            version = _FORMAT + secrets.token_hex(_RANDOM_BYTES).encode()
            tags = ",".join(post.tags).encode()
            value = b"%b%0*d%b\n%b" % (version, _AUTHOR_DIGITS, post.author_id, tags, post.json)
            sent.append(node.run(_FILL, keys, fill.token, version, value, seconds[fill.post_id]))
        for answer in sent:
            await answer

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
            await node.run(_FORGET, [key for post_id in some for key in self._keys(post_id, node.epoch)])
