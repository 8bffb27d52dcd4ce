"""64-bit, time-ordered ids that name the shard their row lives on.

Layout, from the high end: 41 bits of milliseconds since `EPOCH_MS`, 13 bits of logical shard, 10 bits of sequence.
The highest bit stays zero until 2060, so every id fits a signed 64-bit integer.
The scheme is Instagram's ("Sharding & IDs at Instagram", 2012), made in the process instead of in the database.
"""

import hashlib
import random
import secrets
import time
from collections.abc import Callable

EPOCH_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
SHARD_BITS = 13
SEQUENCE_BITS = 10
SHARDS = 1 << SHARD_BITS
MAX_ID = (1 << 63) - 1

_SEQUENCES = 1 << SEQUENCE_BITS


def shard_of(id_: int) -> int:
    """The logical shard, 0..8191, that the row `id_` lives on."""
    return (id_ >> SEQUENCE_BITS) & (SHARDS - 1)


def shard_of_text(text: str) -> int:
    """The logical shard of what is found by a text; the same for ever."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=2).digest()) % SHARDS


def unix_ms_of(id_: int) -> int:
    """When `id_` was made, in milliseconds since the Unix epoch."""
    return (id_ >> (SHARD_BITS + SEQUENCE_BITS)) + EPOCH_MS


def lowest_at(unix_seconds: float) -> int:
    """The lowest id that can be made at this time, in seconds since the Unix epoch."""
    return max(0, int(unix_seconds * 1000) - EPOCH_MS) << (SHARD_BITS + SEQUENCE_BITS)


def span(*, hours: float) -> int:
    """How far apart two ids are that are made so many hours one after the other."""
    return int(hours * 3_600_000) << (SHARD_BITS + SEQUENCE_BITS)


def random_shard() -> int:
    """A shard for a new account."""
    return secrets.randbelow(SHARDS)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class IdMaker:
    """Makes ids; one a process.

    Ids of one maker and one shard strictly increase, also when the clock steps back: time then stands still until the
    clock has caught up. Two processes can make the same id only within the same millisecond, shard and sequence; the
    sequence starts at random, and the primary key catches what is left.
    """

    def __init__(self, clock: Callable[[], int] = _now_ms) -> None:
        self._clock = clock
        self._ms = 0
        self._sequence = 0

    def next(self, shard: int) -> int:
        """A new id on `shard` (0..8191)."""
        now = self._clock() - EPOCH_MS
        if now > self._ms:
            self._ms = now
            self._sequence = random.randrange(_SEQUENCES // 2)  # noqa: S311 - spreads processes, hides nothing
        else:
            self._sequence += 1
            if self._sequence == _SEQUENCES:
                self._ms += 1
                self._sequence = 0
        return (((self._ms << SHARD_BITS) | shard) << SEQUENCE_BITS) | self._sequence
