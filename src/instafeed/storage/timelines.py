"""Home feeds, and the recent posts of celebrities and of tags, in Redis: the only code that spells `feed:` and `recent:`.

A timeline is a list of decimal post ids, newest first. Its last entry may be a marker:

- `0`: the list reaches the very end of history. It also keeps an empty timeline in being.
- a negative number: a rebuild is under way and names itself with it. Such a list already receives posts and shows none.

A timeline that is no list is not materialised: pushes to it do nothing, and a read rebuilds it.

**Order.** A push looks at no list: it puts the id at the head. That is right as long as no id in any list of the bucket is
much higher, which one number a bucket (`high`) tells. So the order is loose by a bound, the *disorder*: an id stands below
another one only if it is less than that one plus the disorder. Reading sorts what it has read and keeps what nothing unread
can belong between. Posts that come later than the disorder, and those that are pushed again, are put into their place.

**Completeness.** A list lacks no post of the timeline between its newest and the *floor*: its lowest entry plus the disorder,
or the very end.

**Read-ahead.** Beside a timeline stands for some minutes what a reader below its floor asked PostgreSQL for in advance: ids
that a page may begin with, from a *top* down. It lacks nothing that the query did not see: what is published late deletes it, as
every push does that looks at the list; one that does not look is of an id that is higher than any top. While PostgreSQL is
asked, the builder's mark stands there, and is deleted likewise. It names the rights (`storage/rights_cache.py`) by which the
query chose authors, and is worth nothing to a reader who has others.

Ids never become Lua numbers, which lose digits above 2^53, but to be compared with a bound that is coarser than that:
without leading zeros the longer decimal is the larger, and of two of the same length the later in the alphabet.
"""

import asyncio
import secrets
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from instafeed.ids import MAX_ID, SEQUENCE_BITS, SHARD_BITS, shard_of
from instafeed.storage.follows import PackedFollowers
from instafeed.storage.redis import RedisServer, Script

DISORDER_SECONDS = 30
"""How late a post may reach home feeds, by its id, and still be pushed without a look."""
_TRIM_SLACK = 50
_IDS_A_CALL = 500
_IDS_IN_FLIGHT = 1000
_CALLS_IN_FLIGHT = 32
_BUILD_SECONDS = 10
_READ_AHEAD_SECONDS = 300

# Shared by the scripts that change a list. `write` replaces a list and keeps its time to live; `raise` notes the highest id
# that was put into any list of the bucket and returns the one before.
_LIBRARY = """
local function marker(id) local c = string.byte(id); return c == 45 or c == 48 end
local function below(a, b)
  if marker(a) then return true end
  if #a ~= #b then return #a < #b end
  return a < b
end
local function raise(key, id)
  local high = redis.call('GET', key)
  if not high or below(high, id) then redis.call('SET', key, id) end
  return high
end
local function write(key, list)
  local ttl = redis.call('PTTL', key)
  redis.call('DEL', key)
  for i = 1, #list, 1000 do redis.call('RPUSH', key, unpack(list, i, math.min(i + 999, #list))) end
  if ttl > 0 and #list > 0 then redis.call('PEXPIRE', key, ttl) end
end
-- A list's entries in strict order, each once, and its marker. The list is nearly sorted, which insertion likes best.
local function sorted(list)
  local tail = #list > 0 and marker(list[#list]) and table.remove(list) or nil
  for i = 2, #list do
    local id, j = list[i], i - 1
    while j > 0 and below(list[j], id) do list[j + 1] = list[j]; j = j - 1 end
    list[j + 1] = id
  end
  local out = {}
  for i = 1, #list do if list[i] ~= list[i - 1] then out[#out + 1] = list[i] end end
  return out, tail
end
-- Merge `ids` (descending) into a list (its entries and marker). Without a marker the list says nothing of what is below its
-- last entry, so older ids are left out: they are found in SQL.
local function merge(list, tail, ids)
  local out, i, j, n = {}, 1, 1, #list
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
  return out
end
local function cut(list, cap) for i = #list, cap + 1, -1 do list[i] = nil end end
local function split(packed)
  local ids = {}
  for id in string.gmatch(packed, '[^,]+') do ids[#ids + 1] = id end
  return ids
end
"""

# KEYS: high. ARGV: post id, keys of lists (fixed width), their width, window, slack, disorder, 1 to look for the id first.
# The keys come from the database as they are: to build them here would take a fifth longer.
_PUSH = Script(
    _LIBRARY
    + """
local call, sub = redis.call, string.sub
local id, keys, width, cap = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local full = cap + tonumber(ARGV[5])
local function insert(key)
  call('DEL', key .. ':ahead')
  local head = call('LINDEX', key, 0)
  if not head or call('LPOS', key, id) then return 0 end
  if below(head, id) then return call('LPUSHX', key, id) end
  local first, last, length = 1, 1, call('LLEN', key)
  while last < length and not below(call('LINDEX', key, last), id) do first, last = last + 1, last * 2 end
  last = math.min(last, length)
  while first < last do
    local middle = math.floor((first + last) / 2)
    if below(call('LINDEX', key, middle), id) then last = middle else first = middle + 1 end
  end
  local _, lower = unpack(call('LRANGE', key, first - 1, first))
  if not lower then return 0 end
  return call('LINSERT', key, 'BEFORE', lower, id)
end
local high = raise(KEYS[1], id)
local look = ARGV[7] == '1' or not high or tonumber(id) + tonumber(ARGV[6]) <= tonumber(high)
for at = 1, #keys, width do
  local key = sub(keys, at, at + width - 1)
  local length = look and insert(key) or not look and call('LPUSHX', key, id)
  if length > full then
    -- A list under construction that outgrows the window is given up: cut, it would pass for a whole one.
    if string.byte(call('LINDEX', key, -1)) == 45 then call('DEL', key, key .. ':lock')
    else call('LTRIM', key, 0, cap - 1) end
  end
end
"""
)

# KEYS: list, high. ARGV: window, ids. Returns 0 if there is no list.
_MERGE = Script(
    _LIBRARY
    + """
local old = redis.call('LRANGE', KEYS[1], 0, -1)
if #old == 0 then return 0 end
local cap, ids = tonumber(ARGV[1]), split(ARGV[2])
local list, tail = sorted(old)
list = merge(list, tail, ids)
if ids[1] then raise(KEYS[2], ids[1]) end
-- A list under construction is cut by its builder; a cut takes the end marker off.
if #list > cap and (not tail or tail == '0') then cut(list, cap); tail = nil end
if tail then list[#list + 1] = tail end
write(KEYS[1], list)
return 1
"""
)

# KEYS: list. ARGV: ids to take out.
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

# KEYS: list, lock. ARGV: builder's marker, seconds. Returns the marker to finish with, or nothing if another builder is at
# work or the list is whole. A list that a dead builder left is taken over with what was pushed to it meanwhile.
_BEGIN = Script("""
local tail = redis.call('LINDEX', KEYS[1], -1)
if tail and string.byte(tail) ~= 45 then return false end
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'EX', ARGV[2]) then return false end
if tail then redis.call('LSET', KEYS[1], -1, ARGV[1]) else redis.call('RPUSH', KEYS[1], ARGV[1]) end
redis.call('EXPIRE', KEYS[1], 60)
return ARGV[1]
""")

# KEYS: list, lock, high. ARGV: builder's marker, window, ids, whether they are all there are, seconds to live. Only the
# builder whose marker the list carries may finish it: its query began after the list did.
_FINISH = Script(
    _LIBRARY
    + """
if redis.call('LINDEX', KEYS[1], -1) ~= ARGV[1] then return 0 end
local cap, ids = tonumber(ARGV[2]), split(ARGV[3])
local whole = ARGV[4] == '1'
-- Older ones that were pushed meanwhile are left out, unless the query went to the end: it may lack some above them.
local list = merge(ids, whole, (sorted(redis.call('LRANGE', KEYS[1], 0, -1))))
if ids[1] then raise(KEYS[3], ids[1]) end
if #list > cap then cut(list, cap) elseif whole then list[#list + 1] = '0' end
write(KEYS[1], list)
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('DEL', KEYS[2])
return 1
"""
)

# KEYS: list. ARGV: how many entries (0: all), seconds to live, below which id. Returns the list's first entries, or the last
# one if it holds none below; nothing if it is not whole.
# That the list lives on also shows that Redis takes writes: one that does not may not have been told of changes.
_READ = Script(
    _LIBRARY
    + """
local tail = redis.call('LINDEX', KEYS[1], -1)
if not tail or string.byte(tail) == 45 then return false end
redis.call('EXPIRE', KEYS[1], ARGV[2])
if tail ~= '0' and not below(tail, ARGV[3]) then return {tail} end
return redis.call('LRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1)
"""
)

# KEYS: read-ahead, high. ARGV: builder's mark, seconds. Returns the bucket's high; nothing if another builder is at work, or if
# nothing is known of how high pushes are.
_BEGIN_READ_AHEAD = Script("""
local high = redis.call('GET', KEYS[2])
if not high or redis.call('GETRANGE', KEYS[1], 0, 0) == '?' then return false end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return high
""")

# KEYS: read-ahead. ARGV: builder's mark, what was read, seconds.
_FINISH_READ_AHEAD = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
""")

# KEYS: lists, strictly sorted. ARGV: ids are wanted below this one, from this one on, how many of all lists together, seconds
# that the lists live on. Returns the places of lists that are not whole; then how far down the others are complete together,
# and the ids, each once, in one text. Of many lists few have the newest ids: only those with a head that is among the newest
# heads are looked into, and only as far as these go.
_READ_MANY = Script(
    _LIBRARY
    + """
local call, top, bottom, count = redis.call, ARGV[1], ARGV[2], tonumber(ARGV[3])
local lost, lists, floor = {}, {}, bottom
local function raise_to(id) if below(floor, id) then floor = id end end
local function descending(a, b) return below(b.id, a.id) end
for n, key in ipairs(KEYS) do
  local head = call('LINDEX', key, 0)
  local tail = head and call('LINDEX', key, -1)
  if not head or string.byte(tail) == 45 then lost[#lost + 1] = n
  else
    call('EXPIRE', key, ARGV[4])
    local first, id = 0, head
    if not marker(head) and not below(head, top) then
      local last = call('LLEN', key)
      while first < last do
        local middle = math.floor((first + last) / 2)
        if below(call('LINDEX', key, middle), top) then last = middle else first = middle + 1 end
      end
      id = call('LINDEX', key, first)
    end
    if not id then raise_to(tail)
    elseif not marker(id) and not below(id, bottom) then lists[#lists + 1] = {key = key, at = first, id = id} end
  end
end
table.sort(lists, descending)
local cut, heads = bottom, 0
for n, list in ipairs(lists) do
  if n == 1 or list.id ~= lists[n - 1].id then heads = heads + 1 end
  if heads == count then cut = list.id; break end
end
local seen, found = {}, {}
for _, list in ipairs(lists) do
  if below(list.id, cut) then break end
  local taken, more, last = 0, true, nil
  while more do
    local some = call('LRANGE', list.key, list.at, list.at + 7)
    for _, id in ipairs(some) do
      if marker(id) or below(id, cut) then more = false; last = nil; break end
      if not seen[id] then seen[id] = true; found[#found + 1] = {id = id} end
      taken, last = taken + 1, id
      if taken == count then more = false; break end
    end
    list.at = list.at + 8
    more = more and #some == 8
  end
  -- It goes on below, or ends without a marker, which says nothing of what is below.
  if last then raise_to(last) end
end
table.sort(found, descending)
if found[count] then raise_to(found[count].id) end
local ids = {floor}
for _, one in ipairs(found) do
  if not below(one.id, floor) then ids[#ids + 1] = one.id end
end
return {lost, table.concat(ids, ',')}
"""
)


class Window(NamedTuple):
    """What Redis holds of a timeline: ids newest first, without repeats; no other is missing down to `floor` (0: the end)."""

    ids: list[int]
    floor: int

    @property
    def to_the_end(self) -> bool:
        """Whether there is nothing below."""
        return self.floor == 0


def newest_of(windows: Sequence[Window], limit: int) -> Window:
    """What is known of all these timelines together: at most `limit` of the newest ids, each once."""
    if len(windows) == 1 and len(windows[0].ids) <= limit:
        return windows[0]
    floor = max(window.floor for window in windows)
    ids = sorted({id_ for window in windows for id_ in window.ids if id_ >= floor}, reverse=True)
    return Window(ids[:limit], floor if len(ids) <= limit else ids[limit - 1])


class ReadAhead(NamedTuple):
    """Ids below a window, newest first; no other is missing from below `top` down to `floor` (0: the end)."""

    rights: bytes
    """The name of the rights as of which it was read."""
    top: int
    floor: int
    ids: list[int]

    def covers(self, below: int) -> bool:
        """Whether it says what comes next below `below`."""
        return self.floor < below <= self.top


class ReadingAhead(NamedTuple):
    """PostgreSQL is being asked for a read-ahead."""

    account_id: int
    mark: str
    top: int
    """What is not below may be pushed without a look."""


class Timelines:
    """The timelines of all accounts of one kind.

    Every method raises `RedisAway` when Redis does not answer.
    """

    def __init__(
        self, redis: RedisServer, name: str, *, window: int, buckets: int, idle_days: int, disorder_seconds: float
    ) -> None:
        self._redis = redis
        self._name = name
        self._window = window
        self._buckets = buckets
        self._idle_seconds = idle_days * 86_400
        self._disorder = int(disorder_seconds * 1000) << (SHARD_BITS + SEQUENCE_BITS)
        # A double is off by 2^10 near 2^63.
        self._floor_above = self._disorder + (1 << SEQUENCE_BITS + 1 if self._disorder else 0)

    @property
    def window(self) -> int:
        """Entries that a timeline keeps."""
        return self._window

    @property
    def buckets(self) -> int:
        """How many Redis hash slots timelines are spread over."""
        return self._buckets

    @property
    def key_parts(self) -> tuple[str, str]:
        """What stands in a key before the bucket, and between the bucket and the id."""
        return f"{self._name}:{{", "}:"

    def bucket_of(self, account_id: int) -> int:
        """Which of the `buckets` an account's timeline is in."""
        return shard_of(account_id) % self._buckets

    def _key(self, account_id: int) -> str:
        before, after = self.key_parts
        return f"{before}{self.bucket_of(account_id)}{after}{account_id}"

    def _high(self, bucket: int) -> str:
        before, after = self.key_parts
        return f"{before}{bucket}{after}high"

    async def begin_read(self, account_id: int, *, limit: int | None, below: int = MAX_ID) -> "asyncio.Future[Any]":
        """Ask for the first `limit` entries (None: all), of which there need be none if none is below `below`; `finish_read`
        understands the answer. The timeline lives on for as long as an idle one lives.
        """
        key = self._key(account_id)
        return (await self._redis.node(key)).run(_READ, [key], limit or 0, self._idle_seconds, below)

    def finish_read(self, found: Sequence[bytes] | None) -> Window | None:
        """What `begin_read` was answered; None if the timeline is not materialised or is being rebuilt."""
        if found is None:
            return None
        ids = sorted(set(map(int, found)), reverse=True)
        if ids[-1] == 0:
            return Window(ids[:-1], floor=0)
        floor = ids[-1] + self._floor_above
        while ids and ids[-1] < floor:
            ids.pop()
        return Window(ids, floor)

    async def read(self, account_id: int, *, limit: int | None) -> Window | None:
        """The first `limit` entries (None: all); None if the timeline is not materialised or is being rebuilt."""
        return self.finish_read(await (await self.begin_read(account_id, limit=limit)))

    async def read_many(
        self, account_ids: Sequence[int], *, below: int, above: int, limit: int
    ) -> tuple[Window, list[int]]:
        """At most `limit` ids, below the one and not below the other, of all these timelines together, and how far down these
        are complete; and those of them that are not materialised or are being rebuilt, which it says nothing of. The others live on.

        Only for timelines without disorder, one or more.
        """
        # Only a cluster wants all of a script's keys in one slot.
        cluster = (await self._redis.node(self._key(account_ids[0]))).cluster
        together: dict[int, list[int]] = {}
        for account_id in account_ids:
            together.setdefault(self.bucket_of(account_id) if cluster else 0, []).append(account_id)
        asked = []
        for some in together.values():
            keys = [self._key(account_id) for account_id in some]
            node = await self._redis.node(keys[0])
            asked.append((some, node.run(_READ_MANY, keys, below, above, limit, self._idle_seconds)))
        windows, missing = [], list[int]()
        for some, answer in asked:
            lost, text = await answer
            missing += [some[place - 1] for place in lost]
            floor, *ids = map(int, text.split(b","))
            windows.append(Window(ids, floor))
        return newest_of(windows, limit), missing

    async def push(self, post_id: int, followers: Iterable[PackedFollowers], *, again: bool) -> None:
        """Put a post into the materialised timelines among `followers`; `again` if it may be in some of them already.

        Keys are cut from the packed texts and handed on as they are: Python touches no follower. Few hundred a call keep
        Redis's other clients from waiting, and some calls in flight keep Redis busy: the more, the smaller they are.
        """
        calls = [
            (self._high(some.bucket), some.keys[at : at + _IDS_A_CALL * some.width], some.width)
            for some in followers
            for at in range(0, len(some.keys), _IDS_A_CALL * some.width)
        ]
        flags = (self._window, _TRIM_SLACK, self._disorder, int(again))
        largest = max((len(keys) // width for _, keys, width in calls), default=1)
        waiting = iter(calls)

        async def make_calls() -> None:
            for high, keys, width in waiting:
                await self._redis.run(_PUSH, [high], post_id, keys, width, *flags)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(max(1, min(_IDS_IN_FLIGHT // largest, len(calls), _CALLS_IN_FLIGHT))):
                    group.create_task(make_calls())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def push_to(self, account_ids: Iterable[int], post_id: int, *, again: bool) -> None:
        """Put a post into those of these few timelines that are materialised."""
        keys = [(self.bucket_of(account_id), self._key(account_id)) for account_id in account_ids]
        await self.push(post_id, [PackedFollowers(bucket, key, len(key)) for bucket, key in keys], again=again)

    async def merge(self, account_id: int, post_ids: Iterable[int]) -> bool:
        """Put posts of any age into a timeline; False if it is not materialised."""
        ids = ",".join(map(str, sorted(post_ids, reverse=True)))
        keys = [self._key(account_id), self._high(self.bucket_of(account_id))]
        return bool(await self._redis.run(_MERGE, keys, self._window, ids))

    async def remove(self, account_id: int, post_ids: Iterable[int]) -> None:
        """Take posts out of a timeline."""
        await self._redis.run(_REMOVE, [self._key(account_id)], ",".join(map(str, post_ids)))

    async def forget(self, account_id: int) -> None:
        """Drop a timeline, and what was read ahead below it."""
        key = self._key(account_id)
        await self._redis.call(key, "DEL", key, f"{key}:lock", f"{key}:ahead")

    async def entries(self, account_id: int) -> list[int]:
        """All ids that the list holds, in its order, also while it is rebuilt."""
        key = self._key(account_id)
        return [id_ for id_ in map(int, await self._redis.call(key, "LRANGE", key, 0, -1)) if id_ > 0]

    async def begin_rebuild(self, account_id: int) -> str | None:
        """Create the list, so that what is published from now on is pushed to it; None if somebody else rebuilds."""
        key = self._key(account_id)
        marker: bytes | None = await self._redis.run(
            _BEGIN, [key, f"{key}:lock"], f"-{1 + secrets.randbits(62)}", _BUILD_SECONDS
        )
        return marker.decode() if marker else None

    async def finish_rebuild(self, account_id: int, marker: str, post_ids: Iterable[int], *, to_the_end: bool) -> bool:
        """Fill the list with the timeline's posts as SQL gave them after `begin_rebuild`, newest first; False if the list is
        another's now.
        """
        key = self._key(account_id)
        keys = [key, f"{key}:lock", self._high(self.bucket_of(account_id))]
        ids = ",".join(map(str, post_ids))
        done = await self._redis.run(_FINISH, keys, marker, self._window, ids, int(to_the_end), self._idle_seconds)
        return bool(done)

    async def ask_read_ahead(self, account_id: int) -> "asyncio.Future[Any]":
        """Ask for what was read ahead; `read_ahead_of` understands the answer."""
        key = self._key(account_id)
        return (await self._redis.node(key)).send("GET", f"{key}:ahead")

    def read_ahead_of(self, found: bytes | None) -> ReadAhead | None:
        """What `ask_read_ahead` was answered; None if there is nothing, or nothing yet."""
        if found is None or found.startswith(b"?"):
            return None
        rights, _, packed = found.partition(b" ")
        top, floor, *ids = struct.unpack(f"<{len(packed) // 8}q", packed)
        return ReadAhead(rights, top, floor, ids)

    async def begin_read_ahead(self, account_id: int) -> ReadingAhead | None:
        """Say that PostgreSQL is about to be asked for what is below the window, which takes the place of what was read ahead
        before; None if somebody else is at it.
        """
        key, mark = self._key(account_id), f"?{secrets.token_hex(8)}"
        keys = [f"{key}:ahead", self._high(self.bucket_of(account_id))]
        high: bytes | None = await self._redis.run(_BEGIN_READ_AHEAD, keys, mark, _BUILD_SECONDS)
        return None if high is None else ReadingAhead(account_id, mark, int(high) - self._floor_above)

    async def finish_read_ahead(self, reading: ReadingAhead, found: ReadAhead) -> None:
        """What PostgreSQL said after `begin_read_ahead`; dropped if it may be no longer true."""
        top = min(found.top, reading.top)
        ids = [id_ for id_ in found.ids if id_ < top]
        packed = struct.pack(f"<{2 + len(ids)}q", top, found.floor, *ids)
        key = f"{self._key(reading.account_id)}:ahead"
        await self._redis.run(
            _FINISH_READ_AHEAD, [key], reading.mark, found.rights + b" " + packed, _READ_AHEAD_SECONDS
        )
