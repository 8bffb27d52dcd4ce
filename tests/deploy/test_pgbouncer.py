"""The API and workers behind pgbouncer, which gives out server connections for a transaction at a time."""

import asyncio
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from pydantic import SecretStr

from instafeed.dev.process import Child
from instafeed.resources import open_resources
from instafeed.settings import Settings
from instafeed.storage.database import Connection
from tests.client import Client, eventually, http_client
from tests.conftest import running_api
from tests.deploy.compose import DEPLOY
from tests.deploy.running import HOST, program
from tests.ports import free_ports
from tests.test_cli import Run, environ_of, run
from tests.workers import running_workers

__all__ = ["run"]

_SERVERS = 3
"""Connections that pgbouncer has to PostgreSQL: fewer than the API alone would open."""


def _version(pgbouncer: str) -> tuple[int, int]:
    said = subprocess.run([pgbouncer, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = re.findall(r"PgBouncer (\d+)\.(\d+)", said)[0]
    return int(major), int(minor)


@asynccontextmanager
async def _pooled(settings: Settings) -> AsyncIterator[Settings]:
    """Our pgbouncer.ini with other addresses before the settings' database; its client's settings."""
    pgbouncer = program("pgbouncer")
    if pgbouncer is None:
        pytest.skip("pgbouncer is not installed")
    prepares = _version(pgbouncer) >= (1, 21)
    direct = urlsplit(settings.database_url.get_secret_value())
    name, [port] = direct.path.removeprefix("/"), free_ports(1)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)  # it does not run as root
        moved = {
            "instafeed = host=127.0.0.1 port=5432 dbname=instafeed": f"{name} = host={HOST} port={direct.port} dbname={name}",
            "listen_port = 6432": f"listen_port = {port}",
            "/etc/pgbouncer/": f"{folder}/",
            "default_pool_size = 50": f"default_pool_size = {_SERVERS}",
            # The machine of the tests is slow.
            "query_wait_timeout = 4": "query_wait_timeout = 60",
        } | ({";max_prepared_statements": "max_prepared_statements"} if prepares else {})
        text = (DEPLOY / "pgbouncer/pgbouncer.ini").read_text()
        for old, new in moved.items():
            assert old in text
            text = text.replace(old, new)
        (folder / "pgbouncer.ini").write_text(text)
        (folder / "userlist.txt").write_text(f'"{direct.username}" "{direct.password}"\n')
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
        with (folder / "log").open("ab") as log:
            child = await Child.start([pgbouncer, *as_nobody, str(folder / "pgbouncer.ini")], environ={}, output=log)
        try:
            url = direct._replace(netloc=f"{direct.username}:{direct.password}@{HOST}:{port}").geturl()

            async def answers() -> bool:
                assert child.running, (folder / "log").read_text()
                try:
                    await (await asyncpg.connect(url, statement_cache_size=0)).close()
                except OSError:
                    return False
                return True

            await eventually(answers)
            yield settings.model_copy(
                update={
                    "database_url": SecretStr(url),
                    "database_prepared_statements": "on" if prepares else "off",
                }
            )
        finally:
            await child.stop(signal.SIGTERM, seconds=5)


async def test_sessions_are_set_up_as_if_there_were_no_pooler(fresh_settings: Settings) -> None:
    async with _pooled(fresh_settings) as pooled, open_resources(pooled) as res, res.db.acquire() as connection:
        shown = {
            name: await connection.fetchval(f"show {name}")
            for name in (
                "jit",
                "plan_cache_mode",
                "idle_in_transaction_session_timeout",
                "timezone",
                "application_name",
            )
        }
    assert shown == {
        "jit": "off",
        "plan_cache_mode": "force_generic_plan",
        "idle_in_transaction_session_timeout": "10s",
        "timezone": "UTC",
        "application_name": "instafeed",
    }


async def test_nobody_gets_what_another_asked_for(fresh_settings: Settings) -> None:
    async with _pooled(fresh_settings) as pooled, open_resources(pooled) as res:

        async def ask(number: int) -> None:
            async with res.db.acquire() as connection:
                # As many statements as there are askers, of which neighbours share a text.
                assert await connection.fetchval(f"select $1::bigint + {number % 40}", number) == number + number % 40

            async def twice(connection: Connection) -> int:
                await connection.execute("select pg_advisory_xact_lock($1)", number)
                return int(
                    await connection.fetchval(
                        "select count(*) from pg_locks join pg_database on pg_database.oid = database"
                        " where locktype = 'advisory' and objid = $1 and datname = current_database()",
                        number,
                    )
                )

            assert await res.db.transact(twice) == 1

        await asyncio.gather(*(ask(number) for number in range(300)))
        servers = await res.db.statement(
            lambda connection: connection.fetchval(
                "select count(*) from pg_stat_activity where datname = current_database() and backend_type = 'client backend'"
            )
        )
    assert 1 < servers <= _SERVERS


async def test_migrations_and_upkeep_go_past_it_or_do_nothing(fresh_settings: Settings, run: Run) -> None:
    async with _pooled(fresh_settings) as pooled:
        through = environ_of(pooled)
        for command in ("migrate", "upkeep"):
            done = await asyncio.to_thread(run, command, environ=through)
            assert done.status == 1
            assert "INSTAFEED_DATABASE_DIRECT_URL names the way past it" in done.output
        past = environ_of(pooled, database_direct_url=fresh_settings.database_url.get_secret_value())
        for command, said in (("migrate", "The schema is up to date.\n"), ("upkeep", "analyzed\n")):
            done = await asyncio.to_thread(run, command, environ=past)
            assert (done.status, done.output) == (0, said)


async def test_a_post_goes_its_whole_way(fresh_settings: Settings) -> None:
    async with (
        _pooled(fresh_settings) as pooled,
        running_workers(pooled),
        running_api(pooled) as url,
        http_client(base_url=url, timeout=60) as http,
    ):
        author, *followers = await asyncio.gather(*(Client.sign_up(http) for _ in range(6)))
        await asyncio.gather(*(follower.follow(author) for follower in followers))
        posts = await asyncio.gather(*(author.post() for _ in range(4)))
        for follower in followers:
            for post in posts:
                await follower.sees(post["id"], seconds=60)
        for post in posts:
            await asyncio.gather(*(f.call("PUT", f"/v1/posts/{post['id']}/like") for f in followers))

        async def counted() -> bool:
            found = [(await author.call("GET", f"/v1/posts/{post['id']}"))["like_count"] for post in posts]
            return found == [len(followers)] * len(posts)

        await eventually(counted)
