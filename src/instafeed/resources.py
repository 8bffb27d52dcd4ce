"""Everything that a running process holds, opened and closed in one place."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from instafeed.ids import IdMaker
from instafeed.imaging.process import Decoder
from instafeed.passwords import Passwords
from instafeed.settings import Settings
from instafeed.storage.blobs import Blobs
from instafeed.storage.count_cache import CountCache
from instafeed.storage.database import Database
from instafeed.storage.event_log import EventLog
from instafeed.storage.mailer import Mailer
from instafeed.storage.mark_cache import MarkCache
from instafeed.storage.post_cache import PostCache
from instafeed.storage.push import PushServices
from instafeed.storage.queue import Queue
from instafeed.storage.rate_limiter import RateLimiter
from instafeed.storage.redis import RedisServer
from instafeed.storage.rights_cache import RightsCache
from instafeed.storage.session_cache import SessionCache
from instafeed.storage.timelines import DISORDER_SECONDS, Timelines


@dataclass(frozen=True, slots=True)
class Resources:
    """Handed to every verb as its first argument."""

    settings: Settings
    ids: IdMaker
    passwords: Passwords
    db: Database
    redis: RedisServer
    timelines: Timelines
    """Home feeds."""
    recents: Timelines
    """The recent posts of celebrities."""
    rights: RightsCache
    post_cache: PostCache
    counts: CountCache
    marks: MarkCache
    sessions: SessionCache
    rate_limiter: RateLimiter
    events: EventLog
    queue: Queue
    blobs: Blobs
    decoder: Decoder
    mailer: Mailer | None
    pushes: PushServices


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """The resources of one process. None of the servers has to be up: what needs one that is away says so then."""
    async with AsyncExitStack() as stack:
        db = Database(
            settings.database_url.get_secret_value(),
            size=settings.database_pool_size,
            prepares=settings.database_prepared_statements == "on",
        )
        redis = RedisServer(settings.redis_url.get_secret_value())
        lists = {"window": settings.feed_window, "buckets": settings.feed_buckets, "idle_days": settings.feed_idle_days}
        queue = Queue(settings.queue_url)
        blobs = Blobs(settings)
        decoder = Decoder()
        await db.open()
        stack.push_async_callback(db.close)
        stack.push_async_callback(redis.close)
        stack.push_async_callback(queue.close)
        pushes = PushServices(settings)
        await pushes.open()
        stack.push_async_callback(pushes.close)
        await blobs.open()
        stack.push_async_callback(blobs.close)
        stack.push_async_callback(decoder.close)
        yield Resources(
            settings=settings,
            ids=IdMaker(),
            passwords=Passwords(),
            db=db,
            redis=redis,
            timelines=Timelines(redis, "feed", disorder_seconds=DISORDER_SECONDS, **lists),
            recents=Timelines(redis, "recent", disorder_seconds=0, **lists),
            rights=RightsCache(redis, buckets=settings.feed_buckets),
            post_cache=PostCache(redis, buckets=settings.feed_buckets),
            counts=CountCache(redis, buckets=settings.feed_buckets),
            marks=MarkCache(redis, buckets=settings.feed_buckets),
            sessions=SessionCache(redis),
            rate_limiter=RateLimiter(redis),
            events=EventLog(redis),
            queue=queue,
            blobs=blobs,
            decoder=decoder,
            mailer=Mailer(settings.mail_url.get_secret_value(), settings.mail_from) if settings.mail_url else None,
            pushes=pushes,
        )
