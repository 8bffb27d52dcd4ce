"""PostgreSQL: the pool, transactions, and what its errors mean to us."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, TypeVar

import asyncpg
import orjson

from instafeed import errors, telemetry
from instafeed.storage.pool import Pool

T = TypeVar("T")

Connection = asyncpg.Connection
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

# What PostgreSQL sends and takes of jsonb: a version, and the text.
_JSONB_VERSION = b"\1"


def _to_jsonb(value: Any) -> bytes:
    return _JSONB_VERSION + orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)


def _from_jsonb(data: bytes) -> Any:
    return orjson.loads(data[len(_JSONB_VERSION) :])


# What says that a connection is of use for more: it has a statement's answer, or none was asked. After all else one may be
# running still, or being cancelled, and asyncpg does not tell.
_ANSWERED = (errors.InstafeedError, asyncpg.PostgresError)
# Those answers that are about the session or its server. asyncpg also remembers a transaction that such an answer kept from
# beginning, and would take the next for a part of it.
_ABOUT_THE_SESSION = (
    asyncpg.PostgresConnectionError,
    asyncpg.InvalidTransactionStateError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresSystemError,
    asyncpg.InternalServerError,
)


class _Lent:
    """A connection for the block of an `async with`."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection: Connection

    async def __aenter__(self) -> Connection:
        connection = self._pool.take()
        if connection is None:
            connection = await self._wait()
        else:
            telemetry.POOL_WAIT.observe(0)
        self._connection = connection
        return connection

    async def _wait(self) -> Connection:
        try:
            with telemetry.POOL_WAIT.time():
                async with asyncio.timeout(_CONNECT_SECONDS):
                    return await self._pool.wait()
        except _AWAY as error:
            raise errors.Unavailable("The database does not answer.", retry_after=1) from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Nothing is awaited: a cancelled request gives its connection back, too.
        if error is None:
            self._pool.give_back(self._connection)
            return
        is_away = isinstance(error, _AWAY) or (
            isinstance(error, asyncpg.InterfaceError) and self._connection.is_closed()
        )
        if isinstance(error, _ANSWERED) and not isinstance(error, _ABOUT_THE_SESSION):
            self._pool.give_back(self._connection)
        else:
            self._pool.discard(self._connection)
        if is_away:
            raise errors.Unavailable("The database does not answer.", retry_after=1) from error


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
        self._pool: Pool | None = None

    async def open(self) -> None:
        """Make the pool; no connection is opened yet."""
        self._pool = Pool(self._connect, size=self._size)

    async def _connect(self) -> Connection:
        connection = await asyncpg.connect(
            self._dsn,
            timeout=_CONNECT_SECONDS,
            command_timeout=_STATEMENT_SECONDS,
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
        try:
            await connection.set_type_codec(
                "jsonb", encoder=_to_jsonb, decoder=_from_jsonb, schema="pg_catalog", format="binary"
            )
        except BaseException as error:
            was_closed = connection.is_closed()
            connection.terminate()
            if isinstance(error, asyncpg.InterfaceError) and was_closed:
                raise ConnectionResetError("PostgreSQL has closed a new connection") from error
            raise
        return connection

    async def close(self) -> None:
        """Close every connection, by force after two seconds."""
        assert self._pool is not None
        await self._pool.close()

    def acquire(self) -> AbstractAsyncContextManager[Connection]:
        """A connection, for SQL only: never hold it through S3 or an upload.

        What a statement raises that was cancelled or timed out must leave the block as it is, or whoever has the connection next
        gets what became of that statement.

        Raises:
            errors.Unavailable: the database does not answer, or has no connection left for 3 s.
        """
        assert self._pool is not None
        return _Lent(self._pool)

    async def reach(self) -> None:
        """See that the database is there, as far as that costs no trip: there is a connection, or one can be made.

        Raises:
            errors.Unavailable: it does not answer.
        """
        assert self._pool is not None
        if not self._pool.is_connected:
            async with self.acquire():
                pass

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
