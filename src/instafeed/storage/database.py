"""PostgreSQL: the pool, transactions, and what its errors mean to us."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import asyncpg

from instafeed import errors, telemetry

T = TypeVar("T")

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
"""What storage functions take: the verb that calls them owns the transaction."""

_CONNECT_SECONDS = 3.0
_STATEMENT_SECONDS = 4.0
_TRIES = 5

# A connection that is gone, or a server that takes none: nothing was committed unless we were told so.
_AWAY = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.CannotConnectNowError,
    # By a pooler before its server is back, or while a password is being changed.
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
)
_RETRY = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)


async def _set_up(connection: asyncpg.Connection) -> None:
    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


async def _nothing_to_reset(_: asyncpg.Connection) -> None:
    """No statement of ours changes a session, so none is sent when a connection is given back; the pool rolls back by itself."""


def _is_gone(connection: Connection) -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # the pool has taken it back already


def is_in_doubt(error: BaseException) -> bool:
    """Whether what failed like this may have been done all the same, or may still be: no answer came."""
    if isinstance(error, errors.Unavailable):
        cause = error.__cause__
        return not isinstance(cause, asyncpg.PostgresError) or isinstance(cause, asyncpg.PostgresConnectionError)
    return isinstance(error, asyncio.CancelledError)


class Database:
    """A pool of connections that opens lazily, so that a process starts while PostgreSQL is away."""

    def __init__(self, dsn: str, *, size: int, prepares: bool) -> None:
        """A connection that `prepares` keeps its statements, plans included, under names."""
        self._dsn = dsn
        self._size = size
        self._prepares = prepares
        self._pool: asyncpg.Pool | None = None

    async def open(self) -> None:
        """Make the pool; no connection is opened yet."""
        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=0,
            max_size=self._size,
            timeout=_CONNECT_SECONDS,
            command_timeout=_STATEMENT_SECONDS,
            init=_set_up,
            reset=_nothing_to_reset,
            statement_cache_size=100 if self._prepares else 0,
            max_cached_statement_lifetime=0,  # rare statements are the ones that take long to plan
            server_settings={
                "application_name": "instafeed",
                "timezone": "UTC",
                "jit": "off",
                # A process that hangs amid a transaction must not commit when what it holds in caches has ended.
                "idle_in_transaction_session_timeout": "10s",
                # Plans made once: for arrays of a thousand ids over partitions, planning takes longer than the query, and
                # estimates from such arrays lead to scans of whole tables.
                "plan_cache_mode": "force_generic_plan",
            },
        )

    async def close(self) -> None:
        """Close every connection, by force after two seconds."""
        assert self._pool is not None
        try:
            await asyncio.wait_for(self._pool.close(), 2)
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection, for SQL only: never hold it through S3 or an upload.

        Raises:
            errors.Unavailable: the database does not answer, or has no connection left for 3 s.
        """
        assert self._pool is not None
        try:
            with telemetry.POOL_WAIT.time():
                connection = await self._pool.acquire(timeout=_CONNECT_SECONDS)
        except _AWAY as error:
            raise errors.Unavailable("The database does not answer.", retry_after=1) from error
        try:
            yield connection
        except _AWAY as error:
            raise errors.Unavailable("The database does not answer.", retry_after=1) from error
        except asyncpg.InterfaceError as error:
            if _is_gone(connection):
                raise errors.Unavailable("The database does not answer.", retry_after=1) from error
            raise
        finally:
            # Shielded: a cancelled request must give its connection back.
            await asyncio.shield(self._release(connection))

    async def _release(self, connection: asyncpg.pool.PoolConnectionProxy) -> None:
        assert self._pool is not None
        try:
            await self._pool.release(connection, timeout=2)
        except (*_AWAY, asyncpg.InterfaceError):
            connection.terminate()

    async def transact(self, body: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `body` in one transaction and return what it returns; it may run several times.

        Raises:
            errors.Unavailable: the database does not answer, or it kept refusing to serialise the transaction.
        """

        async def transaction(connection: Connection) -> T:
            async with connection.transaction():
                return await body(connection)

        return await self.statement(transaction)

    async def statement(self, body: Callable[[Connection], Awaitable[T]]) -> T:
        """Like `transact`, for a body of one statement: that is a transaction without a further trip for its begin and end."""
        attempt = 0
        while True:
            try:
                async with self.acquire() as connection:
                    return await body(connection)
            except _RETRY as error:
                attempt += 1
                if attempt == _TRIES:
                    raise errors.Unavailable("Too many changes of the same thing at once.", retry_after=1) from error
            await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter
