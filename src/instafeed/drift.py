"""Counters that differ from what they count, and edges of which one of two rows is missing: found, and mended.

Neither comes about by what this program does; it may by a database that was put back from a backup in part, or by hand.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial

from instafeed.changes import Change, transact
from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import counters, drift, locks
from instafeed.storage.belongings import Edges
from instafeed.storage.database import Connection
from instafeed.storage.drift import Counted, Counting, Edge

_COUNTERS = 200
_EDGES = 2000


class Check:
    """One look at everything, in chunks, beside whatever else goes on.

    Args:
        res: the resources.
        mend: set right what is found.
        tell: called with a line about each finding.
    """

    def __init__(self, res: Resources, *, mend: bool, tell: Callable[[str], None]) -> None:
        self._res = res
        self._mend = mend
        self._tell = tell
        self.found: Counter[str] = Counter()
        """How many of each kind differed."""

    async def whole(self) -> None:
        """Look at all edges, and then at the counters, which count them."""
        for pair in drift.PAIRS:
            await self._edges(pair)
        for counting in (drift.ACCOUNTS, drift.POSTS, drift.COMMENTS):
            await self._counters(counting)

    async def _edges(self, of: Edges) -> None:
        after = (0, 0)
        while True:
            async with self._res.db.acquire() as connection:
                found = await drift.edges(connection, of, after=after, limit=_EDGES)
            for edge in found:
                if edge.is_half and (not self._mend or await self._delete_half(of, edge)):
                    self.found[of.table] += 1
                    self._tell(f"{of.table} {edge.one} {edge.other}: nothing in {of.twin}")
            if len(found) < _EDGES:
                return
            after = (found[-1].one, found[-1].other)

    async def _delete_half(self, of: Edges, edge: Edge) -> bool:
        """Half an edge is none: whoever did not follow must see nothing, and who did can do it again."""
        ends = {of.column: edge.one, of.other: edge.other}

        async def body(change: Change) -> bool:
            connection = change.connection
            if (post_id := ends.get("post_id")) is not None:
                await locks.share(connection, post_id)
            await account_rows.lock(connection, [id_ for name, id_ in ends.items() if name != "post_id"])
            if not await drift.delete_half(connection, of, edge):
                return False
            if post_id is None:
                await change.hold_rights(ends["follower_id"])
            elif "likes" in {of.table, of.twin}:
                await change.hold_like(ends["account_id"], post_id, liked=False)
            else:
                await change.hold_save(ends["account_id"], post_id, saved=False)
            return True

        return await transact(self._res, body)

    async def _counters(self, of: Counting) -> None:
        after = (0, 0)
        while True:
            async with self._res.db.acquire() as connection:
                found = await drift.counters(connection, of, after=after, limit=_COUNTERS)
            for one in found:
                if one.kept != one.counted:
                    self._differs(
                        of, await transact(self._res, partial(self._set_right, of, one)) if self._mend else one
                    )
            if len(found) < _COUNTERS:
                return
            after = (shard_of(found[-1].id), found[-1].id)

    def _differs(self, of: Counting, one: Counted) -> None:
        for name, kept, counted in zip(of.names, one.kept, one.counted, strict=True):
            if kept != counted:
                self.found[name] += 1
                self._tell(f"{name} of {of.table.removesuffix('s')} {one.id}: {kept}, and there are {counted}")

    async def _set_right(self, of: Counting, one: Counted, change: Change) -> Counted:
        """Add what is missing now; returns what was found. It is added, as all is that goes on meanwhile."""
        await self._lock(change.connection, of, one.id)
        found = await drift.counters_of(change.connection, of, one.id)
        if found is None:
            return Counted(one.id, one.kept, one.kept)
        if found.kept != found.counted:
            missing = [counted - kept for kept, counted in zip(found.kept, found.counted, strict=True)]
            await self._add(change, of, one.id, missing)
        return found

    async def _lock(self, connection: Connection, of: Counting, id_: int) -> None:
        """Let nobody else mend it at the same time."""
        if of is drift.ACCOUNTS:
            await account_rows.lock(connection, [id_])
        else:
            await locks.seize(connection, id_)

    async def _add(self, change: Change, of: Counting, id_: int, missing: list[int]) -> None:
        if of is drift.ACCOUNTS:
            posts, followers, following = missing
            await account_rows.count(change.connection, {id_: (posts, followers, following)})
        elif of is drift.POSTS:
            await change.recount(id_)
            await counters.add(change.connection, id_, likes=missing[0], comments=missing[1])
        else:
            await counters.add(change.connection, id_, comments=missing[0])
