"""What runs every few seconds: lost doorbells are rung again, and what a crash left behind is cleared away."""

import time

from instafeed import media, telemetry
from instafeed.ids import EPOCH_MS, SEQUENCE_BITS, SHARD_BITS
from instafeed.resources import Resources
from instafeed.storage import idempotency, outbox
from instafeed.storage import media as media_rows

_RING_AT_ONCE = 1000
_ABANDONED_SECONDS = 3600
_CLEAR_AT_ONCE = 500


async def ring(res: Resources) -> None:
    """Ring for every outbox entry that is late, and show how many there are."""
    async with res.db.acquire() as connection:
        late = await outbox.ring_late(connection, limit=_RING_AT_ONCE)
    for kind, entry_id in late:
        await res.queue.ring(kind, entry_id)
    async with res.db.acquire() as connection:
        pending, dead, _ = await outbox.counts(connection)
    telemetry.OUTBOX_PENDING.set(pending)
    telemetry.OUTBOX_DEAD.set(dead)


async def clear(res: Resources) -> None:
    """Forget uploads that broke off an hour ago, work done last week, and replies kept for a day."""
    oldest = (int(time.time() * 1000) - _ABANDONED_SECONDS * 1000 - EPOCH_MS) << (SHARD_BITS + SEQUENCE_BITS)
    async with res.db.acquire() as connection:
        abandoned = await media_rows.pending_below(connection, oldest, limit=_CLEAR_AT_ONCE)
        photos = [photo for id_ in abandoned if (photo := await media_rows.get(connection, id_)) is not None]
        await outbox.forget_done(connection, limit=_CLEAR_AT_ONCE)
        await idempotency.forget_old(connection)
    for photo in photos:
        await media.forget(res, photo.id, photo.object_key)
    if photos:
        telemetry.logger().info("abandoned uploads were cleared", count=len(photos))
