"""Server-sent events over a real socket."""

import asyncio
import gc
import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httpx
import pytest

from instafeed import events
from instafeed.api import events as events_api
from instafeed.api.server import Http
from instafeed.events import EventHub
from instafeed.models import Event, EventType
from instafeed.resources import Resources
from instafeed.settings import Settings
from tests.client import Client, eventually, http_client
from tests.conftest import serving
from tests.processes import running_api_process
from tests.redis import redis_client

pytestmark = pytest.mark.usefixtures("workers")
SignUp = Callable[..., Awaitable[Client]]


@dataclass
class Told:
    """One thing that came over a stream; `event` is empty for the place where it begins."""

    id: str
    event: str
    data: dict[str, str]


class Stream:
    """An open event stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.lines = response.aiter_lines()
        self.response = response

    async def next(self, *, seconds: float = 30) -> Told | None:
        """What comes next; None at the end."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(seconds):
            async for line in self.lines:
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "id" in fields:
                    return Told(fields["id"], fields.get("event", ""), json.loads(fields.get("data", "{}")))
        return None


@asynccontextmanager
async def listening(client: Client, after: str | None = None) -> AsyncIterator[Stream]:
    """An event stream of the client, once it has begun."""
    headers = client.headers | ({"Last-Event-ID": after} if after else {})
    async with client.http.stream("GET", "/v1/feed/events", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response)


async def test_followers_and_the_author_are_told_of_a_post_and_strangers_not(sign_up: SignUp) -> None:
    author, follower, stranger = await sign_up(), await sign_up(), await sign_up()
    await follower.follow(author)
    async with listening(author) as his, listening(follower) as theirs, listening(stranger) as others:
        for stream in (his, theirs, others):
            begun = await stream.next()
            assert begun is not None
            assert begun.event == ""
        post = await author.post()
        for stream in (his, theirs):
            told = await stream.next()
            assert told is not None
            assert told.event == "post.created"
            assert told.data["type"] == "post.created"
            assert told.data["post_id"] == post["id"]
            assert told.data["account_id"] == author.id
            assert told.data["id"] == told.id
        # What a stranger hears first is their own post: nothing came before it.
        own = await stranger.post()
        told = await others.next()
        assert told is not None
        assert told.data["post_id"] == own["id"]
    assert await follower.feed() == [post["id"]], "who is told can read it"


async def test_a_deleted_post_is_told_too(sign_up: SignUp) -> None:
    author, follower = await sign_up(), await sign_up()
    await follower.follow(author)
    async with listening(follower) as stream:
        await stream.next()
        post = await author.post()
        await stream.next()  # a feed may show it before it is told of
        await author.call("DELETE", f"/v1/posts/{post['id']}", 204)
        told = await stream.next()
        assert told is not None
        assert (told.event, told.data["post_id"]) == ("post.deleted", post["id"])


async def test_a_stream_goes_on_where_it_broke_off(sign_up: SignUp) -> None:
    author, follower = await sign_up(), await sign_up()
    await follower.follow(author)
    async with listening(follower) as stream:
        begun = await stream.next()
    assert begun is not None
    missed = [(await author.post())["id"] for _ in range(3)]
    for post in missed:
        await follower.sees(post)
    async with listening(follower, after=begun.id) as stream:
        told = [await stream.next() for _ in range(3)]
        assert sorted(item.data["post_id"] for item in told if item) == sorted(missed)
    assert told[0] is not None
    async with listening(follower, after=told[0].id) as stream:
        again = [await stream.next() for _ in range(2)]
        assert [item.id for item in again if item] == [item.id for item in told[1:] if item]


async def test_nothing_is_lost_when_the_log_was_emptied(sign_up: SignUp, res: Resources) -> None:
    author, follower = await sign_up(), await sign_up()
    await follower.follow(author)
    async with listening(follower) as stream:
        begun = await stream.next()
    assert begun is not None
    post = await author.post()
    await follower.sees(post["id"])
    async with redis_client(res.settings) as redis:
        await redis.delete("events")
    async with listening(follower, after=begun.id) as stream:
        told = await stream.next()
        assert told is not None
        assert told.data["post_id"] == post["id"]


async def test_what_may_no_longer_be_seen_is_not_told_later(sign_up: SignUp) -> None:
    author, other, follower = await sign_up(), await sign_up(), await sign_up()
    await follower.follow(author)
    await follower.follow(other)
    async with listening(follower) as stream:
        begun = await stream.next()
        _, deleted, kept = await author.post(), await other.post(), await other.post()
        for _ in range(3):
            await stream.next()
    assert begun is not None
    await follower.unfollow(author)
    await other.call("DELETE", f"/v1/posts/{deleted['id']}", 204)
    async with listening(follower, after=begun.id) as stream:
        told = await stream.next()
        assert told is not None
        assert (told.event, told.data["post_id"]) == ("post.created", kept["id"])


async def test_an_event_of_a_newer_release_is_passed_over(sign_up: SignUp, res: Resources) -> None:
    author = await sign_up()
    async with listening(author) as stream:
        await stream.next()
        async with redis_client(res.settings) as redis:
            await redis.xadd("events", {"type": "post.sung", "author": author.id, "post": "1"})
        post = await author.post()
        told = await stream.next()
        assert told is not None
        assert told.data["post_id"] == post["id"]


@pytest.mark.parametrize(
    "wrong",
    [
        *("x", "1-", "-1", "1-1-1", "٣-٣", "9" * 60 + "-0", "1-" + "9" * 60),
        *(f"{2**64}-0", f"{2**64 - 1}-{2**64 - 1}", f"1-{2**64}", f"{2**63}-0", "253402300800000-0"),
    ],
)
async def test_a_foreign_last_event_id_is_refused(sign_up: SignUp, wrong: str) -> None:
    someone = await sign_up()
    headers = {"Last-Event-ID": wrong.encode()}
    await someone.call("GET", "/v1/feed/events", 422, headers=headers)


@pytest.mark.parametrize("path", ["/v1/sessions/current", "/v1/sessions/{id}", "/v1/sessions"])
async def test_a_stream_ends_within_a_second_of_its_log_out(sign_up: SignUp, path: str) -> None:
    someone = await sign_up()
    log_in = {"username": someone.account["username"], "password": "correct horse battery staple"}
    seconds = []
    for _ in range(3):  # or two, or one, if it is soon: the machine has other things to do
        other = (await someone.http.post("/v1/sessions", json=log_in)).json()
        client = Client(someone.http, someone.account, other["token"])
        by = client if path.endswith("current") else someone
        async with listening(client) as stream:
            await stream.next()
            await by.call("DELETE", path.format(id=other["session"]["id"]), 204)
            began = time.monotonic()
            assert await stream.next() is None
            seconds.append(time.monotonic() - began)
        if seconds[-1] < 1:
            break
    assert min(seconds) < 1


async def test_a_hundred_streams_are_told_at_once(sign_up: SignUp, base_url: str) -> None:
    author = await sign_up()
    async with (
        http_client(base_url=base_url, timeout=30, limits=httpx.Limits(max_connections=120)) as http,
        asyncio.TaskGroup() as group,
    ):
        client = Client(http, author.account, author.token)
        begun = asyncio.Barrier(101)

        async def hear() -> None:
            async with listening(client) as stream:
                await stream.next()
                await begun.wait()
                told = await stream.next()
                assert told is not None
                assert told.event == "post.created"

        for _ in range(100):
            group.create_task(hear())
        await begun.wait()
        await author.post()


async def test_open_streams_do_not_hold_a_shutdown_up(settings: Settings) -> None:
    async with (
        running_api_process(settings) as api,
        http_client(base_url=api.url, timeout=20) as http,
    ):
        someone = await Client.sign_up(http)
        async with listening(someone) as stream:
            begun = await stream.next()
            assert begun is not None
            began = time.monotonic()
            api.child.send(signal.SIGTERM)
            assert await stream.next() is None, "it ends in order, and the client comes back after its `retry`"
            await api.child.wait()
            assert time.monotonic() - began < 15, "within the time that other requests would have"


def test_every_kind_of_event_is_documented() -> None:
    from instafeed.api import schemas

    extra = schemas.Event.model_fields["type"].json_schema_extra
    assert isinstance(extra, dict)
    assert extra["x-extensible-enum"] == [kind.value for kind in EventType if kind is not EventType.OTHER]


@asynccontextmanager
async def raw_stream(client: Client, url: str) -> AsyncIterator[socket.socket]:
    """A begun event stream of which nothing more is read."""
    parts = urlsplit(url)
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await loop.sock_connect(connection, (parts.hostname, parts.port))
        head = f"GET /v1/feed/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.token}\r\n\r\n"
        await loop.sock_sendall(connection, head.encode())
        received = b""
        while b"id: " not in received:
            async with asyncio.timeout(30):
                received += await loop.sock_recv(connection, 4096)
        yield connection


def streams_in_memory() -> int:
    gc.collect()
    return sum(type(thing) is events.Stream for thing in gc.get_objects())


async def test_a_client_that_vanishes_leaves_nothing_behind(settings: Settings) -> None:
    async with serving(settings) as (url, server), http_client(base_url=url) as http:
        someone = await Client.sign_up(http)
        hub = cast("EventHub", server.config.loaded_app.state.hub)
        tasks, others = len(asyncio.all_tasks()), streams_in_memory()
        async with AsyncExitStack() as stack:
            for _ in range(100):
                await stack.enter_async_context(raw_stream(someone, url))
            assert len(hub._streams) == 100

            async def one_task_a_stream() -> bool:
                return len(asyncio.all_tasks()) <= tasks + 100  # the request's own, while nothing happens

            await eventually(one_task_a_stream)

        async def gone() -> bool:
            return not hub._streams and streams_in_memory() <= others

        await eventually(gone)

        async def no_task_left() -> bool:
            return len(asyncio.all_tasks()) <= tasks  # other tests' workers come and go

        await eventually(no_task_left)


async def test_a_client_that_does_not_read_holds_a_bounded_backlog(
    settings: Settings, res: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the system's own buffers take is beyond us: each event is made larger than they are."""
    body = b": " + b"x" * 8_000_000 + b"\n\n"
    text = events_api._text
    monkeypatch.setattr(events_api, "_text", lambda item: body if isinstance(item, Event) else text(item))
    monkeypatch.setattr(events, "_BACKLOG", 5)
    async with serving(settings) as (url, server), http_client(base_url=url) as http:
        someone = await Client.sign_up(http)
        hub = cast("EventHub", server.config.loaded_app.state.hub)
        async with raw_stream(someone, url) as connection:
            [protocol] = [
                each
                for each in server.server_state.connections
                if isinstance(each, Http) and each.transport.get_extra_info("peername") == connection.getsockname()
            ]
            transport = protocol.transport
            buffered = 0

            async def written() -> bool:
                nonlocal buffered
                buffered = max(buffered, transport.get_write_buffer_size())
                return buffered > 0

            async def gone() -> bool:
                await written()
                return not hub._streams and transport.is_closing()

            await res.events.add(EventType.POST_DELETED, author_id=int(someone.id), post_id=1)
            await eventually(written)
            for _ in range(20):
                await res.events.add(EventType.POST_DELETED, author_id=int(someone.id), post_id=1)
            await eventually(gone)
            assert buffered < 2 * len(body), "one event at most is written to a client that takes nothing"
