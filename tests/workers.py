"""Workers inside the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from instafeed.jobs.worker import run
from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from instafeed.storage.queue import QUEUES


async def all_done(res: Resources) -> bool:
    """Whether all work that was noted is done."""
    async with res.db.acquire() as connection:
        return not await connection.fetchval("select count(*) from outbox where done_at is null")


@asynccontextmanager
async def running_workers(settings: Settings) -> AsyncIterator[None]:
    """Real arq workers for all queues, until the block ends."""
    stop = asyncio.Event()
    async with open_resources(settings) as res:
        running = asyncio.create_task(run(res, QUEUES, stop))
        try:
            yield
        finally:
            stop.set()
            await running
