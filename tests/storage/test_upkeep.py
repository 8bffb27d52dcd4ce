"""Indexes that are broken or mostly air are rebuilt while others write, and what is kept for a time goes bit by bit."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from instafeed import sweep
from instafeed.resources import open_resources
from instafeed.settings import Settings
from instafeed.storage import upkeep
from instafeed.storage.migrations import LOCK
from instafeed.storage.upkeep import Upkeep
from tests.test_cli import Run, environ_of, run

__all__ = ["run"]

# Entries of one shard, so of one partition, which is outbox_<n>.
ADD = (
    "insert into outbox (shard, id, kind, payload, due_at, done_at)"
    " select 5, (n::bigint << 23) | (5 << 10), 'mail', '{}', now(), now()"
    " from generate_series($1::integer, $2::integer) n"
)


@pytest.fixture
async def connection(fresh_settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """A connection to an empty database of ours."""
    opened = await asyncpg.connect(fresh_settings.database_url.get_secret_value(), command_timeout=60)
    yield opened
    await opened.close()


@pytest.fixture
async def writer(fresh_settings: Settings) -> AsyncIterator[asyncpg.Connection]:
    """Another one."""
    opened = await asyncpg.connect(fresh_settings.database_url.get_secret_value(), command_timeout=60)
    yield opened
    await opened.close()


@pytest.fixture
async def table(connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> str:
    """A partition of the outbox with a primary key that is mostly air, and an index that is not valid; as small as they are."""
    monkeypatch.setattr(upkeep, "_LEAST_BYTES", 500_000)
    await connection.execute(ADD, 1, 40_000)
    await connection.execute("delete from outbox where (id >> 23) % 20 > 0")
    found = await connection.fetchval("select distinct tableoid::regclass::text from outbox")
    await connection.execute(f"alter table {found} set (autovacuum_enabled = off)")  # its locks would be in the way
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute(f"create unique index concurrently broken on {found} (kind)")
    return str(found)


async def sizes(connection: asyncpg.Connection, table: str) -> dict[str, int]:
    """The indexes of a table, in KiB; 0 for one that is not valid."""
    records = await connection.fetch(
        "select indexrelid::regclass::text as name, case when indisvalid then pg_relation_size(indexrelid) / 1024 else 0 end"
        " as size from pg_index where indrelid = $1::text::regclass order by 1",
        table,
    )
    return {record["name"]: record["size"] for record in records}


async def tend(settings: Settings) -> tuple[int, list[str]]:
    """A run: how many indexes are left as they were, and what was said."""
    said: list[str] = []
    run = Upkeep(settings.database_url.get_secret_value(), tell=said.append)
    await run.run()
    return run.failed, said


async def waits(connection: asyncpg.Connection) -> None:
    """Until an index is being rebuilt, and waits for somebody who writes."""
    async with asyncio.timeout(60):
        while not await connection.fetchval(  # noqa: ASYNC110 - PostgreSQL has no event for it
            "select exists (select from pg_stat_progress_create_index where phase like 'waiting for writers%'"
            " and datname = current_database())"
        ):
            await asyncio.sleep(0.05)


async def test_indexes_are_rebuilt_while_others_write(
    fresh_settings: Settings, connection: asyncpg.Connection, writer: asyncpg.Connection, table: str
) -> None:
    before = await sizes(connection, table)
    await connection.execute("update outbox set kind = id::text")  # now it can be unique
    writing = writer.transaction()
    await writing.start()
    await writer.execute(ADD, 100_001, 100_001)
    run = asyncio.create_task(tend(fresh_settings))
    await waits(connection)
    # The rebuild waits for the one who writes, and holds up nobody else.
    await connection.execute(ADD, 100_002, 100_002)
    await connection.execute("update outbox set kind = id::text")
    await writing.commit()
    failed, said = await run
    assert failed == 0, said
    after = await sizes(connection, table)
    # Equal keys take little room: the other indexes are as small as they can be.
    assert said[:2] == ["analyzed", "rebuilt broken: it was not valid"]
    assert [line.split(":")[0] for line in said[2:]] == [f"rebuilt {table}_pkey"]
    assert after.keys() == before.keys()
    assert after["broken"] > 0
    assert before[f"{table}_pkey"] > 4 * after[f"{table}_pkey"] > 0
    assert await connection.fetchval("select count(*) from outbox") == 2002
    assert await tend(fresh_settings) == (0, ["analyzed"])


async def test_what_a_rebuild_that_gave_up_leaves_is_cleared_by_the_next(
    fresh_settings: Settings,
    connection: asyncpg.Connection,
    writer: asyncpg.Connection,
    table: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await connection.execute("drop index broken")
    names = set(await sizes(connection, table))
    monkeypatch.setattr(upkeep, "_LOCK_TIMEOUT", "200ms")
    async with writer.transaction():
        await writer.execute(ADD, 100_001, 100_001)
        failed, said = await tend(fresh_settings)
    assert failed >= 1
    assert any("lock timeout" in line for line in said)
    assert set(await sizes(connection, table)) > names
    monkeypatch.setattr(upkeep, "_LOCK_TIMEOUT", "60s")
    failed, said = await tend(fresh_settings)
    assert failed == 0
    assert [line.split(":")[0] for line in said] == ["analyzed", f"dropped {table}_pkey_ccnew", f"rebuilt {table}_pkey"]
    assert set(await sizes(connection, table)) == names


async def test_partitioned_tables_are_analyzed(fresh_settings: Settings, connection: asyncpg.Connection) -> None:
    await connection.execute(ADD, 1, 100)
    await tend(fresh_settings)
    assert await connection.fetchval("select count(*) from pg_stats where tablename = 'outbox' and inherited") > 0


async def test_the_command_says_what_it_cannot_do_and_leaves_nothing_of_it(
    fresh_settings: Settings, connection: asyncpg.Connection, table: str, run: Run
) -> None:
    environ = environ_of(fresh_settings)
    names = set(await sizes(connection, table))
    done = await asyncio.to_thread(run, "upkeep", environ=environ)
    assert done.status == 1
    assert 'FAILED  reindex index concurrently "broken": could not create unique index' in done.output
    assert "\ndropped broken_ccnew\n" in done.output
    assert set(await sizes(connection, table)) == names
    await connection.execute("drop index broken")
    await connection.execute("create index half on only outbox (kind)")
    done = await asyncio.to_thread(run, "upkeep", environ=environ)
    assert (done.status, done.output.splitlines()[1:]) == (
        1,
        ["FAILED  half is not there on every partition: its migration broke off"],
    )
    await connection.execute("drop index half")
    done = await asyncio.to_thread(run, "upkeep", environ=environ)
    assert (done.status, done.output) == (0, "analyzed\n")
    # A migration may be building what is not valid yet.
    await connection.execute("select pg_advisory_lock($1)", LOCK)
    done = await asyncio.to_thread(run, "upkeep", environ=environ)
    assert (done.status, done.output) == (1, "FAILED  a migration or another upkeep is running\n")


async def test_what_is_kept_for_a_time_goes_bit_by_bit(
    fresh_settings: Settings, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_CLEAR_AT_ONCE", 2)
    await connection.execute(ADD, 1, 5)
    await connection.execute("update outbox set done_at = now() - interval '8 days' where id >> 23 < 6")
    await connection.execute(ADD, 6, 6)
    await connection.execute(
        "insert into accounts (shard, id, username, password_hash) select 5, (n << 23) | (5 << 10), 'a' || n, ''"
        " from generate_series(1, 6) n"
    )
    await connection.execute(
        "insert into usernames (username, account_id, held_until)"
        " select 'old' || n, (n << 23) | (5 << 10), now() + make_interval(days => n - 6) from generate_series(1, 7) n"
    )
    await connection.execute(
        "insert into idempotency_keys (shard, account_id, key, created_at, locked_until, fingerprint, resource_id)"
        " select 5, 5 << 10, n::text, now() + make_interval(days => n - 7), now(), '', 1 from generate_series(1, 7) n"
    )
    async with open_resources(fresh_settings) as res:
        await sweep.clear(res)
    assert await connection.fetchval("select count(*) from outbox") == 1
    assert await connection.fetchval("select array_agg(username) from usernames where held_until is not null") == [
        "old7"
    ]
    assert await connection.fetchval("select array_agg(key order by key) from idempotency_keys") == ["7"]
