"""Puts tasks in a test's hands: each waits at every call of a server until the test lets it on, or ends it there.

A transaction is two calls: its statements, and its commit. Only one stands before its commit at a time: whoever comes to
write anything lets that one commit first, because its locks would be waited for.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from instafeed.storage.connection import Node, Script, Word
from instafeed.storage.database import Connection, Database
from instafeed.storage.redis import RedisServer

T = TypeVar("T")


class Killed(BaseException):
    """The process is gone: no code of ours sees it coming."""


def _is_killed(failure: BaseException) -> bool:
    return isinstance(failure, Killed) or (isinstance(failure, BaseExceptionGroup) and failure.split(Killed)[1] is None)


class Actor:
    """A task that stops before each call of a server. Of tasks that it starts, only one may make calls at a time."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self.must_end_well = False
        """Whether it may not be killed."""
        self._gate: asyncio.Future[None] | None = None
        self._arrived = asyncio.Event()
        self._task = asyncio.create_task(self._run(work))
        self._task.add_done_callback(lambda _: self._arrived.set())

    async def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        _actor.set(self)
        return await work

    async def wait(self) -> None:
        """Called by the actor's own code before each call of a server."""
        assert self._gate is None, "two calls at once"
        self._gate = asyncio.get_running_loop().create_future()
        self._arrived.set()
        try:
            await self._gate
        finally:
            self._gate = None

    @property
    def ended(self) -> bool:
        return self._task.done()

    @classmethod
    async def begin(cls, work: Coroutine[Any, Any, Any]) -> "Actor":
        """Start a task; return when it stands before its first call."""
        actor = cls(work)
        await actor._arrive()
        return actor

    async def _arrive(self) -> None:
        async with asyncio.timeout(30):  # two that wait for each other are a failure
            await self._arrived.wait()

    async def advance(self, error: BaseException | None = None) -> None:
        """Like `step`, for other actors: how it ends is not their affair."""
        if self._gate is not None and not self._gate.done():
            self._arrived.clear()
            if error is None:
                self._gate.set_result(None)
            else:
                self._gate.set_exception(error)
            await self._arrive()

    async def step(self, error: BaseException | None = None) -> None:
        """Let it make one call, or fail in its place; return when it stands before the next one, or has ended."""
        await self.advance(error)
        if self.ended and not self._task.cancelled():
            failure = self._task.exception()
            if failure is not None and not _is_killed(failure):
                raise failure

    async def finish(self) -> None:
        """Let it run to its end."""
        while not self.ended:
            await self.step()

    async def kill(self) -> None:
        """End it as `kill -9` would: it does nothing any more."""
        while not self.ended:
            await self.step(Killed())

    async def stop(self) -> None:
        """End it as a process does that is told to stop."""
        self._task.cancel()
        if self._gate is None or self._gate.done():
            self._arrived.clear()  # it was its own gate that was cancelled, not what waits for a task of its
        if not self.ended:
            await self._arrive()
            await self.finish()


_actor: ContextVar[Actor | None] = ContextVar("actor", default=None)
_in_transaction: ContextVar[bool] = ContextVar("in_transaction", default=False)


async def _wait() -> None:
    actor = _actor.get()
    if actor is not None and not _in_transaction.get():
        await actor.wait()


class _GatedConnection:
    def __init__(self, connection: Connection, let_commit: Callable[[], Awaitable[None]]) -> None:
        self._connection = connection
        self._let_commit = let_commit

    def __getattr__(self, name: str) -> Any:
        call: Callable[..., Awaitable[Any]] = getattr(self._connection, name)

        async def gated(statement: str, *arguments: Any) -> Any:
            await _wait()
            if not statement.lstrip().startswith("select"):
                await self._let_commit()
            return await call(statement, *arguments)

        return gated


class GatedDatabase(Database):
    """Stops actors before each statement, before each transaction, and before its commit."""

    def __init__(self, database: Database) -> None:
        self.ungated = database
        self._committing: Actor | None = None

    @property
    def in_transaction(self) -> bool:
        """Whether an actor stands before a commit."""
        return self._committing is not None

    async def let_commit(self) -> None:
        """Let the actor commit that stands before it, if one does."""
        if self._committing is not None:
            await self._committing.advance()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection."""
        async with self.ungated.acquire() as connection:
            yield cast("Connection", _GatedConnection(connection, self.let_commit))

    async def transact(self, body: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `body` in a transaction."""
        await _wait()
        await self.let_commit()
        actor = _actor.get()

        async def gated(connection: Connection) -> T:
            inside = _in_transaction.set(True)
            try:
                result = await body(connection)
            finally:
                _in_transaction.reset(inside)
            if actor is not None:
                self._committing = actor
                try:
                    await actor.wait()
                finally:
                    self._committing = None
            return result

        return await self.ungated.transact(gated)


class GatedRedis(RedisServer):
    """Stops actors before each call; those that they make amid a transaction are part of it."""

    async def node(self, key: str) -> Node:
        """The connection, for one trip."""
        await _wait()
        return await super().node(key)

    async def call(self, key: str, *command: Word) -> Any:
        """One command."""
        await _wait()
        return await super().call(key, *command)

    async def run(self, script: Script, keys: Sequence[str], *arguments: Word) -> Any:
        """A script."""
        await _wait()
        return await super().run(script, keys, *arguments)
