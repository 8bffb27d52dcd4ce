"""Comments and replies."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from instafeed import accounts
from instafeed import comments as verbs
from instafeed.resources import Resources
from tests.api.answers import ID, anonymous, invalid, is_now, problem
from tests.client import Client, eventually
from tests.community.conftest import Publish

SignUp = Callable[..., Awaitable[Client]]
Json = dict[str, Any]


async def send(client: Client, post_id: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    return await client.http.post(f"/v1/posts/{post_id}/comments", json=body, headers=client.headers | (headers or {}))


async def comment(client: Client, post_id: str, text: str = "Nice", **body: Any) -> Json:
    answer = await send(client, post_id, text=text, **body)
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    return found


async def replies(client: Client, comment_id: str, limit: int = 30) -> list[str]:
    return await client.walk(f"/v1/comments/{comment_id}/replies", limit)


async def count(client: Client, post_id: str) -> int:
    found: int = (await client.call("GET", f"/v1/posts/{post_id}"))["comment_count"]
    return found


async def delete(client: Client, comment_id: str, status: int = 204) -> None:
    await client.call("DELETE", f"/v1/comments/{comment_id}", status)


async def test_comments_come_newest_first_and_replies_oldest_first(sign_up: SignUp, publish: Publish) -> None:
    author, fan = await sign_up(), await sign_up()
    post_id = await publish(author)
    first = await comment(fan, post_id, "  What a\r\nlight! ")
    assert ID.fullmatch(first["id"])
    assert is_now(first["created_at"])
    writer = {name: fan.account[name] for name in ("id", "username", "display_name", "avatar")}
    assert first | {"id": "", "created_at": ""} == {
        "id": "",
        "post_id": post_id,
        "reply_to": None,
        "author": writer,
        "text": "What a\nlight!",
        "mentions": [],
        "reply_count": 0,
        "created_at": "",
    }
    second = await comment(author, post_id)
    answers = [await comment(author, post_id, f"{number}", reply_to=first["id"]) for number in range(2)]
    answers.append(await comment(fan, post_id, "2", reply_to=answers[1]["id"]))
    assert [answer["reply_to"] for answer in answers] == [first["id"]] * 3, "a reply to a reply is the first one's"
    page = await fan.call("GET", f"/v1/posts/{post_id}/comments")
    assert page["items"] == [second, first | {"reply_count": 3}]
    assert await fan.walk(f"/v1/posts/{post_id}/comments", 1) == [second["id"], first["id"]]
    for limit in (1, 2, 3, 4):
        assert await replies(author, first["id"], limit) == [answer["id"] for answer in answers]
    assert (await fan.call("GET", f"/v1/comments/{first['id']}/replies"))["items"] == answers
    assert await count(fan, post_id) == 5


async def test_a_comment_that_is_sent_again_is_made_once(sign_up: SignUp, publish: Publish) -> None:
    fan = await sign_up()
    post_id = await publish(await sign_up())
    key = {"Idempotency-Key": "a comment"}
    answers = [await send(fan, post_id, key, text="once") for _ in range(3)]
    assert {answer.text for answer in answers} == {answers[0].text}
    assert await count(fan, post_id) == 1
    problem(await send(fan, post_id, key, text="another"), 422, "idempotency-mismatch")


async def test_what_is_no_comment_is_refused_and_leaves_nothing(sign_up: SignUp, publish: Publish) -> None:
    author, fan = await sign_up(), await sign_up()
    post_id, other_post = await publish(author), await publish(author)
    elsewhere = await comment(fan, other_post)
    for text in ("", "  ", "\u200b", "\u0000", "x" * 2201, None, 1):
        invalid(await send(fan, post_id, text=text), "/text")
    invalid(await send(fan, post_id), "/text")
    invalid(await send(fan, post_id, text="a", author=fan.id), "/author")
    for reply_to in (elsewhere["id"], post_id, "1", "x", 1):
        invalid(await send(fan, post_id, text="a", reply_to=reply_to), "/reply_to")
    assert await count(fan, post_id) == 0
    assert await fan.walk(f"/v1/posts/{post_id}/comments") == []
    await comment(fan, post_id, "x" * 2200)


async def test_only_its_author_and_the_posts_owner_delete_a_comment(sign_up: SignUp, publish: Publish) -> None:
    author, fan, other = await sign_up(), await sign_up(), await sign_up()
    post_id = await publish(author)
    one, two = await comment(fan, post_id), await comment(fan, post_id)
    of_two = [await comment(other, post_id, reply_to=two["id"]) for _ in range(3)]
    missing = await other.http.delete("/v1/comments/1", headers=other.headers)
    refused = await other.http.delete(f"/v1/comments/{one['id']}", headers=other.headers)
    assert anonymous(refused) == anonymous(missing)
    problem(refused, 404, "not-found")
    await delete(other, of_two[0]["id"])
    [seen, _] = (await fan.call("GET", f"/v1/posts/{post_id}/comments"))["items"]
    assert (seen["reply_count"], await count(fan, post_id)) == (2, 4)
    await delete(fan, one["id"])
    await delete(fan, one["id"], 404)
    await delete(author, two["id"])
    assert (await fan.walk(f"/v1/posts/{post_id}/comments"), await count(fan, post_id)) == ([], 0)
    for gone in (two["id"], of_two[1]["id"]):
        await fan.call("GET", f"/v1/comments/{gone}/replies", 404)
        await delete(other, gone, 404)
    invalid(await send(other, post_id, text="late", reply_to=two["id"]), "/reply_to")


@pytest.mark.usefixtures("workers")
async def test_many_replies_are_deleted_in_chunks_and_seen_by_nobody_meanwhile(
    sign_up: SignUp, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "CHUNK", 2)
    author = await sign_up()
    post_id = await publish(author)
    first = await comment(author, post_id)
    answers = [await comment(author, post_id, reply_to=first["id"]) for _ in range(5)]
    await delete(author, first["id"])
    await author.call("GET", f"/v1/comments/{first['id']}/replies", 404)
    for answer in answers:
        invalid(await send(author, post_id, text="late", reply_to=answer["id"]), "/reply_to")

    async def none_is_counted() -> bool:
        return await count(author, post_id) == 0

    await eventually(none_is_counted)


async def test_comments_of_the_suspended_and_across_a_block_are_not_seen(
    sign_up: SignUp, publish: Publish, res: Resources
) -> None:
    author, fan, other, muted = [await sign_up() for _ in range(4)]
    post_id = await publish(author)
    path = f"/v1/posts/{post_id}/comments"
    first = await comment(fan, post_id)
    answers = [(await comment(who, post_id, reply_to=first["id"]))["id"] for who in (fan, other, muted)]
    of_muted = await comment(muted, post_id)
    await other.mute(muted)
    assert await other.walk(path, 1) == [of_muted["id"], first["id"]]

    async def hidden_from(who: Client, missing: str = "/v1/comments/1/replies") -> None:
        assert await who.walk(path, 1) == [of_muted["id"]]
        answer = await who.http.get(f"/v1/comments/{first['id']}/replies", headers=who.headers)
        assert anonymous(answer) == anonymous(await who.http.get(missing, headers=who.headers))
        for reply_to in (first["id"], answers[2]):
            invalid(await send(who, post_id, text="a", reply_to=reply_to), "/reply_to")

    for blocker, blocked in ((fan, other), (other, fan)):
        await blocker.block(blocked)
        await hidden_from(other)
        assert await author.walk(path) == [of_muted["id"], first["id"]]
        await blocker.unblock(blocked)
    await accounts.suspend(res, fan.account["username"])
    await hidden_from(other)
    await hidden_from(author)
    assert await count(author, post_id) == 5
    await accounts.unsuspend(res, fan.account["username"])
    assert await replies(other, first["id"]) == answers
    await other.block(fan)
    await delete(author, first["id"])
    assert await count(author, post_id) == 1


async def test_a_posts_owner_deletes_what_a_block_hides_from_them(sign_up: SignUp, publish: Publish) -> None:
    author, pest = await sign_up(), await sign_up()
    post_id = await publish(author)
    insult = await comment(pest, post_id)
    await pest.block(author)
    assert await author.walk(f"/v1/posts/{post_id}/comments") == []
    await delete(author, insult["id"])
    assert await count(author, post_id) == 0


async def test_of_a_post_that_one_may_not_see_neither_are_its_comments(sign_up: SignUp, publish: Publish) -> None:
    author, fan = await sign_up(), await sign_up()
    post_id = await publish(author)
    own = await comment(fan, post_id)
    await author.block(fan)
    body = {"text": "a", "reply_to": own["id"]}
    for method, path, missing in (
        ("GET", f"/v1/posts/{post_id}/comments", "/v1/posts/1/comments"),
        ("POST", f"/v1/posts/{post_id}/comments", "/v1/posts/1/comments"),
        ("GET", f"/v1/comments/{own['id']}/replies", "/v1/comments/1/replies"),
        ("DELETE", f"/v1/comments/{own['id']}", "/v1/comments/1"),
    ):
        options: Json = {"json": body} if method == "POST" else {}
        answer = await fan.http.request(method, path, headers=fan.headers, **options)
        nothing = await fan.http.request(method, missing, headers=fan.headers, **options)
        assert anonymous(answer) == anonymous(nothing), (method, path)
        problem(answer, 404, "not-found")


@pytest.mark.usefixtures("workers")
async def test_with_a_post_goes_all_that_hung_on_it(sign_up: SignUp, publish: Publish, res: Resources) -> None:
    author, fan = await sign_up(), await sign_up()
    post_id, kept = await publish(author), await publish(author)
    for id_ in (post_id, kept):
        for what in ("like", "save"):
            await asyncio.gather(*(who.call("PUT", f"/v1/posts/{id_}/{what}") for who in (author, fan)))
        first = await comment(fan, id_)
        await comment(author, id_, reply_to=first["id"])
    await author.call("DELETE", f"/v1/posts/{post_id}", 204)
    assert await fan.walk("/v1/me/saves") == [kept]
    await fan.call("GET", f"/v1/comments/{first['id']}/replies")

    async def rows() -> list[int]:
        async with res.db.acquire() as connection:
            people = [int(author.id), int(fan.id)]
            return [
                await connection.fetchval(f"select count(*) from {table} where {column} = any($1::bigint[])", wanted)
                for table, column, wanted in (
                    *((table, "account_id", people) for table in ("likes", "likers", "saves", "savers", "commented")),
                    ("comments", "author_id", people),
                    ("counters", "subject_id", [int(post_id)]),
                )
            ]

    async def only_the_others_are_left() -> bool:
        return await rows() == [2, 2, 2, 2, 2, 2, 0]

    await eventually(only_the_others_are_left)
    assert (await fan.call("GET", f"/v1/posts/{kept}"))["like_count"] == 2
