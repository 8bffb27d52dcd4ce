"""A small community straight in the servers: no HTTP, no photos, no worker but what a test lets run."""

import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from instafeed import feeds, follows, posts, telemetry, work
from instafeed.ids import MAX_ID, IdMaker, shard_of
from instafeed.jobs.adapters import VERBS
from instafeed.models import Viewer
from instafeed.resources import Resources
from instafeed.storage import posts as post_rows
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Kind
from instafeed.storage.queue import Queue
from instafeed.storage.timelines import Window
from tests.redis import redis_client


class SilentQueue(Queue):
    """Whose bells nobody hears: a test runs the jobs itself."""

    async def ring(self, kind: Kind, entry_id: int) -> None:
        """Do nothing."""


def viewer(account_id: int) -> Viewer:
    """A log-in of the account."""
    return Viewer(account_id, account_id, str(account_id))


_milliseconds = itertools.count(1_800_000_000_000)


def ticking() -> IdMaker:
    """Makes ids of which each is later than the last one, on whatever shard, and unlike those of all other worlds."""
    return IdMaker(clock=lambda: next(_milliseconds))


@dataclass
class World:
    """Accounts, posts and follows, and the jobs that wait."""

    res: Resources

    @classmethod
    def of(cls, res: Resources, **changes: Any) -> "World":
        """A world where no bell rings, with `changes` to the resources."""
        return cls(replace(res, ids=ticking(), queue=SilentQueue(res.settings.queue_url), **changes))

    async def sql(self, query: str, *arguments: object) -> list[Any]:
        """The first column of what `query` returns."""
        async with self.res.db.acquire() as connection:
            return [record[0] for record in await connection.fetch(query, *arguments)]

    async def account(self, shard: int = 1) -> int:
        """A new account."""
        id_ = self.res.ids.next(shard)
        await self.sql(
            "insert into accounts (shard, id, username, password_hash) values ($1, $2::bigint, 'u' || $2::text, '')"
            " returning 1",
            shard,
            id_,
        )
        return id_

    async def draft(self, author: int) -> int:
        """A post whose photos are not ready."""
        post_id = self.res.ids.next(shard_of(author))
        async with self.res.db.acquire() as connection:
            await post_rows.insert(connection, post_id, author_id=author, caption="")
        return post_id

    async def publish(self, post_id: int) -> int:
        """What happens when the last photo of a post is ready; returns the fan-out's outbox entry."""

        async def body(connection: Connection) -> int:
            entry = await posts.publish_when_ready(self.res, connection, post_id)
            assert entry is not None
            return entry

        entry = await self.res.db.transact(body)
        await self.res.queue.ring(Kind.FAN_OUT, entry)
        return entry

    async def post(self, author: int) -> int:
        """A post that is published."""
        post_id = await self.draft(author)
        await self.publish(post_id)
        return post_id

    async def posts(self, author: int, count: int) -> list[int]:
        """`count` posts, newest first."""
        return [await self.post(author) for _ in range(count)][::-1]

    async def follow(self, follower: int, author: int, *, notify: bool = True) -> None:
        """Follow."""
        await follows.follow(self.res, viewer(follower), author, notify=notify)

    async def unfollow(self, follower: int, author: int) -> None:
        """Unfollow."""
        await follows.unfollow(self.res, viewer(follower), author)

    async def delete(self, author: int, post_id: int) -> None:
        """Delete a post."""
        await posts.delete(self.res, viewer(author), post_id)

    async def pending(self) -> list[tuple[int, Kind]]:
        """The entries of the outbox that are not done, oldest first."""
        async with self.res.db.acquire() as connection:
            records = await connection.fetch("select id, kind from outbox where done_at is null order by id")
        return [(record["id"], Kind(record["kind"])) for record in records]

    async def perform(self, entry_id: int, kind: Kind) -> None:
        """Run a job."""
        await work.perform(self.res, entry_id, kind, VERBS[kind])

    async def lapse(self) -> None:
        """Let every lease end, as if its time had passed."""
        await self.sql("update outbox set leased_until = null where done_at is null returning 1")

    async def settle(self) -> None:
        """Run jobs until none is left."""
        await self.lapse()
        for _ in range(10):
            for entry in await self.pending():
                await self.perform(*entry)
        assert await self.pending() == [], "work comes to an end"

    async def page(self, account: int, limit: int, below: int = MAX_ID) -> tuple[list[int], int | None]:
        """A page of the home feed: ids, and where the next one begins."""
        page = await feeds.read_home(self.res, viewer(account), below=below, limit=limit)
        assert len(page.items) <= limit
        return [post.id for post in page.items], page.next

    async def walk(
        self,
        account: int,
        limits: Sequence[int],
        below: int = MAX_ID,
        between: Callable[[], Awaitable[object]] | None = None,
    ) -> list[int]:
        """The home feed from `below` to its end, in pages of these sizes, over and over."""
        shown: list[int] = []
        position: int | None = below
        turn = 0
        while position is not None:
            ids, position = await self.page(account, limits[turn % len(limits)], position)
            shown += ids
            turn += 1
            if between is not None:
                await between()
        assert shown == sorted(set(shown), reverse=True), "a chain goes down and repeats nothing"
        return shown

    async def defined(self, account: int) -> list[int]:
        """The home feed by its definition."""
        return await self.sql(
            "select id from posts where published_at is not null and (author_id = $1"
            " or exists (select from following where follower_id = $1 and followee_id = author_id)) order by id desc",
            account,
        )

    async def window(self, account: int) -> Window | None:
        """What Redis holds of the feed."""
        return await self.res.timelines.read(account, limit=None)

    async def materialise(self, *accounts: int) -> None:
        """Have Redis hold these feeds."""
        for account in accounts:
            await self.page(account, 1)
            assert await self.window(account) is not None

    async def expire(self, account: int) -> None:
        """Take a feed out of Redis, as if nobody had read it for long."""
        async with redis_client(self.res.settings) as redis:
            await redis.delete(self.key(account))

    async def unlock(self, account: int) -> None:
        """Let the lock of a rebuild end, as if its time had passed."""
        async with redis_client(self.res.settings) as redis:
            await redis.delete(f"{self.key(account)}:lock")

    async def flush(self) -> None:
        """Empty Redis."""
        async with redis_client(self.res.settings) as redis:
            await redis.flushdb()

    def key(self, account: int) -> str:
        """The Redis key of a feed."""
        return self.res.timelines._key(account)


async def add_rows(world: World, table: str, rows: Sequence[dict[str, Any]]) -> None:
    """Put rows into a table at once, past the verbs."""
    if rows:
        columns = ", ".join(rows[0])
        places = ", ".join(f"${number}" for number in range(1, len(rows[0]) + 1))
        async with world.res.db.acquire() as connection:
            await connection.executemany(
                f"insert into {table} ({columns}) values ({places})", [list(row.values()) for row in rows]
            )


async def add_posts(world: World, authors: Sequence[int]) -> list[int]:
    """Published posts of these authors, oldest first, which no job delivers."""
    ids = [world.res.ids.next(shard_of(author)) for author in authors]
    await add_rows(
        world,
        "posts",
        [
            {"shard": shard_of(author), "id": id_, "author_id": author, "caption": "", "published_at": telemetry.now()}
            for id_, author in zip(ids, authors, strict=True)
        ],
    )
    return ids


async def add_follows(world: World, pairs: Iterable[tuple[int, int]]) -> None:
    """Follows (follower, followee), which no job aligns."""
    rows = [
        {"follower_id": follower, "followee_id": followee, "id": world.res.ids.next(shard_of(follower)), "notify": True}
        for follower, followee in pairs
    ]
    await add_rows(world, "following", [row | {"shard": shard_of(row["follower_id"])} for row in rows])
    await add_rows(world, "followers", [row | {"shard": shard_of(row["followee_id"])} for row in rows])
