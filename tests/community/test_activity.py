"""Activity: what is told of each act, grouped, undone and marked as read; and preferences."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from instafeed import accounts, posts
from instafeed.ids import lowest_at, shard_of
from instafeed.models import Viewer
from instafeed.resources import Resources
from instafeed.storage import undone
from tests.api.answers import invalid, is_now, problem
from tests.client import PASSWORD, Client, eventually
from tests.community.conftest import Publish

SignUp = Callable[..., Awaitable[Client]]
Json = dict[str, Any]


async def activity(client: Client) -> list[Json]:
    found: list[Json] = (await client.call("GET", "/v1/activity"))["items"]
    return found


async def told(client: Client) -> list[tuple[str, list[str], int]]:
    """(kind, actors, count) of each entry."""
    return [(item["kind"], [actor["id"] for actor in item["actors"]], item["count"]) for item in await activity(client)]


async def unread(client: Client) -> int:
    count: int = (await client.call("GET", "/v1/activity/unread"))["count"]
    assert count == sum(item["unread"] for item in await activity(client))
    return count


async def read(client: Client, id_: str) -> None:
    await client.call("PUT", "/v1/activity/read", 204, json={"id": id_})


async def like(client: Client, post_id: str) -> None:
    await client.call("PUT", f"/v1/posts/{post_id}/like")


async def unlike(client: Client, post_id: str) -> None:
    await client.call("DELETE", f"/v1/posts/{post_id}/like", 204)


async def comment(client: Client, post_id: str, text: str = "Nice", **body: Any) -> str:
    made = await client.call("POST", f"/v1/posts/{post_id}/comments", 201, json={"text": text, **body})
    found: str = made["id"]
    return found


async def prefer(client: Client, **changes: Json) -> Json:
    found: Json = await client.call("PATCH", "/v1/me/preferences", json=changes)
    return found


async def test_likes_of_a_post_are_one_entry(sign_up: SignUp, publish: Publish) -> None:
    me, *fans = [await sign_up() for _ in range(5)]
    post_id, other_id = await publish(me), await publish(me)
    assert await activity(me) == []
    await like(me, post_id)
    for fan in fans:
        await like(fan, post_id)
    await like(fans[0], other_id)
    other, one = await activity(me)
    assert (other["post_id"], other["count"]) == (other_id, 1)
    who = fans[-1].account
    assert is_now(one["created_at"])
    assert one | {"id": "", "created_at": "", "actors": []} == {
        "id": "",
        "kind": "like",
        "actors": [],
        "count": 4,
        "post_id": post_id,
        "preview": None,
        "comment_id": None,
        "text": None,
        "created_at": "",
        "unread": True,
    }
    assert one["actors"][0] == {name: who[name] for name in ("id", "username", "display_name", "avatar")}
    assert [actor["id"] for actor in one["actors"]] == [fan.id for fan in reversed(fans[1:])]
    for limit in (1, 2):
        assert await me.walk("/v1/activity", limit) == [other["id"], one["id"]]
    assert [await activity(fan) for fan in fans] == [[]] * 4


async def test_what_is_undone_is_told_no_more_and_nobody_is_told_twice(sign_up: SignUp, publish: Publish) -> None:
    me, one, two = [await sign_up() for _ in range(3)]
    post_id = await publish(me)
    await like(one, post_id)
    await like(two, post_id)
    before = await activity(me)
    await unlike(two, post_id)
    assert await told(me) == [("like", [one.id], 1)]
    await like(two, post_id)
    assert await activity(me) == before
    await read(me, before[0]["id"])
    for _ in range(2):
        await unlike(two, post_id)
        assert await unread(me) == 0
        await like(two, post_id)
    assert await activity(me) == [before[0] | {"unread": False}]
    for fan in (one, two):
        await unlike(fan, post_id)
    assert (await activity(me), await unread(me)) == ([], 0)


async def test_comments_replies_and_mentions_tell_each_of_what_concerns_them_most(
    sign_up: SignUp, publish: Publish
) -> None:
    me, one, two = [await sign_up() for _ in range(3)]
    post_id = await publish(me)
    first = await comment(one, post_id, "First")
    await comment(one, post_id, "Second")
    newest = await comment(two, post_id, f"@{one.account['username']} look")
    [entry] = await activity(me)
    assert (entry["kind"], entry["count"], entry["post_id"]) == ("comment", 2, post_id)
    assert (entry["comment_id"], entry["text"]) == (newest, f"@{one.account['username']} look")
    assert [actor["id"] for actor in entry["actors"]] == [two.id, one.id]
    [entry] = await activity(one)
    assert (entry["kind"], entry["comment_id"], entry["post_id"]) == ("mention", newest, post_id)
    sent = (await me.call("GET", f"/v1/posts/{post_id}/comments"))["items"][0]
    assert [(mention["start"], mention["account"]["id"]) for mention in sent["mentions"]] == [(0, one.id)]
    reply = await comment(me, post_id, "Thanks", reply_to=first)
    named = await comment(two, post_id, f"@{me.account['username']}", reply_to=first)
    entries = [(entry["kind"], entry["comment_id"]) for entry in await activity(one)]
    assert entries == [("reply", named), ("reply", reply), ("mention", newest)]
    assert await told(me) == [("mention", [two.id], 1), ("comment", [two.id, one.id], 2)]
    # A reply goes with the comment that it belongs to.
    await one.call("DELETE", f"/v1/comments/{first}", 204)
    assert await told(one) == [("mention", [two.id], 1)]
    assert await told(me) == [("comment", [two.id, one.id], 2)]
    await me.call("DELETE", f"/v1/comments/{newest}", 204)
    assert await told(one) == []
    assert await told(me) == [("comment", [one.id], 1)]


async def test_follows_of_a_day_are_one_entry(sign_up: SignUp) -> None:
    me, one, two = [await sign_up() for _ in range(3)]
    for fan in (one, two):
        await fan.follow(me)
    assert await told(me) == [("follow", [two.id, one.id], 2)]
    [entry] = await activity(me)
    assert [entry[name] for name in ("post_id", "preview", "comment_id", "text")] == [None] * 4
    await read(me, entry["id"])
    await two.unfollow(me)
    assert await told(me) == [("follow", [one.id], 1)]
    await two.follow(me)
    assert (await told(me), await unread(me)) == ([("follow", [two.id, one.id], 2)], 0)
    await me.remove_follower(one)
    assert await told(me) == [("follow", [two.id], 1)]


async def test_requests_are_told_until_they_are_answered_and_that_they_were_accepted(sign_up: SignUp) -> None:
    me, one, two, three = [await sign_up() for _ in range(4)]
    await me.edit(is_private=True)
    for fan in (one, two, three):
        await fan.follow(me)
    assert await told(me) == [("follow_request", [three.id, two.id, one.id], 3)]
    await three.unfollow(me)
    await me.refuse(two)
    assert await told(me) == [("follow_request", [one.id], 1)]
    await me.approve(one)
    assert await told(me) == [("follow", [one.id], 1)]
    assert [await told(fan) for fan in (one, two)] == [[("request_accepted", [me.id], 1)], []]
    await one.unfollow(me)
    assert [await told(who) for who in (me, one)] == [[], []]


@pytest.mark.usefixtures("workers")
async def test_posts_are_told_to_subscribers_and_to_whom_they_mention(sign_up: SignUp, res: Resources) -> None:
    author, fan, named, quiet, former = [await sign_up() for _ in range(5)]
    for follower in (fan, former):
        await follower.follow(author)
    await quiet.call("PUT", f"/v1/accounts/{author.id}/follow", json={"notify": False})
    name = f"@{named.account['username']}"
    post = await author.post(name)
    [entry] = await eventually(lambda: activity(fan))
    photo = (await fan.call("GET", f"/v1/posts/{post['id']}"))["media"][0]
    assert (entry["kind"], entry["post_id"], entry["comment_id"]) == ("post", post["id"], None)
    assert {size["name"] for size in entry["preview"]} == {"150"}
    assert {size["url"].partition("?")[0] for size in entry["preview"]} < {
        size["url"].partition("?")[0] for size in photo["renditions"]
    }
    assert await told(named) == [("mention", [author.id], 1)]
    assert await activity(quiet) == []
    await former.unfollow(author)
    assert await activity(former) == []
    # A name that is taken out and put back in tells nothing new.
    before = await activity(named)
    await author.call("PATCH", f"/v1/posts/{post['id']}", json={"caption": ""})
    assert await activity(named) == []
    await author.call("PATCH", f"/v1/posts/{post['id']}", json={"caption": name})
    assert await activity(named) == before
    await comment(fan, post["id"], f"{name} look")
    await author.call("DELETE", f"/v1/posts/{post['id']}", 204)
    assert [[kind for kind, _, _ in await told(who)] for who in (author, fan, named)] == [["follow"], [], []]

    async def forgotten() -> bool:
        async with res.db.acquire() as connection:
            return not await connection.fetchval(
                "select exists (select from activity where account_id = any($1::bigint[]) and kind <> 'follow')",
                [int(who.id) for who in (author, fan, named)],
            )

    await eventually(forgotten)


@pytest.mark.parametrize("way", ["mute", "block", "blocked", "suspend", "leave"])
async def test_who_is_muted_or_unseen_is_left_out_and_comes_back(
    sign_up: SignUp, publish: Publish, res: Resources, way: str
) -> None:
    me, one, two = [await sign_up() for _ in range(3)]
    post_id = await publish(me)
    for fan in (one, two):
        await like(fan, post_id)
        await fan.follow(me)
    await comment(two, post_id, f"@{me.account['username']}")
    before = [("mention", [two.id], 1), ("follow", [two.id, one.id], 2), ("like", [two.id, one.id], 2)]
    after = [("follow", [one.id], 1), ("like", [one.id], 1)]
    assert await told(me) == before
    name = two.account["username"]
    match way:
        case "mute":
            await me.mute(two)
            assert await told(me) == after
            await me.unmute(two)
        case "block":
            await me.block(two)
            assert await told(me) == after
            await me.unblock(two)
            before[1] = after[0]  # the follow is over
        case "blocked":
            await two.block(me)
            assert await told(me) == after
            await two.unblock(me)
            before[1] = after[0]
        case "suspend":
            await accounts.suspend(res, name)
            assert await told(me) == after
            await accounts.unsuspend(res, name)
        case _:
            await two.call("DELETE", "/v1/me", 204, json={"password": PASSWORD})
            before = after
    assert sorted(await told(me)) == sorted(before)


async def test_posts_that_may_not_be_seen_any_more_are_not_told_of(sign_up: SignUp, publish: Publish) -> None:
    author, me, other = [await sign_up() for _ in range(3)]
    post_id = await publish(author)
    mine = await comment(me, post_id)
    await comment(other, post_id, reply_to=mine)
    assert [kind for kind, _, _ in await told(me)] == ["reply"]
    await author.edit(is_private=True)
    assert (await told(me), await unread(me)) == ([], 0)
    await me.follow(author)
    await author.approve(me)
    assert [kind for kind, _, _ in await told(me)] == ["request_accepted", "reply"]


async def test_the_marker_is_one_for_all_devices_and_never_moves_back(sign_up: SignUp, publish: Publish) -> None:
    me, fan = await sign_up(), await sign_up()
    login = await me.http.post("/v1/sessions", json={"username": me.account["username"], "password": PASSWORD})
    tablet = Client(me.http, me.account, login.json()["token"])
    posts_ = [await publish(me) for _ in range(3)]
    for post_id in posts_:
        await like(fan, post_id)
    ids = [item["id"] for item in await activity(me)]
    assert (await unread(me), await unread(tablet)) == (3, 3)
    await read(tablet, ids[1])
    assert [item["unread"] for item in await activity(me)] == [True, False, False]
    await read(me, ids[2])
    assert await unread(me) == 1
    await read(me, ids[0])
    assert await unread(tablet) == 0
    # Within the second in which an entry stands still.
    another = await sign_up()
    await like(another, posts_[0])
    newest = (await activity(tablet))[0]
    assert (newest["post_id"], newest["unread"]) == (posts_[0], True)
    assert await unread(tablet) == 1


async def test_what_is_no_marker_is_refused(sign_up: SignUp, publish: Publish, res: Resources) -> None:
    me, fan = await sign_up(), await sign_up()
    await like(fan, await publish(me))
    for future in ((1 << 63) - 1, lowest_at(time.time() + 3600)):
        answer = await me.http.put("/v1/activity/read", json={"id": str(future)}, headers=me.headers)
        invalid(answer, "/id")
    wrong: list[Json] = [{}, {"id": 1}, {"id": "0"}, {"id": "1", "more": 1}]
    for body in wrong:
        problem(await me.http.put("/v1/activity/read", json=body, headers=me.headers), 422, "invalid")
    assert await unread(me) == 1


async def test_preferences_count_at_once(sign_up: SignUp, publish: Publish) -> None:
    me, friend, stranger = [await sign_up() for _ in range(3)]
    usual = await me.call("GET", "/v1/me/preferences")
    kinds = {"like", "comment", "reply", "mention", "follow", "follow_request", "request_accepted", "post"}
    assert usual.keys() == kinds
    for kind, channels in usual.items():
        mail = "everyone" if kind == "follow_request" else "off"
        assert channels == {"activity": "everyone", "push": "everyone", "mail": mail}
    await me.follow(friend)
    post_id = await publish(me)
    for fan in (friend, stranger):
        await like(fan, post_id)
    changed = await prefer(me, like={"activity": "following"})
    assert changed == usual | {"like": usual["like"] | {"activity": "following"}}
    assert await told(me) == [("like", [friend.id], 1)]
    changed = await prefer(me, like={"activity": "off", "mail": "everyone"}, post={"push": "off"})
    assert (await told(me), await unread(me)) == ([], 0)
    assert await me.call("GET", "/v1/me/preferences") == changed
    assert changed["post"]["push"] == "off"
    await prefer(me, like={"activity": "everyone"})
    assert await told(me) == [("like", [stranger.id, friend.id], 2)]
    before = await prefer(me)
    wrong: list[Json] = [{"likes": {}}, {"like": {"activity": "nobody"}}, {"like": {"sms": "off"}}, {"like": None}]
    for body in wrong:
        answer = await me.http.patch(
            "/v1/me/preferences", json={"post": {"mail": "everyone"}} | body, headers=me.headers
        )
        problem(answer, 422, "invalid")
    assert await me.call("GET", "/v1/me/preferences") == before


async def test_entries_with_more_acts_than_are_looked_at(
    sign_up: SignUp, publish: Publish, monkeypatch: pytest.MonkeyPatch, res: Resources
) -> None:
    monkeypatch.setattr("instafeed.activity._FEW", 2)
    me, *fans = [await sign_up() for _ in range(5)]
    post_id = await publish(me)
    await like(me, post_id)
    for fan in fans:
        await like(fan, post_id)
        await comment(fan, post_id)
        await fan.follow(me)
    newest = [fans[3].id, fans[2].id]
    assert sorted(await told(me)) == [(kind, newest, 4) for kind in ("comment", "follow", "like")]
    await accounts.suspend(res, fans[3].account["username"])
    assert sorted(await told(me)) == [(kind, newest[1:], 3) for kind in ("comment", "follow", "like")]
    # Of the first few nobody is heard.
    await me.mute(fans[2])
    older = [fans[1].id, fans[0].id]
    assert sorted(await told(me)) == [(kind, older, 2) for kind in ("comment", "follow", "like")]
    await me.unmute(fans[2])
    await me.follow(fans[0])
    await prefer(me, like={"activity": "following"})
    assert ("like", [fans[0].id], 1) in await told(me)


async def test_a_mention_in_a_caption_is_told_to_who_sees_it(sign_up: SignUp, res: Resources) -> None:
    author, me = await sign_up(), await sign_up()
    number = int(author.id)
    post_id = res.ids.next(shard_of(number))
    await posts.create(res, Viewer(number, number, ""), post_id, caption="", photos=[])
    path = f"/v1/posts/{post_id}"
    await author.edit(is_private=True)
    await author.call("PATCH", path, json={"caption": f"@{me.account['username']}"})
    assert await activity(me) == []
    await author.edit(is_private=False)
    await author.call("PATCH", path, json={"caption": ""})
    await author.call("PATCH", path, json={"caption": f"@{me.account['username']}"})
    assert await told(me) == [("mention", [author.id], 1)]


async def test_a_like_does_not_wait_for_an_entry_that_stands_still(
    sign_up: SignUp, publish: Publish, res: Resources
) -> None:
    me, one, two = [await sign_up() for _ in range(3)]
    post_id = await publish(me)
    await like(one, post_id)
    async with res.db.acquire() as connection, connection.transaction():
        # As after a like of this very moment, by somebody whose transaction goes on.
        await connection.execute(
            "update activity set id = $2 where account_id = $1", int(me.id), lowest_at(time.time() + 600)
        )
    async with res.db.acquire() as connection, connection.transaction():
        await connection.execute("select 1 from activity where account_id = $1 for update", int(me.id))
        await like(two, post_id)
    assert await told(me) == [("like", [two.id, one.id], 2)]


async def test_what_was_undone_long_ago_is_forgotten(sign_up: SignUp, publish: Publish, res: Resources) -> None:
    me, fan = await sign_up(), await sign_up()
    post_id = await publish(me)
    await like(fan, post_id)
    [before] = await activity(me)
    await unlike(fan, post_id)
    async with res.db.acquire() as connection:
        await undone.forget_old(connection, limit=1000)
        ids = await connection.fetch("select id from undone where account_id = $1", int(me.id))
        assert [str(record["id"]) for record in ids] == [before["id"]], "it is not a week old"
        await connection.execute(
            "update undone set id = $2 where account_id = $1", int(me.id), lowest_at(time.time() - 8 * 86_400)
        )
        await undone.forget_old(connection, limit=1000)
        assert not await connection.fetch("select from undone where account_id = $1", int(me.id))
    await read(me, before["id"])
    await like(fan, post_id)
    [again] = await activity(me)
    assert (again["unread"], int(again["id"]) > int(before["id"])) == (True, True)


async def test_a_page_goes_on_past_entries_that_tell_nothing(
    sign_up: SignUp, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instafeed.activity._BATCH", 2)
    me, one, two = [await sign_up() for _ in range(3)]
    await one.follow(me)
    for _ in range(7):
        post_id = await publish(me)
        await like(two, post_id)
        await unlike(two, post_id)
    page = await me.call("GET", "/v1/activity", params={"limit": "1"})
    assert ([item["kind"] for item in page["items"]], page["next_cursor"]) == (["follow"], None)
    assert await unread(me) == 1
