"""The hub without HTTP: what no client sees happen, and what none may lose by it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

import httpx
import pytest

from instafeed import events, tasks, telemetry
from instafeed.api import feeds as feeds_api
from instafeed.errors import Unavailable
from instafeed.events import EventHub
from instafeed.models import Event, EventType
from instafeed.resources import Resources
from instafeed.storage import follows as follow_rows
from instafeed.storage import posts as post_rows
from instafeed.storage.database import Connection
from tests.client import Client, eventually
from tests.conftest import running_api
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


Stream = AsyncGenerator[tuple[str, Event | None], None]


def listen(hub: EventHub, account: int, after: str | None = None) -> aclosing[Stream]:
    """A stream of the account's."""
    return aclosing(hub.stream(viewer(account), after))


async def following(stream: Stream) -> tuple[str, Event | None]:
    """What comes next."""
    async with asyncio.timeout(5):
        return await anext(stream)


async def posts_of(stream: Stream, count: int) -> list[int]:
    """The posts that the next `count` events tell of; the stream's beginning is passed over."""
    found: list[int] = []
    while len(found) < count:
        _, event = await following(stream)
        if event is not None:
            found.append(event.post_id)
    return found


async def tell(world: World, author: int) -> int:
    """A post, and its event."""
    [post] = await add_posts(world, [author])
    await world.res.events.add(EventType.POST_CREATED, author_id=author, post_id=post)
    return post


async def test_a_client_that_does_not_read_is_cut_off_and_goes_on_where_it_was(world: World, hub: EventHub) -> None:
    me = await world.account()
    async with listen(hub, me) as stream:
        beginning, _ = await following(stream)
        posts = [await tell(world, me) for _ in range(events._BACKLOG + 2)]
        end = await world.res.events.last_id()

        async def handed_out() -> bool:
            return hub._position == end

        await eventually(handed_out)
        with pytest.raises(StopAsyncIteration):
            await following(stream)
    assert not hub._streams
    async with listen(hub, me, beginning) as stream:
        assert await posts_of(stream, len(posts)) == posts


async def test_open_streams_are_counted(world: World, hub: EventHub) -> None:
    before = telemetry.EVENT_STREAMS._value.get()
    async with listen(hub, await world.account()) as stream:
        await following(stream)
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
        beginning, _ = await following(one)
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
            _, nothing = await following(stream)
            assert nothing is None
            post = await tell(world, me)
            answer_hub.set()
            assert await posts_of(stream, 1) == [post]


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
        await following(stream)
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
        await following(stream)
        monkeypatch.setattr(follow_rows, "followers_among", failing)
        await tell(world, other)
        post = await tell(world, me)
        assert await posts_of(stream, 1) == [post]


async def test_a_post_that_was_long_in_reaching_an_emptied_log_is_told(world: World, hub: EventHub) -> None:
    """Redis was away and came back empty: a post of that time is fanned out after the client had begun anew."""
    author, reader = await world.account(), await world.account()
    await add_follows(world, [(reader, author)])
    async with listen(hub, reader) as stream:
        beginning, _ = await following(stream)
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
        await following(stream)
        hub.close()
        with pytest.raises(StopAsyncIteration):
            await following(stream)
    async with listen(hub, me) as stream:
        await following(stream)
        with pytest.raises(StopAsyncIteration):
            await following(stream)


async def test_a_stream_begins_with_a_hint_and_is_kept_alive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds_api, "_KEEP_ALIVE_SECONDS", 0.05)
    async with running_api(world.res.settings) as url, httpx.AsyncClient(base_url=url) as http:
        me = await Client.sign_up(http)
        async with http.stream("GET", "/v1/feed/events", headers=me.headers) as response:
            assert response.headers["x-accel-buffering"] == "no"
            received = ""
            async with asyncio.timeout(5):
                async for text in response.aiter_text():
                    received += text
                    if received.count("\n:\n\n") >= 3:
                        break
    assert received.startswith("retry: 1000\nid: ")


async def test_what_breaks_off_while_a_stream_catches_up_ends_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_api(world.res.settings) as url, httpx.AsyncClient(base_url=url) as http:
        me = await Client.sign_up(http)
        await world.res.events.add(EventType.OTHER, author_id=0, post_id=0)
        beginning = await world.res.events.last_id()
        posts = [await tell(world, int(me.id)) for _ in range(3)]
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
