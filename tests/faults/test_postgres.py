"""PostgreSQL restarted at once, in mid work."""

from instafeed.dev.embedded import EmbeddedServers
from instafeed.settings import Settings
from tests.client import Client, eventually, http_client
from tests.faults.test_redis import agree
from tests.faults.test_workers import done, holders, progress, with_followers
from tests.feeds.world import World
from tests.processes import running_api_process, running_worker


async def test_a_fan_out_goes_on_after_postgres_was_restarted(
    world: World, servers: EmbeddedServers, fault_settings: Settings
) -> None:
    author, readers = await with_followers(world)
    post = await world.draft(author)
    entry = await world.publish(post)
    async with running_worker(fault_settings):
        await progress(world, entry)
        await servers.postgres.kill()
        await servers.postgres.restart()

        async def ended() -> bool:
            return await done(world, entry)

        await eventually(ended, seconds=30)
    assert await holders(world, post, readers) == [1] * len(readers)


async def test_the_api_says_that_the_database_is_away_and_goes_on_when_it_is_back(
    world: World, servers: EmbeddedServers, fault_settings: Settings
) -> None:
    async with (
        running_worker(fault_settings),
        running_api_process(fault_settings) as api,
        http_client(base_url=api.url, timeout=20) as http,
    ):
        author, reader = await Client.sign_up(http), await Client.sign_up(http)
        await reader.follow(author)
        post = await author.post()
        await reader.sees(post["id"])

        async def at_rest() -> bool:
            return not await world.pending()

        await eventually(at_rest)
        assert await reader.feed() == [post["id"]]
        await servers.postgres.kill()
        assert await reader.feed() == [post["id"]], "what is cached is true: nothing can change"
        answer = await http.get(f"/v1/accounts/{author.id}", headers=reader.headers)
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"]
        refused = await http.post(
            "/v1/posts", headers=author.headers, json={"caption": "lost", "media": [{"id": post["media"][0]["id"]}]}
        )
        assert refused.status_code == 503
        parts = (await http.get("/readyz")).json()["parts"]
        assert [part["name"] for part in parts if not part["ready"]] == ["database"]
        await servers.postgres.restart()

        async def back() -> bool:
            return (await http.get(f"/v1/accounts/{author.id}", headers=reader.headers)).status_code == 200

        await eventually(back, seconds=30)
        assert await reader.feed() == [post["id"]]
        again = await author.post("after")
        await reader.sees(again["id"], seconds=30)
        await agree(world, int(reader.id), int(author.id))
