"""The worker: one arq worker for each queue that the process serves, restarted when it fails."""

import asyncio
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import arq.worker
from arq import cron, func
from arq.worker import Worker
from prometheus_client import start_http_server
from redis.exceptions import RedisError

from instafeed import tasks, telemetry, work
from instafeed.errors import InstafeedError
from instafeed.jobs import adapters
from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from instafeed.storage import queue

if TYPE_CHECKING:
    from arq.typing import WorkerCoroutine

# Workers are woken by a bell. What has none (jobs that others handed back) is found after this time.
_POLL_SECONDS = 0.5
_SLACK_SECONDS = 10
_JOB_SECONDS = work.LONGEST_SECONDS + _SLACK_SECONDS
_STOP_SECONDS = 3
_PAUSE_SECONDS = 0.5
# Photos take a core each, and their decoder's memory. Chunks of a fan-out keep PostgreSQL and Redis busy in turns, and more
# at once would make Redis's other clients wait. Exports hold a part of an upload each. The others wait for servers.
_AT_ONCE = {"media": 2, "bulk": 3, "exports": 2, "push": 30}
_AT_ONCE_DEFAULT = 10
# What killed workers were at stays at the head of their queue for `_JOB_SECONDS`, and must not hide what is behind it.
_READ_AT_ONCE = 2000
_EVERY_SECOND = set(range(60))
_SWEEP_SECONDS = set(range(0, 60, 5))
_RANK_SECOND = 15
_CLEAR_MINUTES = set(range(0, 60, 5))
_LEFTOVERS_MINUTES = set(range(2, 60, 5))

_log = telemetry.logger()


def build_worker(res: Resources, queue_name: str) -> Worker:
    """The arq worker of one queue.

    Jobs are doorbells: their outcome is in the outbox, so arq keeps no results, and tries none again but those that a
    stopping worker gives back.
    """
    functions = [
        func(
            cast("WorkerCoroutine", adapters.job(kind)),
            name=kind.value,
            timeout=work.longest_seconds(kind) + _SLACK_SECONDS,
            keep_result=0,
            max_tries=3,
        )
        for kind in queue.kinds_of(queue_name)
    ]
    schedule = [
        cron(adapters.ring_late, second=_SWEEP_SECONDS, timeout=_JOB_SECONDS, keep_result=0, max_tries=1),
        cron(adapters.publish, second=_EVERY_SECOND, timeout=_JOB_SECONDS, keep_result=0, max_tries=1),
        cron(adapters.rank, second=_RANK_SECOND, timeout=_JOB_SECONDS, keep_result=0, max_tries=1),
        cron(adapters.heal, second=_SWEEP_SECONDS, timeout=_JOB_SECONDS, keep_result=0, max_tries=1),
        cron(adapters.clear, minute=_CLEAR_MINUTES, second=30, timeout=_JOB_SECONDS, keep_result=0, max_tries=1),
        cron(
            adapters.clear_leftovers,
            minute=_LEFTOVERS_MINUTES,
            second=30,
            timeout=_JOB_SECONDS,
            keep_result=0,
            max_tries=1,
        ),
    ]
    # Through create_worker, where Sentry listens for errors of jobs: in place of the one that was there at the import.
    return arq.worker.create_worker(
        {"functions": functions, "cron_jobs": schedule if queue_name == queue.CLOCK else []},
        redis_pool=queue.connect(res.settings.queue_url),
        job_serializer=queue.serialize,
        job_deserializer=queue.deserialize,
        ctx={"resources": res},
        queue_name=queue.queue_name(queue_name),
        max_jobs=_AT_ONCE.get(queue_name, _AT_ONCE_DEFAULT),
        job_completion_wait=_STOP_SECONDS,
        handle_signals=False,
        log_results=False,
        queue_read_limit=_READ_AT_ONCE,
    )


async def serve(settings: Settings, queues: Sequence[str]) -> None:
    """Work on `queues` until SIGTERM or SIGINT; then finish what runs within 3 s, and hand the rest back."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_resources(settings) as res:
        if settings.metrics_port:
            # From now on a deployment takes the worker for one that works.
            start_http_server(settings.metrics_port, addr=settings.metrics_host)
        await run(res, queues, stop)


async def run(res: Resources, queues: Sequence[str], stop: asyncio.Event) -> None:
    """Work on `queues` until `stop` is set. Whoever serves `default` also does what is due by the clock."""
    clock = [queue.CLOCK] if "default" in queues else []
    await asyncio.gather(*(supervise(res, name, stop) for name in [*queues, *clock]))


async def supervise(res: Resources, queue_name: str, stop: asyncio.Event) -> None:
    """Keep a worker of one queue running until `stop` is set."""
    stopping = asyncio.create_task(stop.wait())
    while not stop.is_set():
        worker = build_worker(res, queue_name)
        running = asyncio.create_task(_take_jobs(worker, queue.bell_name(queue_name)))
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            # A Redis that was restarted ends arq's worker: begin again.
            _log.warning("worker restarts", queue=queue_name, reason=str(running.exception()))
        else:
            await _finish(worker)
        await tasks.end(running)
        await _close(worker)
        if not stop.is_set():
            await asyncio.wait({stopping}, timeout=_PAUSE_SECONDS)
    stopping.cancel()


async def _take_jobs(worker: Worker, bell_name: str) -> None:
    """Look for jobs when the bell rings, when one has ended, and now and then. arq's own loop would only look now and then:
    often, so that none waits long.
    """
    bell: asyncio.Future[object] | None = None
    try:
        while worker.allow_pick_jobs:
            await worker._poll_iteration()
            waits: set[asyncio.Future[object]] = set(worker.tasks.values())
            if worker.job_counter < worker.max_jobs:
                if bell is None:
                    ring = worker.pool.execute_command("BLPOP", bell_name, _POLL_SECONDS)  # type: ignore[no-untyped-call]
                    bell = asyncio.ensure_future(ring)
                waits.add(bell)
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if bell is not None and bell.done():
                bell.result()
                bell = None
    finally:
        if bell is not None:
            await tasks.end(bell)


async def _finish(worker: Worker) -> None:
    worker.allow_pick_jobs = False
    if worker.tasks:
        await asyncio.wait(worker.tasks.values(), timeout=_STOP_SECONDS)


async def _close(worker: Worker) -> None:
    await tasks.end(*worker.tasks.values())
    worker.tasks.clear()  # arq would await those that were cancelled, and be cancelled with them
    try:
        await worker.close()
    except (RedisError, OSError, InstafeedError, TimeoutError):
        _log.warning("the queue's Redis was away while the worker stopped")
