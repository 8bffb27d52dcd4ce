"""Home feeds in Redis: the only code that spells `feed:`.

A feed is a list of decimal post ids, newest (highest) first and without repeats, that holds every post of the feed from
its first entry down to its last. Its last entry may be a marker:

- `0`: the list reaches the very end of the feed. It also keeps an empty feed in being.
- a negative number: a rebuild is under way and names itself with it. Such a list already receives posts and shows none.

A feed that is no list is not materialised: pushes to it do nothing, and a read rebuilds it. Ids never become Lua
numbers, which lose digits above 2^53: without leading zeros the longer decimal is the larger, and of two of the same
length the later in the alphabet.
"""

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from instafeed.ids import shard_of
from instafeed.storage.follows import ID_DIGITS, PackedFollowers
from instafeed.storage.redis import RedisServer, Script

_TRIM_SLACK = 50
_IDS_A_CALL = 500
_CALLS_IN_FLIGHT = 2
_BUILD_SECONDS = 10

# Shared by the scripts that change a list. `write` replaces a list and keeps its time to live.
_LIBRARY = """
local function marker(id) local c = string.byte(id); return c == 45 or c == 48 end
local function below(a, b)
  if marker(a) then return true end
  if #a ~= #b then return #a < #b end
  return a < b
end
local function write(key, list)
  local ttl = redis.call('PTTL', key)
  redis.call('DEL', key)
  for i = 1, #list, 1000 do redis.call('RPUSH', key, unpack(list, i, math.min(i + 999, #list))) end
  if ttl > 0 and #list > 0 then redis.call('PEXPIRE', key, ttl) end
end
-- Merge `ids` (descending) into `list` (descending, perhaps with a marker at its end); returns the entries and the
-- marker. Without a marker the list says nothing of what is below its last entry, so older ids are left out: they are
-- found in SQL.
local function merge(list, ids)
  local last = list[#list]
  local tail = marker(last) and last or nil
  local out, i, j, n = {}, 1, 1, #list - (tail and 1 or 0)
  while i <= n or j <= #ids do
    local id
    if j > #ids then id = list[i]; i = i + 1
    elseif i > n then
      if not tail then break end
      id = ids[j]; j = j + 1
    elseif list[i] == ids[j] then id = list[i]; i = i + 1; j = j + 1
    elseif below(list[i], ids[j]) then id = ids[j]; j = j + 1
    else id = list[i]; i = i + 1 end
    out[#out + 1] = id
  end
  return out, tail
end
local function cut(list, cap) for i = #list, cap + 1, -1 do list[i] = nil end end
local function split(packed)
  local ids = {}
  for id in string.gmatch(packed, '[^,]+') do ids[#ids + 1] = id end
  return ids
end
"""

# ARGV: post id, followers (fixed width), window, slack. A list whose head is lower takes the id at its head, and cannot
# have had it; else this post is late or was pushed before, and its place is searched for, from the head on in steps that
# double and then halve. Like `merge`, `insert` leaves out what is below a list without a marker.
_PUSH = Script(
    _LIBRARY
    + f"""
local function insert(key, id)
  local first, last, length = 1, 1, redis.call('LLEN', key)
  while last < length and not below(redis.call('LINDEX', key, last), id) do first, last = last + 1, last * 2 end
  last = math.min(last, length)
  while first < last do
    local middle = math.floor((first + last) / 2)
    if below(redis.call('LINDEX', key, middle), id) then last = middle else first = middle + 1 end
  end
  local above, lower = unpack(redis.call('LRANGE', key, first - 1, first))
  if above == id or not lower then return 0 end
  return redis.call('LINSERT', key, 'BEFORE', lower, id)
end
local prefix, id, followers, cap = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local full = cap + tonumber(ARGV[4])
for at = 1, #followers, {ID_DIGITS} do
  local key = prefix .. string.sub(followers, at, at + {ID_DIGITS - 1})
  local head = redis.call('LINDEX', key, 0)
  if head and head ~= id then
    local length = below(head, id) and redis.call('LPUSHX', key, id) or insert(key, id)
    if length > full then
      -- A list under construction that outgrows the window is given up: cut, it would pass for a whole one.
      if string.byte(redis.call('LINDEX', key, -1)) == 45 then redis.call('DEL', key, key .. ':lock')
      else redis.call('LTRIM', key, 0, cap - 1) end
    end
  end
end
"""
)

# ARGV: window, ids. Returns 0 if there is no list.
_MERGE = Script(
    _LIBRARY
    + """
local old = redis.call('LRANGE', KEYS[1], 0, -1)
if #old == 0 then return 0 end
local cap = tonumber(ARGV[1])
local list, tail = merge(old, split(ARGV[2]))
-- A list under construction is cut by its builder; a cut takes the end marker off.
if #list > cap and (not tail or tail == '0') then cut(list, cap); tail = nil end
if tail then list[#list + 1] = tail end
write(KEYS[1], list)
return 1
"""
)

# ARGV: ids to take out.
_REMOVE = Script(
    _LIBRARY
    + """
local gone = {}
for _, id in ipairs(split(ARGV[1])) do gone[id] = true end
local kept = {}
local old = redis.call('LRANGE', KEYS[1], 0, -1)
for _, id in ipairs(old) do if not gone[id] then kept[#kept + 1] = id end end
if #kept < #old then write(KEYS[1], kept) end
"""
)

# ARGV: builder's marker, seconds. Returns the marker to finish with, or nothing if another builder is at work or the
# list is whole. A list that a dead builder left is taken over with what was pushed to it meanwhile.
_BEGIN = Script("""
local tail = redis.call('LINDEX', KEYS[1], -1)
if tail and string.byte(tail) ~= 45 then return false end
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'EX', ARGV[2]) then return false end
if tail then redis.call('LSET', KEYS[1], -1, ARGV[1]) else redis.call('RPUSH', KEYS[1], ARGV[1]) end
redis.call('EXPIRE', KEYS[1], 60)
return ARGV[1]
""")

# ARGV: builder's marker, window, ids, whether they are all there are, seconds to live. Only the builder whose marker the
# list carries may finish it: its query began after the list did.
_FINISH = Script(
    _LIBRARY
    + """
if redis.call('LINDEX', KEYS[1], -1) ~= ARGV[1] then return 0 end
local cap = tonumber(ARGV[2])
local list = merge(redis.call('LRANGE', KEYS[1], 0, -1), split(ARGV[3]))
if #list > cap then cut(list, cap) elseif ARGV[4] == '1' then list[#list + 1] = '0' end
write(KEYS[1], list)
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('DEL', KEYS[2])
return 1
"""
)

# ARGV: how many entries (0: all), seconds to live. Returns the list's first entries; nothing if it is not whole.
_READ = Script("""
local tail = redis.call('LINDEX', KEYS[1], -1)
if not tail or string.byte(tail) == 45 then return false end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('LRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1)
""")


@dataclass(frozen=True, slots=True)
class Window:
    """What Redis holds of a feed: ids newest first, and whether they reach the feed's end."""

    ids: list[int]
    to_the_end: bool


class Timelines:
    """The feeds of all accounts.

    Every method raises `RedisAway` when Redis does not answer.
    """

    def __init__(self, redis: RedisServer, *, window: int, buckets: int, idle_days: int) -> None:
        self._redis = redis
        self._window = window
        self._buckets = buckets
        self._idle_seconds = idle_days * 86_400

    @property
    def window(self) -> int:
        """Entries that a feed keeps."""
        return self._window

    @property
    def buckets(self) -> int:
        """How many Redis hash slots feeds are spread over."""
        return self._buckets

    def _prefix(self, bucket: int) -> str:
        return f"feed:{{{bucket}}}:"

    def _key(self, account_id: int) -> str:
        return f"{self._prefix(shard_of(account_id) % self._buckets)}{account_id:0{ID_DIGITS}d}"

    async def _run(self, script: Script, keys: list[str], *arguments: str | int) -> Any:
        return await self._redis.run(script, keys, *arguments)

    async def read(self, account_id: int, *, limit: int | None) -> Window | None:
        """The first `limit` entries (None: all); None if the feed is not materialised or is being rebuilt."""
        found = await self._run(_READ, [self._key(account_id)], limit or 0, self._idle_seconds)
        if found is None:
            return None
        entries = [int(entry) for entry in found]
        if entries[-1] == 0:
            return Window(entries[:-1], to_the_end=True)
        return Window(entries, to_the_end=False)

    async def push(self, post_id: int, followers: Iterable[PackedFollowers]) -> None:
        """Put a post into the materialised feeds among `followers`; again is harmless.

        Ids are cut from the packed texts and handed on as they are: Python touches no follower. Few hundred ids a call
        and two calls in flight keep Redis busy without making its other clients wait.
        """
        width = _IDS_A_CALL * ID_DIGITS
        calls = (
            (self._prefix(some.bucket), some.ids[at : at + width])
            for some in followers
            for at in range(0, len(some.ids), width)
        )

        async def make_calls() -> None:
            for prefix, ids in calls:
                await self._run(_PUSH, [prefix], str(post_id), ids, self._window, _TRIM_SLACK)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_CALLS_IN_FLIGHT):
                    group.create_task(make_calls())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def push_to(self, account_id: int, post_id: int) -> None:
        """Put a post into one feed, if it is materialised."""
        bucket = shard_of(account_id) % self._buckets
        await self.push(post_id, [PackedFollowers(bucket, f"{account_id:0{ID_DIGITS}d}")])

    async def merge(self, account_id: int, post_ids: Iterable[int]) -> bool:
        """Put posts of any age into a feed; False if it is not materialised."""
        ids = ",".join(map(str, sorted(post_ids, reverse=True)))
        return bool(await self._run(_MERGE, [self._key(account_id)], self._window, ids))

    async def remove(self, account_id: int, post_ids: Iterable[int]) -> None:
        """Take posts out of a feed."""
        await self._run(_REMOVE, [self._key(account_id)], ",".join(map(str, post_ids)))

    async def entries(self, account_id: int) -> list[int]:
        """All ids that the list holds, also while it is rebuilt."""
        found: list[bytes] = await self._redis.call(key := self._key(account_id), "LRANGE", key, 0, -1)
        return [id_ for id_ in map(int, found) if id_ > 0]

    async def begin_rebuild(self, account_id: int) -> str | None:
        """Create the list, so that what is published from now on is pushed to it; None if somebody else rebuilds."""
        key = self._key(account_id)
        marker: bytes | None = await self._run(
            _BEGIN, [key, f"{key}:lock"], f"-{1 + secrets.randbits(62)}", _BUILD_SECONDS
        )
        return marker.decode() if marker else None

    async def finish_rebuild(self, account_id: int, marker: str, post_ids: Iterable[int], *, to_the_end: bool) -> bool:
        """Fill the list with the feed's posts as SQL gave them after `begin_rebuild`; False if the list is another's now."""
        key = self._key(account_id)
        ids = ",".join(map(str, post_ids))
        done = await self._run(
            _FINISH, [key, f"{key}:lock"], marker, self._window, ids, int(to_the_end), self._idle_seconds
        )
        return bool(done)
