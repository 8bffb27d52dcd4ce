"""Who follows whom."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from instafeed.ids import shard_of
from instafeed.resources import Resources
from tests.api.answers import JSON, anonymous, invalid, problem
from tests.client import NO_RELATION, Client

SignUp = Callable[..., Awaitable[Client]]


async def counts(client: Client) -> tuple[int, int]:
    """How many follow an account and how many it follows."""
    me = await client.call("GET", "/v1/me")
    return me["follower_count"], me["following_count"]


async def relation(viewer: Client, other: Client) -> dict[str, Any]:
    found: dict[str, Any] = (await viewer.call("GET", f"/v1/accounts/{other.id}"))["viewer"]
    return found


async def follow(viewer: Client, other: Client, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = await viewer.call("PUT", f"/v1/accounts/{other.id}/follow", **options)
    return found


async def test_following_is_seen_from_both_sides(sign_up: SignUp) -> None:
    fan, star = await sign_up(), await sign_up()
    answer = await follow(fan, star)
    assert answer == NO_RELATION | {"following": True, "notify": True}
    assert await relation(fan, star) == answer
    assert await relation(star, fan) == NO_RELATION | {"followed_by": True}
    assert (await counts(fan), await counts(star)) == ((0, 1), (1, 0))
    assert await fan.walk(f"/v1/accounts/{fan.id}/following") == [star.id]
    assert await star.walk(f"/v1/accounts/{star.id}/followers") == [fan.id]
    assert await star.walk(f"/v1/accounts/{star.id}/following") == []
    assert (await follow(star, fan))["followed_by"] is True


async def test_following_twice_is_following_once(sign_up: SignUp) -> None:
    fan, star = await sign_up(), await sign_up()
    assert await follow(fan, star) == await follow(fan, star)
    assert (await counts(fan), await counts(star)) == ((0, 1), (1, 0))
    for _ in range(2):
        await fan.unfollow(star)
        assert (await counts(fan), await counts(star)) == ((0, 0), (0, 0))
    assert await relation(fan, star) == NO_RELATION
    assert await star.walk(f"/v1/accounts/{star.id}/followers") == []
    await follow(fan, star)
    assert (await counts(fan), await counts(star)) == ((0, 1), (1, 0))


async def test_being_told_of_posts_is_chosen_and_changed(sign_up: SignUp) -> None:
    fan, star = await sign_up(), await sign_up()
    for notify in (False, True, False):
        assert (await follow(fan, star, json={"notify": notify}))["notify"] is notify
        assert (await relation(fan, star))["notify"] is notify
    assert await counts(star) == (1, 0)
    nothing: list[dict[str, Any]] = [{"json": {}}, {"content": b"null", "headers": JSON}, {}]
    for body in nothing:
        await follow(fan, star, json={"notify": False})
        assert (await follow(fan, star, **body))["notify"] is True


async def test_follows_at_once_are_counted_once(sign_up: SignUp, res: Resources) -> None:
    fans, star = [await sign_up() for _ in range(4)], await sign_up()
    for _ in range(2):
        await asyncio.gather(*(follow(fan, star) for fan in fans * 2), *(follow(star, fan) for fan in fans * 2))
        await asyncio.gather(*(fan.unfollow(star) for fan in fans[:2] * 2))
    assert await counts(star) == (2, 4)
    assert [await counts(fan) for fan in fans] == [(1, 0), (1, 0), (1, 1), (1, 1)]
    assert set(await star.walk(f"/v1/accounts/{star.id}/followers")) == {fan.id for fan in fans[2:]}
    # The two rows of a follow agree.
    async with res.db.acquire() as connection:
        for fan in fans[2:]:
            rows = [
                await connection.fetchrow(
                    f"select id, notify from {table} where shard = $1 and follower_id = $2 and followee_id = $3",
                    shard_of(int(of.id)),
                    int(fan.id),
                    int(star.id),
                )
                for table, of in (("following", fan), ("followers", star))
            ]
            assert rows[0] == rows[1] is not None


async def test_a_change_of_mind_in_a_hurry_ends_in_one_of_both_states(sign_up: SignUp) -> None:
    fan, star = await sign_up(), await sign_up()
    for _ in range(3):
        await asyncio.gather(*(follow(fan, star) for _ in range(2)), *(fan.unfollow(star) for _ in range(2)))
        following = int((await relation(fan, star))["following"])
        assert (await counts(fan), await counts(star)) == ((0, following), (following, 0))
        assert len(await star.walk(f"/v1/accounts/{star.id}/followers")) == following


async def test_lists_are_newest_first_and_go_on_where_they_stopped(sign_up: SignUp) -> None:
    star = await sign_up()
    fans = [await sign_up() for _ in range(5)]
    for fan in fans:
        await follow(fan, star)
        await follow(star, fan)
    newest_first = [fan.id for fan in reversed(fans)]
    for name in ("followers", "following"):
        path = f"/v1/accounts/{star.id}/{name}"
        for limit in (1, 2, 5, 100):
            assert await fans[0].walk(path, limit) == newest_first
        # Who comes or goes while one reads is missed or not, but nobody else is.
        page = await star.call("GET", path, params={"limit": "2"})
        await fans[3].unfollow(star)
        await star.unfollow(fans[3])
        rest = await star.call("GET", path, params={"cursor": page["next_cursor"]})
        assert [item["id"] for item in rest["items"]] == newest_first[2:]
        assert rest["next_cursor"] is None
        await follow(fans[3], star)
        # An undone act that is done again is where it was.
        await follow(star, fans[3])


async def test_lists_tell_how_the_viewer_stands_to_each(sign_up: SignUp, ada: Client) -> None:
    star, fan = await sign_up(), await sign_up()
    await follow(fan, star)
    [seen] = (await star.call("GET", f"/v1/accounts/{star.id}/followers"))["items"]
    assert seen["viewer"] == NO_RELATION | {"followed_by": True}
    [seen] = (await fan.call("GET", f"/v1/accounts/{star.id}/followers"))["items"]
    assert (seen["id"], seen["viewer"]) == (fan.id, None)
    [seen] = (await ada.call("GET", f"/v1/accounts/{star.id}/followers"))["items"]
    assert seen == await ada.call("GET", f"/v1/accounts/{fan.id}")


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_somebody_who_does_not_exist_cannot_be_followed(ada: Client, method: str) -> None:
    for missing in ("1", "9223372036854775807"):
        answer = await ada.http.request(method, f"/v1/accounts/{missing}/follow", headers=ada.headers)
        problem(answer, 404, "not-found")
        other = await ada.http.get(f"/v1/accounts/{missing}", headers=ada.headers)
        assert answer.json()["detail"] == other.json()["detail"]
        assert anonymous(answer) == anonymous(other)


async def test_nobody_follows_themselves(sign_up: SignUp) -> None:
    narcissus = await sign_up()
    answer = await narcissus.http.put(f"/v1/accounts/{narcissus.id}/follow", headers=narcissus.headers)
    invalid(answer)
    await narcissus.unfollow(narcissus)
    assert await counts(narcissus) == (0, 0)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"notify": "true"}, "/notify"),
        ({"notify": 1}, "/notify"),
        ({"notify": None}, "/notify"),
        ({"notify": True, "id": "1"}, "/id"),
        ([], ""),
        (True, ""),
    ],
)
async def test_options_of_another_form_are_refused(ada: Client, bob: Client, body: object, pointer: str) -> None:
    answer = await ada.http.put(f"/v1/accounts/{bob.id}/follow", json=body, headers=ada.headers)
    invalid(answer, pointer)
    assert (await relation(ada, bob))["following"] is False


async def test_without_a_token_nobody_follows_anybody(ada: Client) -> None:
    for method in ("PUT", "DELETE"):
        problem(await ada.http.request(method, f"/v1/accounts/{ada.id}/follow"), 401, "unauthenticated")
    for name in ("followers", "following"):
        problem(await ada.http.get(f"/v1/accounts/{ada.id}/{name}"), 401, "unauthenticated")
