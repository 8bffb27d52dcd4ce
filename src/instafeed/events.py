"""Telling connected clients what happens, as it happens.

Each API process reads the log of events once and hands every event to those of its open streams whose viewers may see it.
An open stream that has nothing to send is a few small objects: a process holds thousands. So it has no task, queue or
timer of its own, only a task that ends with what is to be sent.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

import sentry_sdk

from instafeed import sessions, tasks, telemetry, visibility
from instafeed.errors import InstafeedError, Invalid, RedisAway, Unavailable
from instafeed.models import Event, EventType, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import follows as follow_rows
from instafeed.storage import posts as post_rows
from instafeed.storage.event_log import EventReader, order

_WAIT_MILLISECONDS = 200  # well below the time limit of a Redis call
_CHECK_SECONDS = 0.4
_CHECKED_AT_ONCE = 500
_KEEP_ALIVE_SECONDS = 15.0
_PAUSE_SECONDS = 0.5
_BACKLOG = 200
_BURST = 50
"""Streams that are served before other requests have their turn."""
_BATCH = 500
_CATCH_UP = 10_000
_SLACK = timedelta(minutes=10)
"""How much longer than its `published_at` says a post may take to reach the log: Redis may have been away."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """From here on a stream tells everything; `id` is what to resume after."""

    id: str


class Signal(Enum):
    """What is no event."""

    ALIVE = "alive"
    """Nothing happened for a while."""
    END = "end"
    """Nothing follows."""


Item = Event | Beginning | Signal


class Stream:
    """One client's connection."""

    __slots__ = (
        "_abort",
        "_begun",
        "_sending",
        "_waiting",
        "_write",
        "_write_now",
        "beginning",
        "ended",
        "missed",
        "viewer",
    )

    def __init__(self, viewer: Viewer, beginning: str) -> None:
        self.viewer = viewer
        self.ended = False
        self.beginning = beginning
        self.missed: AsyncGenerator[Event, None] | None = None
        """What comes before the beginning."""
        self._begun = False
        self._waiting: list[Item] = []
        self._write: Callable[[Item], Awaitable[None]] | None = None
        self._write_now: Callable[[Item], bool] | None = None
        self._abort: Callable[[], None] | None = None
        self._sending: asyncio.Task[None] | None = None

    def start(
        self,
        write: Callable[[Item], Awaitable[None]],
        write_now: Callable[[Item], bool],
        abort: Callable[[], None],
    ) -> None:
        """Send from now on: what was missed, the stream's beginning, then what comes. The last item is `Signal.END`.

        Args:
            write: sends an item, and waits while the client takes nothing.
            write_now: sends an item if the client takes it without a wait; False if not.
            abort: cuts the connection off, so that a `write` that waits returns.
        """
        self._write, self._write_now, self._abort = write, write_now, abort
        self._go_on()

    def put(self, item: Item) -> None:
        """Send an item; a client that is too slow for its backlog is cut off, and resumes where it was."""
        if self.ended:
            return
        # With nothing before it an item needs no task: to thousands of streams that would take longer than writing.
        idle = self._begun and self._sending is None and not self._waiting
        if idle and self._write_now is not None and self._write_now(item):
            return
        if len(self._waiting) >= _BACKLOG:
            self.end()
        else:
            self._waiting.append(item)
            self._go_on()

    def keep_alive(self) -> None:
        """Send a sign of life, unless something is being sent anyway."""
        if self._write is not None and self._sending is None:
            self.put(Signal.ALIVE)

    def end(self) -> None:
        """End the stream now: nothing follows what is being sent."""
        self.ended = True
        self._waiting.clear()
        self._go_on()

    def cut_off(self) -> None:
        """Do not wait for the client any longer."""
        if self._abort is not None:
            self._abort()

    async def close(self) -> None:
        """The client is gone: let go of everything."""
        self.ended = True
        self._waiting.clear()
        if self._sending is not None:
            await tasks.end(self._sending)
        if self.missed is not None:
            await self.missed.aclose()
        self._write = self._write_now = self._abort = None

    def _go_on(self) -> None:
        if self._write is not None and self._sending is None:
            self._sending = asyncio.create_task(self._send(self._write))

    async def _send(self, write: Callable[[Item], Awaitable[None]]) -> None:
        try:
            if not self._begun:
                self._begun = True
                if await self._catch_up(write):
                    await write(Beginning(self.beginning))
                else:
                    self.ended = True  # the client comes back, and is told again from where it was
            while self._waiting and not self.ended:
                await write(self._waiting.pop(0))
            if self.ended:
                await write(Signal.END)
        finally:
            self._sending = None

    async def _catch_up(self, write: Callable[[Item], Awaitable[None]]) -> bool:
        if self.missed is None:
            return True
        try:
            async with contextlib.aclosing(self.missed) as missed:
                async for event in missed:
                    if self.ended:
                        return False
                    await write(event)
        except InstafeedError:
            return False
        except Exception as error:
            sentry_sdk.capture_exception(error)
            telemetry.logger().error("a stream could not catch up", exc_info=error)
            return False
        self.missed = None
        return True


class EventHub:
    """The open event streams of one process. `run` must be running."""

    def __init__(self, res: Resources) -> None:
        self._res = res
        self._streams: set[Stream] = set()
        self._position: str | None = None
        """Every event after this one is still to be handed to whoever listens then."""
        self._closed = False

    async def run(self) -> None:
        """Read the log and hand its events out, end the streams of ended sessions; until cancelled."""
        await asyncio.gather(self._deliver(), self._end_revoked(), self._cut_off(), self._keep_alive())

    def close(self) -> None:
        """End all streams, and those that still come, because the process stops."""
        self._closed = True
        for stream in self._streams:
            stream.end()

    async def open(self, viewer: Viewer, last_id: str | None) -> Stream:
        """A stream of what `viewer` is told until the session or the process ends; to be started, and given to `leave`.

        After `last_id` nothing is left out; what the log has forgotten comes from the database, and may then come twice.

        Raises:
            Invalid: `last_id` is none of ours.
            InstafeedError: what was missed cannot be read now.
        """
        if last_id is not None:
            try:
                order(last_id)
            except ValueError:
                raise Invalid("Last-Event-ID is none that was sent.") from None
        # Nothing is awaited in between: every event after the position is handed to the stream, and none before.
        stream = Stream(viewer, await self._where())
        self._streams.add(stream)
        telemetry.EVENT_STREAMS.inc()
        try:
            if last_id is not None:
                stream.missed = await _begun(self._missed(viewer, last_id, stream.beginning))
        except BaseException:
            await self.leave(stream)
            raise
        if self._closed:
            stream.end()
        return stream

    async def leave(self, stream: Stream) -> None:
        """The stream's client is gone."""
        if stream in self._streams:
            self._streams.discard(stream)
            telemetry.EVENT_STREAMS.dec()
        await stream.close()

    async def _where(self) -> str:
        if self._position is None:
            end = await self._res.events.last_id()
            self._position = self._position or end
        return self._position

    async def _missed(self, viewer: Viewer, last_id: str, beginning: str) -> AsyncGenerator[Event, None]:
        told = set()
        if not await self._res.events.reaches_back_to(last_id):
            for event in await self._missed_from_sql(viewer, last_id):
                told.add((event.type, event.post_id))
                yield event
        # The log may know of posts that were published long before they reached it, and of deletions.
        position = last_id
        while batch := await self._res.events.after(position, limit=_BATCH):
            position = batch[-1].id
            for event in await self._allowed(viewer, batch):
                if order(event.id) <= order(beginning) and (event.type, event.post_id) not in told:
                    yield event

    async def _missed_from_sql(self, viewer: Viewer, last_id: str) -> list[Event]:
        """Posts published since the time in `last_id`. They carry that id: should the connection break off among them,
        all are asked for again.
        """
        since = datetime.fromtimestamp(order(last_id)[0] / 1000, UTC) - _SLACK
        async with self._res.db.acquire() as connection:
            authors = [viewer.account_id, *await follow_rows.feed_authors(connection, viewer.account_id)]
            found = await post_rows.published_since(connection, authors, since=since, limit=_CATCH_UP)
        return [Event(last_id, EventType.POST_CREATED, author_id, post_id) for post_id, author_id in found]

    async def _allowed(self, viewer: Viewer, events: list[Event]) -> list[Event]:
        me = viewer.account_id
        async with self._res.db.acquire() as connection:
            followees = await follow_rows.feed_authors_among(connection, me, {event.author_id for event in events})
            followees -= await account_rows.suspended_among(connection, followees)
            near = [event for event in events if event.author_id == me or event.author_id in followees]
            there = await post_rows.published_among(connection, [event.post_id for event in near])
        return [
            event
            for event in near
            if visibility.told(
                event, {me}, followers={me} if event.author_id in followees else set(), published=event.post_id in there
            )
        ]

    async def _deliver(self) -> None:
        while True:
            try:
                async with self._res.events.reader() as reader:
                    while True:
                        await self._deliver_next(reader)
            except RedisAway:
                await asyncio.sleep(_PAUSE_SECONDS)
            except Exception as error:
                # It must not end with one event: all streams of the process would fall silent.
                sentry_sdk.capture_exception(error)
                telemetry.logger().error("an event was not handed out", exc_info=error)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _deliver_next(self, reader: EventReader) -> None:
        for event in await reader.wait(await self._where(), milliseconds=_WAIT_MILLISECONDS):
            # First, and nothing is awaited in between: a stream that begins while this event is handed out has it behind it.
            self._position = event.id
            if event.type is not EventType.OTHER:
                await self._hand_out(event, list(self._streams))

    async def _hand_out(self, event: Event, streams: list[Stream]) -> None:
        told = await self._who_is_told(event, {stream.viewer.account_id for stream in streams})
        await _in_bursts(
            lambda stream: stream.put(event), [stream for stream in streams if stream.viewer.account_id in told]
        )

    async def _who_is_told(self, event: Event, accounts: AbstractSet[int]) -> AbstractSet[int]:
        """Which of these accounts are told; asks until the database answers."""
        while accounts:
            try:
                async with self._res.db.acquire() as connection:
                    followers = await follow_rows.listeners_among(connection, event.author_id, accounts)
                    there = bool(await post_rows.published_among(connection, [event.post_id]))
            except Unavailable:
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return visibility.told(event, accounts, followers=followers, published=there)
        return set()

    # What a loop names it keeps while it sleeps, closed streams too: hence the functions.

    async def _end_revoked(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            # Without Redis no session can be ended, so there is nothing to miss.
            with contextlib.suppress(InstafeedError):
                await self._check(list(self._streams))

    async def _check(self, streams: list[Stream]) -> None:
        for first in range(0, len(streams), _CHECKED_AT_ONCE):
            part = streams[first : first + _CHECKED_AT_ONCE]
            found = await self._res.sessions.look({stream.viewer.session_key for stream in part})
            for stream in part:
                session_id = found[stream.viewer.session_key]
                # A Redis that was restarted does not know what was ended.
                if session_id == 0 or (session_id is None and not await sessions.is_open(self._res, stream.viewer)):
                    stream.end()

    async def _cut_off(self) -> None:
        """Cut clients off that do not even take the end of their streams."""
        late: set[Stream] = set()
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            late = self._cut_off_those(late)

    def _cut_off_those(self, late: set[Stream]) -> set[Stream]:
        for stream in late & self._streams:
            stream.cut_off()
        return {stream for stream in self._streams if stream.ended}

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_ALIVE_SECONDS)
            await _in_bursts(Stream.keep_alive, list(self._streams))


async def _in_bursts(do: Callable[[Stream], None], streams: list[Stream]) -> None:
    for number, stream in enumerate(streams, 1):
        do(stream)
        if number % _BURST == 0:
            await asyncio.sleep(0)


async def _begun(events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    """The same events; the first one, and what may go wrong before it, has come."""
    first = await anext(events, None)

    async def go_on() -> AsyncGenerator[Event, None]:
        async with contextlib.aclosing(events):
            if first is not None:
                yield first
                async for event in events:
                    yield event

    return go_on()
