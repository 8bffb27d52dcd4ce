"""A TCP relay before a server, which can be cut: for the processes behind it the server is then away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

from instafeed.tasks import end


class Relay:
    """Connections to a server, for as long as it is not cut."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self._connections: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self.port = 0

    @property
    def url(self) -> str:
        """The server's URL through the relay."""
        user, at, _ = self._server.netloc.rpartition("@")
        return urlunsplit(self._server._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    async def cut(self) -> None:
        """End all connections and take no more."""
        self._is_cut = True
        await end(*self._connections)

    def mend(self) -> None:
        """Take connections again."""
        self._is_cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if not self._is_cut:
                there, back = await asyncio.open_connection(self._server.hostname, self._server.port)
                try:
                    await asyncio.wait(
                        [asyncio.create_task(_pass(reader, back)), asyncio.create_task(_pass(there, writer))],
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    back.transport.abort()
        except asyncio.CancelledError:
            pass  # cut: the server would complain of a connection that was cancelled
        finally:
            writer.transport.abort()
            self._connections.discard(task)


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await source.read(1 << 16):
            target.write(piece)
            await target.drain()


@asynccontextmanager
async def running_relay(url: str) -> AsyncIterator[Relay]:
    """A relay to the server of `url`."""
    relay = Relay(url)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        await relay.cut()
