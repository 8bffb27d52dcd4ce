"""Ending asyncio tasks."""

import asyncio
from typing import Any

_SECONDS = 0.1


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended, however.

    They are cancelled until they listen: before Python 3.12 `asyncio.wait_for`, which redis-py awaits with, drops a
    cancellation that comes together with the result (CPython issue 86296).
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=_SECONDS)
        for task in done:
            if not task.cancelled():
                task.exception()  # seen: asyncio need not complain
