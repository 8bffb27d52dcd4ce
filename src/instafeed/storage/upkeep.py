"""Upkeep that autovacuum does not do: statistics of partitioned tables, and indexes that are broken or mostly air.

Nothing here blocks a read or a write. What is broken off leaves an invalid index at worst, which the next run deals with.
"""

import re
from collections.abc import Callable

import asyncpg

from instafeed.storage import indexes
from instafeed.storage.migrations import LOCK, open_session

_LEAST_BYTES = 64 * 2**20
_TIMES = 2.0
_LOCK_TIMEOUT = "60s"
# What a rebuild that broke off leaves beside the index that it was to replace.
_REMAINS = re.compile(r"_cc(new|old)\d*$")


class Upkeep:
    """One run.

    Args:
        dsn: the database, not a pooler in front of it.
        tell: called with a line about all that is done.
    """

    def __init__(self, dsn: str, *, tell: Callable[[str], None]) -> None:
        self._dsn = dsn
        self._tell = tell
        self.failed = 0
        """How many indexes are left as they were."""

    async def run(self) -> None:
        """Do all of it; takes as long as the indexes are large.

        Raises:
            OSError: the database does not answer.
            asyncpg.PostgresError: it refuses us.
            MigrationError: there is a pooler before it.
        """
        connection = await open_session(self._dsn)
        try:
            if not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK):
                self._fail("a migration or another upkeep is running")
                return
            await connection.execute(f"set lock_timeout = '{_LOCK_TIMEOUT}'")
            await connection.execute("set vacuum_cost_delay = '2ms'")  # as gently as autovacuum
            # Autovacuum never looks at a partitioned table, only at its partitions. First, for the sizes are judged by it.
            await connection.execute("analyze")
            self._tell("analyzed")
            await self._tend(connection)
        finally:
            await connection.close()

    async def _tend(self, connection: asyncpg.Connection) -> None:
        await self._drop_remains(connection)
        for name, is_partitioned in await indexes.invalid(connection):
            if is_partitioned:
                self._fail(f"{name} is not there on every partition: its migration broke off")
            elif not _REMAINS.search(name):
                await self._try(connection, f'reindex index concurrently "{name}"', f"rebuilt {name}: it was not valid")
        for name, now, needed in await indexes.bloated(connection, least_bytes=_LEAST_BYTES, times=_TIMES):
            said = f"rebuilt {name}: {now >> 20} MiB, and {needed >> 20} MiB are needed"
            await self._try(connection, f'reindex index concurrently "{name}"', said)
        if self.failed:
            await self._drop_remains(connection)

    async def _drop_remains(self, connection: asyncpg.Connection) -> None:
        for name, _ in await indexes.invalid(connection):
            if _REMAINS.search(name):
                await self._try(connection, f'drop index concurrently "{name}"', f"dropped {name}")

    async def _try(self, connection: asyncpg.Connection, statement: str, said: str) -> None:
        try:
            await connection.execute(statement)
        except asyncpg.PostgresError as error:
            self._fail(f"{statement}: {error}")
        else:
            self._tell(said)

    def _fail(self, line: str) -> None:
        self.failed += 1
        self._tell(f"FAILED  {line}")
