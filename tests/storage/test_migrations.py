import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from instafeed.dev.embedded import Endpoints
from instafeed.settings import Settings
from instafeed.storage import migrations
from instafeed.storage.migrations import MigrationError
from tests.storage import schema


@pytest.fixture
async def empty(endpoints: Endpoints) -> AsyncIterator[str]:
    """The URL of an empty database."""
    server, name = endpoints.database_url.rpartition("/")[0], f"empty_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(f"{server}/postgres")
    await admin.execute(f"create database {name}")
    yield f"{server}/{name}"
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest.fixture
async def connection(empty: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await asyncpg.connect(empty)
    yield opened
    await opened.close()


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name[1:]}.sql").write_text(text)
    return folder


async def test_all_migrations_on_an_empty_database_give_the_schema_that_is_kept(empty: str) -> None:
    await migrations.migrate(empty)
    assert await asyncio.to_thread(schema.dump, empty) == schema.PATH.read_text()


async def test_every_sharded_table_has_eight_partitions_and_its_shard_first_in_the_key(
    empty: str, connection: asyncpg.Connection
) -> None:
    await migrations.migrate(empty)
    tables = await connection.fetch(
        "select c.relname, (select count(*) from pg_inherits where inhparent = c.oid) as partitions,"
        " pg_get_partkeydef(c.oid) as by, pg_get_constraintdef(k.oid) as key"
        " from pg_class c join pg_constraint k on k.conrelid = c.oid and k.contype = 'p' where c.relkind = 'p'"
    )
    assert len(tables) >= 8
    for table in tables:
        assert table["partitions"] == 8, table["relname"]
        assert table["by"] == "HASH (shard)"
        assert table["key"].startswith("PRIMARY KEY (shard, "), table["relname"]


async def test_migrating_again_does_nothing(empty: str) -> None:
    assert await migrations.migrate(empty) == [migration.name for migration in migrations.load()]
    assert await migrations.migrate(empty) == []
    assert all(applied for _, applied in await migrations.status(empty))


async def test_several_processes_may_migrate_at_once(empty: str) -> None:
    applied = await asyncio.gather(*(migrations.migrate(empty) for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, len(migrations.load())]


async def test_what_was_there_before_the_graph_is_public_and_in_good_standing(
    empty: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    first = migrations.load()[0]
    await migrations.migrate(empty, write(tmp_path, **{f"_{first.name}": first.sql}))
    await connection.execute("insert into accounts (shard, id, username, password_hash) values (1, 1024, 'ada', '')")
    await connection.execute("insert into posts (shard, id, author_id, caption) values (1, 1025, 1024, '')")
    await migrations.migrate(empty)
    assert await connection.fetchval("select not is_private and suspended_at is null from accounts")
    assert await connection.fetchval("select edited_at is null from posts")
    assert await connection.fetchval("select tags = '{}' and mentions = '[]' from posts")
    assert await connection.fetchval("select array_agg(term) from search_terms") == ["ada"]


async def test_addresses_that_were_there_before_wait_to_be_confirmed(
    empty: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    before = migrations.load()[:7]
    await migrations.migrate(empty, write(tmp_path, **{f"_{migration.name}": migration.sql for migration in before}))
    for name, account in (("ada", 1024), ("bob", 1025)):
        await connection.execute(
            "insert into accounts (shard, id, username, password_hash) values (1, $2, $1, '')", name, account
        )
    await connection.execute("insert into emails (email, account_id) values ('ada@example.org', 1024)")
    await migrations.migrate(empty)
    found = await connection.fetch("select username, email, pending_email from accounts order by username")
    assert [tuple(row) for row in found] == [("ada", None, "ada@example.org"), ("bob", None, None)]


async def test_an_edited_migration_is_refused(empty: str, tmp_path: Path) -> None:
    write(tmp_path, _0001_first="create table first (id integer)")
    await migrations.migrate(empty, tmp_path)
    write(tmp_path, _0001_first="create table first (id bigint)", _0002_second="create table second (id integer)")
    with pytest.raises(MigrationError, match="0001_first was edited"):
        await migrations.migrate(empty, tmp_path)
    with pytest.raises(MigrationError, match="0001_first was edited"):
        await migrations.status(empty, tmp_path)


async def test_a_migration_that_fails_leaves_nothing_of_itself(
    empty: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    write(tmp_path, _0001_first="create table first (id integer)", _0002_second="create table second (); select 1 / 0;")
    with pytest.raises(MigrationError, match="0002_second: division by zero"):
        await migrations.migrate(empty, tmp_path)
    assert await connection.fetchval("select to_regclass('first') is not null and to_regclass('second') is null")
    assert [applied for _, applied in await migrations.status(empty, tmp_path)] == [True, False]


async def test_an_index_is_built_concurrently_while_another_migration_waits(
    empty: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        _0001_first="create table first (id integer)",
        _0002_index="-- no-transaction\ncreate index concurrently first_id on first (id);",
    )
    await asyncio.wait_for(asyncio.gather(*(migrations.migrate(empty, tmp_path) for _ in range(3))), 60)
    assert await connection.fetchval("select indisvalid from pg_index where indexrelid = 'first_id'::regclass")


async def test_an_index_of_partitions_whose_build_broke_off_is_built_when_migrated_again(
    empty: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    parts = range(2)
    write(
        tmp_path,
        _0001_first="create table first (id integer, n integer) partition by list (id);"
        + "".join(f"create table first_{part} partition of first for values in ({part});" for part in parts),
        _0002_index="-- no-transaction\ndrop index if exists first_n;"
        + "".join(f"drop index concurrently if exists first_{part}_n;" for part in parts)
        + "create unique index first_n on only first (id, n);"
        + "".join(
            f"create unique index concurrently first_{part}_n on first_{part} (id, n);"
            f"alter index first_n attach partition first_{part}_n;"
            for part in parts
        ),
    )
    index = (tmp_path / "0002_index.sql").rename(tmp_path / "later")
    await migrations.migrate(empty, tmp_path)
    index.rename(tmp_path / "0002_index.sql")
    await connection.execute("insert into first values (0, 1), (1, 1), (1, 1)")
    invalid = "select array_agg(indexrelid::regclass::text order by indrelid desc) from pg_index where not indisvalid"
    for _ in range(2):
        with pytest.raises(MigrationError, match="0002_index: could not create unique index"):
            await migrations.migrate(empty, tmp_path)
        assert await connection.fetchval(invalid) == ["first_1_n", "first_n"]
    await connection.execute("truncate first")
    assert await migrations.migrate(empty, tmp_path) == ["0002_index"]
    assert await connection.fetchval(invalid) is None
    assert await connection.fetchval("select count(*) from pg_inherits where inhparent = 'first_n'::regclass") == 2


async def test_an_index_that_is_built_concurrently_waits_for_whoever_writes_and_blocks_nobody(
    empty: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await connection.execute("create table first (id integer)")
    write(tmp_path, _0001_index="-- no-transaction\ncreate index concurrently first_id on first (id);")
    other = await asyncpg.connect(empty, command_timeout=60)
    try:
        async with connection.transaction():
            await connection.execute("insert into first values (1)")
            build = asyncio.create_task(migrations.migrate(empty, tmp_path, lock_timeout="1ms", statement_timeout="1s"))
            async with asyncio.timeout(60):
                while not await other.fetchval(  # noqa: ASYNC110 - PostgreSQL has no event for it
                    "select exists (select from pg_stat_progress_create_index where phase like 'waiting for writers%'"
                    " and datname = current_database())"
                ):
                    await asyncio.sleep(0.05)
            await other.execute("insert into first values (2)")
        assert await build == ["0001_index"]
    finally:
        await other.close()


async def test_a_lock_that_live_traffic_holds_is_not_waited_for_without_end(
    empty: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    await connection.execute("create table first (id integer)")
    write(tmp_path, _0001_first="alter table first add column more integer")
    async with connection.transaction():
        await connection.execute("select from first")
        with pytest.raises(MigrationError, match="lock timeout"):
            await migrations.migrate(empty, tmp_path, lock_timeout="100ms")


def test_gaps_and_repeated_numbers_are_refused(tmp_path: Path) -> None:
    write(tmp_path, _0001_first="select 1", _0003_third="select 1")
    with pytest.raises(MigrationError, match="without gap"):
        migrations.load(tmp_path)


@pytest.mark.parametrize(
    ("sql", "parts"),
    [
        ("select 1; select 2", ["select 1", "select 2"]),
        ("select ';'; -- a; comment\n", ["select ';'"]),
        ("select 'it''s; so';/* ; */ select 2;", ["select 'it''s; so'", "/* ; */ select 2"]),
        ('select ";";', ['select ";"']),
        ("do $x$ begin; end $x$; select 1", ["do $x$ begin; end $x$", "select 1"]),
        ("-- only a comment;\n", []),
        ("", []),
    ],
)
def test_a_file_is_cut_into_its_statements(sql: str, parts: list[str]) -> None:
    assert migrations.statements(sql) == parts


def test_the_commands_say_what_is_applied(settings: Settings, empty: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("INSTAFEED_")} | {
        "INSTAFEED_SECRET_KEY": "s" * 32,
        "INSTAFEED_DATABASE_URL": empty,
        "INSTAFEED_REDIS_URL": settings.redis_url.get_secret_value(),
        "INSTAFEED_S3_ACCESS_KEY": "-",
        "INSTAFEED_S3_SECRET_KEY": "-",
    }

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "instafeed", "migrate", *arguments]
        return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout

    names = [migration.name for migration in migrations.load()]
    assert run("--status") == "".join(f"pending  {name}\n" for name in names)
    assert run() == "".join(f"applied  {name}\n" for name in names)
    assert run("--status") == "".join(f"applied  {name}\n" for name in names)
    assert run() == "The schema is up to date.\n"
