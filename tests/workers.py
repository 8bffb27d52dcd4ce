"""Workers inside the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from instafeed.jobs.worker import run
from instafeed.resources import open_resources
from instafeed.settings import Settings
from instafeed.storage.queue import QUEUES


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
