"""Connections to PostgreSQL are lent in order, never more than so many, and none is lost or lent in a bad state."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from instafeed import errors, telemetry
from instafeed.settings import Settings
from instafeed.storage import database as database_module
from instafeed.storage import pool
from instafeed.storage.database import Connection, Database
from tests.client import eventually
from tests.relay import running_relay

SIZE = 2
SECONDS = 30.0


class Server:
    """What PostgreSQL knows of a database that nobody uses but the test."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def pids(self) -> set[int]:
        """The connections that it has, but for this one."""
        rows = await self._connection.fetch(
            "select pid from pg_stat_activity"
            " where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        return {row["pid"] for row in rows}

    async def sleeps(self, pid: int) -> bool:
        """Whether a connection is amid a statement that sleeps."""
        return bool(
            await self._connection.fetchval(
                "select wait_event = 'PgSleep' and state = 'active' from pg_stat_activity where pid = $1", pid
            )
        )

    async def end(self, connection: Connection) -> None:
        """End a connection from there; it has been seen here when this returns."""
        await self._connection.execute("select pg_terminate_backend($1)", connection.get_server_pid())

        async def seen() -> bool:
            return connection.is_closed()

        await eventually(seen)

    async def has_table(self, name: str) -> bool:
        return bool(await self._connection.fetchval("select to_regclass($1) is not null", name))


@pytest.fixture
async def server(fresh_settings: Settings) -> AsyncIterator[Server]:
    connection = await asyncpg.connect(fresh_settings.database_url.get_secret_value(), command_timeout=60)
    yield Server(connection)
    await connection.close()


@pytest.fixture
async def url(fresh_settings: Settings) -> str:
    return fresh_settings.database_url.get_secret_value()


Make = Callable[..., Awaitable[Database]]


@pytest.fixture
async def make(url: str) -> AsyncIterator[Make]:
    """Makes pools that are closed in the end."""
    made: list[Database] = []

    async def new(size: int = SIZE, *, dsn: str = url, prepares: bool = True) -> Database:
        database = Database(dsn, size=size, prepares=prepares)
        await database.open()
        made.append(database)
        return database

    yield new
    for database in made:
        await asyncio.wait_for(database.close(), SECONDS)


@pytest.fixture(autouse=True)
def _on_a_slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who waits in vain waits so long."""
    monkeypatch.setattr(database_module, "_CONNECT_SECONDS", SECONDS)
    monkeypatch.setattr(pool, "_CLOSE_SECONDS", SECONDS)


async def taken(database: Database) -> Connection:
    """What the next gets."""
    async with database.acquire() as connection:
        return connection


async def settle() -> None:
    """Let all tasks run until they wait for something from outside."""
    for _ in range(10):
        await asyncio.sleep(0)


def at_once(steps: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that waits for nothing."""
    with pytest.raises(StopIteration) as returned:
        steps.send(None)
    return returned.value.value


async def test_none_is_opened_before_somebody_asks(make: Make, server: Server) -> None:
    database = await make()
    assert await server.pids() == set()
    connection = await taken(database)
    assert await server.pids() == {connection.get_server_pid()}


async def test_the_one_used_last_is_taken_first(make: Make) -> None:
    database = await make(3)
    lent = [database.acquire() for _ in range(3)]
    first, second, third = [await one.__aenter__() for one in lent]
    for position in (1, 2, 0):
        await lent[position].__aexit__(None, None, None)
    assert [await one.__aenter__() for one in lent] == [first, third, second]
    for one in lent:
        await one.__aexit__(None, None, None)


async def test_an_idle_one_is_taken_and_given_back_at_once(make: Make) -> None:
    database = await make()
    connection = await taken(database)
    tasks = asyncio.all_tasks()
    for _ in range(3):
        lent = database.acquire()
        assert at_once(lent.__aenter__()) is connection
        at_once(lent.__aexit__(None, None, None))
    assert asyncio.all_tasks() == tasks


def waits_seen() -> float:
    [metric] = telemetry.POOL_WAIT.collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_count"))


async def test_the_metric_counts_who_waited_and_who_did_not(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    database = await make(1)
    before = waits_seen()
    await taken(database)
    assert waits_seen() > before
    lent = database.acquire()
    before = waits_seen()
    at_once(lent.__aenter__())
    assert waits_seen() == before + 1
    monkeypatch.setattr(database_module, "_CONNECT_SECONDS", 0.05)
    before = waits_seen()
    with pytest.raises(errors.Unavailable):
        await asyncio.wait_for(taken(database), SECONDS)
    assert waits_seen() > before
    at_once(lent.__aexit__(None, None, None))


async def test_there_are_never_more_than_so_many(make: Make, server: Server) -> None:
    database = await make()
    lent: set[int] = set()

    async def use() -> int:
        async with database.acquire() as connection:
            pid = connection.get_server_pid()
            assert pid not in lent, "two have the same one"
            lent.add(pid)
            assert len(lent) <= SIZE
            await connection.execute("select pg_sleep(0.001)")
            lent.remove(pid)
            return pid

    assert len(set(await asyncio.gather(*(use() for _ in range(50))))) == SIZE
    assert len(await server.pids()) == SIZE


async def test_one_that_is_being_closed_has_its_place_still(make: Make, server: Server) -> None:
    database = await make(1)
    for _ in range(10):
        with pytest.raises(ZeroDivisionError):
            async with database.acquire() as connection:
                raise ZeroDivisionError
        async with database.acquire() as another:
            assert another is not connection
            assert await server.pids() == {another.get_server_pid()}


async def test_who_asks_first_has_theirs_first(make: Make) -> None:
    database = await make(1)
    order: list[str] = []

    async def use(name: str) -> None:
        async with database.acquire() as connection:
            order.append(name)
            await connection.execute("select 1")

    async with database.acquire():
        waiting = [asyncio.create_task(use(name)) for name in ("first", "second", "third")]
        await settle()
    await use("whoever comes when it has just been given back")
    await asyncio.gather(*waiting)
    assert order == ["first", "second", "third", "whoever comes when it has just been given back"]


async def test_nobody_waits_longer_than_so_long_and_nothing_is_lost_by_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await make(1)
    async with database.acquire() as connection:
        with monkeypatch.context() as patched:
            patched.setattr(database_module, "_CONNECT_SECONDS", 0.05)
            with pytest.raises(errors.Unavailable) as refused:
                await asyncio.wait_for(taken(database), SECONDS)
        assert refused.value.retry_after == 1
    assert await taken(database) is connection


@pytest.mark.parametrize("just_now", [False, True])
async def test_who_has_given_up_is_passed_over(make: Make, *, just_now: bool) -> None:
    database = await make(1)
    assert database._pool is not None
    async with database.acquire() as connection:
        impatient, patient = [asyncio.create_task(taken(database)) for _ in range(2)]
        await settle()
        impatient.cancel()
        if not just_now:
            await asyncio.wait({impatient})
            assert len(database._pool._waiting) == 1, "nothing is kept of those who are gone"
    assert await patient is connection
    assert impatient.cancelled()
    assert await taken(database) is connection


@pytest.mark.parametrize("is_dead", [False, True])
async def test_what_is_handed_to_one_who_gives_up_at_that_moment_goes_to_the_next(make: Make, *, is_dead: bool) -> None:
    database = await make(1)
    async with database.acquire() as connection:
        impatient, patient = [asyncio.create_task(taken(database)) for _ in range(2)]
        await settle()
        if is_dead:
            connection.terminate()
    impatient.cancel()
    await asyncio.wait({impatient})
    assert impatient.cancelled()
    assert (await patient is connection) is not is_dead
    await taken(database)


async def test_what_is_handed_to_the_last_who_gives_up_at_that_moment_is_idle_again(make: Make) -> None:
    database = await make(1)
    async with database.acquire() as connection:
        impatient = asyncio.create_task(taken(database))
        await settle()
    impatient.cancel()
    await asyncio.wait({impatient})
    assert impatient.cancelled()
    assert await taken(database) is connection


async def test_what_dies_on_its_way_to_the_next_is_replaced(make: Make) -> None:
    database = await make(1)
    async with database.acquire() as connection:
        waiting = asyncio.create_task(taken(database))
        await settle()
    connection.terminate()
    assert await waiting is not connection


class Connecting:
    """The first connection to a database is not made before the test says how that ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
        self.arguments: dict[str, Any] = {}
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        connect = asyncpg.connect
        held = False

        async def wait(dsn: str, **arguments: Any) -> asyncpg.Connection:
            nonlocal held
            if dsn == url and not held:
                held = True
                self.arguments = arguments
                await self.outcome
            return await connect(dsn, **arguments)

        monkeypatch.setattr(asyncpg, "connect", wait)


@pytest.mark.parametrize("failure", [OSError("away"), asyncpg.TooManyConnectionsError("full")])
async def test_a_connection_that_is_not_made_leaves_its_place_to_who_waits(
    make: Make, monkeypatch: pytest.MonkeyPatch, url: str, failure: Exception
) -> None:
    database, connecting = await make(1), Connecting(monkeypatch, url)
    first, second = [asyncio.create_task(taken(database)) for _ in range(2)]
    await settle()
    connecting.outcome.set_exception(failure)
    with pytest.raises(errors.Unavailable):
        await first
    assert await second


async def test_who_gives_up_connecting_leaves_the_place_to_who_waits(
    make: Make, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    database, connecting = await make(1), Connecting(monkeypatch, url)
    first, second = [asyncio.create_task(taken(database)) for _ in range(2)]
    await settle()
    assert not connecting.outcome.done()
    first.cancel()
    assert await second
    assert first.cancelled()


async def test_connecting_has_its_time_and_statements_have_theirs(
    make: Make, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    database, connecting = await make(1), Connecting(monkeypatch, url)
    connecting.outcome.set_result(None)
    await taken(database)
    assert connecting.arguments["timeout"] == database_module._CONNECT_SECONDS
    assert connecting.arguments["command_timeout"] == database_module._STATEMENT_SECONDS


async def test_a_server_that_says_nothing_is_not_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_CONNECT_SECONDS", 0.05)
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    database = await make(1, dsn=f"postgresql://u@127.0.0.1:{silent.sockets[0].getsockname()[1]}/d")
    for _ in range(2):
        with pytest.raises(errors.Unavailable):
            await asyncio.wait_for(taken(database), SECONDS)
    silent.close()


async def test_one_that_cannot_be_set_up_is_closed(make: Make, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    database, opened = await make(1), list[Connection]()

    async def fail(connection: asyncpg.Connection, *_: Any, **__: Any) -> None:
        await server.end(connection)
        raise asyncpg.InterfaceError("connection is closed")

    async def fail_alive(connection: asyncpg.Connection, *_: Any, **__: Any) -> None:
        opened.append(connection)  # or it would be closed because nobody has it any more
        raise asyncpg.QueryCanceledError("enough")

    for failing in (fail, fail_alive):
        with monkeypatch.context() as patched:
            patched.setattr(asyncpg.Connection, "set_type_codec", failing)
            with pytest.raises(errors.Unavailable):
                await taken(database)
    assert opened
    assert all(connection.is_closed() for connection in opened)

    async def closed() -> bool:
        return await server.pids() == set()

    await eventually(closed)
    assert await taken(database)


async def test_it_is_there_again_when_the_server_is(make: Make, url: str) -> None:
    async with running_relay(url) as relay:
        database = await make(1, dsn=relay.url)
        async with database.acquire() as connection:
            assert await connection.fetchval("select 1") == 1
        await relay.cut()

        async def seen() -> bool:
            return connection.is_closed()

        await eventually(seen)
        for _ in range(3):
            with pytest.raises(errors.Unavailable):
                await taken(database)
        relay.mend()
        assert await database.statement(lambda connection: connection.fetchval("select 1")) == 1


async def test_an_idle_one_that_died_is_not_lent(make: Make, server: Server) -> None:
    database = await make()
    async with database.acquire() as one, database.acquire() as other:
        pass
    await server.end(one)
    assert await taken(database) is other
    await server.end(other)
    assert await taken(database) not in {one, other}


async def test_one_that_dies_in_use_is_replaced_and_its_user_told(make: Make, server: Server) -> None:
    database = await make(1)

    async def late(connection: Connection) -> None:
        await server.end(connection)
        await connection.execute("select 1")

    with pytest.raises(errors.Unavailable) as told:
        await database.statement(late)
    assert isinstance(told.value.__cause__, asyncpg.InterfaceError)
    with pytest.raises(errors.Unavailable) as told:
        async with database.acquire() as connection:
            await connection.execute("select pg_terminate_backend(pg_backend_pid())")
    assert isinstance(told.value.__cause__, asyncpg.AdminShutdownError | asyncpg.PostgresConnectionError)
    async with database.acquire() as connection:
        await server.end(connection)
        waiting = asyncio.create_task(taken(database))
        await settle()
    assert await waiting is not connection


async def test_a_mistake_of_ours_is_not_taken_for_an_absent_server(make: Make) -> None:
    database = await make(1)
    with pytest.raises(asyncpg.InterfaceError, match="expects 1 argument"):
        async with database.acquire() as connection:
            await connection.fetchval("select $1::int")
    assert await taken(database)


async def test_a_cancelled_statement_is_nobody_elses_affair(make: Make, server: Server) -> None:
    database = await make(1)
    pids: list[int] = []

    async def sleep(connection: Connection) -> None:
        pids.append(connection.get_server_pid())
        await connection.execute("select pg_sleep(600)")

    for use in (database.statement, database.transact):
        task = asyncio.create_task(use(sleep))

        async def sleeps() -> bool:
            return bool(pids) and await server.sleeps(pids[-1])

        await eventually(sleeps)
        task.cancel()
        async with database.acquire() as connection:
            assert task.cancelled()
            assert connection.get_server_pid() not in pids
            assert await server.pids() == {connection.get_server_pid()}
            assert await connection.fetchval("select 1") == 1


async def test_a_cancelled_begin_is_nobody_elses_transaction(make: Make, server: Server) -> None:
    database = await make(1)

    async def write(connection: Connection) -> None:
        await connection.execute("create table written ()")

    await taken(database)
    task = asyncio.create_task(database.transact(write))
    await asyncio.sleep(0)  # it has sent its BEGIN
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    await database.statement(write)
    assert await server.has_table("written")


async def test_a_statement_that_takes_too_long_is_nobody_elses_affair(make: Make, server: Server) -> None:
    database = await make(1)
    with pytest.raises(errors.Unavailable):
        async with database.acquire() as connection:
            await connection.execute("select pg_sleep(600)", timeout=0.05)
    async with database.acquire() as another:
        assert another is not connection
        assert await server.pids() == {another.get_server_pid()}


async def test_a_transaction_left_open_is_not_lent_with_its_connection(make: Make, server: Server) -> None:
    database = await make(1)
    async with database.acquire() as connection:
        await connection.execute("begin; create table half ()")
    async with database.acquire() as another:
        assert not another.is_in_transaction()
        assert another is not connection
        assert await server.pids() == {another.get_server_pid()}
    assert not await server.has_table("half")

    async def fail(connection: Connection) -> None:
        await connection.execute("begin")
        await connection.execute("select 1 / 0")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await database.statement(fail)
    assert await taken(database) is not another


RAISE = "do $$ begin raise exception using errcode = '{}'; end $$"


@pytest.mark.parametrize("state", ["22012", "23505", "40001", "42P01", "55P03", "P0001"])
async def test_one_whose_statement_was_refused_is_lent_again(make: Make, state: str) -> None:
    database = await make(1)
    used = list[Connection]()
    for use in (database.statement, database.transact):

        async def refused(connection: Connection) -> None:
            used.append(connection)
            await connection.execute(RAISE.format(state))

        with suppress(asyncpg.PostgresError, errors.Unavailable):
            await use(refused)
    assert {*used, await taken(database)} == {used[0]}
    assert len(used) >= 2


@pytest.mark.parametrize("state", ["08006", "25006", "25P01", "28000", "3D000", "53200", "57014", "58030", "XX000"])
async def test_one_whose_session_is_in_doubt_is_not(make: Make, state: str) -> None:
    database = await make(1)
    with pytest.raises((asyncpg.PostgresError, errors.Unavailable)):
        async with database.acquire() as connection:
            await connection.execute(RAISE.format(state))
    assert await taken(database) is not connection


async def test_a_transaction_that_could_not_begin_is_not_taken_for_the_next(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await make(1)
    await taken(database)
    execute = asyncpg.Connection.execute

    async def fail(connection: asyncpg.Connection, statement: str, *rest: Any) -> str:
        return await execute(connection, RAISE.format("57014") if statement == "BEGIN;" else statement, *rest)

    async def one(connection: Connection) -> Any:
        return await connection.fetchval("select 1")

    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "execute", fail)
        with pytest.raises(errors.Unavailable):
            await database.transact(one)
    assert await database.transact(one) == 1


async def test_what_clients_are_told_leaves_a_connection_as_it_is(make: Make) -> None:
    database = await make(1)
    with pytest.raises(errors.NotFound):
        async with database.acquire() as connection:
            raise errors.NotFound
    assert await taken(database) is connection


async def test_those_not_used_for_long_are_closed(make: Make, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(pool, "monotonic", lambda: now)
    database = await make(3)
    assert database._pool is not None
    async with database.acquire() as busy, database.acquire() as unused, database.acquire() as unused_too:
        pass
    # Given back in the other order.
    now += 200
    assert await taken(database) is busy
    now += 99
    database._pool._close_idle()
    assert len(await server.pids()) == 3
    now += 1
    database._pool._close_idle()
    gone = {unused.get_server_pid(), unused_too.get_server_pid()}

    async def are_gone() -> bool:
        return not gone & await server.pids()

    await eventually(are_gone)
    assert await server.pids() == {busy.get_server_pid()}
    assert await taken(database) is busy


async def test_all_are_closed_when_nobody_comes_any_more(
    make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_IDLE_SECONDS", 0.05)
    database = await make()

    async def none_left() -> bool:
        return await server.pids() == set()

    for _ in range(2):
        async with database.acquire(), database.acquire():
            await asyncio.sleep(0.1)  # the timer of the first round has nothing to do amid the second
        await eventually(none_left)
    await taken(database)
    await asyncio.sleep(0.03)
    await taken(database)  # so that it is not old yet when the timer looks
    await eventually(none_left)


async def test_closing_waits_for_those_in_use_and_lends_no_more(
    make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_CONNECT_SECONDS", 3600)
    monkeypatch.setattr(pool, "_CLOSE_SECONDS", 3600)
    database = await make(2)
    using, done = list[Connection](), asyncio.Event()

    async def use() -> int:
        async with database.acquire() as connection:
            using.append(connection)
            await done.wait()
            return int(await connection.fetchval("select 1"))

    users = [asyncio.create_task(use()) for _ in range(2)]

    async def both() -> bool:
        return len(using) == 2

    await eventually(both)
    waiting = asyncio.create_task(taken(database))
    await settle()
    closing = asyncio.create_task(database.close())
    with pytest.raises(errors.Unavailable):
        await asyncio.wait_for(waiting, SECONDS)
    with pytest.raises(errors.Unavailable):
        await asyncio.wait_for(taken(database), SECONDS)
    assert not closing.done()
    done.set()
    assert await asyncio.gather(*users) == [1, 1]
    await asyncio.wait_for(closing, SECONDS)
    assert await server.pids() == set()
    with pytest.raises(errors.Unavailable):
        await taken(database)


async def test_closing_closes_what_is_idle_and_waits_for_nobody_then(
    make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_CLOSE_SECONDS", 3600)
    database = await make(2)
    async with database.acquire(), database.acquire():
        pass
    await asyncio.wait_for(database.close(), SECONDS)
    assert await server.pids() == set()
    unused = await make(2)
    await asyncio.wait_for(unused.close(), SECONDS)


async def test_who_does_not_give_back_does_not_hinder_closing(
    make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await make(1)
    pids: list[int] = []

    async def sleep(connection: Connection) -> None:
        pids.append(connection.get_server_pid())
        await connection.execute("select pg_sleep(600)", timeout=600)

    user = asyncio.create_task(database.statement(sleep))

    async def sleeps() -> bool:
        return bool(pids) and await server.sleeps(pids[0])

    await eventually(sleeps)
    monkeypatch.setattr(pool, "_CLOSE_SECONDS", 0.05)
    await asyncio.wait_for(database.close(), SECONDS)
    with pytest.raises(errors.Unavailable):
        await user


async def test_one_that_is_made_while_the_pool_is_closed_is_closed_too(
    make: Make, server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, connecting = await make(1), Connecting(monkeypatch, url)
    asking = asyncio.create_task(taken(database))
    await settle()
    with monkeypatch.context() as patched:
        patched.setattr(pool, "_CLOSE_SECONDS", 0.05)
        await database.close()
    connecting.outcome.set_result(None)
    with pytest.raises(errors.Unavailable):
        await asking

    async def none_left() -> bool:
        return await server.pids() == set()

    await eventually(none_left)


@pytest.fixture
def never_closing(monkeypatch: pytest.MonkeyPatch) -> set[asyncpg.Connection]:
    """Connections that are put here take for ever to close."""
    close = asyncpg.Connection.close
    never: set[asyncpg.Connection] = set()

    async def hang(connection: asyncpg.Connection, **arguments: Any) -> None:
        if connection in never:
            await asyncio.Event().wait()
        await close(connection, **arguments)

    monkeypatch.setattr(asyncpg.Connection, "close", hang)
    return never


async def test_one_that_does_not_close_is_ended_by_force(
    make: Make, monkeypatch: pytest.MonkeyPatch, never_closing: set[asyncpg.Connection]
) -> None:
    database = await make(1)
    async with database.acquire() as connection:
        never_closing.add(connection)
    monkeypatch.setattr(pool, "_CLOSE_SECONDS", 0.05)
    with pytest.raises(ZeroDivisionError):
        async with database.acquire():
            raise ZeroDivisionError
    assert await taken(database) is not connection
    assert connection.is_closed()


async def test_closing_leaves_no_task_behind(
    make: Make, monkeypatch: pytest.MonkeyPatch, never_closing: set[asyncpg.Connection]
) -> None:
    database = await make(2)

    def closing() -> list[asyncio.Task[Any]]:
        return [task for task in asyncio.all_tasks() if "Pool._close" in repr(task)]

    async with database.acquire() as connection:
        never_closing.add(connection)
    with pytest.raises(ZeroDivisionError):
        async with database.acquire():
            raise ZeroDivisionError
    await settle()  # what closes it has begun to wait
    assert closing()
    monkeypatch.setattr(pool, "_CLOSE_SECONDS", 0.05)
    await database.close()
    assert connection.is_closed()
    assert closing() == []


@pytest.mark.parametrize("prepares", [True, False])
async def test_statements_are_kept_only_where_they_may_be(make: Make, *, prepares: bool) -> None:
    database = await make(1, prepares=prepares)
    async with database.acquire() as connection:
        for number in range(3):
            assert await connection.fetchval("select $1::int", number) == number
        kept = await connection.fetchval(
            "select count(*) from pg_prepared_statements where statement = 'select $1::int'"
        )
        assert kept == int(prepares)


async def test_sessions_are_set_up(make: Make) -> None:
    database = await make(1)
    async with database.acquire() as connection:
        shown = [
            await connection.fetchval(f"show {name}")
            for name in (
                "application_name",
                "timezone",
                "jit",
                "idle_in_transaction_session_timeout",
                "plan_cache_mode",
            )
        ]
        assert shown == ["instafeed", "UTC", "off", "10s", "force_generic_plan"]
        assert await connection.fetchval("select $1::jsonb", {"a": [1, None]}) == {"a": [1, None]}


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_none_is_lost_and_none_is_too_many(make: Make, server: Server, seed: int) -> None:
    chance = random.Random(seed)
    database = await make(3)
    lent: set[Connection] = set()

    async def use() -> None:
        async with database.acquire() as connection:
            assert connection not in lent
            lent.add(connection)
            try:
                assert not connection.is_in_transaction()
                match chance.randrange(6):
                    case 0:
                        await connection.execute("begin")
                    case 1:
                        connection.terminate()
                    case 2:
                        await connection.execute("select 1 / 0")
                    case 3:
                        async with connection.transaction():
                            await connection.execute("select pg_sleep(0.002)")
                    case _:
                        assert await connection.fetchval("select $1::int", 7) == 7
            finally:
                lent.remove(connection)

    async def disturbed() -> None:
        task = asyncio.create_task(use())
        if chance.random() < 0.4:
            await asyncio.sleep(chance.random() * 0.05)
            task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            assert isinstance(task.exception(), asyncpg.DivisionByZeroError | None)

    for _ in range(5):
        await asyncio.gather(*(disturbed() for _ in range(20)))
        assert len(await server.pids()) <= 3
    async with database.acquire() as one, database.acquire() as two, database.acquire() as three:
        assert await server.pids() == {connection.get_server_pid() for connection in (one, two, three)}
