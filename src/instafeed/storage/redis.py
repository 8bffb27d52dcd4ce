"""Redis: which server holds a key, one connection to each, and when to do without."""

import asyncio
import ssl
import time
from binascii import crc_hqx
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from hiredis import ReplyError
from redis.asyncio.connection import parse_url

from instafeed import telemetry
from instafeed.errors import RedisAway
from instafeed.storage.connection import Login, Node, Place, Script, Word, away, code_of, connect, fail

__all__ = ["Node", "RedisServer", "Script"]

_FAILURES_IN_A_ROW = 3
_PAUSE_SECONDS = 1.0
_SLOTS = 16384
_REDIRECTIONS = 5
_MAP_SECONDS = 0.1

_log = telemetry.logger()


def slot_of(key: str) -> int:
    """The hash slot of a key, as the cluster specification has it."""
    name = key.encode()
    begin = name.find(b"{")
    end = name.find(b"}", begin + 1)
    if begin >= 0 and end > begin + 1:
        name = name[begin + 1 : end]
    return crc_hqx(name, 0) % _SLOTS


class _Server:
    """One server: our connection to it, and whether it is worth a try.

    After three failures in a row further calls fail at once for a second, so that requests do not wait in vain; one
    alone may be a hiccup of ours. All that times out with one connection, or is refused at once, is one failure; so is a
    connection that cannot be made, but not one that is closed, because a new one may do. A server that is gone says so at
    once, each time that it is asked: whoever must know whether it has come back cannot go by what it was a moment ago.
    """

    def __init__(self, place: Place, login: Login, moved: Callable[["_Server", ReplyError | None], None]) -> None:
        self.place = place
        self._login = login
        self._moved = moved
        self._node: Node | None = None
        self._connecting: asyncio.Task[Node] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._failures = 0
        self._away_until = 0.0
        self._gone = False

    @property
    def alive(self) -> bool:
        """Whether we are connected."""
        return self._node is not None and self._node.alive

    @property
    def ready(self) -> Node | None:
        """The connection, if there is one and nothing speaks against it."""
        node = self._node
        return node if node is not None and node.alive and self._failures < _FAILURES_IN_A_ROW else None

    async def node(self) -> Node:
        """The connection; without suspension if there is one.

        Raises:
            RedisAway: there is none, and none could be made.
        """
        if not self._gone and self._failures >= _FAILURES_IN_A_ROW and time.monotonic() < self._away_until:
            raise away()
        if self._node is not None and self._node.alive:
            return self._node
        if self._connecting is None:
            self._connecting = asyncio.create_task(self.connect())
            self._connecting.add_done_callback(self._connected)
        try:
            # Whoever is cancelled takes the connection from nobody else.
            return await asyncio.shield(self._connecting)
        except RedisAway as error:
            raise away(error.__cause__, gone=error.gone) from error.__cause__  # their own: several may wait

    async def connect(self) -> Node:
        """A further connection."""
        try:
            return await connect(self.place, self._login, self)
        except RedisAway as error:
            reason = "time-out" if isinstance(error.__cause__, TimeoutError) else "connection"
            self._failed(reason, error.__cause__, gone=error.gone)
            raise

    def _connected(self, connecting: asyncio.Task[Node]) -> None:
        self._connecting = None
        if not connecting.cancelled() and connecting.exception() is None:
            self._node = connecting.result()

    def retire(self) -> None:
        """Let the connection end with what it is at."""
        node, self._node = self._node, None
        if node is not None:
            node.retire()

    async def close(self) -> None:
        """Close the connection."""
        if self._connecting is not None:
            await asyncio.wait([self._connecting])
        if self._node is not None:
            self._node.close()
        for task in self._ending:
            task.cancel()
        if self._ending:
            await asyncio.wait(self._ending)

    def answered(self) -> None:
        """See `Watcher`."""
        self._failures = 0

    def refused(self, node: Node, error: ReplyError) -> None:
        """See `Watcher`."""
        if code_of(error) in {"MOVED", "ASK"}:
            self._moved(self, error)
            return
        self._failed("refused", error)
        if code_of(error) == "READONLY" and node is self._node:
            self.retire()  # the name may belong to another server by now, which is the primary

    def lost(self, node: Node, pending: list[asyncio.Future[Any]], error: Exception) -> None:
        """See `Watcher`."""
        if isinstance(error, ConnectionAbortedError):  # by us
            fail(pending, error)
            return
        self._moved(self, None)
        if not pending:
            return  # it may have been restarted; the next call will see
        if isinstance(error, TimeoutError):
            self._failed("time-out", error)
            fail(pending, error)
            return
        _note("connection", error)
        task = asyncio.create_task(self._end(node, pending, error))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, node: Node, pending: list[asyncio.Future[Any]], error: Exception) -> None:
        """Fail what was pending on a connection that the server has closed, as it also does to single clients: that it
        runs no more is known when it takes no other one, or another one answers in its place.
        """
        gone = False
        try:
            gone = await self._is_gone(node, again=True)
        finally:
            fail(pending, error, gone=gone)

    async def _is_gone(self, node: Node, *, again: bool) -> bool:
        try:
            return (await self.node()).epoch != node.epoch
        except RedisAway as failure:
            # The last that a killed server does may be to take in a connection, and to reset it.
            if again and isinstance(failure.__cause__, ConnectionResetError):
                return await self._is_gone(node, again=False)
            return failure.gone

    def _failed(self, reason: str, error: BaseException | None, *, gone: bool = False) -> None:
        self._failures += 1
        self._gone = gone
        paused = time.monotonic() < self._away_until
        if self._failures >= _FAILURES_IN_A_ROW and not paused:
            self._away_until = time.monotonic() + _PAUSE_SECONDS
        _note(reason, error, quietly=gone and paused)


def _note(reason: str, error: BaseException | None, *, quietly: bool = False) -> None:
    telemetry.REDIS_FAILURES.labels(reason).inc()
    if not quietly:
        _log.warning("redis failed", reason=reason, error=f"{type(error).__name__}: {error}"[:300])


class RedisServer:
    """A Redis server, or a cluster of them, that may be away: a call ends within about a second.

    Every method raises `RedisAway` when the server does not answer, or cannot do now what it is asked.
    """

    def __init__(self, url: str) -> None:
        place, self._login = _read(url)
        self._servers: dict[Place, _Server] = {}
        self._seed = self._at(place)
        self._map: list[_Server | None] | None = None
        """The server of each slot; None until the first one said that it is part of a cluster."""
        self._mapping: asyncio.Task[None] | None = None
        self._mapped_at = 0.0

    async def close(self) -> None:
        """Close the connections."""
        if self._mapping is not None:
            self._mapping.cancel()
        for server in {*self._servers.values(), self._seed}:
            await server.close()

    async def node(self, key: str) -> Node:
        """The connection to the server of a key; without suspension if there is one."""
        if self._map is None and (node := self._seed.ready) is not None and not node.cluster:
            return node
        return await self._node(key)

    async def call(self, key: str, *command: Word) -> Any:
        """One command in one trip, wherever its key is."""
        return await self._trip(key, lambda node, _: node.send(*command))

    async def run(self, script: Script, keys: Sequence[str], *arguments: Word) -> Any:
        """A script in one trip, wherever its first key is."""

        def send(node: Node, asking: bool) -> asyncio.Future[Any]:
            # What is asked for is one command: there must be no second one.
            if asking:
                return node.send("EVAL", script.text, len(keys), *keys, *arguments)
            return node.run(script, keys, *arguments)

        return await self._trip(keys[0], send)

    async def nodes(self) -> list[Node]:
        """The connections to all primaries."""
        await self._node("")
        servers = [self._seed] if self._map is None else {server for server in self._map if server is not None}
        return [await server.node() for server in servers]

    @asynccontextmanager
    async def dedicated(self, key: str) -> AsyncIterator[Node]:
        """A connection of one's own, for commands that wait; they must do so for less than a second."""
        await self._node(key)
        server = self._seed if self._map is None else self._map[slot_of(key)]
        assert server is not None
        node = await server.connect()
        try:
            yield node
        finally:
            node.close()

    async def _trip(self, key: str, send: Callable[[Node, bool], asyncio.Future[Any]]) -> Any:
        node, asking = await self._node(key), False
        for _ in range(_REDIRECTIONS):
            try:
                if asking:
                    node.send("ASKING")
                return await send(node, asking)
            except RedisAway as error:
                code = code_of(error.__cause__)
                if code not in {"MOVED", "ASK"}:
                    raise
                asking = code == "ASK"
                server = self._at(_place(str(error.__cause__), node.place))
            node = await server.node()
        raise away()

    async def _node(self, key: str) -> Node:
        if self._map is None:
            node = await self._seed.node()
            if not node.cluster:
                return node
            await self._remap()
        assert self._map is not None
        server = self._map[slot_of(key)]
        if server is None:
            self._ask_for_map()
            raise away()
        try:
            return await server.node()
        except RedisAway:
            self._ask_for_map()
            raise

    def _at(self, place: Place) -> _Server:
        if place not in self._servers:
            self._servers[place] = _Server(place, self._login, self._moved)
        return self._servers[place]

    def _moved(self, server: _Server, error: ReplyError | None) -> None:
        """Keys are elsewhere, or their server is lost."""
        if self._map is not None:
            if error is not None and code_of(error) == "MOVED":
                self._map[int(str(error).split()[1])] = self._at(_place(str(error), server.place))
            self._ask_for_map()

    def _ask_for_map(self) -> None:
        if self._mapping is None and time.monotonic() > self._mapped_at + _MAP_SECONDS:
            self._start_mapping()

    async def _remap(self) -> None:
        mapping = self._mapping or self._start_mapping()
        try:
            await asyncio.shield(mapping)
        except RedisAway as error:
            raise away(error.__cause__) from error.__cause__

    def _start_mapping(self) -> "asyncio.Task[None]":
        def done(task: asyncio.Task[None]) -> None:
            self._mapping, self._mapped_at = None, time.monotonic()
            if not task.cancelled():
                task.exception()  # seen: whoever waits for it is told

        self._mapping = asyncio.create_task(self._read_map())
        self._mapping.add_done_callback(done)
        return self._mapping

    async def _read_map(self) -> None:
        """Ask any server who holds which slots; those to which we are connected first."""
        known = sorted({*self._servers.values(), self._seed}, key=lambda server: not server.alive)
        for server in known:
            try:
                ranges = await (await server.node()).send("CLUSTER", "SLOTS")
            except (RedisAway, ReplyError):
                continue
            if not ranges:
                continue  # a server that has left the cluster
            slots: list[_Server | None] = [None] * _SLOTS
            for first, last, (host, port, *_), *_ in ranges:
                holder = self._at(Place((host or b"").decode() or server.place.host, port))
                slots[first : last + 1] = [holder] * (last + 1 - first)
            self._map = slots
            for place, other in list(self._servers.items()):
                if other not in slots:
                    other.retire()
                    del self._servers[place]
            return
        raise away()


def _place(redirection: str, asked: Place) -> Place:
    """Where `MOVED slot host:port` points; without a host it is the asked server's."""
    host, _, port = redirection.split()[2].rpartition(":")
    return Place(host or asked.host, int(port))


def _read(url: str) -> tuple[Place, Login]:
    """Where the server is and how to log in, from a URL as redis-py reads it, which the job queue goes by."""
    options: dict[str, Any] = dict(parse_url(url))
    tls = None
    if url.startswith("rediss:"):
        tls = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        tls.check_hostname = options.get("ssl_check_hostname", True)
        if options.get("ssl_cert_reqs") == "none":
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    place = (
        Place(options["path"], None)
        if url.startswith("unix:")
        else Place(options.get("host", "localhost"), options.get("port", 6379))
    )
    return place, Login(options.get("username"), options.get("password"), options.get("db", 0), tls)
