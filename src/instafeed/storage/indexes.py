"""The state of indexes, from PostgreSQL's catalogs."""

from instafeed.storage.database import Connection

# Of a table whose indexes somebody is at, none is judged: one that is being built is not valid yet.
_OURS = (
    "from pg_index x join pg_class i on i.oid = x.indexrelid where i.relnamespace = current_schema()::regnamespace"
    " and not exists (select from pg_stat_progress_create_index at where at.relid = x.indrelid)"
)


async def invalid(connection: Connection) -> list[str]:
    """Indexes that every write pays for and no query may use: what a build that broke off leaves."""
    records = await connection.fetch(f"select i.relname {_OURS} and not x.indisvalid order by 1")
    return [record["relname"] for record in records]
