"""The hub without HTTP: what no client sees happen, and what none may lose by it."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from instafeed import events, tasks, telemetry
from instafeed.errors import Unavailable
from instafeed.events import Beginning, EventHub, Item, Signal
from instafeed.models import Event, EventType
from instafeed.resources import Resources
from instafeed.storage import follows as follow_rows
from instafeed.storage import posts as post_rows
from instafeed.storage.database import Connection
from tests.client import Client, eventually, http_client
from tests.conftest import running_api, serving
from tests.feeds.world import World, add_follows, add_posts, viewer


@asynccontextmanager
async def running(res: Resources) -> AsyncIterator[EventHub]:
    """A hub at work."""
    hub = EventHub(res)
    task = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        await tasks.end(task)


@pytest.fixture
async def hub(world: World) -> AsyncIterator[EventHub]:
    async with running(world.res) as hub:
        yield hub


class Listener:
    """A client of the hub, which takes all that comes unless told otherwise."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[Item] = asyncio.Queue()
        self.takes = asyncio.Event()
        self.takes.set()
        self.was_cut_off = False

    async def write(self, item: Item) -> None:
        """Be sent something."""
        await self.takes.wait()
        self.items.put_nowait(item)

    def write_now(self, item: Item) -> bool:
        """Be sent something, or say that it must wait."""
        if self.takes.is_set():
            self.items.put_nowait(item)
        return self.takes.is_set()

    def abort(self) -> None:
        """Lose the connection."""
        self.was_cut_off = True
        self.takes.set()

    async def next(self) -> Item:
        """What comes next."""
        async with asyncio.timeout(20):
            return await self.items.get()


@asynccontextmanager
async def listen(hub: EventHub, account: int, after: str | None = None) -> AsyncIterator[Listener]:
    """A stream of the account's, which is logged in."""
    sessions, me = hub._res.sessions, viewer(account)
    await sessions.fill(me.session_key, 1, epoch=await sessions.epoch(me.session_key))
    stream, listener = await hub.open(me, after), Listener()
    stream.start(listener.write, listener.write_now, listener.abort)
    try:
        yield listener
    finally:
        await hub.leave(stream)


async def begun(stream: Listener) -> str:
    """Where a stream begins that has nothing to catch up with."""
    item = await stream.next()
    assert isinstance(item, Beginning)
    return item.id


async def posts_of(stream: Listener, count: int) -> list[int]:
    """The posts that the next `count` events tell of; the stream's beginning is passed over."""
    found: list[int] = []
    while len(found) < count:
        item = await stream.next()
        assert item is not Signal.END
        if isinstance(item, Event):
            found.append(item.post_id)
    return found


async def tell(world: World, author: int) -> int:
    """A post, and its event."""
    [post] = await add_posts(world, [author])
    await world.res.events.add(EventType.POST_CREATED, author_id=author, post_id=post)
    return post


async def test_a_client_that_does_not_read_is_cut_off_and_goes_on_where_it_was(world: World, hub: EventHub) -> None:
    me = await world.account()
    async with listen(hub, me) as stream:
        beginning = await begun(stream)
        stream.takes.clear()
        posts = [await tell(world, me) for _ in range(events._BACKLOG + 2)]
        [open_] = hub._streams

        async def ended() -> bool:
            return open_.ended

        await eventually(ended)
        assert not open_._waiting, "nothing is held for it any longer"

        async def cut_off() -> bool:
            return stream.was_cut_off

        await eventually(cut_off)
        assert isinstance(await stream.next(), Event), "what it was being sent"
        assert await stream.next() is Signal.END
    assert not hub._streams
    async with listen(hub, me, beginning) as stream:
        assert await posts_of(stream, len(posts)) == posts


async def test_a_client_that_does_not_read_is_not_waited_for_when_its_log_in_ends(
    world: World, hub: EventHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_CHECK_SECONDS", 0.05)
    me = await world.account()
    async with listen(hub, me) as stream:
        await begun(stream)
        stream.takes.clear()
        await tell(world, me)
        await tell(world, me)

        async def waits() -> bool:
            return any(open_._waiting for open_ in hub._streams)

        await eventually(waits)
        began = time.monotonic()
        await world.res.sessions.end([viewer(me).session_key])

        async def cut_off() -> bool:
            return stream.was_cut_off

        await eventually(cut_off)
        assert time.monotonic() - began < 1.5, "three checks, and what a busy machine adds"
        assert isinstance(await stream.next(), Event), "what it was being sent"
        assert await stream.next() is Signal.END


async def test_open_streams_are_counted(world: World, hub: EventHub) -> None:
    before = telemetry.EVENT_STREAMS._value.get()
    async with listen(hub, await world.account()) as stream:
        await begun(stream)
        assert telemetry.EVENT_STREAMS._value.get() == before + 1
    assert telemetry.EVENT_STREAMS._value.get() == before


async def test_an_event_that_is_handed_out_while_a_stream_begins_is_told_once(
    world: World, hub: EventHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    author, early, late = [await world.account() for _ in range(3)]
    await add_follows(world, [(early, author), (late, author)])
    asked, go_on = asyncio.Event(), asyncio.Event()
    followers_among = follow_rows.followers_among

    async def slow(connection: Connection, followee: int, candidates: Collection[int]) -> list[int]:
        asked.set()
        await go_on.wait()
        return await followers_among(connection, followee, candidates)

    async with listen(hub, early) as one:
        beginning = await begun(one)
        monkeypatch.setattr(follow_rows, "followers_among", slow)
        first = await tell(world, author)
        await asked.wait()
        async with listen(hub, late, beginning) as other:
            assert await posts_of(other, 1) == [first]
            go_on.set()
            second = await tell(world, author)
            assert await posts_of(other, 1) == [second], "the first one is not told again"
        assert await posts_of(one, 2) == [first, second]


async def test_a_stream_that_begins_before_the_hub_knows_where_it_is_loses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was away when the process started, and answers the stream before it answers the hub."""
    me = await world.account()
    last_id, answer_hub = world.res.events.last_id, asyncio.Event()
    asked = 0

    async def last_id_later() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            await answer_hub.wait()
        return await last_id()

    monkeypatch.setattr(type(world.res.events), "last_id", lambda _: last_id_later())
    async with running(world.res) as hub:

        async def hub_asked() -> bool:
            return asked == 1

        await eventually(hub_asked)
        async with listen(hub, me) as stream:
            await begun(stream)
            post = await tell(world, me)
            answer_hub.set()
            assert await posts_of(stream, 1) == [post]


async def test_the_first_event_of_an_empty_log_comes_after_its_end_however_soon(world: World) -> None:
    log = world.res.events
    for _ in range(20):
        await world.flush()
        end = await log.last_id()
        await log.add(EventType.OTHER, author_id=0, post_id=0)
        assert len(await log.after(end, limit=2)) == 1


async def test_an_event_waits_for_a_database_that_is_away(
    world: World, hub: EventHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_PAUSE_SECONDS", 0.01)
    me = await world.account()
    followers_among, failures = follow_rows.followers_among, iter([Unavailable("away")] * 3)

    async def failing(connection: Connection, followee: int, candidates: Collection[int]) -> list[int]:
        if failure := next(failures, None):
            raise failure
        return await followers_among(connection, followee, candidates)

    async with listen(hub, me) as stream:
        await begun(stream)
        monkeypatch.setattr(follow_rows, "followers_among", failing)
        posts = [await tell(world, me) for _ in range(3)]
        assert await posts_of(stream, 3) == posts


async def test_an_event_that_cannot_be_handed_out_holds_up_no_other(
    world: World, hub: EventHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_PAUSE_SECONDS", 0.01)
    me, other = await world.account(), await world.account()
    followers_among = follow_rows.followers_among

    async def failing(connection: Connection, followee: int, candidates: Collection[int]) -> list[int]:
        if followee == other:
            raise ValueError("poison")
        return await followers_among(connection, followee, candidates)

    async with listen(hub, me) as stream:
        await begun(stream)
        monkeypatch.setattr(follow_rows, "followers_among", failing)
        await tell(world, other)
        post = await tell(world, me)
        assert await posts_of(stream, 1) == [post]


async def test_a_post_that_was_long_in_reaching_an_emptied_log_is_told(world: World, hub: EventHub) -> None:
    """Redis was away and came back empty: a post of that time is fanned out after the client had begun anew."""
    author, reader = await world.account(), await world.account()
    await add_follows(world, [(reader, author)])
    async with listen(hub, reader) as stream:
        beginning = await begun(stream)
    [late] = await add_posts(world, [author])
    await world.sql(
        "update posts set published_at = now() - $2::interval where id = $1 returning 1", late, timedelta(minutes=5)
    )
    await world.flush()
    await world.res.events.add(EventType.POST_CREATED, author_id=author, post_id=late)
    [gone] = await add_posts(world, [author])
    await world.delete(author, gone)
    await world.settle()  # the deletion is in the log
    async with listen(hub, reader, beginning) as stream:
        assert await posts_of(stream, 2) == [late, gone]


async def test_after_closing_streams_end_at_once(world: World, hub: EventHub) -> None:
    me = await world.account()
    async with listen(hub, me) as stream:
        await begun(stream)
        hub.close()
        assert await stream.next() is Signal.END
    async with listen(hub, me) as stream:
        await begun(stream)
        assert await stream.next() is Signal.END


async def test_a_stream_begins_with_a_hint_and_is_kept_alive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_KEEP_ALIVE_SECONDS", 0.05)
    async with running_api(world.res.settings) as url, http_client(base_url=url) as http:
        me = await Client.sign_up(http)
        async with http.stream("GET", "/v1/feed/events", headers=me.headers) as response:
            assert response.headers["x-accel-buffering"] == "no"
            received = ""
            async with asyncio.timeout(20):
                async for text in response.aiter_text():
                    received += text
                    if received.count("\n:\n\n") >= 3:
                        break
    assert received.startswith("retry: 1000\nid: ")


async def test_what_breaks_off_while_a_stream_catches_up_ends_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(world.res.settings) as (url, server), http_client(base_url=url) as http:
        me = await Client.sign_up(http)
        await world.res.events.add(EventType.OTHER, author_id=0, post_id=0)
        beginning = await world.res.events.last_id()
        posts = [await tell(world, int(me.id)) for _ in range(3)]
        hub, last = server.config.loaded_app.state.hub, await world.res.events.last_id()

        async def behind_it() -> bool:
            return bool(hub._position == last)

        await eventually(behind_it)  # or it would tell of them itself
        monkeypatch.setattr(events, "_BATCH", 1)
        published_among, calls = post_rows.published_among, 0

        async def failing(connection: Connection, post_ids: Iterable[int]) -> set[int]:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise Unavailable("away")
            return await published_among(connection, post_ids)

        monkeypatch.setattr(post_rows, "published_among", failing)
        async with http.stream("GET", "/v1/feed/events", headers=me.headers | {"Last-Event-ID": beginning}) as response:
            text = "".join([text async for text in response.aiter_text()])
    assert [str(post) in text for post in posts] == [True, True, False]
