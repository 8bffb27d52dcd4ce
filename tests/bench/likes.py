"""Likes on one post: what its counter costs, against the rows of the likes alone; and through one API process, against the
same number of likes spread over many posts. PostgreSQL flushes to disk here, which is how long a counted row stays locked.

By hand: `python -m tests.bench.likes [--runs 5]`; the API's part needs wrk.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from statistics import median

import asyncpg

from instafeed.ids import shard_of
from instafeed.settings import Settings
from instafeed.storage import counters
from instafeed.storage import likes as like_rows
from instafeed.storage.database import Connection
from tests.bench.common import Options, Row, fresh_servers, progress, run_alone
from tests.bench.community import MINUTE, loading, new_accounts
from tests.bench.http import CONNECTIONS, SCRIPT, Load, has_wrk, wrk
from tests.processes import running_api_process

SECONDS = 3
MANY = 1000

Count = Callable[[Connection, int, int], Awaitable[object]]
"""Called with the like's id and the post's."""

# All accounts like, then none does any more, and so on. Posts are taken in turn.
_LIKE = SCRIPT.replace(
    'return wrk.format("GET", "%s", {["Authorization"] = "Bearer " .. tokens[at]})',
    """local posts = {%s}
  if at == 1 then method = method == "PUT" and "DELETE" or "PUT" end
  local path = "/v1/posts/" .. posts[at %% #posts + 1] .. "/like"
  return wrk.format(method, path, {["Authorization"] = "Bearer " .. tokens[at]})""",
)


async def _not(_: Connection, __: int, ___: int) -> None:
    pass


async def _by_slots(connection: Connection, _: int, post_id: int) -> None:
    await counters.add(connection, post_id, likes=1)


async def _by_one_row(connection: Connection, _: int, post_id: int) -> None:
    await connection.execute(
        "insert into counters as counter (shard, subject_id, slot, likes) values ($1, $2, 0, 1)"
        " on conflict (shard, subject_id, slot) do update set likes = counter.likes + 1",
        shard_of(post_id),
        post_id,
    )


async def bench(options: Options) -> list[Row]:
    """In PostgreSQL alone, and through the API."""
    return [*await _in_sql(options), *(await _through_the_api(options) if has_wrk() else [])]


async def _in_sql(options: Options) -> list[Row]:
    async with fresh_servers(durable=True) as settings, loading(settings) as load:
        posts = await load.posts(new_accounts(1), 3 * options.runs, step=5 * MINUTE)
        progress("likes on one post, in SQL")
        rates: dict[Count, list[float]] = {_not: [], _by_slots: [], _by_one_row: []}
        for post_id, count in zip(posts, itertools.cycle(rates), strict=False):
            rates[count].append(await like_at_once(settings, post_id, count, seconds=options.size(SECONDS, 1)))
    rows, slots, one_row = (median(found) for found in rates.values())
    what = f"likes on one post over {CONNECTIONS} connections to PostgreSQL"
    return [
        Row(f"{what}, against uncounted", slots, "likes/s", rows, least=0.5),
        Row(f"{what}, counted in one row", one_row, "likes/s", rows),
    ]


async def like_at_once(settings: Settings, post_id: int, count: Count, *, seconds: float) -> float:
    """Likes a second of one post, each counted in its transaction."""
    accounts = itertools.count(1)
    end = time.perf_counter() + seconds

    async def work(connection: Connection) -> int:
        done = 0
        while time.perf_counter() < end:
            account_id = next(accounts)
            async with connection.transaction():
                await like_rows.insert(connection, account_id, account_id=account_id, post_id=post_id)
                await count(connection, account_id, post_id)
            done += 1
        return done

    url = settings.database_url.get_secret_value()
    connections = [await asyncpg.connect(url) for _ in range(CONNECTIONS)]
    done = await asyncio.gather(*map(work, connections))
    for connection in connections:
        await connection.close()
    return sum(done) / seconds


async def _through_the_api(options: Options) -> list[Row]:
    async with (
        fresh_servers(durable=True) as settings,
        loading(settings) as load,
        running_api_process(settings) as api,
    ):
        accounts = new_accounts(options.size(2000, 100))
        await load.accounts(accounts)
        tokens = await load.tokens(accounts)
        posts = await load.posts(accounts[:50], MANY, step=5 * MINUTE)
        await load.analyze()
        progress("likes through the API")
        hot, spread = list[Load](), list[Load]()
        for _ in range(options.runs):
            for found, liked in ((spread, posts), (hot, posts[-1:])):
                path = ",".join(f'"{post_id}"' for post_id in liked)
                seconds = options.size(SECONDS, 1)
                found.append(await wrk(api, tokens, seconds=seconds, path=path, script=_LIKE))
    what = f"likes and unlikes of one post through one API process, against {MANY:,} posts"
    return [
        Row(what, median(load.rate for load in hot), "a second", median(load.rate for load in spread), least=0.8),
        Row(
            f"{what}: of the process itself",
            *(median(load.cpu for load in hot), "µs of CPU", median(load.cpu for load in spread)),
        ),
        Row(f"{what}: p99", median(load.p99 for load in hot), "ms", median(load.p99 for load in spread)),
    ]


if __name__ == "__main__":
    run_alone(bench, __doc__)
