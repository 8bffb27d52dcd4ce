"""What a trip to Redis costs: eight loops of three commands each over our connection, and over redis-py's pipelines.

By hand: `python -m tests.bench.redis_connection [--trips 20000]`.
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable

import uvloop

from instafeed.storage.redis import RedisServer
from tests.valkey import running_valkeys

LOOPS = 8


async def measure(name: str, trip: Callable[[], Awaitable[object]], trips: int) -> None:
    """Print what `trip` costs."""

    async def loop() -> None:
        for _ in range(trips // LOOPS):
            await trip()

    await trip()
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(loop() for _ in range(LOOPS)))
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"{name:30} {3 * trips / took:10,.0f} commands/s  {cpu / trips * 1e6:6.1f} µs of CPU a trip")


async def main(trips: int) -> None:
    """Compare."""
    async with running_valkeys(1) as [server], server.client() as client:

        async def pipeline() -> None:
            async with client.pipeline(transaction=False) as commands:
                for key in "abc":
                    commands.get(key)
                await commands.execute()

        ours = RedisServer(server.url)

        async def ours_in_one_trip() -> None:
            node = await ours.node("a")
            one, two, three = node.send("GET", "a"), node.send("GET", "b"), node.send("GET", "c")
            await one
            await two
            await three

        for _ in range(2):
            await measure("redis-py pipeline", pipeline, trips)
            await measure("one connection", ours_in_one_trip, trips)
        await ours.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trips", type=int, default=20_000)
    uvloop.run(main(parser.parse_args().trips))
