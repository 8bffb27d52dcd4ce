"""Whether the servers answer, for `/readyz`, `/status` and `instafeed check`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from instafeed import tasks
from instafeed.errors import InstafeedError, Unavailable
from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from instafeed.storage import migrations

_SECONDS = 2.5
# Some let a stranger wait before they say who they are.
_MAIL_SECONDS = 15
LONGEST_WAIT_SECONDS = 300.0
"""Work that waits for us alone is late after so long."""
# What depends on other people's servers, or is as long as an account is old.
_PATIENT = {"mail", "push", "exports"}


@dataclass(frozen=True, slots=True)
class Check:
    """One part: whether it answers, and in words why not; never a secret."""

    name: str
    ready: bool
    detail: str


async def check_all(res: Resources) -> list[Check]:
    """Ask every part at once; takes 2.5 s at most."""
    parts: dict[str, Callable[[], Awaitable[None]]] = {
        "database": partial(_database, res),
        "redis": partial(_redis, res),
        "queue": res.queue.ping,
        "photos": res.blobs.ping,
    }
    return list(await asyncio.gather(*(_check(name, ask, _SECONDS) for name, ask in parts.items())))


async def check(settings: Settings) -> list[Check]:
    """The same for a process that holds nothing yet, and whether the mail server, if there is one, takes our log-in."""
    async with open_resources(settings) as res:
        parts, mail = await asyncio.gather(check_all(res), _mail(res))
        return [*parts, *mail]


async def waits(res: Resources) -> dict[str, float]:
    """For how many seconds the oldest job of each queue has been due, of the queues that wait for us alone."""
    return {queue: age for queue, age in (await res.queue.ages()).items() if queue not in _PATIENT}


async def _check(name: str, ask: Callable[[], Awaitable[None]], seconds: float) -> Check:
    try:
        async with asyncio.timeout(seconds):
            try:
                await ask()
            except Unavailable:
                await ask()  # once more: it may have been our own process that was slow
    except InstafeedError as error:
        cause = type(error.__cause__).__name__ if error.__cause__ else ""
        return Check(name, ready=False, detail=f"{error.detail} ({cause})" if cause else error.detail)
    except Exception as error:
        return Check(name, ready=False, detail=f"does not answer ({type(error).__name__})")
    return Check(name, ready=True, detail="answers")


async def _mail(res: Resources) -> list[Check]:
    return [await _check("mail", res.mailer.ping, _MAIL_SECONDS)] if res.mailer else []


async def _database(res: Resources) -> None:
    async with res.db.acquire() as connection:
        applied = await migrations.count_applied(connection)
    missing = len(migrations.load()) - applied
    if missing > 0:
        raise InstafeedError(f"{missing} migrations are not applied: run `instafeed migrate`")


async def _redis(res: Resources) -> None:
    for node in await res.redis.nodes():
        await node.send("PING")


@dataclass(frozen=True, slots=True)
class Status:
    """Whether the product works as a whole, and in how many seconds that was found out."""

    works: bool
    seconds: float


class Watch:
    """Finds out whether the product works: for all who ask at the same time at once, and not again while that is fresh."""

    def __init__(self, res: Resources, *, fresh_seconds: float = 5) -> None:
        self._res = res
        self._fresh_seconds = fresh_seconds
        self._latest: asyncio.Task[Status] | None = None
        self._stale_at = 0.0

    async def read(self) -> Status:
        """What was found out; takes some 3 s at most."""
        if self._latest is None or (self._latest.done() and time.monotonic() >= self._stale_at):
            self._latest = asyncio.create_task(self._look())
        # Whoever goes away leaves the others their answer.
        return await asyncio.shield(self._latest)

    async def close(self) -> None:
        """Ask the servers no more."""
        if self._latest is not None:
            await tasks.end(self._latest)

    async def _look(self) -> Status:
        began = time.monotonic()
        parts, ages = await asyncio.gather(check_all(self._res), waits(self._res))
        works = all(part.ready for part in parts) and max(ages.values(), default=0.0) < LONGEST_WAIT_SECONDS
        ended = time.monotonic()
        self._stale_at = ended + self._fresh_seconds
        return Status(works, ended - began)
