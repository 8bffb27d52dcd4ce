"""Muting: hidden where one reads along, and nowhere else."""

from collections.abc import Awaitable, Callable

import pytest

from instafeed.ids import shard_of
from instafeed.resources import Resources
from tests.client import NO_RELATION, Client, eventually

SignUp = Callable[..., Awaitable[Client]]


async def test_only_the_muter_can_tell(sign_up: SignUp) -> None:
    muter, muted = await sign_up(), await sign_up()
    await muter.follow(muted)
    before = await muted.call("GET", f"/v1/accounts/{muter.id}"), await muted.call("GET", "/v1/me")
    for _ in range(2):
        await muter.mute(muted)
    assert await muter.relation(muted) == NO_RELATION | {"following": True, "muting": True, "notify": True}
    assert await muter.walk("/v1/me/mutes") == [muted.id]
    after = await muted.call("GET", f"/v1/accounts/{muter.id}"), await muted.call("GET", "/v1/me")
    assert after == before
    for _ in range(2):
        await muter.unmute(muted)
    assert await muter.relation(muted) == NO_RELATION | {"following": True, "notify": True}
    assert await muter.walk("/v1/me/mutes") == []


async def test_mutes_are_listed_newest_first_in_pages(sign_up: SignUp) -> None:
    one, others = await sign_up(), [await sign_up() for _ in range(3)]
    for other in others:
        await one.mute(other)
    for limit in (1, 2, 3):
        assert await one.walk("/v1/me/mutes", limit) == [other.id for other in reversed(others)]


async def test_a_stranger_can_be_muted_before_being_followed(sign_up: SignUp) -> None:
    one, other = await sign_up(), await sign_up()
    await one.mute(other)
    await one.follow(other)
    assert await one.relation(other) == NO_RELATION | {"following": True, "muting": True, "notify": True}
    await one.unfollow(other)
    assert await one.relation(other) == NO_RELATION | {"muting": True}


@pytest.mark.usefixtures("workers")
async def test_a_mute_hides_posts_from_the_feed_until_it_ends(sign_up: SignUp) -> None:
    muter, muted = await sign_up(), await sign_up()
    await muter.follow(muted)
    post = await muted.published((await muted.post())["id"])
    await muter.sees(post["id"])
    await muter.mute(muted)
    assert await muter.feed() == []
    assert await muter.walk(f"/v1/accounts/{muted.id}/posts") == [post["id"]]
    later = await muted.published((await muted.post())["id"])
    await muted.sees(later["id"])
    assert await muter.feed() == []
    await muter.unmute(muted)
    for back in (post, later):  # its delivery may take longer than its author's own look
        await muter.sees(back["id"])
    assert await muter.feed() == [later["id"], post["id"]]


@pytest.mark.usefixtures("workers")
async def test_a_muter_is_not_told_of_posts(sign_up: SignUp, res: Resources) -> None:
    muter, fan, author = [await sign_up() for _ in range(3)]
    await muter.mute(author)
    for follower in (muter, fan):
        await follower.follow(author)
    post = await author.post()

    async def told(who: Client) -> bool:
        async with res.db.acquire() as connection:
            return bool(
                await connection.fetchval(
                    "select exists (select from activity where shard = $1 and account_id = $2 and subject_id = $3)",
                    shard_of(int(who.id)),
                    int(who.id),
                    int(post["id"]),
                )
            )

    await eventually(lambda: told(fan))
    assert not await told(muter)
