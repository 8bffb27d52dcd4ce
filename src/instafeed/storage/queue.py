"""The job queue: what can be enqueued, on which queue, with which arguments. The outbox is the truth; a job only rings."""

import json
import time
from typing import Any

from arq.connections import ArqRedis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from instafeed import telemetry
from instafeed.storage.outbox import Kind

_CONNECTIONS = 16

_IDLE_LENGTH = 2

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


def kinds_of(queue: str) -> list[Kind]:
    """What a queue carries."""
    return [kind for kind, name in _QUEUE_OF.items() if name == queue]


def serialize(value: dict[str, Any]) -> bytes:
    """A job's arguments as JSON; what cannot be JSON (an exception in a result) becomes its text."""
    return json.dumps(value, default=str).encode()


def deserialize(data: bytes) -> dict[str, Any]:
    """A job's arguments."""
    value: dict[str, Any] = json.loads(data)
    return value


def connect(url: str, *, seconds: float) -> ArqRedis:
    """A client of the queue, on which no call, nor the wait for a connection, takes longer than `seconds`."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        # Once more on a connection that turns out to be dead: Redis may have been restarted since the last call.
        retry=Retry(NoBackoff(), 1),
        retry_on_error=[RedisConnectionError],
    )
    return ArqRedis(pool, job_serializer=serialize, job_deserializer=deserialize)


class Queue:
    """Enqueues jobs. A bell that cannot be rung is no error: the sweep rings again."""

    def __init__(self, url: str) -> None:
        self._client = connect(url, seconds=1)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose(close_connection_pool=True)

    async def ring(self, kind: Kind, entry_id: int) -> None:
        """Ring for an outbox entry; call it after the commit."""
        try:
            await self._client.enqueue_job(kind.value, entry_id, _queue_name=queue_name(_QUEUE_OF[kind]))
        except (RedisError, OSError, TimeoutError):
            telemetry.REDIS_FAILURES.labels("queue").inc()

    async def lengths(self) -> dict[str, int]:
        """How many jobs wait in each queue; empty if the queue's Redis does not answer."""
        try:
            return {queue: await self._client.zcard(queue_name(queue)) for queue in QUEUES}
        except (RedisError, OSError, TimeoutError):
            telemetry.REDIS_FAILURES.labels("queue").inc()
            return {}

    async def ages(self) -> dict[str, float]:
        """For how many seconds each queue's oldest job has been due, 0 for none; jobs that run count too. Empty if the queue's
        Redis does not answer.
        """
        try:
            oldest = {queue: await self._client.zrange(queue_name(queue), 0, 0, withscores=True) for queue in QUEUES}
        except (RedisError, OSError, TimeoutError):
            telemetry.REDIS_FAILURES.labels("queue").inc()
            return {}
        now = time.time()
        return {queue: max(0.0, now - first[0][1] / 1000) if first else 0.0 for queue, first in oldest.items()}

    async def is_idle(self, queue: str) -> bool:
        """Whether next to nothing waits in a queue; jobs that run count too. False if the queue's Redis does not answer."""
        try:
            return int(await self._client.zcard(queue_name(queue))) <= _IDLE_LENGTH
        except (RedisError, OSError, TimeoutError):
            telemetry.REDIS_FAILURES.labels("queue").inc()
            return False

    async def ping(self) -> None:
        """Raise what the client raises when the queue's Redis does not answer."""
        await self._client.ping()
