"""Blocking: two accounts do not exist for each other."""

from collections.abc import Awaitable, Callable

import pytest

from tests.api.answers import anonymous, invalid, problem
from tests.client import NO_RELATION, Client

SignUp = Callable[..., Awaitable[Client]]


async def test_a_block_ends_what_was_between_two_and_nothing_else(sign_up: SignUp) -> None:
    one, other, third = [await sign_up() for _ in range(3)]
    for fan, star in ((one, other), (other, one), (one, third), (third, one), (other, third)):
        await fan.follow(star)
    for _ in range(2):
        await one.block(other)
    me = await one.call("GET", "/v1/me")
    assert (me["follower_count"], me["following_count"]) == (1, 1)
    them = await other.call("GET", "/v1/me")
    assert (them["follower_count"], them["following_count"]) == (0, 1)
    assert await one.relation(other) == NO_RELATION | {"blocking": True}
    assert await one.relation(third) == NO_RELATION | {"following": True, "followed_by": True, "notify": True}
    assert await one.walk("/v1/me/blocks") == [other.id]
    assert await other.walk("/v1/me/blocks") == []
    for _ in range(2):
        await one.unblock(other)
    assert await one.relation(other) == NO_RELATION
    assert await other.relation(one) == NO_RELATION
    assert await one.walk("/v1/me/blocks") == []
    await other.follow(one)


async def test_requests_end_with_a_block_on_both_sides(sign_up: SignUp) -> None:
    one, other = [await sign_up() for _ in range(2)]
    for who in (one, other):
        await who.edit(is_private=True)
    await one.follow(other)
    await other.follow(one)
    await one.block(other)
    await one.unblock(other)
    for who, whom in ((one, other), (other, one)):
        assert await who.walk("/v1/me/follow-requests") == []
        assert await who.relation(whom) == NO_RELATION
        problem(await who.http.put(f"/v1/me/follow-requests/{whom.id}", headers=who.headers), 404, "not-found")


async def test_who_is_blocked_can_do_nothing_to_the_blocker(sign_up: SignUp) -> None:
    blocker, blocked = await sign_up(), await sign_up()
    await blocker.block(blocked)
    for path in ("/v1/accounts/{}/follow", "/v1/accounts/{}/block", "/v1/accounts/{}/mute"):
        for method in ("PUT", "DELETE"):
            answer, nobody = [
                await blocked.http.request(method, path.format(id_), headers=blocked.headers)
                for id_ in (blocker.id, "1")
            ]
            problem(answer, 404, "not-found")
            assert anonymous(answer) == anonymous(nobody)
    for method, path in (("DELETE", "/v1/me/followers/{}"), ("DELETE", "/v1/me/follow-requests/{}")):
        answer = await blocked.http.request(method, path.format(blocker.id), headers=blocked.headers)
        problem(answer, 404, "not-found")
    assert await blocker.relation(blocked) == NO_RELATION | {"blocking": True}


async def test_whom_one_blocks_one_cannot_follow(sign_up: SignUp) -> None:
    blocker, blocked = await sign_up(), await sign_up()
    await blocker.block(blocked)
    answer = await blocker.http.put(f"/v1/accounts/{blocked.id}/follow", headers=blocker.headers)
    problem(answer, 409, "conflict")
    for path in ("posts", "followers", "following"):
        answer = await blocker.http.get(f"/v1/accounts/{blocked.id}/{path}", headers=blocker.headers)
        problem(answer, 404, "not-found")


async def test_nobody_blocks_or_mutes_themselves_or_nobody(sign_up: SignUp) -> None:
    one = await sign_up()
    for edge in ("block", "mute"):
        invalid(await one.http.put(f"/v1/accounts/{one.id}/{edge}", headers=one.headers))
        await one.call("DELETE", f"/v1/accounts/{one.id}/{edge}", 204)
        for method in ("PUT", "DELETE"):
            problem(await one.http.request(method, f"/v1/accounts/1/{edge}", headers=one.headers), 404, "not-found")


async def test_blocks_are_listed_newest_first_in_pages(sign_up: SignUp) -> None:
    one, others = await sign_up(), [await sign_up() for _ in range(3)]
    for other in others:
        await one.block(other)
    for limit in (1, 2, 3):
        assert await one.walk("/v1/me/blocks", limit) == [other.id for other in reversed(others)]
    items = (await one.call("GET", "/v1/me/blocks"))["items"]
    assert [item["viewer"]["blocking"] for item in items] == [True] * 3
    assert items[0] == await one.call("GET", f"/v1/accounts/{others[2].id}")


async def test_a_muted_account_that_is_blocked_is_in_one_of_the_lists(sign_up: SignUp) -> None:
    one, other = await sign_up(), await sign_up()
    await one.mute(other)
    await one.block(other)
    assert (await one.walk("/v1/me/mutes"), await one.walk("/v1/me/blocks")) == ([], [other.id])
    await one.unblock(other)
    assert (await one.walk("/v1/me/mutes"), await one.walk("/v1/me/blocks")) == ([other.id], [])


@pytest.mark.usefixtures("workers")
async def test_a_block_takes_posts_out_of_both_feeds_at_once(sign_up: SignUp) -> None:
    one, other = await sign_up(), await sign_up()
    await one.follow(other)
    await other.follow(one)
    posts = {who.id: (await who.published((await who.post())["id"]))["id"] for who in (one, other)}
    for who, whom in ((one, other), (other, one)):
        await who.sees(posts[whom.id])
    await one.block(other)
    for who, whom in ((one, other), (other, one)):
        assert await who.feed() == [posts[who.id]]
        problem(await who.http.get(f"/v1/posts/{posts[whom.id]}", headers=who.headers), 404, "not-found")
    # Nor does it come back with the end of the block.
    await one.unblock(other)
    for who in (one, other):
        assert await who.feed() == [posts[who.id]]
