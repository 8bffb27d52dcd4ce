"""What runs every few seconds: lost doorbells are rung again, and what a crash left behind is cleared away."""

import time
from datetime import timedelta

from instafeed import exports, telemetry, uploads
from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.storage import accounts, idempotency, mail_tokens, outbox, seen, undone
from instafeed.storage.outbox import Kind
from instafeed.storage.queue import kinds_of
from instafeed.work import note

_DELIVERIES = [Kind.FAN_OUT, Kind.ALIGN, Kind.PUSH_AGAIN, Kind.TAG]
_RING_AT_ONCE = 1000
_LONG_QUEUE = 5000
_HEAL_SLACK = timedelta(seconds=60)
_ABANDONED_SECONDS = 3600
_CLEAR_AT_ONCE = 500
_FORGET = (
    outbox.forget_done,
    idempotency.forget_old,
    accounts.forget_names,
    mail_tokens.forget_old,
    undone.forget_old,
)


async def ring(res: Resources) -> None:
    """Ring for every outbox entry that is late, and show how many there are.

    Not on a queue that is long: its workers are behind, or off, and doorbells would only pile up.
    """
    kinds: list[Kind] = []
    for queue, length in (await res.queue.lengths()).items():
        telemetry.QUEUE_LENGTH.labels(queue).set(length)
        if length < _LONG_QUEUE:
            kinds += kinds_of(queue)
    for queue, age in (await res.queue.ages()).items():
        telemetry.QUEUE_AGE.labels(queue).set(age)
    async with res.db.acquire() as connection:
        late = await outbox.ring_late(connection, kinds=kinds, limit=_RING_AT_ONCE)
    for kind, entry_id in late:
        await res.queue.ring(kind, entry_id)
    async with res.db.acquire() as connection:
        pending, dead, oldest = await outbox.counts(connection)
    telemetry.OUTBOX_PENDING.set(pending)
    telemetry.OUTBOX_AGE.set((telemetry.now() - oldest).total_seconds() if oldest else 0)
    telemetry.OUTBOX_DEAD.set(dead)
    telemetry.SWEPT_AT.set_to_current_time()


async def publish(res: Resources) -> None:
    """Ring for every scheduled post whose time has come."""
    async with res.db.acquire() as connection:
        due = await outbox.ring_late(connection, kinds=[Kind.PUBLISH], limit=_RING_AT_ONCE)
    for kind, entry_id in due:
        await res.queue.ring(kind, entry_id)


async def heal(res: Resources) -> None:
    """After Redis was restarted or has failed over, deliver again what it may have forgotten.

    Redis loses what it had not yet written or replicated, and feeds would keep a hole. So its data carries the time of
    this sweep: when the server is another than the one that wrote it, everything done since that time is done again,
    which is harmless. A Redis that was emptied has nothing to heal.
    """
    notes = await seen.read(res.redis, buckets=res.timelines.buckets)
    if left := [at for last in notes if (at := last.left_elsewhere_at)]:
        since = min(left) - _HEAL_SLACK
        async with res.db.acquire() as connection:
            count = await outbox.reopen(connection, _DELIVERIES, done_since=since)
            # What is under way goes on from where it is, and would be done too late to be reopened.
            for entry in await outbox.begun(connection, _DELIVERIES):
                await note(res, connection, shard_of(entry.id), entry.kind, entry.payload | {"again": True})
        telemetry.logger().warning("redis is another server than before", since=since.isoformat(), reopened=count)
    await seen.write(notes, telemetry.now())


async def clear(res: Resources) -> None:
    """Forget uploads and exports that expired, work done last week, replies kept for a day, and names, tokens and
    undone acts that do not count any more.
    """
    async with res.db.acquire() as connection:
        # Bit by bit: what piled up while no worker ran is more than one statement has time for.
        for forget in _FORGET:
            while await forget(connection, limit=_CLEAR_AT_ONCE) == _CLEAR_AT_ONCE:
                continue
    if expired := await uploads.expire(res, limit=_CLEAR_AT_ONCE):
        telemetry.LEFTOVERS.labels("expired_upload").inc(expired)
        telemetry.logger().info("expired uploads were cleared", count=expired)
    if gone := await exports.expire(res, limit=_CLEAR_AT_ONCE):
        telemetry.logger().info("expired exports were cleared", count=gone)


def abandoned_before(res: Resources) -> float:
    """No upload in one request that began before this is still at it; in seconds since the Unix epoch."""
    return time.time() - res.settings.upload_longest_seconds - _ABANDONED_SECONDS
