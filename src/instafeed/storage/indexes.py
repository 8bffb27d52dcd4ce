"""The state of indexes, from PostgreSQL's catalogs."""

from typing import NamedTuple

from instafeed.storage.database import Connection

_SECONDS = 60.0
# Of a table whose indexes somebody is at, none is judged: one that is being built is not valid yet.
_OURS = (
    "i.relnamespace = current_schema()::regnamespace"
    " and not exists (select from pg_stat_progress_create_index at where at.relid = x.indrelid)"
)
# How wide an index's keys are on average; statistics of an expression are kept under the index's own name.
_WIDTH = (
    "select sum(coalesce(s.avg_width * (1 - s.null_frac), greatest(a.attlen, 8))) as width from pg_attribute a"
    " left join pg_stats s on s.schemaname = current_schema() and s.tablename in (t.relname, i.relname)"
    " and s.attname = a.attname and not s.inherited where a.attrelid = i.oid"
)


class Invalid(NamedTuple):
    """An index that is not valid."""

    name: str
    is_partitioned: bool
    """Not every partition of the table has its part of it."""


async def invalid(connection: Connection) -> list[Invalid]:
    """Indexes that every write pays for and no query may use: what a build that broke off leaves."""
    records = await connection.fetch(
        "select i.relname, i.relkind = 'I' as is_partitioned from pg_index x join pg_class i on i.oid = x.indexrelid"
        f" where {_OURS} and not x.indisvalid order by 1"
    )
    return [Invalid(record["relname"], record["is_partitioned"]) for record in records]


async def bloated(connection: Connection, *, least_bytes: int, times: float) -> list[tuple[str, int, int]]:
    """B-trees of `least_bytes` and more that are `times` as large as their entries need, largest first: name, bytes, and
    bytes needed.

    What is needed is estimated from statistics: entries of average width, a header of 12 bytes each, pages filled to 90 %.
    Equal keys may take less, so that an index is rather left alone than rebuilt for nothing.
    """
    records = await connection.fetch(
        "select * from (select i.relname, pg_relation_size(i.oid) as bytes,"
        " (8192 + i.reltuples * (12 + 8 * ceil(w.width / 8)) / 0.9)::bigint as needed"
        " from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class t on t.oid = x.indrelid,"
        f" lateral ({_WIDTH}) w where {_OURS} and x.indisvalid and i.relkind = 'i' and i.reltuples >= 0"
        " and i.relam = (select oid from pg_am where amname = 'btree')) sized"
        " where bytes >= $1 and bytes > $2 * needed order by bytes desc",
        least_bytes,
        times,
        timeout=_SECONDS,
    )
    return [(record["relname"], record["bytes"], record["needed"]) for record in records]
