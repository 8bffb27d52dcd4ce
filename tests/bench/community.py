"""Communities of the size that a bench needs, loaded past the verbs: accounts, follows, posts with photos, full feeds."""

import hashlib
import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import asyncpg

from instafeed import cursors
from instafeed.ids import (
    EPOCH_MS,
    SEQUENCE_BITS,
    SHARD_BITS,
    IdMaker,
    random_shard,
    shard_of,
    shard_of_text,
    unix_ms_of,
)
from instafeed.models import Viewer
from instafeed.resources import Resources
from instafeed.settings import Settings
from instafeed.storage.follows import PackedFollowers
from instafeed.storage.redis import Script
from instafeed.storage.timelines import Timelines
from tests.bench.common import progress

MINUTE = 60_000
_FULL_VARIANTS = 51
_EDGE = 64

_RENDITIONS = (
    *((f"{size}", "jpeg", size) for size in (1080, 640, 320, 150)),
    *((f"{size}", "webp", size) for size in (1080, 640, 320, 150)),
)

# ARGV: variants, how many entries besides them, whether all are cut to the same length, ids (newest last), keys (fixed width),
# their width. Copies full lists to all keys. They differ in length, or else in where their inner pages end, as lists do to
# which posts were pushed for a while.
_FILL = Script("""
local ids, dumps = {}, {}
for id in string.gmatch(ARGV[4], '[^,]+') do ids[#ids + 1] = id end
local variants, entries, width = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[6])
for variant = 0, variants - 1 do
  redis.call('DEL', 'full')
  local from = #ids - entries - variant + 1
  for number = from, #ids do redis.call('LPUSH', 'full', ids[number]) end
  if ARGV[3] == '1' then redis.call('LTRIM', 'full', 0, entries - 1) end
  dumps[variant] = redis.call('DUMP', 'full')
end
redis.call('DEL', 'full')
local number = 0
for at = 1, #ARGV[5], width do
  redis.call('RESTORE', string.sub(ARGV[5], at, at + width - 1), 0, dumps[number % variants], 'REPLACE')
  number = number + 1
end
""")


class Clock:
    """Steps on with every look, in milliseconds; it begins so long ago that `looks` of them end a few minutes before now."""

    def __init__(self, *, step: float, looks: int) -> None:
        self._step = step
        self._now = max(time.time() * 1000 - 10 * MINUTE - step * looks, EPOCH_MS + MINUTE)

    def __call__(self) -> int:
        """The time."""
        self._now += self._step
        return int(self._now)


def spread_ids(*, step: float, count: int) -> IdMaker:
    """Makes `count` ids that are so many milliseconds apart as posts really are, up to now: feeds depend on it."""
    return IdMaker(clock=Clock(step=step, looks=count))


def new_accounts(count: int) -> list[int]:
    """Ids on random shards, as sign-ups make them."""
    ids = spread_ids(step=20, count=count)
    return [ids.next(random_shard()) for _ in range(count)]


@dataclass(frozen=True)
class Loader:
    """Loads tables with COPY, on a connection without the application's time limits."""

    settings: Settings
    connection: asyncpg.Connection

    async def copy(self, table: str, columns: str, records: Iterable[Sequence[object]]) -> None:
        """Add rows."""
        await self.connection.copy_records_to_table(table, columns=columns.split(), records=records)

    async def accounts(self, ids: Iterable[int]) -> None:
        """Accounts without a password."""
        rows = ((shard_of(id_), id_, f"user.{id_}", f"User {id_}", "") for id_ in ids)
        await self.copy("accounts", "shard id username display_name password_hash", rows)

    async def tokens(self, ids: Sequence[int]) -> list[str]:
        """A log-in of each account."""
        found = [(id_, secrets.token_urlsafe(32)) for id_ in ids]
        rows = (
            (
                shard_of(id_),
                (id_ & ~((1 << SEQUENCE_BITS) - 1)) + 1023,
                id_,
                hashlib.sha256(secret.encode()).digest(),
                "",
            )
            for id_, secret in found
        )
        await self.copy("sessions", "shard id account_id token_hash device_name", rows)
        return [f"{id_}.{secret}" for id_, secret in found]

    async def follows(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Follows (follower, followee)."""
        rows = ((shard_of(one), one, other, number, False) for number, (one, other) in enumerate(pairs, 1))
        await self.copy("following", "shard follower_id followee_id id notify", rows)
        await self.followers(pairs)

    async def followers(self, pairs: Sequence[tuple[int, int]]) -> None:
        """The followee's halves of follows, which is all that fan-out asks for."""
        rows = ((shard_of(other), other, one, number, False) for number, (one, other) in enumerate(pairs, 1))
        await self.copy("followers", "shard followee_id follower_id id notify", rows)
        await self.connection.execute(
            "update accounts set follower_count = found.count"
            " from (select followee_id, count(*) from followers group by 1) found where id = found.followee_id"
        )

    async def posts(self, authors: Sequence[int], count: int, *, step: float, seed: int = 1) -> list[int]:
        """`count` published posts by random ones of the authors, so many ms apart, up to now; oldest first."""
        pick, ids = random.Random(seed), spread_ids(step=step, count=count)
        posts = []

        def rows() -> Iterator[tuple[object, ...]]:
            for _ in range(count):
                author = pick.choice(authors)
                id_ = ids.next(shard_of(author))
                posts.append(id_)
                when = datetime.fromtimestamp(unix_ms_of(id_) / 1000, UTC)
                yield shard_of(id_), id_, author, "Somewhere by the sea, early in the morning", when

        await self.copy("posts", "shard id author_id caption published_at", rows())
        return posts

    async def tags(self, posts: Sequence[int], names: Sequence[str], *, each: int, seed: int = 1) -> None:
        """So many of the tags for each post, at random."""
        pick = random.Random(seed)
        tagged = [(id_, sorted(pick.sample(names, each))) for id_ in posts]
        found = await self.connection.fetch("select id, author_id from posts where id = any($1::bigint[])", list(posts))
        authors = {record["id"]: record["author_id"] for record in found}
        await self.connection.executemany("update posts set tags = $2 where id = $1", tagged)
        rows = [(shard_of_text(tag), tag, id_, authors[id_]) for id_, tags in tagged for tag in tags]
        await self.copy("tagged_posts", "shard tag post_id author_id", rows)

    async def followed_tags(self, accounts: Sequence[int], names: Sequence[str]) -> None:
        """Have each of the accounts follow all of the tags."""
        rows = [(shard_of(id_), id_, tag, number) for id_ in accounts for number, tag in enumerate(names, 1)]
        await self.copy("followed_tags", "shard account_id tag id", rows)

    async def photos(self, posts: Sequence[int], *, renditions: int = len(_RENDITIONS)) -> None:
        """One ready photo for each post."""
        found = await self.connection.fetch("select id, author_id from posts where id = any($1::bigint[])", list(posts))
        text = json.dumps(
            [
                {
                    "name": name,
                    "key": f"renditions/{'x' * 32}/{name}.{kind}",
                    "width": size,
                    "height": size * 2 // 3,
                    "content_type": f"image/{kind}",
                    "size": 100 * size,
                }
                for name, kind, size in _RENDITIONS[:renditions]
            ]
        )
        await self.connection.execute(
            "insert into media (shard, id, account_id, status, object_key, width, height, blurhash, renditions, post_id, position)"
            " select (id >> 10 & 8191)::smallint, id, author, 'ready', 'x', 4000, 3000, 'LEHV6nWB2yk8pyo0adR*.7kCMdnj',"
            " $3::jsonb, id, 1 from unnest($1::bigint[], $2::bigint[]) as post (id, author)",
            [record["id"] for record in found],
            [record["author_id"] for record in found],
            text,
        )

    async def analyze(self) -> None:
        """What autovacuum would have done by now."""
        await self.connection.execute("vacuum analyze")


@asynccontextmanager
async def loading(settings: Settings) -> AsyncIterator[Loader]:
    """A loader."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        yield Loader(settings, connection)
    finally:
        await connection.close()


def packed(timelines: Timelines, accounts: Iterable[int]) -> list[PackedFollowers]:
    """Followers as the database packs them, in the order of their ids."""
    keys: dict[tuple[int, int], list[str]] = {}
    for id_ in sorted(accounts):
        key = timelines._key(id_)
        keys.setdefault((timelines.bucket_of(id_), len(key)), []).append(key)
    return [PackedFollowers(bucket, "".join(some), width) for (bucket, width), some in keys.items()]


async def fill_feeds(
    res: Resources, accounts: Sequence[int], *, entries: int, alike: bool = False, step: float = 5 * MINUTE
) -> list[int]:
    """Give these accounts feeds with at least so many entries; returns the ids in the longest one, newest first.

    Their lengths differ, up to where the next push trims; with `alike` all have `entries` entries.
    """
    slack = _EDGE if alike else _FULL_VARIANTS
    maker = spread_ids(step=step, count=entries + slack)
    ids = [maker.next(7) for _ in range(entries + slack - 1)]
    text = ",".join(map(str, ids))
    for some in packed(res.timelines, accounts):
        for at in range(0, len(some.keys), 1000 * some.width):
            keys = some.keys[at : at + 1000 * some.width]
            await res.redis.run(_FILL, ["full"], slack, entries, int(alike), text, keys, some.width)
    # As if these posts had been pushed.
    for bucket in range(res.timelines.buckets):
        await res.redis.call("full", "SET", res.timelines._high(bucket), ids[-1])
    return ids[::-1]


def with_ids(res: Resources, ids: IdMaker) -> Resources:
    """The resources with another maker of ids."""
    return replace(res, ids=ids)


def viewer(account_id: int) -> Viewer:
    """A log-in of the account."""
    return Viewer(account_id, account_id, str(account_id))


def cursor(settings: Settings, account_id: int, below: int) -> str:
    """Where a page of the account's feed begins."""
    return cursors.encode(settings.secret_key.get_secret_value().encode(), f"{account_id} /v1/feed", below)


def later(id_: int, milliseconds: float) -> int:
    """The id of a post on the same shard, made so much later."""
    return id_ + (int(milliseconds) << SHARD_BITS + SEQUENCE_BITS)


async def a_site(load: Loader, authors: int, posts: int) -> tuple[list[int], list[int]]:
    """Accounts, and their posts over the months since the epoch, oldest first."""
    progress(f"loading {posts:,} posts of {authors:,} accounts")
    accounts = new_accounts(authors)
    await load.accounts(accounts)
    since = time.time() * 1000 - EPOCH_MS - 60 * MINUTE
    return accounts, await load.posts(accounts, posts, step=since / posts)
