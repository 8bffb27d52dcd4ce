"""Who sees what: every kind of viewer before every surface, held against one table."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from instafeed import accounts, explore, posts
from instafeed.ids import shard_of
from instafeed.models import EventType, Viewer
from instafeed.resources import Resources
from tests.api.answers import anonymous
from tests.client import PASSWORD, Client, eventually

pytestmark = pytest.mark.usefixtures("workers")
SignUp = Callable[..., Awaitable[Client]]

PROFILE = {"profile", "by name"}
CONTENT = {"post", "posts", "followers", "following", "tagged", "counted", "tag found"}
CONTENT |= {"likes", "comments", "replies", "like", "save", "comment", "told of reply", "feed by tag"}
NAMED = {"listed", "liker", "commenter", "mentioned", "mentioned in feed", "found"}
COMPANY = NAMED | {"follow", "mute", "block", "told of like"}
REPORTS = {"report", "report post", "report comment"}
TOLD = {"feed", "told", "told later"}
EXPLORED = {"explored"}
"""To whom the author is a stranger."""
ALL = PROFILE | CONTENT | COMPANY | REPORTS | TOLD
OTHERS = ALL - TOLD

# What each kind of viewer sees of an account; everything else answers like what does not exist, or is left out.
PUBLIC: dict[str, set[str]] = {
    "stranger": OTHERS | EXPLORED,
    "follower": ALL,
    "muter": OTHERS - {"told of like", "feed by tag"},
    "former follower": OTHERS | EXPLORED,
    "removed follower": OTHERS | EXPLORED,
    "blocked": set(),
    "blocker": PROFILE | {"block", "report"},
    "formerly blocked": OTHERS | EXPLORED,
    "follower of a suspended account": set(),
    "follower of a returned account": ALL,
    "follower of somebody who left": set(),
    "author": PROFILE | CONTENT | TOLD | NAMED | {"report comment"},
}
PRIVATE = PUBLIC | {
    "stranger": PROFILE | COMPANY | {"report"},
    "requester": PROFILE | COMPANY | {"report"},
    "refused": PROFILE | COMPANY | {"report"},
    "follower": ALL,
    "former follower": PROFILE | COMPANY | {"report"},
    "removed follower": PROFILE | COMPANY | {"report"},
    "formerly blocked": PROFILE | COMPANY | {"report"},
}

OPERATIONS = {
    "follower of a suspended account": (accounts.suspend,),
    "follower of a returned account": (accounts.suspend, accounts.unsuspend),
}


@dataclass
class Scene:
    """An author with a post, who follows somebody, and a viewer."""

    author: Client
    viewer: Client
    friend: Client
    """Whom the author follows."""
    post_id: str
    comment_id: str
    """Somebody else's, on the author's post."""
    marker: Client
    """Whom the viewer follows, and who is not the author."""
    marker_post_id: str
    """It mentions the author, who likes it and has commented."""
    tag: str
    """The post's, and no other's."""


async def scene(sign_up: SignUp, res: Resources, kind: str, *, private: bool) -> Scene:
    author, friend, marker = [await sign_up() for _ in range(3)]
    viewer = author if kind == "author" else await sign_up()
    tag = f"t{author.id}"
    captions = {author.id: f"#{tag}", marker.id: f"with @{author.account['username']}"}
    made = [await who.published((await who.post(captions[who.id]))["id"]) for who in (author, marker)]
    await author.follow(friend)
    await viewer.follow(marker)
    await author.call("PUT", f"/v1/posts/{made[1]['id']}/like")
    await friend.call("PUT", f"/v1/posts/{made[0]['id']}/like")
    comments = [
        await who.call("POST", f"/v1/posts/{post['id']}/comments", 201, json={"text": "Nice"})
        for who, post in zip((friend, author), made, strict=True)
    ]
    # What the viewer is told of: the author's like, and somebody else's reply on the author's post.
    own_id = res.ids.next(shard_of(int(viewer.id)))
    await posts.create(res, Viewer(int(viewer.id), 0, ""), own_id, caption="", photos=[])
    await author.call("PUT", f"/v1/posts/{own_id}/like")
    path = f"/v1/posts/{made[0]['id']}/comments"
    own = await viewer.call("POST", path, 201, json={"text": "Nice"})
    await friend.call("POST", path, 201, json={"text": "Yes", "reply_to": own["id"]})
    await delivered(res, author, marker, viewer)
    # Long after the like: a ranking by the clock that began before it would come after this one.
    await explore.rank(res)
    if private:
        await author.edit(is_private=True)
    asks = kind not in {"stranger", "author"}
    if asks:
        await viewer.follow(author)
    if private and asks and kind not in {"requester", "refused"}:
        await author.approve(viewer)
    await delivered(res, author)
    match kind:
        case "muter":
            await viewer.mute(author)
        case "former follower":
            await viewer.unfollow(author)
        case "removed follower":
            await author.remove_follower(viewer)
        case "refused":
            await author.refuse(viewer)
        case "blocked":
            await author.block(viewer)
        case "blocker":
            await viewer.block(author)
        case "formerly blocked":
            await author.block(viewer)
            await author.unblock(viewer)
        case "follower of somebody who left":
            await author.call("DELETE", "/v1/me", 204, json={"password": PASSWORD})
    for verb in OPERATIONS.get(kind, ()):
        await verb(res, author.account["username"])
    return Scene(author, viewer, friend, made[0]["id"], comments[0]["id"], marker, made[1]["id"], tag)


async def delivered(res: Resources, *authors: Client) -> None:
    """Wait until these authors' posts are in the feeds that are to have them, and all are told who are to be told."""

    async def probe() -> bool:
        async with res.db.acquire() as connection:
            return not await connection.fetchval(
                "select exists (select from outbox where done_at is null and payload ->> 'author' = any($1)"
                " and kind in ('fan_out', 'notify', 'align'))",
                [author.id for author in authors],
            )

    await eventually(probe)


async def told(there: Scene, res: Resources) -> set[str]:
    """Whether the viewer is told of the author's post as it happens, and when it asks for what it missed."""
    found = set()

    async def listen(name: str, after: str | None) -> str:
        headers = there.viewer.headers | ({"Last-Event-ID": after} if after else {})
        async with there.viewer.http.stream("GET", "/v1/feed/events", headers=headers) as answer:
            beginning = ""
            async for line in answer.aiter_lines():
                if after is None and not beginning and line.startswith("id: "):
                    beginning = line.removeprefix("id: ")
                    for who, post_id in ((there.author, there.post_id), (there.marker, there.marker_post_id)):
                        await res.events.add(EventType.POST_CREATED, author_id=int(who.id), post_id=int(post_id))
                if line.startswith("data: "):
                    post_id = json.loads(line.removeprefix("data: ")).get("post_id")
                    if post_id == there.post_id:
                        found.add(name)
                    if post_id == there.marker_post_id:
                        break
        return beginning

    await listen("told later", await listen("told", None))
    return found


async def seen(there: Scene, res: Resources) -> set[str]:  # noqa: PLR0912, PLR0915 - one after the other, each once
    """Which surfaces show the author to the viewer."""
    author, viewer = there.author, there.viewer
    found = await told(there, res)

    def same(surface: str, answer: httpx.Response, nothing: httpx.Response) -> None:
        if answer.is_success:
            found.add(surface)
        elif answer.status_code == 404:
            assert anonymous(answer) == anonymous(nothing), surface

    async def ask(surface: str, path: str, missing: str, method: str = "GET", **options: Any) -> None:
        answer = await viewer.http.request(method, path, headers=viewer.headers, **options)
        same(surface, answer, await viewer.http.request(method, missing, headers=viewer.headers, **options))

    async def report(surface: str, kind: str, id_: str) -> None:
        answer, nothing = [
            await viewer.http.post(
                "/v1/reports", json={"subject": {"kind": kind, "id": of}, "reason": "spam"}, headers=viewer.headers
            )
            for of in (id_, "1")
        ]
        same(surface, answer, nothing)

    account, nobody = f"/v1/accounts/{author.id}", "/v1/accounts/1"
    await ask("profile", account, nobody)
    await ask(
        "by name", f"/v1/accounts/by-username/{author.account['username']}", "/v1/accounts/by-username/no.such.name"
    )
    post, nothing = f"/v1/posts/{there.post_id}", "/v1/posts/1"
    await ask("post", post, nothing)
    for name in ("likes", "comments"):
        await ask(name, f"{post}/{name}", f"{nothing}/{name}")
    await ask("replies", f"/v1/comments/{there.comment_id}/replies", "/v1/comments/1/replies")
    for name in ("posts", "followers", "following"):
        await ask(name, f"{account}/{name}", f"{nobody}/{name}")
    if await viewer.walk(f"/v1/accounts/{there.friend.id}/followers") == [author.id]:
        found.add("listed")
    of_marker = f"/v1/posts/{there.marker_post_id}"
    if await viewer.walk(f"{of_marker}/likes") == [author.id]:
        found.add("liker")
    commented = (await viewer.call("GET", f"{of_marker}/comments"))["items"]
    if [comment["author"]["id"] for comment in commented] == [author.id]:
        found.add("commenter")
    feed = (await viewer.call("GET", "/v1/feed"))["items"]
    if there.post_id in [post["id"] for post in feed]:
        found.add("feed")
    await report("report", "account", author.id)
    await report("report post", "post", there.post_id)
    await report("report comment", "comment", there.comment_id)
    if any(post["mentions"] for post in feed):
        found.add("mentioned in feed")
    if (await viewer.call("GET", f"/v1/posts/{there.marker_post_id}"))["mentions"]:
        found.add("mentioned")
    if await viewer.walk(f"/v1/tags/{there.tag}/posts") == [there.post_id]:
        found.add("tagged")
    if (await viewer.call("GET", f"/v1/tags/{there.tag}"))["post_count"]:
        found.add("counted")
    if (await viewer.call("GET", "/v1/search/tags", params={"q": there.tag}))["items"]:
        found.add("tag found")
    if there.post_id in await viewer.walk("/v1/explore", 100):
        found.add("explored")
    page = await viewer.call("GET", "/v1/search/accounts", params={"q": author.account["username"]})
    if author.id in [account["id"] for account in page["items"]]:
        found.add("found")
    entries = (await viewer.call("GET", "/v1/activity"))["items"]
    assert await viewer.call("GET", "/v1/activity/unread") == {"count": len(entries)}
    if ("like", [author.id]) in [(entry["kind"], [actor["id"] for actor in entry["actors"]]) for entry in entries]:
        found.add("told of like")
    if ("reply", there.post_id) in [(entry["kind"], entry["post_id"]) for entry in entries]:
        found.add("told of reply")
    # What changes something comes last.
    await viewer.call("PUT", f"/v1/tags/{there.tag}/follow")
    if there.post_id in await viewer.feed():
        found.add("feed by tag")
    for name in ("like", "save"):
        await ask(name, f"{post}/{name}", f"{nothing}/{name}", "PUT")
    await ask("comment", f"{post}/comments", f"{nothing}/comments", "POST", json={"text": "Nice"})
    for name in ("follow", "mute", "block"):
        await ask(name, f"{account}/{name}", f"{nobody}/{name}", "PUT")
    return found


@pytest.mark.parametrize("kind", PUBLIC)
async def test_of_a_public_account(sign_up: SignUp, res: Resources, kind: str) -> None:
    assert await seen(await scene(sign_up, res, kind, private=False), res) == PUBLIC[kind]


@pytest.mark.parametrize("kind", PRIVATE)
async def test_of_a_private_account(sign_up: SignUp, res: Resources, kind: str) -> None:
    assert await seen(await scene(sign_up, res, kind, private=True), res) == PRIVATE[kind]


@pytest.mark.parametrize("kind", ["blocked", "follower of a suspended account"])
async def test_in_no_list_does_a_page_tell_that_somebody_was_left_out(
    sign_up: SignUp, res: Resources, kind: str
) -> None:
    there = await scene(sign_up, res, kind, private=False)
    path = f"/v1/accounts/{there.friend.id}/followers"
    assert await there.viewer.call("GET", path, params={"limit": "1"}) == {"items": [], "next_cursor": None}
    other = await sign_up()
    await other.follow(there.friend)
    page = await there.viewer.call("GET", path, params={"limit": "1"})
    assert [item["id"] for item in page["items"]] == [other.id]
    assert page["next_cursor"] is None
