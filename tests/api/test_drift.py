"""Counters that were wrong and edges that were halves: found, and set right beside live traffic."""

import asyncio

import httpx

from instafeed import drift
from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.settings import Settings
from tests.api.test_graph_races import balance
from tests.client import Client
from tests.posts import publish
from tests.test_cli import Run, environ_of, run

__all__ = ["run"]


async def plant(res: Resources, one: Client, three: Client, four: Client, ids: list[int]) -> None:
    """Every kind of drift."""
    post_id, other_post_id, comment_id = ids
    me, them, fan = int(one.id), int(three.id), int(four.id)
    async with res.db.acquire() as connection:
        await connection.execute(
            "update accounts set post_count = 7, follower_count = follower_count + 3, following_count = 9 where id = $1",
            me,
        )
        await connection.execute("update counters set likes = likes + 5 where subject_id = $1", post_id)
        await connection.execute(
            "insert into counters as old (shard, subject_id, slot, comments) select $1, id, 63, -1"
            " from unnest($2::bigint[]) id on conflict (shard, subject_id, slot) do update set comments = old.comments - 1",
            shard_of(me),
            [post_id, comment_id],
        )
        # The rows of four's follow, like and save of which only one is left, and others that were never whole.
        await connection.execute("delete from followers where follower_id = $1", fan)
        await connection.execute("delete from likers where account_id = $1", fan)
        await connection.execute("insert into followers values ($1, $2, $3, 1, false)", shard_of(them), them, fan)
        await connection.execute("insert into likers values ($1, $2, $3, 1)", shard_of(me), post_id, fan)
        await connection.execute("insert into savers values ($1, $2, $3)", shard_of(me), post_id, fan)
        await connection.execute("insert into saves values ($1, $2, $3, 1)", shard_of(fan), fan, other_post_id)


async def check(res: Resources, *, mend: bool) -> tuple[dict[str, int], list[str]]:
    lines: list[str] = []
    found = drift.Check(res, mend=mend, tell=lines.append)
    await found.whole()
    assert len(lines) == found.found.total()
    return dict(found.found), lines


async def test_what_drifted_is_found_and_mended_beside_live_traffic(
    fresh_http: httpx.AsyncClient, fresh_res: Resources, fresh_settings: Settings, run: Run
) -> None:
    res = fresh_res
    one, two, three, four = [await Client.sign_up(fresh_http) for _ in range(4)]
    post_id, other_post_id = await publish(res, one), await publish(res, two)
    post = f"/v1/posts/{post_id}"
    for who in (two, three):
        await who.follow(one)
        for mark in ("like", "save"):
            await who.call("PUT", f"{post}/{mark}")
    comment = await two.call("POST", f"{post}/comments", 201, json={"text": "Nice"})
    for who in (one, three):
        await who.call("POST", f"{post}/comments", 201, json={"text": "So", "reply_to": comment["id"]})
    await four.follow(two)
    await four.call("PUT", f"/v1/posts/{other_post_id}/like")
    assert await check(res, mend=False) == ({}, [])
    done = await asyncio.to_thread(run, "admin", "counters", environ=environ_of(fresh_settings))
    assert (done.status, done.output) == (0, "0 found, nothing changed\n")

    await plant(res, one, three, four, [int(id_) for id_ in (post_id, other_post_id, comment["id"])])
    kinds = {"following", "followers", "likes", "likers", "saves", "savers", "posts", "comments", "replies"}
    before, lines = await check(res, mend=False)
    assert before.keys() == kinds
    assert f"posts of account {one.id}: 7, and there are 1" in lines
    assert f"replies of comment {comment['id']}: 1, and there are 2" in lines
    assert f"likers {post_id} {four.id}: nothing in likes" in lines
    assert await check(res, mend=False) == (before, lines), "nothing was changed"
    done = await asyncio.to_thread(run, "admin", "counters", environ=environ_of(fresh_settings))
    assert done.status == 1
    assert done.output.endswith(f"{sum(before.values())} found, nothing changed\n")

    async def live(who: Client) -> None:
        for _ in range(12):
            for path in (f"/v1/accounts/{one.id}/follow", f"{post}/like", f"{post}/save"):
                await who.call("DELETE", path, 204)
                await who.call("PUT", path)
            said = await who.call("POST", f"{post}/comments", 201, json={"text": "!", "reply_to": comment["id"]})
            await who.call("DELETE", f"/v1/comments/{said['id']}", 204)

    traffic = [asyncio.create_task(live(who)) for who in (two, three)]
    found = [await check(res, mend=True), *await asyncio.gather(*(check(res, mend=True) for _ in range(2)))]
    assert found[0][0].keys() == kinds
    assert [mended for mended, _ in found[1:]] == [{}, {}]
    await asyncio.gather(*traffic)
    done = await asyncio.to_thread(run, "admin", "counters", "--mend", environ=environ_of(fresh_settings))
    assert (done.status, done.output) == (0, "0 found, mended\n")
    async with res.db.acquire() as connection:
        await balance(connection)
    seen = await one.call("GET", post)
    assert (seen["like_count"], seen["comment_count"]) == (2, 3)
    assert (await one.call("GET", f"{post}/comments"))["items"][0]["reply_count"] == 2
    # Half a follow shows nothing any more, and half a like is no mark.
    assert not (await four.relation(two))["following"]
    assert not (await four.call("GET", f"/v1/posts/{other_post_id}"))["viewer"]["liked"]
    assert await four.walk("/v1/me/saves") == []
    await four.follow(two)
    assert (await four.relation(two))["following"]
