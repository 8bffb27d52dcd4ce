"""The client in a cluster of real servers: slots that move, servers that go."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from instafeed.errors import RedisAway
from instafeed.storage import seen
from instafeed.storage.redis import Node, RedisServer, Script, slot_of
from tests.client import eventually
from tests.storage.test_redis import connected, failure, our_clients
from tests.valkey import Valkey, running_valkeys

GET = Script("return redis.call('GET', KEYS[1])")
INCR = Script("return redis.call('INCR', KEYS[1])")
OPTIONS = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": "1000",
    "cluster-require-full-coverage": "no",
    "cluster-replica-validity-factor": "0",
}
KEYS = [f"key:{{{number}}}" for number in range(64)]


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[list[Valkey]]:
    """Three primaries and a replica of the first."""
    async with running_valkeys(4, **OPTIONS) as started:
        bounds = [0, 5000, 11000, 16384]
        for number, server in enumerate(started):
            bus = server.options["cluster-port"]
            for other in started:
                await other.tell("CLUSTER", "MEET", "127.0.0.1", server.port, bus)
            if number < 3:
                await server.tell("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        await agree(started)
        first = (await started[0].tell("CLUSTER", "MYID")).decode()
        await started[3].tell("CLUSTER", "REPLICATE", first)
        await agree(started)
        await set_patience(started, seconds=60)
        yield started


async def set_patience(servers: list[Valkey], *, seconds: int) -> None:
    """For how long a server may be silent before the others take it for dead. A replica takes its place then: that is one
    test's business, and not that of a crowded machine, where a server may not run for a second.
    """
    for server in servers:
        server.options["cluster-node-timeout"] = str(seconds * 1000)
        await server.tell("CONFIG", "SET", "cluster-node-timeout", seconds * 1000)


async def agree(servers: list[Valkey]) -> None:
    """Every server knows all others and sees all slots held."""

    async def probe() -> bool:
        for server in servers:
            facts, nodes = await server.tell("CLUSTER", "INFO"), await server.tell("CLUSTER", "NODES")
            if b"cluster_state:ok" not in facts or b"cluster_slots_ok:16384" not in facts:
                return False
            if nodes.count(b" connected") != len(servers) or b"fail" in nodes or b"handshake" in nodes:
                return False
        return True

    await eventually(probe)


@pytest.fixture
async def redis(servers: list[Valkey]) -> AsyncIterator[RedisServer]:
    async with connected(servers[0].url.removesuffix("/0") + "/5") as opened:  # a cluster has no databases
        for key in KEYS:
            await opened.call(key, "DEL", key)
        yield opened


@given(st.text())
def test_a_slot_is_that_of_the_key_or_its_tag(key: str) -> None:
    from redis.crc import key_slot

    assert slot_of(key) == key_slot(key.encode())


async def test_keys_are_found_on_three_servers_by_one_connection_each(
    servers: list[Valkey], redis: RedisServer
) -> None:
    for key in KEYS:
        assert await redis.call(key, "SET", key, key) == b"OK"
        assert await redis.run(GET, [key]) == key.encode()
        assert await (await redis.node(key)).send("GET", key) == key.encode()
    nodes = await redis.nodes()
    assert len({node.epoch for node in nodes}) == 3
    assert {node.place.port for node in nodes} == {server.port for server in servers[:3]}
    assert {(await redis.node(key)).epoch for key in KEYS} == {node.epoch for node in nodes}

    async def one_each() -> bool:
        return [len(await our_clients(server)) for server in servers] == [1, 1, 1, 0]

    await eventually(one_each)


async def test_a_dedicated_connection_goes_to_its_keys_server(redis: RedisServer) -> None:
    for key in KEYS[:10]:
        async with redis.dedicated(key) as node:
            await node.send("XADD", key, "*", "a", "b")
            assert node.epoch == (await redis.node(key)).epoch
        await redis.call(key, "DEL", key)


class Move:
    """A slot on its way from one server to another, step by step."""

    def __init__(self, servers: list[Valkey], key: str, source: Valkey, target: Valkey) -> None:
        self.slot, self.source, self.target, self.all = slot_of(key), source, target, servers[:3]

    async def begin(self) -> None:
        source_id, target_id = [(await one.tell("CLUSTER", "MYID")).decode() for one in (self.source, self.target)]
        await self.target.tell("CLUSTER", "SETSLOT", self.slot, "IMPORTING", source_id)
        await self.source.tell("CLUSTER", "SETSLOT", self.slot, "MIGRATING", target_id)

    async def carry(self) -> None:
        while keys := await self.source.tell("CLUSTER", "GETKEYSINSLOT", self.slot, 10):
            options = self.source.options
            await self.source.tell(
                *("MIGRATE", options["bind"], self.target.port, "", 0, 1000, "AUTH", options["requirepass"]),
                *("KEYS", *keys),
            )

    async def end(self) -> None:
        target_id = (await self.target.tell("CLUSTER", "MYID")).decode()
        for server in (self.target, self.source, *self.all):
            await server.tell("CLUSTER", "SETSLOT", self.slot, "NODE", target_id)


async def server_of(servers: list[Valkey], redis: RedisServer, key: str) -> Valkey:
    [found] = [server for server in servers if server.port == (await redis.node(key)).place.port]
    return found


async def moving(servers: list[Valkey], redis: RedisServer, key: str) -> Move:
    source = await server_of(servers, redis, key)
    target = next(server for server in servers[:3] if server is not source)
    return Move(servers, key, source, target)


async def code(node: Node, *command: Any) -> str:
    """How an error reply to a node begins."""
    return str((await failure(node.send(*command))).__cause__).split()[0]


async def test_a_moving_slot_is_followed_by_calls_and_left_by_nodes(servers: list[Valkey], redis: RedisServer) -> None:
    there, later = "there{moving}", "later{moving}"
    await redis.call(there, "SET", there, 1)
    old = await redis.node(there)
    move = await moving(servers, redis, there)
    await move.begin()
    assert await redis.call(there, "GET", there) == b"1"
    assert await redis.call(later, "INCR", later) == 1, "ASK"
    assert await redis.run(INCR, [later]) == 2
    await move.target.tell("SCRIPT", "FLUSH")
    assert await redis.run(INCR, [later]) == 3
    assert await code(old, "GET", later) == "ASK"
    assert old.alive
    await move.carry()
    assert await redis.call(there, "GET", there) == b"1"
    await move.end()
    async with connected(servers[3].url) as stranger:  # a replica, which knows who is a primary
        assert await stranger.call(there, "GET", there) == b"1"
    assert await redis.call(there, "INCR", there) == 2, "MOVED"
    assert (await redis.node(there)).place.port == move.target.port
    assert await code(old, "GET", later) == "MOVED"
    back = Move(servers, there, move.target, move.source)
    await back.begin()
    await back.carry()
    await back.end()
    now = await redis.node(there)
    assert await code(now, "GET", there) == "MOVED"
    assert await (await redis.node(there)).send("GET", there) == b"2", "the first refusal was enough"


async def test_under_load_a_moving_slot_loses_and_doubles_nothing(servers: list[Valkey], redis: RedisServer) -> None:
    keys = [f"{number}{{load}}" for number in range(20)]
    counted = dict.fromkeys(keys, 0)
    stopped = False

    async def count(key: str) -> None:
        while not stopped:
            trip = redis.run(INCR, [key]) if counted[key] % 2 else redis.call(key, "INCR", key)
            counted[key] += 1
            assert await trip == counted[key]
            await asyncio.sleep(0)

    for key in keys:
        await redis.call(key, "DEL", key)
    tasks = [asyncio.create_task(count(key)) for key in keys]
    for _ in range(4):
        move = await moving(servers, redis, keys[0])
        for step in (move.begin, move.carry, move.end):
            await asyncio.sleep(0.05)
            await step()
    await asyncio.sleep(0.2)
    stopped = True
    await asyncio.gather(*tasks)
    assert min(counted.values()) > 10


async def test_a_killed_server_takes_only_its_keys_with_it(servers: list[Valkey], redis: RedisServer) -> None:
    lost = servers[2]
    nodes = {key: await redis.node(key) for key in KEYS}
    before = {key: node for key, node in nodes.items() if node.place.port == lost.port}
    others = [key for key in KEYS if key not in before]
    for key in KEYS:
        await redis.call(key, "SET", key, 1)
    waiting = next(iter(before.values())).send("BLPOP", next(iter(before)) + "list", 0)
    await asyncio.sleep(0.05)
    await lost.kill()
    assert (await failure(waiting)).gone
    began = time.monotonic()
    for key in before:
        await failure(redis.call(key, "GET", key))
    assert time.monotonic() - began < len(before) / 2, "none waits in vain"
    for key in others:
        assert await redis.call(key, "GET", key) == b"1"
    await failure(redis.nodes())
    await lost.start()
    await agree(servers)
    for key, old in before.items():
        new = await eventually(lambda key=key: node_or_none(redis, key))  # type: ignore[misc]
        assert new.epoch != old.epoch
        assert await redis.call(key, "GET", key) is None


async def test_notes_tell_which_server_was_restarted_and_are_not_left_on_its_successor(
    servers: list[Valkey], redis: RedisServer
) -> None:
    restarted, at = servers[1], datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    await seen.write(notes := await seen.read(redis, buckets=64), at)
    assert all(note.left_elsewhere_at is None for note in await seen.read(redis, buckets=64))
    await restarted.tell("SAVE")
    await restarted.restart()
    await agree(servers)
    await eventually(lambda: node_or_none(redis, next(note.key for note in notes if not note.node.alive)))
    after = await seen.read(redis, buckets=64)
    assert {note.node.place.port for note in after if note.left_elsewhere_at == at} == {restarted.port}
    assert {note.node.place.port for note in after if note.left_elsewhere_at is None} == {
        server.port for server in servers[:3] if server is not restarted
    }
    await failure(seen.write(notes, at))
    assert [note.left_elsewhere_at for note in await seen.read(redis, buckets=64)].count(at) > 10
    await seen.write(after, at)
    assert all(note.left_elsewhere_at is None for note in await seen.read(redis, buckets=64))


async def node_or_none(redis: RedisServer, key: str) -> Any:
    try:
        return await redis.node(key)
    except RedisAway:
        return None


async def test_a_replica_that_takes_over_is_found(servers: list[Valkey], redis: RedisServer) -> None:
    """Last: it leaves the cluster another one."""
    lost, heir = servers[0], servers[3]
    key = next(key for key in KEYS if slot_of(key) < 5000)
    await redis.call(key, "SET", key, "kept")
    async with Redis(port=lost.port, password=lost.options["requirepass"]) as client:
        await client.wait(1, 1000)
    old = await redis.node(key)

    async def follows() -> bool:
        # One that has not heard all of its primary yet may not take over.
        async with Redis(port=heir.port, password=heir.options["requirepass"]) as client:
            return bool((await client.info("replication")).get("master_link_status") == "up")

    await eventually(follows)
    await set_patience(servers, seconds=1)
    await lost.kill()

    async def found() -> bool:
        try:
            return bool(await redis.call(key, "GET", key) == b"kept")
        except RedisAway:
            return False

    await eventually(found, seconds=60)
    new = await redis.node(key)
    assert new.place.port == heir.port
    assert new.epoch != old.epoch
    await set_patience(servers[1:], seconds=60)
    await lost.start()
    await agree(servers)
    assert {node.place.port for node in await redis.nodes()} == {server.port for server in servers[1:]}
