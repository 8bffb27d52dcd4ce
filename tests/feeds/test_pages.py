"""Reading the home feed: page by page to the end of history, and from whatever state Redis is in."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from prometheus_client import REGISTRY

from instafeed import accounts, feed_sources, feeds
from instafeed.api.dependencies import PageRequest
from instafeed.feeds import HomePage
from instafeed.ids import MAX_ID
from instafeed.storage.database import Database
from instafeed.storage.redis import RedisServer
from instafeed.storage.timelines import Window
from tests.client import Client, http_client
from tests.conftest import running_api
from tests.feeds.conftest import timelines_of
from tests.feeds.gates import Actor, GatedDatabase
from tests.feeds.world import World, add_follows, add_posts, add_rows, render, viewer

HISTORY = 35  # with a window of 10


def rebuilds() -> float:
    return REGISTRY.get_sample_value("instafeed_feed_rebuilds_total") or 0


def reads(source: str) -> float:
    return REGISTRY.get_sample_value("instafeed_feed_reads_total", {"source": source}) or 0


async def follower_of_history(world: World) -> tuple[int, int]:
    """A reader who follows an author of many posts, and that author."""
    reader, author = await world.account(1), await world.account(2)
    await add_posts(world, [author] * HISTORY)
    await add_follows(world, [(reader, author)])
    await world.materialise(reader)
    return reader, author


@pytest.mark.parametrize("limit", [*range(1, 15), 34, 35, 36, 100])
async def test_a_chain_of_pages_reaches_the_end_of_history_without_a_gap(world: World, limit: int) -> None:
    reader, _ = await follower_of_history(world)
    everything = await world.defined(reader)
    assert len(everything) == HISTORY
    assert await world.walk(reader, [limit]) == everything


@pytest.mark.parametrize("limit", [1, 3, 5, 7, 10, 11])
@pytest.mark.parametrize("fault", ["nothing", "expire", "flush"])
async def test_a_chain_keeps_its_place_while_the_feed_changes(world: World, limit: int, fault: str) -> None:
    """Between pages a post comes, the post that the cursor names goes, and so does the next one."""
    reader, author = await follower_of_history(world)
    expected = await world.defined(reader)
    shown, position = await world.page(reader, limit)
    while position is not None:
        for _ in range(3):
            await world.post(author)
        following = [id_ for id_ in expected if id_ < position][:1]
        for post_id in [position, *following]:
            await world.delete(author, post_id)
        expected = [id_ for id_ in expected if id_ not in following]
        await world.settle()
        if fault == "expire":
            await world.expire(reader)
        elif fault == "flush":
            await world.flush()
        ids, position = await world.page(reader, limit, position)
        shown += ids
    assert shown == expected


async def test_a_late_post_below_the_cursor_is_met(world: World) -> None:
    reader, author = await follower_of_history(world)
    late = await world.draft(author)
    await world.posts(author, 4)
    await world.settle()
    shown, position = await world.page(reader, 2)
    await world.publish(late)
    await world.settle()
    assert position is not None
    rest, _ = await world.page(reader, 5, position)
    assert rest[2] == late
    assert shown + rest == (await world.defined(reader))[:7]


@pytest.mark.parametrize("count", [0, 1, 4, 9, 10, 11, 12, 13, 15, 25])
@pytest.mark.parametrize("limit", [1, 5, 12])
async def test_next_is_null_exactly_at_the_end(world: World, count: int, limit: int) -> None:
    reader = await world.account()
    await add_posts(world, [reader] * count)
    pages = 0
    position: int | None = 1 << 62
    while position is not None:
        ids, position = await world.page(reader, limit, position)
        pages += 1
        assert len(ids) == limit or position is None, "only the last page may be short"
    assert pages == max(1, -(-count // limit)), "no page is empty but that of an empty feed"


async def test_next_is_null_at_the_end_though_a_window_holds_what_may_not_be_shown(world: World) -> None:
    reader, author = await world.account(), await world.account()
    await add_posts(world, [reader] * 3 + [author] * 3)
    await add_follows(world, [(reader, author)])
    await world.materialise(reader)
    mine = await world.sql("select id from posts where author_id = $1 order by id desc", reader)
    await world.unfollow(reader, author)  # its job has not run
    assert await world.page(reader, 3) == (mine, None)


async def test_a_feed_that_is_not_in_redis_is_answered_in_full_and_rebuilt_once(world: World) -> None:
    """By processes that know nothing of each other."""
    reader, _ = await follower_of_history(world)
    expected = (await world.defined(reader))[:30]
    redis = RedisServer(world.res.settings.redis_url.get_secret_value())
    other = World(replace(world.res, redis=redis, timelines=timelines_of(world.res, redis)))
    await other.page(reader, 30)
    await world.expire(reader)
    before = rebuilds()
    pages = await asyncio.gather(*(process.page(reader, 30) for process in [world, other] * 10))
    assert pages == [(expected, expected[-1])] * 20
    assert rebuilds() - before == 1
    assert await world.res.timelines.entries(reader) == expected[:10]
    await redis.close()


async def test_within_the_window_sql_is_asked_for_no_ids(world: World) -> None:
    reader, _ = await follower_of_history(world)
    newcomer = await world.account()
    await add_posts(world, [newcomer] * 4)
    await world.materialise(newcomer)
    from_window, below = reads("window"), reads("read_ahead")
    await world.page(reader, 5)  # of the last few in a list nobody knows what belongs between them
    await world.page(newcomer, 4)
    await world.walk(newcomer, [3])
    assert (reads("window"), reads("read_ahead")) == (from_window + 4, below)
    await world.page(reader, 7)
    assert (reads("window"), reads("read_ahead")) == (from_window + 4, below + 1)


async def test_a_full_page_comes_though_the_whole_window_may_not_be_shown(world: World) -> None:
    reader, author, other = [await world.account() for _ in range(3)]
    await add_posts(world, [other] * 20 + [author] * 20)
    await add_follows(world, [(reader, author), (reader, other)])
    await world.materialise(reader)
    await world.unfollow(reader, author)
    expected = await world.defined(reader)
    assert await world.page(reader, 15) == (expected[:15], expected[14])


async def test_a_window_full_of_what_may_not_be_shown_is_searched_to_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_sources, "SPARE", 0)
    reader, author = await world.account(), await world.account()
    await add_posts(world, [reader] * 2 + [author] * 7)
    await add_follows(world, [(reader, author)])
    await world.materialise(reader)
    await world.unfollow(reader, author)
    assert await world.walk(reader, [1]) == await world.defined(reader)


async def test_a_post_that_is_deleted_while_it_is_read_is_shown_whole_or_not_at_all(gated: World) -> None:
    author = await gated.account(3)
    for calls in itertools.count():
        [post] = await add_posts(gated, [author])
        photo = {"shard": 3, "id": post, "account_id": author, "status": "ready", "object_key": "", "post_id": post}
        await add_rows(gated, "media", [photo | {"position": 1}])
        await gated.flush()
        pages: list[HomePage] = []

        async def read(pages: list[HomePage] = pages) -> None:
            pages.append(await feeds.read_home(gated.res, viewer(author), below=MAX_ID, limit=5, render=render))

        actor = await Actor.begin(read())
        for _ in range(calls):
            await actor.step()
        ended = actor.ended
        await gated.delete(author, post)
        await actor.finish()
        assert all(b"1 photos" in shown.json for _, shown in pages[0].items)
        if ended:
            break
    assert calls > 5


async def test_deleted_posts_leave_the_window_when_they_are_met(world: World) -> None:
    reader, author = await follower_of_history(world)
    window = await world.window(reader)
    assert window is not None
    await world.delete(author, window.ids[1])
    await world.page(reader, 5)
    assert await world.window(reader) == window._replace(ids=[window.ids[0], *window.ids[2:]])


async def test_an_empty_feed_is_materialised_by_its_first_read(world: World) -> None:
    reader, author = await world.account(), await world.account()
    assert await world.page(reader, 30) == ([], None)
    assert await world.window(reader) == Window([], floor=0)
    before = rebuilds()
    assert await world.page(reader, 30) == ([], None)
    await world.follow(reader, author)
    post = await world.post(author)
    await world.settle()
    assert await world.page(reader, 30) == ([post], None)
    assert rebuilds() == before


async def test_following_an_author_of_more_than_a_window_does_not_end_the_feed_there(world: World) -> None:
    for count in (9, 10, 11, 12):
        reader, author = await world.account(), await world.account()
        await world.materialise(reader)
        await add_posts(world, [author] * count)
        await world.follow(reader, author)
        await world.settle()
        assert await world.walk(reader, [3]) == await world.defined(reader)


async def test_a_builder_that_dies_is_relieved(gated: World) -> None:
    reader, author = await gated.account(), await gated.account()
    await add_follows(gated, [(reader, author)])
    for calls in itertools.count():
        await gated.flush()
        read = await Actor.begin(gated.page(reader, 5))
        for _ in range(calls):
            await read.step()
        if read.ended:
            break
        await read.kill()
        await gated.post(author)
        await gated.settle()
        defined = await gated.defined(reader)
        assert (await gated.page(reader, 5))[0] == defined[:5], "meanwhile SQL answers"
        await gated.unlock(reader)
        assert (await gated.page(reader, 5))[0] == defined[:5]
        window = await gated.window(reader)
        assert window is not None
        assert window.ids == defined[: len(window.ids)]
    assert calls > 5


async def sign_up(world: World, account: int) -> None:
    """Make an account; sent again, it is answered the same."""
    await accounts.sign_up(
        world.res,
        account_id=account,
        username=f"ann{account}",
        password="correct horse",
        email=None,
        display_name="",
        device_name="",
        repeat_key="once",
    )


async def test_a_new_accounts_feed_is_there_and_empty_and_gets_pushes(world: World) -> None:
    author, account = await world.account(), world.res.ids.next(5)
    await sign_up(world, account)
    assert await world.window(account) == Window([], floor=0)
    before = rebuilds()
    await world.follow(account, author)
    await world.settle()
    post = await world.post(author)
    await world.settle()
    assert await world.window(account) == Window([post], floor=0)
    assert await world.page(account, 10) == ([post], None)
    assert rebuilds() == before


async def test_a_sign_up_is_answered_though_the_database_has_no_connection_left_for_its_feed(gated: World) -> None:
    """The account is made by then."""
    database = Database(gated.res.settings.database_url.get_secret_value(), size=1, prepares=True)
    await database.open()
    world = World(replace(gated.res, db=GatedDatabase(database)))
    account = world.res.ids.next(5)
    signing_up = await Actor.begin(sign_up(world, account))
    while not await gated.sql("select id from accounts where id = $1", account):
        await signing_up.step()
    async with database.acquire():
        await signing_up.finish()
    await database.close()
    author = await gated.account()
    await gated.follow(account, author)
    post = await gated.post(author)
    assert await gated.page(account, 10) == ([post], None)
    await gated.unlock(account)
    await gated.page(account, 10)
    assert await gated.window(account) == Window([post], floor=0)


async def test_a_sign_up_that_is_sent_again_leaves_the_feed_whole(world: World) -> None:
    """The first reply was lost; the account was used meanwhile, and its feed was not in Redis."""
    author = await world.account()
    [post] = await add_posts(world, [author])
    account = world.res.ids.next(5)
    await sign_up(world, account)
    await world.expire(account)
    await world.follow(account, author)
    await world.settle()
    await sign_up(world, account)
    assert await world.page(account, 10) == ([post], None)


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API in this world."""
    async with running_api(world.res.settings) as url, http_client(base_url=url) as client:
        yield client


async def test_a_cursor_outlives_the_post_that_it_names(world: World, http: httpx.AsyncClient) -> None:
    reader = await Client.sign_up(http)
    me = int(reader.id)
    ids = (await add_posts(world, [me] * 14))[::-1]
    await world.expire(me)
    for at in (4, 9, 11):
        page = await reader.call("GET", "/v1/feed", params={"limit": str(at)})
        assert [item["id"] for item in page["items"]] == [str(id_) for id_ in ids[:at]]
        await world.delete(me, ids.pop(at - 1))
        rest = await reader.call("GET", "/v1/feed", params={"cursor": page["next_cursor"]})
        assert [item["id"] for item in rest["items"]] == [str(id_) for id_ in ids[at - 1 :]]
        assert rest["next_cursor"] is None
    assert await world.defined(me) == ids


async def test_a_cursor_that_was_given_long_ago_goes_on(world: World) -> None:
    """Clients keep cursors: what one looks like, and what it is bound to, stays as it was."""
    account, position, cursor = 412345678901234567, 398765432109876543, "BYizDDmdRT_MSFQ8Bwo7e_xy"
    page = PageRequest.of(world.res, account, "/v1/feed", limit=7, cursor=cursor)
    assert page.below == position
    assert page.link(position) == (cursor, {"Link": f'</v1/feed?limit=7&cursor={cursor}>; rel="next"'})


async def test_a_cursor_is_its_readers_own(world: World, http: httpx.AsyncClient) -> None:
    one, other = await Client.sign_up(http), await Client.sign_up(http)
    for client in (one, other):
        await add_posts(world, [int(client.id)] * 3)
        await world.expire(int(client.id))
    cursor = (await one.call("GET", "/v1/feed", params={"limit": "1"}))["next_cursor"]
    await one.call("GET", "/v1/feed", params={"cursor": cursor})
    await other.call("GET", "/v1/feed", 422, params={"cursor": cursor})
