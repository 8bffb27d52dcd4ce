"""Who waits for whose locks in PostgreSQL."""

from instafeed.storage.database import Connection


async def is_waited_for(connection: Connection) -> bool:
    """Whether somebody waits for what this connection has locked."""
    return bool(
        await connection.fetchval(
            "select exists (select from pg_stat_activity where datname = current_database()"
            " and pg_backend_pid() = any(pg_blocking_pids(pid)))"
        )
    )
