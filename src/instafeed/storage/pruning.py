"""Rows that have had their time."""

from instafeed.storage.database import Connection


async def delete_some(
    connection: Connection, table: str, key: tuple[str, ...], where: str, value: object, *, limit: int
) -> int:
    """Delete at most `limit` rows, of all shards; returns how many.

    Args:
        connection: the database.
        table: what is pruned.
        key: the columns of its primary key.
        where: which rows have had their time, by their columns and `value` as `$1`; once true, it stays so.
        value: what rows are judged by.
        limit: how many rows one statement has the time for.
    """
    same = " and ".join(f"{table}.{column} = old.{column}" for column in key)
    records = await connection.fetch(
        f"with old as (select {', '.join(key)} from {table} where {where} limit $2)"
        f" delete from {table} using old where {same} returning 1",
        value,
        limit,
    )
    return len(records)
