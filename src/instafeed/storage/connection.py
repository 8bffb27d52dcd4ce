"""One connection to one Redis server, which all tasks of the process share.

Commands are joined in one write a turn of the event loop, and answers are matched to them by their order alone. So
nothing leaves that order before its answer has come: whoever is cancelled leaves their place behind.
"""

import asyncio
import hashlib
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

from hiredis import ProtocolError, Reader, ReplyError, pack_command

from instafeed.errors import RedisAway

SECONDS = 1.0
_GRACE_SECONDS = 0.1
_EPOCH_DIGITS = 12
# Error replies that say what the server cannot do now, not what we did wrong.
_AWAY = {
    *(
        "LOADING",
        "READONLY",
        "OOM",
        "MISCONF",
        "MASTERDOWN",
        "CLUSTERDOWN",
        "NOREPLICAS",
        "BUSY",
        "NOAUTH",
        "WRONGPASS",
    ),
    *("TRYAGAIN", "MOVED", "ASK", "UNBLOCKED"),
}

Word = str | bytes | int

_pack = cast("Callable[[tuple[Word, ...]], bytes]", pack_command)


class Place(NamedTuple):
    """Where a server listens; without a port, `host` is the path of a socket."""

    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class Login:
    """How we introduce ourselves."""

    username: str | None
    password: str | None
    database: int
    tls: ssl.SSLContext | None


class Script:
    """A Lua script, named by its SHA-1 as Redis does."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class _Call(NamedTuple):
    script: Script
    keys: Sequence[str]
    arguments: tuple[Word, ...]


class _Pending(NamedTuple):
    future: asyncio.Future[Any]
    sent_at: float
    call: _Call | None


class Watcher(Protocol):
    """Who is told how a connection fares."""

    def answered(self) -> None:
        """The server did what it was asked."""

    def refused(self, node: "Node", error: ReplyError) -> None:
        """It said that it cannot."""

    def lost(self, node: "Node", pending: list[asyncio.Future[Any]], error: Exception) -> None:
        """The connection is no more; the pending futures are to be failed by whoever is told."""


def away(cause: BaseException | None = None, *, gone: bool = False) -> RedisAway:
    """The error for whoever can do without Redis."""
    error = RedisAway("Redis does not answer.", retry_after=1, gone=gone)
    error.__cause__ = cause
    return error


def fail(futures: Iterable[asyncio.Future[Any]], cause: BaseException, *, gone: bool = False) -> None:
    """Fail what still waits."""
    for future in futures:
        if not future.done():
            future.set_exception(away(cause, gone=gone))
            future.exception()  # seen: of a trip's commands, often only the first is awaited when all fail


def code_of(error: BaseException | None) -> str:
    """The first word of an error reply; empty for other errors."""
    return str(error).partition(" ")[0] if isinstance(error, ReplyError) else ""


def facts_of(info: bytes) -> dict[str, str]:
    """What a server answers to INFO, by name."""
    lines = info.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


class Node(asyncio.Protocol):
    """A live connection to a server. What is sent through it is executed at most once, by the server with this epoch or
    by none; it is answered within a second, or fails.

    A future raises `RedisAway` if the server does not answer or cannot do it now, and hiredis's `ReplyError` for a
    command that is wrong.
    """

    epoch: str
    """Names the run of the server: another one after a restart or a fail-over."""
    cluster: bool
    """Whether the server holds a part of the keys only."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.alive = False
        """Whether it takes commands."""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._watcher: Watcher | None = None
        self._reader = Reader()
        self._unsent: list[bytes] = []
        self._pending: deque[_Pending] = deque()
        self._known: set[str] = set()
        self._fresh = False
        """Whether the server was still loading what it had saved: it has just been started."""
        self._timer: asyncio.TimerHandle | None = None

    def send(self, *command: Word) -> asyncio.Future[Any]:
        """Send a command at the end of this turn of the event loop."""
        return self._put(self._loop.create_future(), _pack(command))

    def run(self, script: Script, keys: Sequence[str], *arguments: Word) -> asyncio.Future[Any]:
        """Run a script, in its place among the other commands. Its text is sent only to a server that has not seen it."""
        future = self._loop.create_future()
        if script.sha in self._known:
            packed = _pack(("EVALSHA", script.sha, len(keys), *keys, *arguments))
            return self._put(future, packed, _Call(script, keys, arguments))
        self._known.add(script.sha)
        return self._put(future, _pack(("EVAL", script.text, len(keys), *keys, *arguments)))

    def retire(self) -> None:
        """Take no more commands, and close once all are answered."""
        self.alive = False
        if not self._pending:
            self._end(ConnectionAbortedError("the connection is closed"))

    def close(self) -> None:
        """Close now; what is pending fails."""
        self._end(ConnectionAbortedError("the connection is closed"))

    def _put(self, future: asyncio.Future[Any], packed: bytes, call: _Call | None = None) -> asyncio.Future[Any]:
        if not self.alive:
            fail([future], ConnectionAbortedError("the connection is closed"))
            return future
        if not self._unsent:
            self._loop.call_soon(self._flush)
        if self._timer is None:
            self._timer = self._loop.call_later(SECONDS - _GRACE_SECONDS, self._look)
        self._unsent.append(packed)
        self._pending.append(_Pending(future, self._loop.time(), call))
        return future

    def _flush(self) -> None:
        if self._unsent:
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()

    def _look(self) -> None:
        """See how long the oldest command waits. When its time is over, what has come meanwhile is still read: it may
        have been our own process that was slow.
        """
        self._timer = None
        if self._pending:
            oldest = self._pending[0]
            rest = oldest.sent_at + SECONDS - _GRACE_SECONDS - self._loop.time()
            if rest > 0:
                self._timer = self._loop.call_later(rest, self._look)
            else:
                self._timer = self._loop.call_later(_GRACE_SECONDS, self._expire, oldest)

    def _expire(self, oldest: _Pending) -> None:
        if self._pending and self._pending[0] is oldest:
            self._end(TimeoutError("no answer in time"))
        else:
            self._look()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        self.alive = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._end(exc or ConnectionResetError("closed by the server"))

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        pending, gets = self._pending, self._reader.gets
        answered, refusal = False, None
        try:
            self._reader.feed(data)
            while (reply := gets()) is not False:
                future, _, call = pending.popleft()
                if isinstance(reply, ReplyError):
                    refusal = self._refuse(future, reply, call) or refusal
                else:
                    answered = True
                    if not future.done():
                        future.set_result(reply)
        except (ProtocolError, IndexError) as error:
            self._end(error)
        watcher = self._watcher
        if watcher is not None:
            if refusal is not None:
                watcher.refused(self, refusal)  # which may end this connection
            if answered:
                watcher.answered()
        if not self.alive and not pending:
            self._end(ConnectionAbortedError("the connection is closed"))

    def _refuse(self, future: asyncio.Future[Any], error: ReplyError, call: _Call | None) -> ReplyError | None:
        """Fail a future; returns the error if it says that the server cannot."""
        code = code_of(error)
        if code == "NOSCRIPT" and call is not None:
            if not future.done():
                packed = _pack(("EVAL", call.script.text, len(call.keys), *call.keys, *call.arguments))
                self._put(future, packed)
            return None
        if code in _AWAY:
            fail([future], error, gone=code == "LOADING" and self._fresh)
            return error
        if not future.done():
            future.set_exception(error)
        return None

    def _end(self, error: Exception) -> None:
        self.alive = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._transport.abort()
        self._unsent.clear()
        pending = [entry.future for entry in self._pending]
        self._pending.clear()
        watcher, self._watcher = self._watcher, None
        if watcher is None:
            fail(pending, error)
        else:
            watcher.lost(self, pending, error)

    async def greet(self, login: Login, watcher: Watcher) -> None:
        """Introduce ourselves and learn whom we talk to; from then on `watcher` is told how it goes."""
        credentials = [word for word in (login.username, login.password) if word]
        welcome = [self.send("AUTH", *credentials)] if login.password else []
        named = self.send("CLIENT", "SETNAME", "instafeed")
        info = self.send("INFO")
        await asyncio.wait([*welcome, named, info])
        named.exception()  # a server that lets us have no name will do
        for answer in welcome:
            answer.result()
        facts = facts_of(info.result())
        self.epoch = facts["run_id"][:_EPOCH_DIGITS]
        self.cluster = facts.get("cluster_enabled") == "1"
        self._fresh = facts.get("loading") == "1" and facts.get("role") == "master"  # replicas load now and again
        if login.database and not self.cluster:
            await self.send("SELECT", login.database)
        self._watcher = watcher


async def connect(place: Place, login: Login, watcher: Watcher) -> Node:
    """A new connection to a server.

    Raises:
        RedisAway: there is none within a second.
    """
    try:
        async with asyncio.timeout(SECONDS):
            node = await _open(place, login.tls)
            try:
                await node.greet(login, watcher)
            except BaseException:
                node.close()
                raise
    except (ConnectionRefusedError, FileNotFoundError) as error:
        raise away(error, gone=True) from error
    except RedisAway as error:
        raise away(error.__cause__, gone=error.gone) from error.__cause__
    except (OSError, ReplyError, KeyError) as error:
        raise away(error) from error
    return node


async def _open(place: Place, tls: ssl.SSLContext | None) -> Node:
    loop = asyncio.get_running_loop()
    if place.port is None:
        return (await loop.create_unix_connection(lambda: Node(place), place.host))[1]
    # asyncio would try all addresses too, but not say whether each was refused.
    failures: list[OSError] = []
    for *_, address in await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM):
        try:
            name = place.host if tls else None
            return (
                await loop.create_connection(
                    lambda: Node(place), str(address[0]), place.port, ssl=tls, server_hostname=name
                )
            )[1]
        except OSError as error:
            failures.append(error)
    raise min(failures, key=lambda error: isinstance(error, ConnectionRefusedError))
