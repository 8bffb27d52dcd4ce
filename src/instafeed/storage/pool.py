"""Connections to PostgreSQL that are kept, and lent to one at a time.

asyncpg's pool makes a task or two each time that it lends one, and wraps it: that took more Python than a short statement itself
(docs/decisions/0040-a-pool-of-our-own.md).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic

import asyncpg

from instafeed.tasks import end

_IDLE_SECONDS = 300.0
_CLOSE_SECONDS = 2.0


class Pool:
    """Up to `size` connections, opened when somebody needs one. What is taken is given back, or discarded."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], *, size: int) -> None:
        """To be made in the event loop that it is used in."""
        self._connect = connect
        self._size = size
        self._loop = asyncio.get_running_loop()
        self._places = 0
        """How many connections are open, or being opened or closed: never more than `size`."""
        self._open: set[asyncpg.Connection] = set()
        self._idle: list[tuple[asyncpg.Connection, float]] = []
        """Each with the time of its last use. Those used last are at the end, and taken first: PostgreSQL has most in its caches
        for them, and the others can be closed."""
        self._waiting: deque[asyncio.Future[asyncpg.Connection | None]] = deque()
        """Each gets a connection, or a place for a new one. Nobody waits while one is idle or there is a place."""
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[None] | None = None
        """Exists once no more is lent, and is done when all is given back and closed."""

    @property
    def is_connected(self) -> bool:
        """Whether any connection is open, as far as is known."""
        return any(not connection.is_closed() for connection in self._open)

    def take(self) -> asyncpg.Connection | None:
        """The connection that was used last, if one is idle."""
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.is_closed():
                return connection
            self.discard(connection)
        return None

    async def wait(self) -> asyncpg.Connection:
        """A connection, if none is idle: a new one, or the next that is given back. Who asks first has theirs first.

        Raises:
            ConnectionAbortedError: the pool is closed.
            Exception: whatever `connect` raises.
        """
        if self._ended is not None:
            raise ConnectionAbortedError("the pool is closed")
        if self._places < self._size:
            self._places += 1
        else:
            connection = await self._turn()
            if connection is not None:
                if not connection.is_closed():
                    return connection
                self._open.discard(connection)  # and its place is ours
                connection.terminate()
        return await self._opened()

    async def _opened(self) -> asyncpg.Connection:
        """A new connection, in a place that has been taken for it."""
        try:
            connection = await self._connect()
        except BaseException:
            self._free()
            raise
        if self._ended is not None:
            connection.terminate()
            self._free()
            raise ConnectionAbortedError("the pool is closed")
        self._open.add(connection)
        return connection

    async def _turn(self) -> asyncpg.Connection | None:
        turn: asyncio.Future[asyncpg.Connection | None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif not turn.cancelled() and turn.exception() is None:
                # It was handed over at this very moment.
                connection = turn.result()
                if connection is None:
                    self._free()
                else:
                    self.give_back(connection)
            raise

    def give_back(self, connection: asyncpg.Connection) -> None:
        """Lend it to the next. No statement of it may be running, or being cancelled, which cannot be seen."""
        # In this order: of one that is closed, nothing else can be asked.
        if connection.is_closed() or connection.is_in_transaction() or self._ended is not None:
            self.discard(connection)
        elif not self._hand_over(connection):
            self._idle.append((connection, monotonic()))
            if self._timer is None:
                self._timer = self._loop.call_later(_IDLE_SECONDS, self._close_idle)

    def discard(self, connection: asyncpg.Connection) -> None:
        """Close it, in whatever state it is. Until that is done it has its place: PostgreSQL still has the connection."""
        if connection.is_closed():
            self._forget(connection)
        else:
            task = self._loop.create_task(self._close(connection))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _close(self, connection: asyncpg.Connection) -> None:
        try:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await connection.close()
        finally:
            self._forget(connection)

    def _forget(self, connection: asyncpg.Connection) -> None:
        connection.terminate()  # if it is not closed yet; of one that was closed from afar, asyncpg clears up
        self._open.discard(connection)
        self._free()

    def _hand_over(self, connection: asyncpg.Connection | None) -> bool:
        """Give a connection, or a place for one, to who has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False

    def _free(self) -> None:
        if not self._hand_over(None):
            self._places -= 1
            if self._ended is not None and not self._places and not self._ended.done():
                self._ended.set_result(None)

    def _close_idle(self) -> None:
        """Close what has been idle for long, and come again for what has not."""
        self._timer = None
        now = monotonic()
        while self._idle and now - self._idle[0][1] >= _IDLE_SECONDS:
            self.discard(self._idle.pop(0)[0])
        if self._idle:
            self._timer = self._loop.call_later(self._idle[0][1] + _IDLE_SECONDS - now, self._close_idle)

    async def close(self) -> None:
        """Lend no more, and close all; what is not given back within 2 s is ended by force."""
        self._ended = self._loop.create_future()
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(ConnectionAbortedError("the pool is closed"))
        while self._idle:
            self.discard(self._idle.pop()[0])
        if self._places:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._ended
        await end(*self._closing)
        for connection in self._open:
            connection.terminate()
