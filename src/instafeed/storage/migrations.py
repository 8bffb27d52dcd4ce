"""The migration runner: plain SQL files, forward only, applied once and in order.

A migration runs beside the code of the release before it: expand first, contract a release later. Each file is one
transaction, its statements sent one at a time (Citus wants that of DDL); a file whose first line is
`-- no-transaction` runs without, for `create index concurrently`. If that breaks off it is run again from its beginning, so
it first drops what it makes. On a partitioned table:

    -- no-transaction
    drop index if exists posts_place;  -- with those that are attached to it
    drop index concurrently if exists posts_0_place;  -- and so on
    create index posts_place on only posts (place);  -- valid when every partition's is attached
    create index concurrently posts_0_place on posts_0 (place);  -- and so on
    alter index posts_place attach partition posts_0_place;  -- and so on
"""

import asyncio
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from instafeed.storage.database import Connection

LOCK = 4_203_001
"""Is held while indexes are built, here or by `upkeep`; any number that nothing else in the database locks."""
_LOCK_SECONDS = 60.0
_POLL_SECONDS = 0.1
_NO_TRANSACTION = "-- no-transaction"
# What blocks nobody while it waits for whoever writes, and takes as long as its table is large.
_PATIENT = re.compile(r"\bindex\s+concurrently\b", re.IGNORECASE)
_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
# A string, a quoted name, a dollar-quoted body or a comment is passed over whole; a semicolon outside of them ends a statement.
_TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/|;", re.DOTALL)


class MigrationError(Exception):
    """The migrations cannot be applied; says why."""


@dataclass(frozen=True)
class Migration:
    """One file."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        """Whether all of it happens or nothing."""
        return not self.sql.startswith(_NO_TRANSACTION)


def folder() -> Path:
    """Where the SQL files are: in the installed package, else in the checkout."""
    packaged = Path(__file__).parents[1] / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "migrations"


def load(source: Path | None = None) -> list[Migration]:
    """All migrations in order.

    Raises:
        MigrationError: a number is missing or there twice.
    """
    found = [
        Migration(int(match[1]), path.stem, path.read_text(encoding="utf-8"))
        for path in sorted((source or folder()).glob("*.sql"))
        if (match := _NAME.match(path.name))
    ]
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"migrations must be numbered 0001, 0002, ... without gap: {[m.name for m in found]}")
    return found


def statements(sql: str) -> list[str]:
    """The statements of `sql`, without the semicolons."""
    found, start = [], 0
    for token in _TOKEN.finditer(sql):
        if token[0] == ";":
            found.append(sql[start : token.start()].strip())
            start = token.end()
    found.append(sql[start:].strip())
    return [statement for statement in found if _TOKEN.sub("", statement).strip()]


async def open_session(dsn: str) -> asyncpg.Connection:
    """A connection of our own to PostgreSQL. A pooler of transactions would keep our locks and limits, and give them to others.

    Raises:
        OSError: the database does not answer.
        MigrationError: there is a pooler before it.
    """
    connection = await asyncpg.connect(dsn, timeout=5, statement_cache_size=0)
    # A pooler cannot tell beforehand which process will serve its client, and names another one.
    if connection.get_server_pid() != await connection.fetchval("select pg_backend_pid()"):
        await connection.close()
        raise MigrationError("a pooler is before the database; INSTAFEED_DATABASE_DIRECT_URL names the way past it")
    return connection


async def count_applied(connection: Connection) -> int:
    """How many migrations the database has had; 0 for one that has seen none."""
    return len(await _applied(connection))


async def _applied(connection: Connection) -> dict[int, str]:
    if not await connection.fetchval("select to_regclass('migrations') is not null"):
        return {}
    return {
        record["version"]: record["checksum"]
        for record in await connection.fetch("select version, checksum from migrations")
    }


def _pending(known: list[Migration], applied: dict[int, str]) -> list[Migration]:
    for migration in known:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise MigrationError(f"{migration.name} was edited after it was applied; write a new migration instead")
    # A database that is ahead of this release is fine: old code runs beside a newer schema.
    return [migration for migration in known if migration.version not in applied]


async def status(dsn: str, source: Path | None = None) -> list[tuple[Migration, bool]]:
    """Every known migration and whether it is applied.

    Raises:
        MigrationError: an applied one was edited.
    """
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        known = load(source)
        pending = _pending(known, await _applied(connection))
        return [(migration, migration not in pending) for migration in known]
    finally:
        await connection.close()


async def migrate(
    dsn: str, source: Path | None = None, *, lock_timeout: str = "5s", statement_timeout: str = "15min"
) -> list[str]:
    """Apply what is pending and return the names; several processes may call it at once.

    Args:
        dsn: the database.
        source: a folder of migrations other than ours.
        lock_timeout: how long a statement waits for a table that live traffic holds.
        statement_timeout: how long one statement may take. Neither is for indexes that are built concurrently.

    Raises:
        MigrationError: an applied one was edited, another run holds the lock for a minute, a statement failed, or there is a
            pooler before the database.
    """
    known = load(source)
    connection = await open_session(dsn)
    try:
        # Polled, not waited for: a session that waits in pg_advisory_lock holds a snapshot, and
        # CREATE INDEX CONCURRENTLY in the session that has the lock would wait for that snapshot for ever.
        async with asyncio.timeout(_LOCK_SECONDS):
            while not await connection.fetchval("select pg_try_advisory_lock($1)", LOCK):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_SECONDS)
        await connection.execute(
            "create table if not exists migrations (version integer primary key, name text not null, checksum text not null,"
            " applied_at timestamptz not null default now())"
        )
        pending = _pending(known, await _applied(connection))
        limits = f"set lock_timeout = '{lock_timeout}'; set statement_timeout = '{statement_timeout}'"
        await connection.execute(limits)
        for migration in pending:
            await _apply(connection, migration, limits)
        return [migration.name for migration in pending]
    except TimeoutError as error:
        raise MigrationError("another migration has been running for a minute") from error
    finally:
        await connection.close()


async def _apply(connection: asyncpg.Connection, migration: Migration, limits: str) -> None:
    async def run() -> None:
        for statement in statements(migration.sql):
            patient = not migration.in_transaction and _PATIENT.search(statement)
            if patient:
                await connection.execute("set lock_timeout = 0; set statement_timeout = 0")
            try:
                await connection.execute(statement)
                if patient:
                    await connection.execute(limits)
            except asyncpg.PostgresError as error:
                raise MigrationError(f"{migration.name}: {error} in: {statement[:200]}") from error
        await connection.execute(
            "insert into migrations (version, name, checksum) values ($1, $2, $3)",
            migration.version,
            migration.name,
            migration.checksum,
        )

    if migration.in_transaction:
        async with connection.transaction():
            await run()
    else:
        await run()
