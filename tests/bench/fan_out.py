"""How fast a post gets into its followers' feeds: against `redis-cli --pipe` with the same pushes and trims on the same
server and keys, and the whole job from PostgreSQL.

By hand: `python -m tests.bench.fan_out [--followers 50000] [--runs 5]`; needs redis-cli.
"""

import argparse
import asyncio
import shutil
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from instafeed.ids import shard_of
from instafeed.resources import open_resources
from instafeed.settings import Settings
from instafeed.storage.follows import ID_DIGITS, PackedFollowers
from instafeed.storage.outbox import Kind
from instafeed.storage.redis import Script
from tests.bench.common import fresh_servers, show
from tests.feeds.world import World

STEP = 1 << 23  # the next millisecond's id on the same shard

# ARGV: followers (fixed width), first id, entries. Copies one full list to every follower.
_FILL = Script(f"""
redis.call('DEL', 'full')
for number = 1, tonumber(ARGV[3]) do redis.call('LPUSH', 'full', string.format('%.0f', ARGV[2] + number)) end
local full = redis.call('DUMP', 'full')
for at = 1, #ARGV[1], {ID_DIGITS} do
  redis.call('RESTORE', KEYS[1] .. string.sub(ARGV[1], at, at + {ID_DIGITS - 1}), 0, full, 'REPLACE')
end
""")


def packed(ids: list[int]) -> str:
    """Ids as the database packs them."""
    return "".join(f"{id_:0{ID_DIGITS}d}" for id_ in ids)


async def materialise(world: World, followers: list[int]) -> None:
    """Give every follower a feed that is full."""
    for at in range(0, len(followers), 1000):
        await world.res.redis.run(
            _FILL, ["feed:{0}:"], packed(followers[at : at + 1000]), 1 << 40, world.res.timelines.window
        )


async def with_followers(world: World, count: int) -> tuple[int, list[int]]:
    """An author, and followers whose feeds are full."""
    author = await world.account()
    await world.sql(
        "insert into followers (shard, followee_id, follower_id, id, notify)"
        " select $1, $2::bigint, $2::bigint + number * $3::bigint, number, false"
        " from generate_series(1, $4::int) as number returning 1",
        shard_of(author),
        author,
        STEP,
        count,
    )
    await world.sql("analyze followers")
    followers = [author + number * STEP for number in range(1, count + 1)]
    await materialise(world, followers)
    return author, followers


async def pipe(settings: Settings, followers: list[int], post: int) -> float:
    """Seconds that redis-cli takes to push a post to all followers, and to trim."""
    url = urlsplit(settings.redis_url.get_secret_value())
    lines = "".join(
        f"LPUSHX feed:{{0}}:{follower:0{ID_DIGITS}d} {post}\r\nLTRIM feed:{{0}}:{follower:0{ID_DIGITS}d} 0 799\r\n"
        for follower in followers
    )
    with TemporaryDirectory() as folder:
        file = Path(folder, "commands")
        file.write_text(lines)
        began = time.perf_counter()
        with file.open("rb") as commands:  # noqa: ASYNC230 - a moment, and not measured
            process = await asyncio.create_subprocess_exec(
                *("redis-cli", "-h", url.hostname or "", "-p", str(url.port), "--pipe"),
                stdin=commands,
                stdout=asyncio.subprocess.DEVNULL,
                env={"REDISCLI_AUTH": url.password or ""},
            )
            assert await process.wait() == 0
        return time.perf_counter() - began


async def push(world: World, followers: str, post: int) -> float:
    """Seconds that our push takes for the same."""
    began = time.perf_counter()
    await world.res.timelines.push(post, [PackedFollowers(0, followers)])
    return time.perf_counter() - began


async def whole_job(world: World, author: int, post: int) -> tuple[float, float]:
    """Seconds of the whole job from the outbox, and of Python's processor time in it."""
    await world.sql(
        "insert into posts (shard, id, author_id, caption, published_at) values ($1, $2, $3, '', now()) returning 1",
        shard_of(author),
        post,
        author,
    )
    from instafeed import work

    async with world.res.db.acquire() as connection:
        entry = await work.note(world.res, connection, shard_of(author), Kind.FAN_OUT, {"post": post, "author": author})
    cpu, began = time.process_time(), time.perf_counter()
    await world.perform(entry, Kind.FAN_OUT)
    return time.perf_counter() - began, time.process_time() - cpu


async def main(count: int, runs: int) -> None:
    """Measure, and print the table."""
    assert shutil.which("redis-cli"), "redis-cli is missing: Debian's package redis-tools"
    async with fresh_servers() as settings, open_resources(settings) as res:
        world = World.of(res)
        author, followers = await with_followers(world, count)
        text = packed(followers)
        piped, pushed, late, jobs, cpus = [], [], [], [], []
        for _ in range(runs):
            overtaken = res.ids.next(1)
            piped.append(await pipe(settings, followers, res.ids.next(1)))
            pushed.append(await push(world, text, res.ids.next(1)))
            late.append(await push(world, text, overtaken))
            seconds, cpu = await whole_job(world, author, world.res.ids.next(shard_of(author)))
            jobs.append(seconds)
            cpus.append(cpu)
        await world.res.queue.close()
    base = count / median(piped)
    show(
        f"fan-out to {count:,} full feeds of 800, median of {runs}",
        ["way", "deliveries/s", "against the pipe", "Python us a delivery"],
        [
            ["redis-cli --pipe, LPUSHX + LTRIM", base, 1.0, 0.0],
            ["Timelines.push", count / median(pushed), count / median(pushed) / base, 0.0],
            ["Timelines.push, late: below the head", count / median(late), count / median(late) / base, 0.0],
            ["whole job", count / median(jobs), count / median(jobs) / base, median(cpus) / count * 1e6],
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--followers", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(main(options.followers, options.runs))
