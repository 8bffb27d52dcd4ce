"""Redis emptied, stopped, restarted, and restarted with a hole in its memory."""

import asyncio
import shutil
import time
from pathlib import Path

from instafeed.dev.embedded import EmbeddedServers
from instafeed.settings import Settings
from tests.client import Client, eventually, http_client
from tests.feeds.world import World
from tests.processes import running_api_process, running_worker
from tests.redis import redis_client, write_down


async def agree(world: World, *accounts: int) -> None:
    """Within 30 s every feed is what its definition says, as it is read and as Redis holds it."""

    async def probe() -> bool:
        if await world.pending():
            return False
        for account in accounts:
            if await world.walk(account, [7]) != await world.defined(account):
                return False
            window = await world.window(account)
            if window is None or window.ids != (await world.defined(account))[: len(window.ids)]:
                return False
        return True

    await eventually(probe, seconds=30)


async def test_feeds_are_complete_again_after_redis_was_emptied(world: World, fault_settings: Settings) -> None:
    author, other, reader = [await world.account(shard) for shard in (1, 2, 3)]
    async with running_worker(fault_settings):
        await world.follow(reader, author)
        await world.follow(reader, other)
        await world.posts(author, 5)
        await agree(world, reader)
        async with redis_client(world.res.settings) as redis:
            await redis.flushall()
        await world.posts(other, 5)
        async with redis_client(world.res.settings) as redis:
            await redis.flushall()
        await world.posts(author, 5)
        await agree(world, author, other, reader)


async def test_with_redis_away_feeds_are_read_and_posts_taken_and_delivered_later(
    world: World, servers: EmbeddedServers, fault_settings: Settings
) -> None:
    async with (
        running_worker(fault_settings),
        running_api_process(fault_settings) as api,
        http_client(base_url=api.url, timeout=20) as http,
    ):
        author, reader = await Client.sign_up(http), await Client.sign_up(http)
        await reader.follow(author)
        before = await author.post()
        await reader.sees(before["id"])
        media = await author.ready((await author.upload())["id"])

        await servers.redis.kill()
        began = time.monotonic()
        assert await reader.feed() == [before["id"]]
        during = await author.call("POST", "/v1/posts", 201, json={"media": [{"id": media["id"]}]})
        assert await reader.feed() == [during["id"], before["id"]], "SQL knows"
        assert await author.walk(f"/v1/accounts/{author.id}/posts") == [during["id"], before["id"]]
        assert time.monotonic() - began < 10, "four requests, each bounded"
        await reader.call("PUT", f"/v1/posts/{before['id']}/like")
        [_, liked] = (await reader.call("GET", "/v1/feed"))["items"]
        assert (liked["like_count"], liked["viewer"]["liked"]) == (1, True)
        parts = (await http.get("/readyz")).json()["parts"]
        assert {part["name"] for part in parts if not part["ready"]} == {"redis", "queue"}
        await asyncio.sleep(3)

        await servers.redis.restart()
        await agree(world, int(reader.id), int(author.id))
        after = await author.post()
        await reader.sees(after["id"], seconds=30)
        [*_, liked] = (await reader.call("GET", "/v1/feed"))["items"]
        assert liked["viewer"]["liked"], "what the old server knew is not believed"


async def test_what_a_restarted_redis_forgot_is_delivered_again(
    world: World, servers: EmbeddedServers, fault_settings: Settings, tmp_path: Path
) -> None:
    author, reader = await world.account(1), await world.account(2)
    data = servers.data / "redis"
    async with running_worker(fault_settings):
        await world.follow(reader, author)
        await world.posts(author, 3)
        await agree(world, reader)

        async def noted() -> bool:
            return bool(await world.res.redis.call("seen:{0}", "EXISTS", "seen:{0}"))

        await eventually(noted)
        async with redis_client(world.res.settings) as redis:
            await write_down(redis)
        await asyncio.to_thread(shutil.copytree, data, tmp_path / "redis", symlinks=True)
        late = await world.posts(author, 3)
        await agree(world, reader)

        # It comes back with what it had written a while ago, as after a power cut or a fail-over.
        await servers.redis.kill()
        await asyncio.to_thread(shutil.rmtree, data)
        await asyncio.to_thread(shutil.copytree, tmp_path / "redis", data, symlinks=True)
        await servers.redis.restart()

        async def forgotten() -> bool:
            return await world.window(reader) is not None

        await eventually(forgotten)
        await agree(world, reader)
        assert (await world.walk(reader, [5]))[:3] == late


async def test_a_revoked_session_stays_revoked_when_redis_comes_back_without_knowing(
    world: World, servers: EmbeddedServers, fault_settings: Settings
) -> None:
    async with (
        running_worker(fault_settings),
        running_api_process(fault_settings) as api,
        http_client(base_url=api.url, timeout=20) as http,
    ):
        someone = await Client.sign_up(http)
        await someone.call("GET", "/v1/me")
        async with redis_client(world.res.settings) as redis:
            [key] = await redis.keys("session:*")
            cached = await redis.get(key)
        await someone.call("DELETE", "/v1/sessions/current", 204)

        async def noted() -> bool:
            return bool(await world.res.redis.call("seen:{0}", "EXISTS", "seen:{0}"))

        await eventually(noted)
        async with redis_client(world.res.settings) as redis:
            await redis.set(key, cached, ex=900)  # as if the revocation had not been written down
        await servers.redis.restart()
        for _ in range(3):
            assert (await http.get("/v1/me", headers=someone.headers)).status_code == 401
            assert (await http.get("/v1/feed", headers=someone.headers)).status_code == 401
