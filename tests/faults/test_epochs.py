"""What a Redis knew before it was restarted, which is never believed; and changes while there is no Redis, or a bad one."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from instafeed.dev.embedded import EmbeddedServers
from instafeed.settings import Settings
from tests.api.answers import problem
from tests.client import Client, eventually, http_client
from tests.faults.test_bad_redis import hung, read_only
from tests.feeds.world import World
from tests.processes import running_api_process, running_worker
from tests.redis import redis_client, write_down

Fault = Callable[[EmbeddedServers], AbstractAsyncContextManager[None]]


@dataclass
class Circle:
    """A reader of an author's posts, all of which is cached."""

    world: World
    http: httpx.AsyncClient
    author: Client
    reader: Client
    posts: list[str]
    """Newest first."""
    photo: str
    """For another post."""

    async def feed(self) -> list[str]:
        """What the reader sees, which has to come soon."""
        began = time.monotonic()
        shown = await self.reader.feed()
        assert time.monotonic() - began < 5
        return shown

    async def post_another(self) -> str:
        post: dict[str, Any] = await self.author.call("POST", "/v1/posts", 201, json={"media": [{"id": self.photo}]})
        self.posts.insert(0, post["id"])
        return self.posts[0]

    async def cached(self) -> dict[str, set[str]]:
        """The keys of rights, posts and sessions, by server."""
        found: dict[str, set[str]] = {}
        async with redis_client(self.world.res.settings) as redis:
            for pattern in ("rights:*", "post:*", "session:*"):
                for key in await redis.keys(pattern):
                    kind, *parts = key.decode().split(":")
                    epoch = parts[0] if kind == "session" else parts[1]
                    found.setdefault(epoch, set()).add(kind)
        return found


@pytest.fixture
async def circle(world: World, fault_settings: Settings) -> AsyncIterator[Circle]:
    async with (
        running_worker(fault_settings),
        running_api_process(fault_settings) as api,
        http_client(base_url=api.url, timeout=20) as http,
    ):
        author, reader = await Client.sign_up(http), await Client.sign_up(http)
        await reader.follow(author)
        posts = [(await author.post())["id"] for _ in range(2)][::-1]
        for post in posts:
            await reader.sees(post)
        photo = (await author.ready((await author.upload())["id"]))["id"]
        assert await reader.feed() == posts
        yield Circle(world, http, author, reader, posts, photo)


async def test_what_the_old_server_knew_is_never_believed(circle: Circle, servers: EmbeddedServers) -> None:
    """It comes back with rights, posts and sessions as they were, of which SQL knows better."""
    reader, world = circle.reader, circle.world
    tablet = await reader.http.post(
        "/v1/sessions", json={"username": reader.account["username"], "password": "correct horse battery staple"}
    )
    lost = Client(reader.http, reader.account, tablet.json()["token"])
    assert await lost.feed() == circle.posts
    [old] = await circle.cached()
    # As if Redis had written down nothing of what was changed in its last second.
    await world.sql("delete from sessions where id = $1 returning 1", int(tablet.json()["session"]["id"]))
    await world.sql("update posts set caption = 'edited' where id = $1 returning 1", int(circle.posts[0]))
    await world.sql("delete from posts where id = $1 returning 1", int(circle.posts[1]))
    await servers.redis.restart()
    page = await reader.call("GET", "/v1/feed")
    assert [(item["id"], item["caption"]) for item in page["items"]] == [(circle.posts[0], "edited")]
    problem(await circle.http.get("/v1/feed", headers=lost.headers), 401, "unauthenticated")
    await world.sql("delete from following where follower_id = $1 returning 1", int(reader.id))
    await servers.redis.restart()
    assert await circle.feed() == []
    assert (await circle.cached())[old] == {"rights", "post", "session"}, "it is all still there"


@asynccontextmanager
async def gone(servers: EmbeddedServers) -> AsyncIterator[None]:
    """It runs no more, and comes back with what it knew."""
    async with Redis.from_url(servers.redis.url) as redis:
        await write_down(redis)
    await servers.redis.kill()
    try:
        yield
    finally:
        await servers.redis.restart()


async def test_while_redis_is_gone_rights_are_taken_away_at_once_and_for_good(
    circle: Circle, servers: EmbeddedServers
) -> None:
    """What comes back is believed in nothing."""
    [old] = await circle.cached()
    async with gone(servers):
        assert await circle.feed() == circle.posts
        await circle.reader.unfollow(circle.author)
        assert await circle.feed() == []
    for _ in range(3):
        assert await circle.feed() == []
    assert "rights" in (await circle.cached())[old]
    await circle.reader.follow(circle.author)
    assert await circle.feed() == circle.posts


async def test_while_redis_is_gone_posts_are_taken_and_deleted(circle: Circle, servers: EmbeddedServers) -> None:
    async with gone(servers):
        await circle.post_another()
        assert await circle.feed() == circle.posts
        await circle.author.call("DELETE", f"/v1/posts/{circle.posts.pop(1)}", 204)
        assert await circle.feed() == circle.posts
    for _ in range(3):
        shown = await circle.feed()
        assert set(shown) <= set(circle.posts), "what was deleted does not come back"
    await circle.reader.sees(circle.posts[0])
    assert await circle.feed() == circle.posts


@pytest.mark.parametrize("faulty", [hung, read_only], ids=lambda fault: fault.__name__)
async def test_with_a_redis_that_could_go_on_telling_nothing_is_taken_away_and_posts_are_taken(
    circle: Circle, servers: EmbeddedServers, faulty: Fault
) -> None:
    """The change is answered as failed, and has no effect, then or later."""
    author, reader = circle.author, circle.reader
    refused: list[Callable[[], Awaitable[Any]]] = [
        lambda: reader.http.delete(f"/v1/accounts/{author.id}/follow", headers=reader.headers),
        lambda: reader.http.put(f"/v1/accounts/{author.id}/mute", headers=reader.headers),
        lambda: author.http.put(f"/v1/accounts/{reader.id}/block", headers=author.headers),
        lambda: author.http.delete(f"/v1/me/followers/{reader.id}", headers=author.headers),
        lambda: author.http.delete(f"/v1/posts/{circle.posts[0]}", headers=author.headers),
        lambda: author.http.patch(f"/v1/posts/{circle.posts[0]}", json={"caption": "edited"}, headers=author.headers),
    ]
    async with faulty(servers):
        for change in refused:
            began = time.monotonic()
            answer = await change()
            assert answer.status_code == 503, f"{answer.request.method} {answer.request.url} {answer.text}"
            assert int(answer.headers["retry-after"]) > 0
            assert time.monotonic() - began < 5
            assert await circle.feed() == circle.posts
        await circle.post_another()
        # What Redis holds of the feed, if it can be read, is as before: the post is delivered later.
        assert [post for post in await circle.feed() if post != circle.posts[0]] == circle.posts[1:]
    await reader.sees(circle.posts[0])
    relation = await reader.relation(author)
    assert (relation["following"], relation["muting"], relation["blocking"]) == (True, False, False)
    assert await circle.feed() == circle.posts
    page = await reader.call("GET", "/v1/feed")
    assert [item["caption"] for item in page["items"]] == [""] * 3

    async def healed() -> bool:
        path = f"/v1/accounts/{author.id}/follow"
        return (await reader.http.delete(path, headers=reader.headers)).status_code == 204

    await eventually(healed)
    assert await circle.feed() == [], "and what is healed takes rights away again"
