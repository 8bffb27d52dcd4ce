"""The job queue: what can be enqueued, on which queue, with which arguments. The outbox is the truth; a job only rings."""

import asyncio
import secrets
import time
from contextlib import suppress
from typing import Any

import orjson
from arq.connections import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from instafeed import telemetry
from instafeed.errors import RedisAway
from instafeed.storage.outbox import Kind
from instafeed.storage.redis import RedisServer, Script

_CONNECTIONS = 16
_WORKER_SECONDS = 5
_JOB_MS = 24 * 3600 * 1000
_IDLE_LENGTH = 2

_BELLS = 10
# To a worker whose clock is late, too, a job is due.
_EARLY_MS = 100

# KEYS: queue, its bell, and job. ARGV: the job's id, when it is due in ms, what it is, for how many ms it is kept, and how many
# workers are woken at most that have not looked since.
_ENQUEUE = Script("""
redis.call('PSETEX', KEYS[3], ARGV[4], ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if redis.call('LPUSH', KEYS[2], 1) > tonumber(ARGV[5]) then redis.call('LPOP', KEYS[2]) end
""")

QUEUES = ("fanout", "bulk", "media", "notify", "push", "mail", "default", "exports")
CLOCK = "clock"
"""The queue of what runs by the clock: apart, so that no job can hold it up."""
_QUEUE_OF = {
    Kind.FAN_OUT: "fanout",
    Kind.DELIVER: "bulk",
    Kind.PUSH_AGAIN: "bulk",
    Kind.RENDER: "media",
    Kind.NOTIFY: "notify",
    Kind.ALIGN: "fanout",
    Kind.TAG: "fanout",
    Kind.RETRACT: "default",
    Kind.PRUNE: "default",
    Kind.PRUNE_REPLIES: "default",
    Kind.PUBLISH: "default",
    Kind.DISCARD: "default",
    Kind.APPROVE: "default",
    Kind.PUSH: "push",
    Kind.MAIL: "mail",
    Kind.DIGEST: "mail",
    Kind.AVATAR: "default",
    Kind.ERASE: "default",
    Kind.EXPORT: "exports",
}


def queue_name(queue: str) -> str:
    """The Redis key of a queue."""
    return f"arq:{queue}"


def bell_name(queue: str) -> str:
    """The Redis key of a list from which each worker that waits for jobs of a queue takes one entry, and looks."""
    return f"{queue_name(queue)}:bell"


def kinds_of(queue: str) -> list[Kind]:
    """What a queue carries."""
    return [kind for kind, name in _QUEUE_OF.items() if name == queue]


def serialize(value: dict[str, Any]) -> bytes:
    """A job's arguments as JSON; what cannot be JSON (an exception in a result) becomes its text."""
    return orjson.dumps(value, default=str)


def deserialize(data: bytes) -> dict[str, Any]:
    """A job's arguments."""
    value: dict[str, Any] = orjson.loads(data)
    return value


def connect(url: str) -> ArqRedis:
    """A worker's client of the queue, on which no call, nor the wait for a connection, takes longer than 5 s."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=_WORKER_SECONDS,
        socket_timeout=_WORKER_SECONDS,
        socket_connect_timeout=_WORKER_SECONDS,
        # Once more on a connection that turns out to be dead: Redis may have been restarted since the last call.
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[RedisConnectionError],
    )
    return ArqRedis(pool, job_serializer=serialize, job_deserializer=deserialize)


def _hear(rung: "asyncio.Future[Any]") -> None:
    if not rung.cancelled() and (error := rung.exception()) is not None and not isinstance(error, RedisAway):
        telemetry.logger().error("a bell could not be rung", exc_info=error)


class Queue:
    """Enqueues jobs. A bell that cannot be rung is no error: the sweep rings again."""

    def __init__(self, url: str) -> None:
        self._redis = RedisServer(url)

    async def close(self) -> None:
        """Close the connection."""
        await self._redis.close()

    async def ring(self, kind: Kind, entry_id: int) -> None:
        """Ring for an outbox entry; call it after the commit.

        As arq enqueues it, but in one trip, for nobody else has the job's id; and one worker is woken. The answer is not waited
        for: a bell that was not heard is rung again.
        """
        queue, job_id, due = _QUEUE_OF[kind], secrets.token_hex(16), int(time.time() * 1000) - _EARLY_MS
        job = serialize_job(kind.value, (entry_id,), {}, None, due, serializer=serialize)
        keys = [queue_name(queue), bell_name(queue), job_key_prefix + job_id]
        with suppress(RedisAway):
            node = await self._redis.node(queue_name(queue))
            node.run(_ENQUEUE, keys, job_id, due, job, _JOB_MS, _BELLS).add_done_callback(_hear)

    async def lengths(self) -> dict[str, int]:
        """How many jobs wait in each queue; empty if the queue's Redis does not answer."""
        try:
            return {queue: await self._length(queue) for queue in QUEUES}
        except RedisAway:
            return {}

    async def ages(self) -> dict[str, float]:
        """For how many seconds each queue's oldest job has been due, 0 for none; jobs that run count too. Empty if the queue's
        Redis does not answer.
        """
        try:
            return {queue: await self._age(queue) for queue in QUEUES}
        except RedisAway:
            return {}

    async def is_idle(self, queue: str) -> bool:
        """Whether next to nothing waits in a queue; jobs that run count too. False if the queue's Redis does not answer."""
        try:
            return await self._length(queue) <= _IDLE_LENGTH
        except RedisAway:
            return False

    async def ping(self) -> None:
        """Ask whether the queue's Redis is there.

        Raises:
            RedisAway: it is not.
        """
        await self._redis.call("", "PING")

    async def _length(self, queue: str) -> int:
        name = queue_name(queue)
        return int(await self._redis.call(name, "ZCARD", name))

    async def _age(self, queue: str) -> float:
        name = queue_name(queue)
        oldest = await self._redis.call(name, "ZRANGE", name, 0, 0, "WITHSCORES")
        return max(0.0, time.time() - float(oldest[1]) / 1000) if oldest else 0.0
