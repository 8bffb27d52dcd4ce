"""The connection to Redis, against real servers: order, time, errors, and what happens when a server goes and comes."""

import asyncio
import random
import shutil
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hiredis import ReplyError

from instafeed.errors import RedisAway
from instafeed.storage import connection
from instafeed.storage import redis as redis_module
from instafeed.storage.redis import RedisServer, Script
from tests.client import eventually
from tests.relay import Relay, running_relay
from tests.valkey import PASSWORD, Valkey, running_valkeys

ECHO = Script("return {KEYS[1], ARGV[1]}")


@pytest.fixture(scope="module")
async def only_server() -> AsyncIterator[Valkey]:
    async with running_valkeys(1, **{"busy-reply-threshold": "50"}) as [started]:
        yield started


@pytest.fixture
async def server(only_server: Valkey) -> Valkey:
    async with only_server.client() as client:
        await client.flushall()
    return only_server


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[RedisServer]:
    redis = RedisServer(url)
    try:
        yield redis
    finally:
        await redis.close()


@pytest.fixture
async def redis(server: Valkey) -> AsyncIterator[RedisServer]:
    async with connected(server.url) as opened:
        yield opened


async def failure(awaitable: Any) -> RedisAway:
    with pytest.raises(RedisAway) as caught:
        await awaitable
    return caught.value


async def our_clients(server: Valkey) -> list[dict[str, str]]:
    async with server.client() as client:
        return [one for one in await client.client_list() if one["name"] == "instafeed"]


async def have_we(server: Valkey, number: int) -> list[dict[str, str]]:
    """Our connections, once they are so many: a server may see a little later that one is closed."""

    async def probe() -> list[dict[str, str]]:
        found = await our_clients(server)
        return found if len(found) == number else []

    return await eventually(probe)


async def test_replies_are_those_of_resp2(redis: RedisServer) -> None:
    assert await redis.call("a", "SET", "a", "é") == b"OK"
    assert await redis.call("a", "GET", "a") == "é".encode()
    assert await redis.call("a", "GET", "b") is None
    assert await redis.call("a", "RPUSH", "l", 1, b"\xff", "") == 3
    assert await redis.call("a", "LRANGE", "l", 0, -1) == [b"1", b"\xff", b""]
    assert await redis.run(ECHO, ["a"], 7) == [b"a", b"7"]


async def test_a_trip_is_one_write_and_its_commands_run_in_order(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await redis.node("a")
    written: list[bytes] = []
    write = node._transport.write

    class Spy:
        abort = node._transport.abort

        def write(self, data: bytes) -> None:
            written.append(data)
            write(data)

    monkeypatch.setattr(node, "_transport", Spy())
    push = Script("return redis.call('RPUSH', KEYS[1], ARGV[1])")
    trip = [node.send("RPUSH", "l", 1), node.run(push, ["l"], 2), node.run(push, ["l"], 3), node.send("LLEN", "l")]
    assert await asyncio.gather(*trip) == [1, 2, 3, 3]
    assert len(written) == 1


async def test_everybody_shares_one_connection(server: Valkey, redis: RedisServer) -> None:
    assert set(await asyncio.gather(*(redis.call("a", "PING") for _ in range(50)))) == {b"PONG"}
    [client] = await have_we(server, 1)
    assert client["db"] == "0"


async def storm(url: str, *, seconds: float) -> tuple[int, int]:
    """Callers who are cancelled at any moment; how many got their own answer, and how many were cancelled."""
    chance = random.Random(7)
    told = dropped = 0

    async def caller(redis: RedisServer, number: int) -> None:
        nonlocal told
        turn = 0
        while True:
            turn += 1
            mine = f"{number}-{turn}"
            match chance.randrange(4):
                case 0:
                    assert await redis.call("k", "ECHO", mine) == mine.encode()
                case 1:
                    assert await redis.run(ECHO, [mine], turn) == [mine.encode(), str(turn).encode()]
                case 2:
                    node = await redis.node("k")
                    one, two = node.send("ECHO", mine), node.run(ECHO, [mine], "x")
                    assert await one == mine.encode()
                    assert await two == [mine.encode(), b"x"]
                case _:
                    await redis.call("k", "SCRIPT", "FLUSH")
            told += 1

    async with connected(url) as redis:
        tasks: dict[int, asyncio.Task[None]] = {}
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for number in range(40):
                if number not in tasks:
                    tasks[number] = asyncio.create_task(caller(redis, number))
            if chance.random() < 0.5:
                await asyncio.sleep(chance.random() / 500)
            else:
                for _ in range(chance.randrange(5)):
                    await asyncio.sleep(0)
            for number in chance.sample(range(40), 8):
                task = tasks.pop(number)
                task.cancel()
                [result] = await asyncio.gather(task, return_exceptions=True)
                assert isinstance(result, asyncio.CancelledError), result
                dropped += 1
        for task in tasks.values():
            task.cancel()
        for result in await asyncio.gather(*tasks.values(), return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result
    return told, dropped


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_whoever_is_cancelled_shifts_nobodys_answer(server: Valkey, loop: str) -> None:
    run: Callable[..., Any] = asyncio.run if loop == "asyncio" else pytest.importorskip("uvloop").run
    told, dropped = await asyncio.to_thread(run, storm(server.url, seconds=3))
    assert told > 500
    assert dropped > 500


async def test_a_server_that_hangs_fails_all_that_waits_within_a_second(server: Valkey, redis: RedisServer) -> None:
    node = await redis.node("a")
    server.send(signal.SIGSTOP)
    try:
        began = time.monotonic()
        waiting = [node.send("INCR", "n") for _ in range(5)]
        for future in waiting:
            assert not (await failure(future)).gone, "it may still serve others"
        assert 0.9 < time.monotonic() - began < 5  # 1 s, on a machine that is not crowded
        assert not node.alive
        assert not (await failure(node.send("INCR", "n"))).gone
    finally:
        server.send(signal.SIGCONT)
    assert await redis.call("n", "ECHO", "mine") == b"mine", "one failure opens no circuit, and no answer is an old one"
    assert await redis.call("n", "GET", "n") in {None, b"5"}, "at most once each"


async def test_our_own_slowness_is_not_the_servers(redis: RedisServer) -> None:
    node = await redis.node("a")
    answer = node.send("PING")
    await asyncio.sleep(0)
    time.sleep(1.3)  # noqa: ASYNC251 - that is the slowness
    assert await answer == b"PONG"


async def test_commands_that_go_on_being_answered_take_the_time_they_take(redis: RedisServer) -> None:
    node = await redis.node("a")
    ends = time.monotonic() + 1.5
    while time.monotonic() < ends:
        assert await node.send("PING") == b"PONG"
        await asyncio.sleep(0.05)
    assert node.alive


async def test_a_server_that_is_not_there_is_gone() -> None:
    async with connected("redis://127.0.0.1:1/0") as redis, connected("redis://localhost:1") as named:
        assert (await failure(redis.node("a"))).gone
        assert (await failure(named.call("a", "PING"))).gone
    async with connected("unix:///nowhere/socket") as redis:
        assert (await failure(redis.run(ECHO, ["a"]))).gone


async def test_a_killed_server_is_gone_also_if_it_took_in_a_connection_before(
    server: Valkey, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, tries = await redis.node("a"), 0

    async def reset_once(*where: Any) -> connection.Node:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise connection.away(ConnectionResetError(104, "Connection reset by peer"))
        return await connection.connect(*where)

    monkeypatch.setattr(redis_module, "connect", reset_once)
    blocked = node.send("BLPOP", "nothing", 0)
    await asyncio.sleep(0.05)
    await server.kill()
    try:
        assert (await failure(blocked)).gone
        assert tries >= 2
    finally:
        await server.start()


async def test_a_killed_server_is_gone_and_a_single_connection_that_it_closed_is_not(
    server: Valkey, redis: RedisServer
) -> None:
    node = await redis.node("a")
    blocked = node.send("BLPOP", "nothing", 0)
    await server.tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert not (await failure(blocked)).gone
    node = await redis.node("a")
    blocked = node.send("BLPOP", "nothing", 0)
    await asyncio.sleep(0.05)
    await server.kill()
    try:
        assert (await failure(blocked)).gone
        assert (await failure(redis.node("a"))).gone
    finally:
        await server.start()


async def test_a_restart_between_two_calls_costs_no_failure_and_changes_the_epoch(
    server: Valkey, redis: RedisServer
) -> None:
    before = await redis.node("a")
    assert await before.send("PING") == b"PONG"
    await server.restart()
    after = await redis.node("a")
    assert await after.send("PING") == b"PONG"
    assert len(before.epoch) == len(after.epoch) == 12
    assert before.epoch != after.epoch
    await failure(before.send("SET", "a", 1))
    assert await redis.call("a", "GET", "a") is None, "what is sent to an epoch is done by no other one"
    async with server.client() as client:
        assert str((await client.info("server"))["run_id"]).startswith(after.epoch)


async def test_a_command_whose_connection_breaks_is_not_done_twice(server: Valkey) -> None:
    async with running_relay(server.url) as relay, connected(relay.url) as redis:
        counted = 0
        for _ in range(20):
            relay.mend()
            node = await eventually(lambda: made(redis))
            assert await node.send("PING") == b"PONG"
            waiting = [node.send("INCR", "n") for _ in range(20)]
            for _ in range(random.randrange(12)):
                await asyncio.sleep(0)
            await relay.cut()
            done = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(one, int | RedisAway) for one in done)
            counted += len(done)
        relay.mend()
        node = await eventually(lambda: made(redis))
        assert int(await node.send("GET", "n") or 0) <= counted


async def made(redis: RedisServer) -> Any:
    try:
        return await redis.node("n")
    except RedisAway:
        return None


async def test_after_three_failures_in_a_row_calls_fail_at_once_for_a_second(
    server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr("instafeed.storage.redis.time", SimpleNamespace(monotonic=lambda: now))
    async with running_relay(server.url) as relay, connected(relay.url) as redis:
        assert await redis.call("a", "PING") == b"PONG"
        await relay.cut()
        for _ in range(4):  # the first may only notice that it was cut
            await failure(redis.call("a", "PING"))
        relay.mend()
        for later in (0, 0.99):
            now += later
            assert not (await failure(redis.call("a", "PING"))).gone, "nobody asked it"
        now += 0.02
        assert await redis.call("a", "PING") == b"PONG"
        await relay.cut()
        await failure(redis.call("a", "PING"))
        relay.mend()
        assert await redis.call("a", "PING") == b"PONG", "success has reset the count"


async def test_what_the_server_cannot_do_now_is_done_without(server: Valkey) -> None:
    async def refused(code: str, *command: str) -> RedisAway:
        async with connected(server.url) as redis:
            error = await failure(redis.call("a", *command or ("SET", "a", "1")))
        assert connection.code_of(error.__cause__) == code
        return error

    async with server.client() as client:
        await client.config_set("maxmemory", 1)
        assert not (await refused("OOM")).gone
        async with connected(server.url) as redis:
            assert not (await failure(redis.run(Script("return redis.call('SET', KEYS[1], 1)"), ["a"]))).gone
        await client.config_set("maxmemory", 0)

        await client.config_set("min-replicas-to-write", 1)
        assert not (await refused("NOREPLICAS")).gone
        await client.config_set("min-replicas-to-write", 0)

        await client.replicaof("127.0.0.1", "9")
        assert not (await refused("READONLY")).gone
        await client.config_set("replica-serve-stale-data", "no")
        assert not (await refused("MASTERDOWN", "GET", "a")).gone
        await client.config_set("replica-serve-stale-data", "yes")
        await client.replicaof("NO", "ONE")

        async with connected(server.url) as redis:
            endless = (await redis.node("a")).run(Script("while true do end"), ["a"])
            other = RedisServer(server.url)
            assert connection.code_of((await failure(other.call("a", "GET", "a"))).__cause__) == "BUSY"
            await other.close()
            await client.script_kill()
            with pytest.raises(ReplyError):
                await endless


async def test_a_server_that_loads_is_a_new_one(server: Valkey) -> None:
    await server.tell("DEBUG", "POPULATE", 60_000)  # it would load for half a minute
    await server.tell("SAVE")
    server.options |= {"key-load-delay": "500", "loading-process-events-interval-bytes": "1024"}
    try:
        await server.restart()
        async with connected(server.url) as redis:
            error = await failure(redis.call("a", "SET", "a", 1))
            assert connection.code_of(error.__cause__) == "LOADING"
            assert error.gone
            node = await redis.node("a")
            await server.tell("CONFIG", "SET", "key-load-delay", 0)

            async def loaded() -> bool:
                try:
                    return bool(await node.send("SET", "a", 1))
                except RedisAway:
                    return False

            await eventually(loaded)
    finally:
        (server.folder / "dump.rdb").unlink()
        server.options = {name: value for name, value in server.options.items() if "load" not in name}
        await server.restart()


async def test_a_wrong_password_is_no_bug_and_a_wrong_command_is(server: Valkey, redis: RedisServer) -> None:
    port = server.port
    for url in (f"redis://:wrong@127.0.0.1:{port}", f"redis://127.0.0.1:{port}", f"redis://:x@127.0.0.1:{port}/99"):
        async with connected(url) as stranger:
            assert not (await failure(stranger.call("a", "GET", "a"))).gone
    for command in (["NO"], ["GET"], ["LPUSH", "a", 1]):
        await redis.call("a", "SET", "a", 1)
        with pytest.raises(ReplyError):
            await redis.call("a", *command)
    for _ in range(5):
        with pytest.raises(ReplyError):
            await redis.run(Script("return redis.call('NO')"), ["a"])
    assert await redis.call("a", "PING") == b"PONG", "our bugs open no circuit"


async def test_a_server_that_is_a_primary_no_more_is_left_for_whoever_has_its_name(
    server: Valkey, redis: RedisServer
) -> None:
    before = await redis.node("a")
    async with server.client() as client:
        await client.replicaof("127.0.0.1", "9")
        written, read = before.send("SET", "a", 1), before.send("PING")
        await failure(written)
        assert await read == b"PONG"
        assert await redis.node("a") is not before
        await client.replicaof("NO", "ONE")
    assert await redis.call("a", "SET", "a", 1) == b"OK"


async def test_what_waits_holds_up_nobody(server: Valkey, redis: RedisServer) -> None:
    async with redis.dedicated("s") as node:
        waiting = node.send("XREAD", "BLOCK", 800, "STREAMS", "s", "$")
        await redis.call("s", "PING")
        assert not waiting.done()
        await redis.call("s", "XADD", "s", "1-1", "a", "b")
        assert await waiting == [[b"s", [[b"1-1", [b"a", b"b"]]]]]
        assert await node.send("XREAD", "BLOCK", 100, "STREAMS", "s", "$") is None
        await have_we(server, 2)
    await have_we(server, 1)


async def test_closing_ends_what_waits(server: Valkey) -> None:
    redis = RedisServer(server.url)
    waiting = (await redis.node("a")).send("BLPOP", "nothing", 0)
    await redis.close()
    assert not (await failure(waiting)).gone


async def test_urls_of_every_kind(server: Valkey) -> None:
    await server.tell("ACL", "SETUSER", "ann", "on", ">secret", "~*", "+@all", "-client|setname")
    async with server.client() as client:
        await client.set("where", "0")
        await client.select(3)
        await client.set("where", "3")
    socket, port = server.options["unixsocket"], server.port
    escaped = PASSWORD.replace("/", "%2F")
    for url, where in (
        (f"redis://:{escaped}@localhost:{port}", b"0"),
        (f"redis://:{escaped}@127.0.0.1:{port}/3", b"3"),
        (f"redis://ann:secret@127.0.0.1:{port}/0?db=3", b"3"),
        (f"unix://:{escaped}@{socket}?db=3", b"3"),
        (f"unix://ann:secret@{socket}", b"0"),
    ):
        async with connected(url) as redis:
            assert await redis.call("where", "GET", "where") == where


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
async def test_tls(server: Valkey, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    make = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await make.wait() == 0
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    relay = Relay(server.url)
    listener = await asyncio.start_server(relay.serve, "127.0.0.1", 0, ssl=tls)
    at = f"localhost:{listener.sockets[0].getsockname()[1]}"
    login = f"rediss://:{PASSWORD.replace('/', '%2F')}@"
    try:
        for options in (f"ssl_ca_certs={certificate}", "ssl_cert_reqs=none"):
            async with connected(f"{login}{at}/3?{options}") as redis:
                assert await redis.call("a", "ECHO", "x" * 100_000) == b"x" * 100_000
                [client] = await have_we(server, 1)
                assert client["db"] == "3"
        for url in (f"{login}{at}", f"{login}{at.replace('localhost', '127.0.0.1')}?ssl_ca_certs={certificate}"):
            async with connected(url) as redis:
                error = await failure(redis.call("a", "PING"))
                assert isinstance(error.__cause__, ssl.SSLError)
    finally:
        listener.close()
        await relay.cut()
