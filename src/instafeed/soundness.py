"""Whether what the servers keep is sound, for `instafeed check --deep`: looked at in chunks beside load, and left as it is."""

from collections.abc import Awaitable, Callable

from instafeed import checks, drift
from instafeed.checks import Check
from instafeed.leftovers import Finding, Sweep
from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from instafeed.storage import indexes, outbox
from instafeed.storage.connection import facts_of

Tell = Callable[[str], None]
"""Is called with a line about each finding."""

_ENTRIES = 100
# What the clock clears when its time has come is no fault.
_DUE = {Finding.UNPOSTED, Finding.ORIGINAL}


async def check(settings: Settings, *, tell: Tell) -> list[Check]:
    """Look at everything once; takes as long as there is data.

    Raises:
        Unavailable: a server does not answer.
    """
    async with open_resources(settings) as res:
        found = {name: await look(res, tell) for name, look in _PARTS.items()}
    return [Check(name, ready=not count, detail=f"{count} found") for name, count in found.items()]


async def _indexes(res: Resources, tell: Tell) -> int:
    async with res.db.acquire() as connection:
        found = await indexes.invalid(connection)
    for index in found:
        tell(f"index {index.name} is not valid")
    return len(found)


async def _outbox(res: Resources, tell: Tell) -> int:
    late = {queue: age for queue, age in (await checks.waits(res)).items() if age >= checks.LONGEST_WAIT_SECONDS}
    for queue, age in late.items():
        tell(f"queue {queue}: the oldest job has waited for {age:.0f} s")
    async with res.db.acquire() as connection:
        stuck, first = await outbox.stuck(connection, seconds=checks.LONGEST_WAIT_SECONDS, limit=_ENTRIES)
    for entry, wrong in first:
        tell(f"outbox {entry.id} {entry.kind} {wrong}")
    if stuck > len(first):
        tell(f"outbox: {stuck - len(first)} more")
    return len(late) + stuck


async def _counters(res: Resources, tell: Tell) -> int:
    found = drift.Check(res, mend=False, tell=tell)
    await found.whole()
    return found.found.total()


async def _photos(res: Resources, tell: Tell) -> int:
    def note(finding: Finding, name: str) -> None:
        if finding not in _DUE:
            tell(f"{finding} {name}")

    sweep = Sweep(res, dry_run=True, tell=note)
    await sweep.whole()
    return sum(count for finding, count in sweep.found.items() if finding not in _DUE)


async def _redis(res: Resources, tell: Tell) -> int:
    """What says that a post or a right is gone must stay until it ends: a server that is full may refuse, but not forget."""
    found = 0
    for node in await res.redis.nodes():
        policy = facts_of(await node.send("INFO", "memory")).get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            tell(f"redis: maxmemory-policy is {policy}, not noeviction")
            found += 1
    return found


_PARTS: dict[str, Callable[[Resources, Tell], Awaitable[int]]] = {
    "indexes": _indexes,
    "outbox": _outbox,
    "counters": _counters,
    "photos": _photos,
    "redis": _redis,
}
