"""Redis-compatible servers of a test's own, with the options that it wants, to be stopped and killed."""

import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from instafeed.dev.embedded import reserve_ports
from instafeed.dev.process import Child
from instafeed.dev.programs import valkey
from tests.client import eventually

PASSWORD = "pass/word"


class Valkey:
    """One server; what it holds outlives it only by `SAVE`."""

    def __init__(self, folder: Path, port: int, **options: str) -> None:
        self.folder = folder
        self.port = port
        self.options = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "save": "",
            "requirepass": PASSWORD,
            "primaryauth": PASSWORD,
            "enable-debug-command": "yes",
            "unixsocket": str(folder / "socket"),
        } | options
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{self.port}/0"

    def client(self) -> Redis:
        return Redis(port=self.port, password=PASSWORD)

    async def tell(self, *command: str | int) -> Any:
        """One command, past our own client."""
        async with self.client() as redis:
            return await redis.execute_command(*command)  # type: ignore[no-untyped-call]

    async def start(self) -> None:
        """Start it; return when it takes connections."""
        arguments = [part for name, value in self.options.items() for part in (f"--{name}", value)]
        with (self.folder / "log").open("ab") as output:
            self._child = await Child.start([valkey(), *arguments], environ={}, output=output, folder=self.folder)

        async def listens() -> bool:
            assert self._child is not None
            assert self._child.running, (self.folder / "log").read_text()
            try:
                async with self.client() as redis:
                    return bool(await redis.info("server"))
            except (RedisError, OSError):
                return False

        await eventually(listens)

    def send(self, number: signal.Signals) -> None:
        assert self._child is not None
        self._child.send(number)

    async def kill(self) -> None:
        assert self._child is not None
        self.send(signal.SIGKILL)
        await self._child.wait()

    async def restart(self) -> None:
        await self.kill()
        await self.start()


@asynccontextmanager
async def running_valkeys(count: int, **options: str) -> AsyncIterator[list[Valkey]]:
    """So many servers."""
    keeper, ports = reserve_ports(count * 2, first=None)
    async with AsyncExitStack() as stack:
        stack.callback(keeper.close)
        servers = []
        for port, bus in zip(ports[:count], ports[count:], strict=True):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="instafeed-valkey-")))
            server = Valkey(folder, port, **options, **{"cluster-port": str(bus)})
            stack.push_async_callback(server.kill)
            await server.start()
            servers.append(server)
        yield servers
