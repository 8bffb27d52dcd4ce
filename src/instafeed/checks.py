"""Whether the servers answer, for `/readyz` and `instafeed check`."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from instafeed.errors import InstafeedError
from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from instafeed.storage import migrations

_SECONDS = 2.5


@dataclass(frozen=True, slots=True)
class Check:
    """One part: whether it answers, and in words why not; never a secret."""

    name: str
    ready: bool
    detail: str


async def check_all(res: Resources) -> list[Check]:
    """Ask every part at once; takes 2.5 s at most."""
    parts = {"database": _database(res), "redis": _redis(res), "queue": res.queue.ping(), "photos": res.blobs.ping()}
    return list(await asyncio.gather(*(_check(name, answer) for name, answer in parts.items())))


async def check(settings: Settings) -> list[Check]:
    """The same for a process that holds nothing yet."""
    async with open_resources(settings) as res:
        return await check_all(res)


async def _check(name: str, answer: Awaitable[Any]) -> Check:
    try:
        async with asyncio.timeout(_SECONDS):
            await answer
    except InstafeedError as error:
        cause = type(error.__cause__).__name__ if error.__cause__ else ""
        return Check(name, ready=False, detail=f"{error.detail} ({cause})" if cause else error.detail)
    except Exception as error:
        return Check(name, ready=False, detail=f"does not answer ({type(error).__name__})")
    return Check(name, ready=True, detail="answers")


async def _database(res: Resources) -> None:
    async with res.db.acquire() as connection:
        applied = await migrations.count_applied(connection)
    missing = len(migrations.load()) - applied
    if missing > 0:
        raise InstafeedError(f"{missing} migrations are not applied: run `instafeed migrate`")


async def _redis(res: Resources) -> None:
    for node in await res.redis.nodes():
        await node.send("PING")
