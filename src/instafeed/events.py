"""Telling connected clients what happens, as it happens.

Each API process reads the log of events once and hands every event to those of its open streams whose viewers may see it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from datetime import UTC, datetime, timedelta

import sentry_sdk

from instafeed import telemetry
from instafeed.errors import InstafeedError, Invalid, RedisAway, Unavailable
from instafeed.models import Event, EventType, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import follows as follow_rows
from instafeed.storage import posts as post_rows
from instafeed.storage.event_log import EventReader, order

_WAIT_MILLISECONDS = 200  # well below the time limit of a Redis call
_CHECK_SECONDS = 0.4
_PAUSE_SECONDS = 0.5
_BACKLOG = 200
_BATCH = 500
_CATCH_UP = 10_000
_SLACK = timedelta(minutes=10)
"""How much longer than its `published_at` says a post may take to reach the log: Redis may have been away."""


class _Stream:
    """One client's connection: what is to be sent, ended by None."""

    def __init__(self, viewer: Viewer) -> None:
        self.viewer = viewer
        self._waiting: asyncio.Queue[Event | None] = asyncio.Queue(_BACKLOG)

    def put(self, event: Event) -> None:
        """Send an event; a client that is too slow for its backlog is cut off, and resumes where it was."""
        if self._waiting.full():
            self.end()
        else:
            self._waiting.put_nowait(event)

    async def next(self) -> Event | None:
        """The next event; None at the end."""
        return await self._waiting.get()

    def end(self) -> None:
        """End the stream now."""
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put_nowait(None)


class EventHub:
    """The open event streams of one process. `run` must be running."""

    def __init__(self, res: Resources) -> None:
        self._res = res
        self._streams: set[_Stream] = set()
        self._position: str | None = None
        """Every event after this one is still to be handed to whoever listens then."""
        self._closed = False

    async def run(self) -> None:
        """Read the log and hand its events out, end the streams of ended sessions; until cancelled."""
        await asyncio.gather(self._deliver(), self._end_revoked())

    def close(self) -> None:
        """End all streams, and those that still come, because the process stops."""
        self._closed = True
        for stream in self._streams:
            stream.end()

    async def stream(self, viewer: Viewer, last_id: str | None) -> AsyncGenerator[tuple[str, Event | None], None]:
        """What `viewer` is told, until the session or the process ends: (id to resume after, event).

        The first item names the place where the stream begins and carries no event. After `last_id` nothing is left
        out; what the log has forgotten comes from the database, and may then come twice.

        Raises:
            Invalid: `last_id` is none of ours.
        """
        if last_id is not None:
            try:
                order(last_id)
            except ValueError:
                raise Invalid("Last-Event-ID is none that was sent.") from None
        stream = _Stream(viewer)
        self._streams.add(stream)
        if self._closed:
            stream.end()
        telemetry.EVENT_STREAMS.inc()
        try:
            beginning = await self._where()
            if last_id is not None:
                async for event in self._missed(viewer, last_id, beginning):
                    yield event.id, event
            yield beginning, None
            while (next_event := await stream.next()) is not None:
                if order(next_event.id) > order(beginning):
                    yield next_event.id, next_event
        finally:
            self._streams.discard(stream)
            telemetry.EVENT_STREAMS.dec()

    async def _where(self) -> str:
        if self._position is None:
            end = await self._res.events.last_id()
            self._position = self._position or end
        return self._position

    async def _missed(self, viewer: Viewer, last_id: str, beginning: str) -> AsyncIterator[Event]:
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
            mine = [event for event in events if event.author_id == me or event.author_id in followees]
            there = await post_rows.published_among(connection, [event.post_id for event in mine])
        return [
            event
            for event in mine
            if event.type is EventType.POST_DELETED or (event.type is EventType.POST_CREATED and event.post_id in there)
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
            # First: a stream that begins while this event is handed out has it behind it.
            self._position = event.id
            if event.type is not EventType.OTHER:
                await self._hand_out(event)

    async def _hand_out(self, event: Event) -> None:
        by_account: dict[int, list[_Stream]] = {}
        for stream in self._streams:
            by_account.setdefault(stream.viewer.account_id, []).append(stream)
        for account_id in await self._who_may_see(event, by_account):
            for stream in by_account[account_id]:
                stream.put(event)

    async def _who_may_see(self, event: Event, accounts: Collection[int]) -> set[int]:
        """Which of these accounts are told; asks until the database answers."""
        while accounts:
            try:
                async with self._res.db.acquire() as connection:
                    told = await follow_rows.listeners_among(connection, event.author_id, accounts)
                    if event.type is EventType.POST_CREATED and not await post_rows.published_among(
                        connection, [event.post_id]
                    ):
                        break
            except Unavailable:
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                return {*told, event.author_id} & set(accounts)
        return set()

    async def _end_revoked(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            streams = list(self._streams)
            if not streams:
                continue
            # Without Redis no session can be ended, so there is nothing to miss.
            with contextlib.suppress(InstafeedError):
                ended = await self._res.sessions.ended(list({stream.viewer.session_key for stream in streams}))
                for stream in streams:
                    if stream.viewer.session_key in ended:
                        stream.end()
