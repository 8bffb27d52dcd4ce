"""A small community straight in the servers: no HTTP, no photos, no worker but what a test lets run."""

import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from instafeed import (
    accounts,
    blocks,
    captions,
    feeds,
    follow_requests,
    follows,
    mutes,
    posts,
    tags,
    telemetry,
    work,
)
from instafeed.entities import tags_in
from instafeed.ids import MAX_ID, IdMaker, shard_of, shard_of_text
from instafeed.jobs.adapters import VERBS
from instafeed.models import AccountChanges, Post, PostChanges, Viewer
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

    async def is_idle(self, queue: str) -> bool:
        """Others wait, so that work is divided."""
        return False


def viewer(account_id: int) -> Viewer:
    """A log-in of the account."""
    return Viewer(account_id, account_id, str(account_id))


def render(post: Post) -> bytes:
    """How a post is shown here."""
    return shown(post.caption, len(post.media))


def shown(caption: str, photos: int) -> bytes:
    """What `render` makes of a post with this caption and so many photos."""
    return f"{caption} ({photos} photos)".encode()


_END_HOLDS = """
for _, keys in ipairs({'rights:*', 'marks:*', 'counts:*'}) do
  for _, key in ipairs(redis.call('KEYS', keys)) do
    if string.find(key, ':hold$') or string.find(key, ':fill$') then redis.call('DEL', key) end
  end
end
for _, pattern in ipairs({'post:*', 'feed:*:ahead'}) do
  for _, key in ipairs(redis.call('KEYS', pattern)) do
    local value = redis.call('GET', key)
    if string.find(value, '^[-?]') then redis.call('DEL', key) end
  end
end
"""

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
        await self.sql(
            "insert into usernames (username, account_id) values ('u' || $1::bigint::text, $1::bigint) returning 1", id_
        )
        return id_

    async def draft(self, author: int, caption: str = "") -> int:
        """A post whose photos are not ready."""
        post_id = self.res.ids.next(shard_of(author))
        async with self.res.db.acquire() as connection:
            await post_rows.insert(connection, post_id, author_id=author, caption=caption)
            if caption:
                await captions.write(connection, viewer(author), post_id, caption)
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

    async def post(self, author: int, caption: str = "") -> int:
        """A post that is published."""
        post_id = await self.draft(author, caption)
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

    async def edit(self, author: int, post_id: int, caption: str) -> None:
        """Change a post's caption."""
        await posts.edit(self.res, viewer(author), post_id, PostChanges(caption=caption))

    async def remove_follower(self, author: int, follower: int) -> None:
        """Make an account follow no more."""
        await follows.remove_follower(self.res, viewer(author), follower)

    async def approve(self, author: int, requester: int) -> None:
        """Let a requester follow."""
        await follow_requests.approve(self.res, viewer(author), requester)

    async def refuse(self, author: int, requester: int) -> None:
        """Let a requester not follow."""
        await follow_requests.refuse(self.res, viewer(author), requester)

    async def set_private(self, account: int, private: bool) -> None:
        """Go private, or public."""
        await accounts.update(self.res, viewer(account), AccountChanges(is_private=private))

    async def rename(self, account: int, name: str) -> None:
        """Change the name that stands beside an account's posts."""
        await accounts.update(self.res, viewer(account), AccountChanges(display_name=name))

    async def block(self, me: int, other: int) -> None:
        """Block."""
        await blocks.block(self.res, viewer(me), other)

    async def unblock(self, me: int, other: int) -> None:
        """Block no more."""
        await blocks.unblock(self.res, viewer(me), other)

    async def mute(self, me: int, other: int) -> None:
        """Mute."""
        await mutes.mute(self.res, viewer(me), other)

    async def unmute(self, me: int, other: int) -> None:
        """Mute no more."""
        await mutes.unmute(self.res, viewer(me), other)

    async def follow_tag(self, account: int, tag: str) -> None:
        """Follow a tag."""
        await tags.follow(self.res, viewer(account), tag)

    async def unfollow_tag(self, account: int, tag: str) -> None:
        """Follow a tag no more."""
        await tags.unfollow(self.res, viewer(account), tag)

    async def suspend(self, account: int) -> None:
        """Suspend an account."""
        await accounts.suspend(self.res, f"u{account}")

    async def unsuspend(self, account: int) -> None:
        """Bring an account back."""
        await accounts.unsuspend(self.res, f"u{account}")

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
            pending = await self.pending()
            for entry in pending:
                await self.perform(*entry)
            if not pending:
                break
        else:
            raise AssertionError("work comes to an end")

    def render(self, post: Post) -> bytes:
        """How this world shows a post, which is cached."""
        return render(post)

    async def page(self, account: int, limit: int, below: int = MAX_ID) -> tuple[list[int], int | None]:
        """A page of the home feed: ids, and where the next one begins."""
        page = await feeds.read_home(self.res, viewer(account), below=below, limit=limit, render=self.render)
        assert len(page.items) <= limit
        return [id_ for id_, _ in page.items], page.next

    async def walk(
        self,
        account: int,
        limits: Sequence[int],
        below: int = MAX_ID,
        between: Callable[[], Awaitable[object]] | None = None,
    ) -> list[int]:
        """The home feed from `below` to its end, in pages of these sizes, over and over."""
        return list(await self.walk_posts(account, limits, below, between))

    async def walk_posts(
        self,
        account: int,
        limits: Sequence[int],
        below: int = MAX_ID,
        between: Callable[[], Awaitable[object]] | None = None,
    ) -> dict[int, bytes]:
        """Like `walk`, and what is shown of each post."""
        posts: dict[int, bytes] = {}
        position: int | None = below
        turn = 0
        while position is not None:
            limit = limits[turn % len(limits)]
            page = await feeds.read_home(self.res, viewer(account), below=position, limit=limit, render=self.render)
            ids = [id_ for id_, _ in page.items]
            assert len(ids) <= limit
            assert [*ids, 0] == sorted({*ids, 0}, reverse=True), "a page goes down"
            assert all(id_ < position for id_ in ids), "a chain repeats nothing"
            assert page.next is None or page.next == ids[-1]
            posts |= {id_: post.json for id_, post in page.items}
            position = page.next
            turn += 1
            if between is not None:
                await between()
        return posts

    async def defined(self, account: int) -> list[int]:
        """The home feed by its definition."""
        return list(await self.defined_posts(account))

    async def defined_posts(self, account: int) -> dict[int, bytes]:
        """The home feed by its definition, newest first, and how each post is shown."""
        async with self.res.db.acquire() as connection:
            records = await connection.fetch(
                "select id, caption from posts where published_at is not null and (author_id = any($1) or author_id = any($2)"
                " and id in (select post_id from tagged_posts where tag = any($3))) order by id desc",
                list(await self.allowed(account)),
                list(await self.open(account)),
                await self.sql("select tag from followed_tags where account_id = $1", account),
            )
            photos = await connection.fetch(
                "select post_id, count(*) as count from media where post_id = any($1) group by post_id",
                [record["id"] for record in records],
            )
        count = {record["post_id"]: record["count"] for record in photos}
        return {record["id"]: shown(record["caption"], count.get(record["id"], 0)) for record in records}

    async def allowed(self, account: int) -> set[int]:
        """Whose posts the account's home feed shows, by its definition."""
        return set(
            await self.sql(
                "select author.id from accounts author where suspended_at is null and (author.id = $1"
                " or exists (select from following where follower_id = $1 and followee_id = author.id)"
                " and not exists (select from blocks where blocker_id = $1 and blocked_id = author.id)"
                " and not exists (select from blocks where blocker_id = author.id and blocked_id = $1)"
                " and not exists (select from mutes where muter_id = $1 and muted_id = author.id))",
                account,
            )
        )

    async def open(self, account: int) -> set[int]:
        """Of whom the account's home feed shows posts with a followed tag, whether it follows them or not."""
        return set(
            await self.sql(
                "select author.id from accounts author where suspended_at is null and not is_private"
                " and not exists (select from blocks where blocker_id = $1 and blocked_id = author.id)"
                " and not exists (select from blocks where blocker_id = author.id and blocked_id = $1)"
                " and not exists (select from mutes where muter_id = $1 and muted_id = author.id)",
                account,
            )
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

    async def expire_recents(self, author: int) -> None:
        """Take an author's recent posts out of Redis, as if nobody had read them for long."""
        async with redis_client(self.res.settings) as redis:
            await redis.delete(self.res.recents._key(author))

    async def unlock(self, account: int) -> None:
        """Let the locks of rebuilds end, as if their time had passed."""
        async with redis_client(self.res.settings) as redis:
            await redis.delete(f"{self.key(account)}:lock", f"{self.res.recents._key(account)}:lock")

    async def end_holds(self) -> None:
        """Let all holds in the caches end that nobody released, and the marks of fills, as if their time had passed."""
        async with redis_client(self.res.settings) as redis:
            await redis.register_script(_END_HOLDS)()

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


async def add_posts(world: World, authors: Sequence[int], captions: Sequence[str] = ("",)) -> list[int]:
    """Published posts of these authors with these captions, over and over, oldest first, which no job delivers."""
    ids = [world.res.ids.next(shard_of(author)) for author in authors]
    posts = list(zip(ids, authors, itertools.cycle(captions), strict=False))
    await add_rows(
        world,
        "posts",
        [
            {
                "shard": shard_of(author),
                "id": id_,
                "author_id": author,
                "caption": caption,
                "published_at": telemetry.now(),
                "tags": tags_in(caption),
            }
            for id_, author, caption in posts
        ],
    )
    await add_rows(
        world,
        "tagged_posts",
        [
            {"shard": shard_of_text(tag), "tag": tag, "post_id": id_, "author_id": author}
            for id_, author, caption in posts
            for tag in tags_in(caption)
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
    await world.sql(
        "update accounts set follower_count = (select count(*) from followers where followee_id = accounts.id),"
        " following_count = (select count(*) from following where follower_id = accounts.id)"
        " where id = any($1) returning 1",
        list({row[side] for row in rows for side in ("follower_id", "followee_id")}),
    )
