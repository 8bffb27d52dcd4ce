"""Transactions that change what caches hold, and that cause work.

A cached thing is taken out before the change is committed and cannot come back before it is, so that no read that begins
after the answer finds what was true before; what the change must cause is noted in the transaction and rung for after it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from instafeed.errors import RedisAway, Unavailable
from instafeed.ids import MAX_ID
from instafeed.resources import Resources
from instafeed.storage import outbox
from instafeed.storage import posts as post_rows
from instafeed.storage.database import Connection
from instafeed.storage.mark_cache import Hold as MarkHold
from instafeed.storage.outbox import Kind
from instafeed.storage.post_cache import Hold as PostHold
from instafeed.storage.rights_cache import Hold as RightsHold

T = TypeVar("T")

_ALL = 1_000_000


class Change:
    """A transaction that runs; `connection` is its connection.

    The `hold_` methods come after the statements that lock what they speak of: of two changes of one thing the second
    must hold it after the first has released it. They raise `RedisAway` where a cache could go on telling what is not true
    any more; a Redis that is gone tells nothing, and what comes back is believed in nothing.
    """

    def __init__(self, res: Resources, connection: Connection) -> None:
        self._res = res
        self.connection = connection
        self.is_complete = False
        """Whether only the commit is left to do."""
        self._rung: list[tuple[Kind, int]] = []
        self._rights: list[RightsHold] = []
        self._posts: list[PostHold] = []
        self._marks: list[MarkHold] = []
        self._counted: list[int] = []
        self._untaken: list[Callable[[], Awaitable[None]]] = []
        self._sessions: list[str] = []

    async def note(self, shard: int, kind: Kind, payload: dict[str, Any], *, seconds: float = 0) -> None:
        """Note work that the change causes, on this shard, for when so many seconds have passed; ids in `payload` are plain
        integers.
        """
        entry_id = self._res.ids.next(shard)
        if seconds:
            await outbox.add(self.connection, entry_id, kind, payload, seconds=seconds)
            return
        await outbox.add(self.connection, entry_id, kind, payload)
        self._rung.append((kind, entry_id))

    async def hold_rights(self, *account_ids: int) -> None:
        """Whose posts these accounts may see in their home feeds is about to change; their rows are locked."""

        async def take() -> None:
            self._rights += await self._res.rights.hold(account_ids)

        await self._hold(take)

    async def hold_posts(self, *post_ids: int) -> None:
        """These posts, or how they are shown, are about to change; their rows are locked or gone."""

        async def take() -> None:
            self._posts.append(await self._res.post_cache.hold(post_ids))

        await self._hold(take)

    async def hold_author(self, account_id: int) -> None:
        """How all of an author's posts are shown is about to change; the account's row is locked."""
        post_ids = await post_rows.ids_of_author(
            self.connection, account_id, below=MAX_ID, limit=_ALL, unpublished=True
        )

        async def take() -> None:
            self._posts.append(await self._res.post_cache.hold_author(account_id, post_ids))

        await self._hold(take)

    async def hold_like(self, account_id: int, post_id: int, *, liked: bool) -> None:
        """Whether the account likes the post is about to change; its row is locked."""

        async def take() -> None:
            self._marks.append(await self._res.marks.hold_like(account_id, post_id, liked=liked))

        await self._hold(take)

    async def hold_save(self, account_id: int, post_id: int, *, saved: bool) -> None:
        """Whether the account has saved the post is about to change; its row is locked."""

        async def take() -> None:
            self._marks.append(await self._res.marks.hold_save(account_id, post_id, saved=saved))

        await self._hold(take)

    async def recount(self, post_id: int) -> None:
        """The post's counts are about to change: a second after the commit nobody is told the old ones.

        Once more after the commit, if this process lives to see it.
        """
        self._counted.append(post_id)
        with contextlib.suppress(RedisAway):
            await self._res.counts.recount(post_id)

    async def end_sessions(self, session_keys: Iterable[str]) -> None:
        """These sessions end with the change: it must be impossible to use them once it is committed."""
        keys = list(session_keys)

        async def take() -> None:
            await self._res.sessions.end(keys)

        await self._hold(take)
        self._sessions += keys

    async def _hold(self, take: Callable[[], Awaitable[None]]) -> None:
        try:
            await take()
        except RedisAway as error:
            # A server that is gone tells nobody what was true before.
            if not error.gone:
                raise
            self._untaken.append(take)

    async def release(self, *, committed: bool) -> None:
        """Let the caches be filled again; should it not come to that, the holds end by themselves.

        Redis may have come back before the commit, or have been restarted, and have been told what was true then: what could
        not be held is held now, and of what is held everything is taken out once more.
        """
        for take in self._untaken if committed else ():
            with contextlib.suppress(RedisAway):
                await take()
        with contextlib.suppress(RedisAway):
            if committed:
                await self._res.sessions.end(self._sessions)
            await self._res.rights.release(self._rights)
            await self._res.marks.release(self._marks, committed=committed)
            for post_id in self._counted if committed else ():
                await self._res.counts.recount(post_id)
            for hold in self._posts:
                await self._res.post_cache.release(hold)

    async def ring(self) -> None:
        """Ring for the work, after the commit."""
        for kind, entry_id in self._rung:
            await self._res.queue.ring(kind, entry_id)


async def transact(res: Resources, body: Callable[[Change], Awaitable[T]]) -> T:
    """Run `body` in one transaction and return what it returns; it may run several times.

    Raises:
        errors.Unavailable: a server that is needed does not answer.
    """
    changes: list[Change] = []

    async def attempt(connection: Connection) -> T:
        changes.append(Change(res, connection))
        result = await body(changes[-1])
        changes[-1].is_complete = True
        return result

    try:
        result = await res.db.transact(attempt)
    except Unavailable:
        raise  # whether it was committed is not known: what is held stays held until that is certain
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and changes and changes[-1].is_complete:
            raise  # likewise: PostgreSQL may be about to commit
        for change in changes:
            await change.release(committed=False)
        raise
    for change in changes:
        await change.release(committed=True)
    await changes[-1].ring()
    return result
