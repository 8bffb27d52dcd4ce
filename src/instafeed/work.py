"""Runs outbox entries: takes one, does it, and says how it ended."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import sentry_sdk
from structlog.contextvars import bind_contextvars

from instafeed import causes, telemetry
from instafeed.errors import Unavailable
from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.storage import outbox
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry, Kind

FollowUp = tuple[Kind, dict[str, Any]]
"""Work that begins when other work is done, with its payload."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Work that is done by others in parts, at the same time and wherever; the entry is performed once more after the last.

    Without parts it goes on waiting for those that it has. `outbox.PARTS_DONE` is its position when all are done.
    """

    kind: Kind = Kind.DELIVER
    payloads: list[dict[str, Any]] = field(default_factory=list)


Outcome = list[FollowUp] | Parts
"""How a job ends."""

Body = Callable[[Resources, Entry], Awaitable[Outcome]]

LONGEST_SECONDS = 50.0
"""Work that takes longer has failed; what it noted with a checkpoint is kept."""
_LONGER = {Kind.EXPORT: 3600.0}

_log = telemetry.logger()


def longest_seconds(kind: Kind) -> float:
    """What work of this kind may take: `LONGEST_SECONDS`, but for what cannot be done in parts."""
    return _LONGER.get(kind, LONGEST_SECONDS)


async def note(
    res: Resources,
    connection: Connection,
    shard: int,
    kind: Kind,
    payload: dict[str, Any],
    *,
    seconds: float = outbox.FIRST_RING_SECONDS,
) -> int:
    """Note work in the running transaction; returns the entry to ring for after the commit. For `seconds` see `outbox.add`."""
    entry_id = res.ids.next(shard)
    await outbox.add(connection, entry_id, kind, payload, seconds=seconds)
    return entry_id


async def perform(res: Resources, entry_id: int, kind: Kind, body: Body) -> None:
    """Do the work of an outbox entry, unless it is done or somebody else is at it.

    `body` may run several times, late, and out of order. What it returns is noted in the transaction that marks the
    entry as done. After an error, or `longest_seconds`, the entry is tried again later; when this process stops, it is
    free at once.
    """
    claim = asyncio.create_task(_claim(res, entry_id))
    try:
        entry = await asyncio.shield(claim)
        if entry is not None:
            if post := entry.payload.get("post"):
                bind_contextvars(post=str(post))
            await _work(res, entry, body)
    except asyncio.CancelledError:
        # Also amid the claim, which may have been granted.
        await asyncio.shield(_hand_back(res, kind, claim))
        raise


async def _claim(res: Resources, entry_id: int) -> Entry | None:
    async with res.db.acquire() as connection:
        return await outbox.claim(connection, entry_id)


async def _work(res: Resources, entry: Entry, body: Body) -> None:
    heart = asyncio.create_task(_keep_lease(res, entry.id))
    began = time.perf_counter()
    try:
        try:
            async with asyncio.timeout(longest_seconds(entry.kind)):
                outcome = await body(res, entry)
        finally:
            seconds = time.perf_counter() - began
            telemetry.JOB_SECONDS.labels(entry.kind).observe(seconds, {"entry": str(entry.id)})
    except Exception as error:
        await _fail(res, entry, error)
    else:
        telemetry.JOBS.labels(entry.kind, "done").inc()
        await _finish(res, entry, outcome)
    finally:
        heart.cancel()


async def _keep_lease(res: Resources, entry_id: int) -> None:
    while True:
        await asyncio.sleep(outbox.LEASE_SECONDS / 3)
        try:
            async with res.db.acquire() as connection:
                await outbox.renew(connection, entry_id)
        except Unavailable:
            continue  # somebody else may take the entry then, which is harmless


async def _finish(res: Resources, entry: Entry, outcome: Outcome) -> None:
    shard = shard_of(entry.id)

    async def body(connection: Connection) -> list[tuple[Kind, int]]:
        if isinstance(outcome, Parts):
            parts = outcome.payloads
            if not parts or not await outbox.wait_for_parts(connection, entry.id, len(parts)):
                await outbox.rest(connection, entry.id)
                return []
            return [
                (outcome.kind, await note(res, connection, shard, outcome.kind, payload | {"parent": entry.id}))
                for payload in parts
            ]
        if not await outbox.finish(connection, entry.id):
            return []
        parent = entry.payload.get("parent")
        if parent is not None and await outbox.part_is_done(connection, parent):
            return [(Kind.FAN_OUT, parent)]
        return [(kind, await note(res, connection, shard, kind, payload)) for kind, payload in outcome]

    follow_ups = await res.db.transact(body)
    _log.info("job done", attempts=entry.attempts)
    for kind, entry_id in follow_ups:
        await res.queue.ring(kind, entry_id)


async def _fail(res: Resources, entry: Entry, error: Exception) -> None:
    text = f"{type(error).__name__}: {error}"
    if _is_away(error):
        async with res.db.acquire() as connection:
            await outbox.postpone(connection, entry, text)
        telemetry.JOBS.labels(entry.kind, "postponed").inc()
        _log.warning("job postponed", reason=causes.describe(error))
        return
    async with res.db.acquire() as connection:
        dead = await outbox.fail(connection, entry, text)
    telemetry.JOBS.labels(entry.kind, "dead" if dead else "failed").inc()
    sentry_sdk.capture_exception(error)
    _log.error("job failed", attempts=entry.attempts, dead=dead, exc_info=error)


def _is_away(error: Exception) -> bool:
    """Whether all that is wrong is a server that does not answer."""
    if isinstance(error, ExceptionGroup):
        return error.split(Unavailable)[1] is None
    return isinstance(error, Unavailable)


async def _hand_back(res: Resources, kind: Kind, claim: asyncio.Task[Entry | None]) -> None:
    with contextlib.suppress(Unavailable):  # the lease ends by itself
        entry = await claim
        if entry is not None:
            telemetry.JOBS.labels(kind, "handed_back").inc()
            async with res.db.acquire() as connection:
                await outbox.hand_back(connection, entry.id)
