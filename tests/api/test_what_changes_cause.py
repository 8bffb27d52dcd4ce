"""What each change takes out of the caches before it is committed, and which windows it has aligned after."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import httpx
import pytest

from instafeed import accounts
from instafeed.errors import RedisAway
from instafeed.resources import Resources
from instafeed.storage.post_cache import Hold as PostHold
from instafeed.storage.post_cache import PostCache
from instafeed.storage.rights_cache import Hold, RightsCache
from tests.api.answers import problem
from tests.client import NO_RELATION, Client


@dataclass
class Caused:
    """What came of a change."""

    rights: set[str] = field(default_factory=set)
    """Whose rights were held."""
    aligned: set[tuple[str, str]] = field(default_factory=set)
    """(viewer, author)."""
    posts: set[str] = field(default_factory=set)
    """Posts, or authors, that were held."""


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Caused:
    """What is held from now on."""
    caused = Caused()
    rights, posts, author = RightsCache.hold, PostCache.hold, PostCache.hold_author

    async def hold_rights(self: RightsCache, account_ids: Iterable[int]) -> list[Hold]:
        caused.rights |= set(map(str, account_ids))
        return await rights(self, account_ids)

    async def hold_posts(self: PostCache, post_ids: Iterable[int]) -> PostHold:
        caused.posts |= set(map(str, post_ids))
        return await posts(self, post_ids)

    async def hold_author(self: PostCache, author_id: int, post_ids: list[int]) -> PostHold:
        caused.posts |= {str(author_id), *map(str, post_ids)}
        return await author(self, author_id, post_ids)

    monkeypatch.setattr(RightsCache, "hold", hold_rights)
    monkeypatch.setattr(PostCache, "hold", hold_posts)
    monkeypatch.setattr(PostCache, "hold_author", hold_author)
    return caused


async def test_each_change_holds_and_aligns_whom_it_concerns(
    fresh_http: httpx.AsyncClient, fresh_res: Resources, held: Caused
) -> None:
    one, other = await Client.sign_up(fresh_http), await Client.sign_up(fresh_http)
    a, b = one.id, other.id
    ours = {a, b}
    """All that is in this world: workers of other tests' may hold things of theirs."""

    async def aligned() -> dict[int, tuple[str, str]]:
        async with fresh_res.db.acquire() as connection:
            rows = await connection.fetch("select id, payload from outbox where kind = 'align'")
        return {row["id"]: (str(row["payload"]["viewer"]), str(row["payload"]["author"])) for row in rows}

    async def caused(change: Awaitable[object]) -> Caused:
        before = await aligned()
        held.rights, held.posts = set(), set()
        await change
        pairs = [pair for id_, pair in (await aligned()).items() if id_ not in before]
        assert len(set(pairs)) == len(pairs), "each window is aligned once"
        return Caused(held.rights & ours, set(pairs), held.posts & ours)

    nothing = Caused()
    assert await caused(one.follow(other)) == Caused({a}, {(a, b)})
    assert await caused(one.follow(other)) == nothing, "only whether it is told of posts"
    assert await caused(one.mute(other)) == Caused({a}, {(a, b)})
    assert await caused(one.mute(other)) == nothing
    assert await caused(one.unmute(other)) == Caused({a}, {(a, b)})
    assert await caused(one.unmute(other)) == nothing
    assert await caused(one.unfollow(other)) == Caused({a}, {(a, b)})
    assert await caused(one.unfollow(other)) == nothing
    assert (await caused(one.mute(other))).aligned == set(), "nobody's window has what is not followed"
    await one.unmute(other)

    for method, status in (("PUT", 200), ("DELETE", 204)):
        for expected in (Caused({a}), nothing):
            assert await caused(one.call(method, "/v1/tags/harbour/follow", status)) == expected

    assert await caused(other.edit(is_private=True)) == Caused(posts={b}), "whom tags bring into feeds"
    assert await caused(one.follow(other)) == nothing, "a request"
    assert await caused(other.refuse(one)) == nothing
    await one.follow(other)
    assert await caused(other.approve(one)) == Caused({a}, {(a, b)})
    assert await caused(other.approve(one)) == nothing
    assert await caused(other.remove_follower(one)) == Caused({a}, {(a, b)})
    await one.follow(other)
    await other.approve(one)
    await other.follow(one)
    assert await caused(one.block(other)) == Caused({a, b}, {(a, b), (b, a)})
    assert await caused(one.block(other)) == nothing
    assert await caused(one.unblock(other)) == Caused({a, b}), "likewise"
    assert await caused(one.unblock(other)) == nothing

    post = (await one.post())["id"]
    ours.add(post)
    assert await caused(one.edit(bio="Hello.")) == nothing
    assert await caused(one.edit(display_name="One")) == Caused(posts={a, post})
    edit = {"caption": "new"}
    assert await caused(one.call("PATCH", f"/v1/posts/{post}", json=edit)) == Caused(posts={post})
    assert await caused(one.call("PATCH", f"/v1/posts/{post}", json=edit)) == nothing
    for verb in (accounts.suspend, accounts.unsuspend):
        assert await caused(verb(fresh_res, one.account["username"])) == Caused(posts={a, post})
    body = {"username": one.account["username"], "password": "correct horse battery staple"}
    one.token = (await fresh_http.post("/v1/sessions", json=body)).json()["token"]
    assert await caused(one.call("DELETE", f"/v1/posts/{post}", 204)) == Caused(posts={post})


@pytest.mark.parametrize("gone", [False, True])
async def test_what_cannot_be_held_is_done_only_if_redis_is_gone_for_all(
    fresh_http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    one, other = await Client.sign_up(fresh_http), await Client.sign_up(fresh_http)
    await one.follow(other)
    before = await one.relation(other)

    async def away(*_: object) -> list[Hold]:
        raise RedisAway("Redis does not answer.", gone=gone)

    monkeypatch.setattr(RightsCache, "hold", away)
    changes: list[tuple[Callable[[], Awaitable[httpx.Response]], str]] = [
        (lambda: fresh_http.put(f"/v1/accounts/{other.id}/mute", headers=one.headers), "muting"),
        (lambda: fresh_http.put(f"/v1/accounts/{other.id}/block", headers=one.headers), "blocking"),
    ]
    for change, sign in changes:
        answer = await change()
        if gone:
            assert answer.status_code == 204
            assert (await one.relation(other))[sign] is True
        else:
            problem(answer, 503, "unavailable")
            assert await one.relation(other) == before
    if gone:
        assert await one.relation(other) == NO_RELATION | {"blocking": True, "muting": True}
