"""Locks on things by their ids, held until the transaction ends.

Whoever adds something to a thing shares its lock with all others who do, and whoever deletes the thing has it alone. So
nothing is ever added to what is gone. A lock on the row would do the same, but sharing it is a write, and those who share
it one after the other keep the one who waits to have it alone waiting for ever; these locks come in turn.
"""

from instafeed.storage.database import Connection


async def share(connection: Connection, id_: int) -> None:
    """Let nobody delete the thing while something is added to it."""
    await connection.execute("select pg_advisory_xact_lock_shared($1)", id_)


async def seize(connection: Connection, id_: int) -> None:
    """Let nobody add anything to the thing while it is deleted."""
    await connection.execute("select pg_advisory_xact_lock($1)", id_)
