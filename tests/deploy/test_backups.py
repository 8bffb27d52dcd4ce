"""deploy/postgres: what was deleted comes back as it was at a chosen second, on a real server."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr

from instafeed.dev.programs import as_ordinary_user, nobody, postgres_program
from instafeed.dev.servers import Postgres
from instafeed.settings import Settings
from instafeed.storage import migrations
from tests.client import Client, eventually, http_client
from tests.conftest import running_api
from tests.deploy.compose import DEPLOY
from tests.deploy.running import HOST
from tests.ports import free_ports


class _Archiving(Postgres):
    """A PostgreSQL that archives its log."""

    def __init__(self, folder: Path, archive: Path) -> None:
        folder.mkdir()
        if os.geteuid() == 0:
            os.chown(folder, nobody().pw_uid, nobody().pw_gid)
        [port] = free_ports(1)
        super().__init__(folder, folder / "log", port=port, password="password-of-the-test", durable=False)
        self._archive = archive

    def _command(self) -> Sequence[str | Path]:
        command = f"{DEPLOY}/postgres/archive %p {self._archive}/%f"
        return [*super()._command(), "-c", "archive_mode=on", "-c", f"archive_command={command}"]

    async def fetchval(self, statement: str) -> object:
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    async def archived(self) -> None:
        """Wait until all that was written so far is in the archive."""
        last = str(await self.fetchval("select pg_walfile_name(pg_switch_wal())"))

        async def there() -> bool:
            return (self._archive / last).exists()

        await eventually(there, seconds=60)

    async def rows(self) -> list[str]:
        """All rows of all tables."""
        connection = await asyncpg.connect(self.url)
        try:
            tables = await connection.fetch(
                "select relname from pg_class where relkind in ('r', 'p') and not relispartition"
                " and relnamespace = 'public'::regnamespace order by relname"
            )
            return [
                f"{name} {row['text']}"
                for (name,) in tables
                for row in await connection.fetch(f"select t::text as text from {name} t order by 1")
            ]
        finally:
            await connection.close()


async def _run(server: Postgres, program: str | Path, *arguments: str | Path, status: int = 0) -> str:
    """A program as who owns the server's files; returns what it prints."""
    known = Path(postgres_program("postgres")).parent
    url = urlsplit(server.url)
    process = await asyncio.create_subprocess_exec(
        *as_ordinary_user(),
        str(known / program) if isinstance(program, str) else program,
        *arguments,
        env={
            "PATH": f"{known}:/usr/bin:/bin",
            "PGHOST": HOST,
            "PGPORT": str(url.port),
            "PGUSER": "instafeed",
            "PGPASSWORD": server.password,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, errors = await process.communicate()
    assert process.returncode == status, said.decode() + errors.decode()
    return said.decode()


@asynccontextmanager
async def _running(server: _Archiving) -> AsyncIterator[_Archiving]:
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """Where copies and the log are kept: a folder of whom PostgreSQL runs as."""
    folder = tmp_path / "backup"
    for made in (folder, folder / "base", folder / "wal"):
        made.mkdir()
        if os.geteuid() == 0:
            os.chown(made, nobody().pw_uid, nobody().pw_gid)
    return folder


async def test_a_second_of_the_past_is_restored(fresh_settings: Settings, tmp_path: Path, backup: Path) -> None:
    scripts = DEPLOY / "postgres"
    async with _running(_Archiving(tmp_path / "lost", backup / "wal")) as server:
        await migrations.migrate(server.url)
        await server.archived()
        # A copy that nobody needs any more, and the log since.
        forgotten = backup / "base/20200101T000000Z"
        forgotten.mkdir()
        os.utime(forgotten, (0, 0))
        settings = fresh_settings.model_copy(update={"database_url": SecretStr(server.url)})
        async with running_api(settings) as url, http_client(base_url=url, timeout=60) as http:
            one, other = await Client.sign_up(http), await Client.sign_up(http)
            logs = set((backup / "wal").iterdir())
            copy = Path((await _run(server, scripts / "backup", backup, "14")).strip())
            assert [copy] == list((backup / "base").iterdir())
            assert logs - set((backup / "wal").iterdir())
            # What comes after the copy is in the log only.
            await asyncio.sleep(1.1)  # the copy's age is told in seconds
            await one.follow(other)
            await other.post("Still there")
        before = await server.rows()
        moment = str(await server.fetchval("select now()"))
        await server.fetchval("delete from posts")
        await server.fetchval("drop table followers")
        await server.archived()
    # Neither over what is there, nor to what no copy knows.
    await _run(server, scripts / "restore", backup, server.folder / "data", moment, status=1)
    await _run(server, scripts / "restore", backup, tmp_path / "found", "2020-01-01 00:00:00+00", status=1)

    restored = _Archiving(tmp_path / "found", backup / "wal")
    await _run(restored, scripts / "restore", backup, restored.folder / "data", moment)
    async with _running(restored):

        async def takes_writes() -> bool:
            return await restored.fetchval("select not pg_is_in_recovery()") is True

        await eventually(takes_writes, seconds=60)
        assert any(row.startswith("posts ") for row in before)
        assert await restored.rows() == before
        # It goes on, and archives beside the lost one.
        await restored.fetchval("delete from posts")
        await restored.archived()


def test_a_piece_of_the_log_is_archived_once(tmp_path: Path) -> None:
    piece, kept = tmp_path / "piece", tmp_path / "kept"
    archive = DEPLOY / "postgres/archive"
    piece.write_bytes(b"one")
    assert subprocess.run([archive, piece, kept], check=False).returncode == 0
    assert subprocess.run([archive, piece, kept], check=False).returncode == 0
    piece.write_bytes(b"two")
    assert subprocess.run([archive, piece, kept], check=False).returncode != 0
    assert kept.read_bytes() == b"one"
    assert sorted(tmp_path.iterdir()) == [kept, piece]
