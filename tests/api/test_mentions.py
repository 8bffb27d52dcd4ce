"""Accounts that captions name."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from instafeed import accounts, posts
from instafeed.errors import Unavailable
from instafeed.ids import shard_of
from instafeed.models import Viewer
from instafeed.resources import Resources
from tests.client import Client, eventually

pytestmark = pytest.mark.usefixtures("workers")
SignUp = Callable[..., Awaitable[Client]]


async def publish(res: Resources, client: Client, caption: str) -> dict[str, Any]:
    """Publish a post without photos, which nobody has to make ready."""
    me, post_id = int(client.id), res.ids.next(shard_of(int(client.id)))
    await posts.create(res, Viewer(me, me, ""), post_id, caption=caption, photos=[])
    found: dict[str, Any] = await client.call("GET", f"/v1/posts/{post_id}")
    return found


def ref(who: Client) -> dict[str, Any]:
    return {name: who.account[name] for name in ("id", "username", "display_name", "avatar")}


async def told(who: Client) -> set[str]:
    """The posts of which the account is told that they mention it."""
    items = (await who.call("GET", "/v1/activity"))["items"]
    return {item["post_id"] for item in items if item["kind"] == "mention"}


async def in_feed(client: Client, post_id: str) -> dict[str, Any]:
    async def probe() -> dict[str, Any] | None:
        page = await client.call("GET", "/v1/feed")
        return next((post for post in page["items"] if post["id"] == post_id), None)

    found = await eventually(probe)
    assert found is not None
    return found


async def test_a_mention_is_an_account_and_a_place(sign_up: SignUp, ada: Client, bob: Client, res: Resources) -> None:
    author = await sign_up()
    await ada.follow(author)
    names = [who.account["username"] for who in (ada, bob)]
    caption = f"\U0001f305 @{names[0].upper()}, @no.such.name and (@{names[1]})"
    post = await publish(res, author, caption)
    for sent in (post, await ada.call("GET", f"/v1/posts/{post['id']}"), await in_feed(ada, post["id"])):
        assert [mention["account"] for mention in sent["mentions"]] == [ref(ada), ref(bob)]
        for mention, name in zip(sent["mentions"], names, strict=True):
            written = sent["caption"][mention["start"] : mention["start"] + mention["length"]]
            assert written.lower() == f"@{name}"
    listed = await ada.call("GET", f"/v1/accounts/{author.id}/posts")
    assert listed["items"][0]["mentions"] == post["mentions"]


async def test_a_post_in_the_feed_is_the_same_as_by_itself(sign_up: SignUp, res: Resources) -> None:
    author, fan = await sign_up(), await sign_up()
    await fan.follow(author)
    mention = f"@{fan.account['username']}"
    # Texts that look like what is cached.
    for caption in (f'"mentions":[] {mention}', f'"mentions":[[1,2,3]] {mention}', f'#a "mentions":[[1,2,{fan.id}]]'):
        post = await publish(res, author, caption)
        sent = await in_feed(fan, post["id"])
        # The framework's own way gives the same.
        page = await fan.call("GET", "/v1/feed", params={"limit": "1", "unknown": "1"})
        assert page["items"][0]["mentions"] == sent["mentions"]
        assert {name: value for name, value in sent.items() if name != "media"} == {
            name: value for name, value in post.items() if name != "media"
        }
        assert len(sent["mentions"]) == caption.count("@")


async def test_the_feed_names_nobody_while_the_database_is_away(
    sign_up: SignUp, res: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    author = await sign_up()
    post = await publish(res, author, f"@{author.account['username']}")
    assert (await in_feed(author, post["id"]))["mentions"]

    async def away(*_: Any) -> Any:
        raise Unavailable("The database does not answer.")

    monkeypatch.setattr("instafeed.captions.mentioned", away)
    assert (await in_feed(author, post["id"]))["mentions"] == []


async def test_a_mention_follows_its_account(sign_up: SignUp, res: Resources) -> None:
    author, named, other = [await sign_up() for _ in range(3)]
    await other.follow(author)
    old, new = named.account["username"], f"{named.account['username']}.new"
    post = await publish(res, author, f"@{old}")
    await in_feed(other, post["id"])
    await named.edit(display_name="Somebody Else")
    async with res.db.acquire() as connection:
        await connection.execute("update accounts set username = $2 where id = $1", int(named.id), new)
        await connection.execute("update usernames set account_id = $2 where username = $1", old, int(other.id))
    expected = [{"id": named.id, "username": new, "display_name": "Somebody Else", "avatar": None}]
    # An edit elsewhere in the caption leaves what the name meant.
    edited = await author.call("PATCH", f"/v1/posts/{post['id']}", json={"caption": f"with @{old}"})
    for sent in (edited, await in_feed(other, post["id"])):
        assert [mention["account"] for mention in sent["mentions"]] == expected
        assert sent["mentions"][0]["start"] == 5


async def test_who_is_mentioned_is_told_once_and_it_is_taken_back(sign_up: SignUp, res: Resources) -> None:
    author, one, two = [await sign_up() for _ in range(3)]
    names = {who.id: f"@{who.account['username']}" for who in (author, one, two)}
    post = await publish(res, author, f"{names[one.id]} {names[one.id]} {names[author.id]}")
    path = f"/v1/posts/{post['id']}"
    assert len(post["mentions"]) == 3
    await eventually(lambda: told(one))
    assert [await told(who) for who in (author, one, two)] == [set(), {post["id"]}, set()]
    await author.call("PATCH", path, json={"caption": names[two.id]})
    assert [await told(who) for who in (one, two)] == [set(), {post["id"]}]
    await author.call("DELETE", path, 204)
    assert await told(two) == set()


async def test_nobody_is_told_who_mutes_or_blocks_the_author_or_may_not_see_the_post(
    sign_up: SignUp, res: Resources
) -> None:
    author, muter, blocker, blocked, stranger, fan = [await sign_up() for _ in range(6)]
    await muter.mute(author)
    await blocker.block(author)
    await author.block(blocked)
    for follower in (fan, muter):
        await follower.follow(author)
    await author.edit(is_private=True)
    everybody = (muter, blocker, blocked, stranger, fan)
    post = await publish(res, author, " ".join(f"@{who.account['username']}" for who in everybody))
    await eventually(lambda: told(fan))
    assert [bool(await told(who)) for who in everybody] == [False, False, False, False, True]
    # Those across a block are named by nothing; whoever sees the post sees the others.
    for who in (author, fan):
        sent = await who.call("GET", f"/v1/posts/{post['id']}")
        assert [mention["account"]["id"] for mention in sent["mentions"]] == [muter.id, stranger.id, fan.id]


async def test_a_mention_is_not_told_before_the_post_is_published(fresh_http: Any, fresh_res: Resources) -> None:
    author, named = await Client.sign_up(fresh_http), await Client.sign_up(fresh_http)
    post = await author.post(f"@{named.account['username']}")
    assert [mention["account"]["id"] for mention in post["mentions"]] == [named.id]
    assert await told(named) == set()


async def test_a_mention_is_gone_for_whom_its_account_hides_from(sign_up: SignUp, res: Resources) -> None:
    author, named, viewer = [await sign_up() for _ in range(3)]
    await viewer.follow(author)
    await named.edit(is_private=True)
    post = await publish(res, author, f"@{named.account['username']}")

    async def seen() -> list[bool]:
        sent = [await viewer.call("GET", f"/v1/posts/{post['id']}"), await in_feed(viewer, post["id"])]
        return [bool(item["mentions"]) for item in sent]

    assert await seen() == [True, True]
    await named.block(viewer)
    assert await seen() == [False, False]
    await named.unblock(viewer)
    assert await seen() == [True, True]
    await viewer.block(named)
    assert await seen() == [False, False]
    await viewer.unblock(named)
    await accounts.suspend(res, named.account["username"])
    assert await seen() == [False, False]
    await accounts.unsuspend(res, named.account["username"])
    assert await seen() == [True, True]
