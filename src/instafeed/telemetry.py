"""Logs, Sentry and metrics: set up once a process, used everywhere."""

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import orjson
import structlog
from prometheus_client import Counter, Gauge, Histogram
from structlog.typing import EventDict, ExcInfo, Processor

from instafeed import causes, sentry
from instafeed.settings import Settings

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)

REQUESTS = Counter("instafeed_http_requests_total", "Answered requests.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "instafeed_http_request_seconds", "Time to the last byte.", ["method", "route"], buckets=_FAST
)
POOL_WAIT = Histogram("instafeed_database_pool_wait_seconds", "Time until a connection is free.", buckets=_FAST)
UPLOAD_BYTES = Counter("instafeed_upload_bytes_total", "Bytes of photos received.")
UPLOADS = Counter("instafeed_uploads_total", "Uploads by how they ended.", ["outcome"])
UPLOAD_MEMORY = Gauge("instafeed_upload_memory_bytes", "Memory taken for parts of uploads without a length.")
PHOTO_SECONDS = Histogram("instafeed_photo_stage_seconds", "Time of one stage of a photo.", ["stage"], buckets=_SLOW)
JOBS = Counter("instafeed_jobs_total", "Jobs by how they ended.", ["kind", "outcome"])
JOB_SECONDS = Histogram("instafeed_job_seconds", "Time that a job ran.", ["kind"], buckets=_SLOW)
LEFTOVERS = Counter("instafeed_leftovers_total", "What the sweep of photos found and dealt with.", ["finding"])
RENDER_SECONDS = Histogram("instafeed_render_seconds", "Time to make one photo's renditions.", buckets=_SLOW)
DELIVERIES = Counter("instafeed_feed_deliveries_total", "Followers that a post was handed to.")
DELIVERY_DELAY = Histogram(
    "instafeed_feed_delivery_delay_seconds", "From published to the last follower's feed.", buckets=_SLOW
)
FEED_READS = Counter("instafeed_feed_reads_total", "Pages of the home feed by where they came from.", ["source"])
CACHE_READS = Counter(
    "instafeed_cache_reads_total",
    "Entries asked of the caches in Redis: near (this process has it), hit, miss (PostgreSQL is asked).",
    ["cache", "outcome"],
)
FEED_REBUILDS = Counter("instafeed_feed_rebuilds_total", "Feeds rebuilt.")
PUSHES = Counter("instafeed_pushes_total", "Pushes by platform and how they ended.", ["platform", "outcome"])
EVENT_STREAMS = Gauge("instafeed_event_streams", "Open event streams.")
QUEUE_LENGTH = Gauge("instafeed_queue_length", "Jobs that wait.", ["queue"])
QUEUE_AGE = Gauge("instafeed_queue_age_seconds", "Time for which a queue's oldest job has been due.", ["queue"])
OUTBOX_PENDING = Gauge("instafeed_outbox_pending", "Outbox entries that are late.")
OUTBOX_AGE = Gauge("instafeed_outbox_age_seconds", "Time for which the oldest late outbox entry has been due.")
OUTBOX_DEAD = Gauge("instafeed_outbox_dead", "Outbox entries that were given up.")
SWEPT_AT = Gauge("instafeed_sweep_timestamp_seconds", "When this process last swept, since the Unix epoch.")
REDIS_FAILURES = Counter("instafeed_redis_failures_total", "Redis calls that failed and were done without.", ["reason"])


def set_up(settings: Settings, *, process: str) -> None:
    """Configure logging and Sentry for a process named `process` (`api`, `worker` ...)."""
    annotate: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_trace),
    ]
    render: Processor = structlog.dev.ConsoleRenderer(colors=False)
    ours, factory = render, cast("Callable[..., Any]", structlog.PrintLoggerFactory(sys.stderr))
    if settings.log_format == "json":
        render = structlog.processors.JSONRenderer()
        # A line a request: the standard library's JSON would take a tenth of the time of a page of the feed.
        ours = structlog.processors.JSONRenderer(serializer=orjson.dumps)
        factory = structlog.BytesLoggerFactory(sys.stderr.buffer)
    structlog.configure(
        processors=[*annotate, ours],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level.upper())),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(process=process)
    # Libraries log through the standard module: only what is worth a person's time.
    libraries = logging.StreamHandler(sys.stderr)
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _only_the_gist, *annotate],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(handlers=[libraries], level=logging.WARNING)
    if settings.sentry_dsn is not None:
        sentry.set_up(settings.sentry_dsn.get_secret_value(), settings)


def _trace(exc_info: ExcInfo) -> str:
    return causes.trace(exc_info[1])


def _only_the_gist(_: Any, __: str, line: EventDict) -> EventDict:
    """Of what a library logs the first line; an error that it quotes says what it says elsewhere."""
    said = line["event"]
    if error := line.get("exc_info", (None, None))[1]:
        for one in causes.chain(error):
            if str(one):
                said = said.replace(str(one), causes.words(one))
    line["event"] = said.partition("\n")[0]
    return line


def logger(**context: Any) -> structlog.stdlib.BoundLogger:
    """A structured logger; `context` is on each of its lines."""
    log: structlog.stdlib.BoundLogger = structlog.get_logger(**context)
    return log


def now() -> datetime:
    """The time by this machine's clock."""
    return datetime.now(UTC)
