"""Private accounts, and asking them to be let follow."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from instafeed import follow_requests
from instafeed.resources import Resources
from instafeed.storage.outbox import Entry, Kind
from tests.api.answers import anonymous, invalid, problem
from tests.client import NO_RELATION, Client, eventually

SignUp = Callable[..., Awaitable[Client]]


@pytest.fixture
async def star(sign_up: SignUp) -> Client:
    """Somebody whose account is private."""
    client = await sign_up()
    await client.edit(is_private=True)
    return client


async def counts(client: Client) -> tuple[int, int]:
    me = await client.call("GET", "/v1/me")
    return me["follower_count"], me["following_count"]


async def test_following_a_private_account_is_asking(sign_up: SignUp, star: Client) -> None:
    fan = await sign_up()
    asked = await fan.call("PUT", f"/v1/accounts/{star.id}/follow")
    assert asked == NO_RELATION | {"requested": True}
    assert asked == await fan.relation(star) == await fan.call("PUT", f"/v1/accounts/{star.id}/follow")
    assert await star.relation(fan) == NO_RELATION
    assert await star.walk("/v1/me/follow-requests") == [fan.id]
    assert (await counts(fan), await counts(star)) == ((0, 0), (0, 0))
    [item] = (await star.call("GET", "/v1/me/follow-requests"))["items"]
    assert item == await star.call("GET", f"/v1/accounts/{fan.id}")


@pytest.mark.parametrize("notify", [True, False])
async def test_an_approved_request_is_a_follow(sign_up: SignUp, star: Client, notify: bool) -> None:
    fan = await sign_up()
    await fan.call("PUT", f"/v1/accounts/{star.id}/follow")
    await fan.call("PUT", f"/v1/accounts/{star.id}/follow", json={"notify": notify})
    for _ in range(2):
        await star.approve(fan)
    assert await fan.relation(star) == NO_RELATION | {"following": True, "notify": notify}
    assert await star.relation(fan) == NO_RELATION | {"followed_by": True}
    assert await star.walk("/v1/me/follow-requests") == []
    assert await fan.walk(f"/v1/accounts/{star.id}/followers") == [fan.id]
    assert (await counts(fan), await counts(star)) == ((0, 1), (1, 0))
    # Whom it follows may go on to choose whether to be told of posts, without asking again.
    assert (await fan.call("PUT", f"/v1/accounts/{star.id}/follow", json={"notify": True}))["following"] is True


async def test_a_refused_or_withdrawn_request_is_gone(sign_up: SignUp, star: Client) -> None:
    fan = await sign_up()
    for end in (star.refuse(fan), fan.unfollow(star)):
        await fan.follow(star)
        await end
        assert await fan.relation(star) == NO_RELATION
        assert await star.walk("/v1/me/follow-requests") == []
        problem(await star.http.put(f"/v1/me/follow-requests/{fan.id}", headers=star.headers), 404, "not-found")
        await star.refuse(fan)
    assert (await counts(fan), await counts(star)) == ((0, 0), (0, 0))


async def test_who_never_asked_is_found_no_more_than_who_does_not_exist(sign_up: SignUp, star: Client) -> None:
    fan = await sign_up()
    answers = [
        await star.http.put(f"/v1/me/follow-requests/{id_}", headers=star.headers) for id_ in (fan.id, star.id, "1")
    ]
    for answer in answers:
        problem(answer, 404, "not-found")
    assert len({str(anonymous(answer)) for answer in answers}) == 1
    for path in ("/v1/me/follow-requests/1", "/v1/me/followers/1"):
        problem(await star.http.delete(path, headers=star.headers), 404, "not-found")


async def test_requests_are_listed_newest_first_in_pages(sign_up: SignUp, star: Client) -> None:
    fans = [await sign_up() for _ in range(3)]
    for fan in fans:
        await fan.follow(star)
    for limit in (1, 2, 3):
        assert await star.walk("/v1/me/follow-requests", limit) == [fan.id for fan in reversed(fans)]


async def test_going_private_keeps_followers_and_removing_one_ends_it(sign_up: SignUp) -> None:
    star, fan, other = [await sign_up() for _ in range(3)]
    for follower in (fan, other):
        await follower.follow(star)
    assert (await star.edit(is_private=True))["is_private"] is True
    assert await fan.walk(f"/v1/accounts/{star.id}/posts") == []
    for _ in range(2):
        await star.remove_follower(fan)
    problem(await fan.http.get(f"/v1/accounts/{star.id}/posts", headers=fan.headers), 404, "not-found")
    profile = await fan.call("GET", f"/v1/accounts/{star.id}")
    assert (profile["is_private"], profile["follower_count"], profile["viewer"]) == (True, 1, NO_RELATION)
    assert await star.walk(f"/v1/accounts/{star.id}/followers") == [other.id]
    assert await counts(fan) == (0, 0)


@pytest.mark.usefixtures("workers")
async def test_approval_brings_posts_into_the_feed_and_removal_takes_them_out(sign_up: SignUp, star: Client) -> None:
    fan = await sign_up()
    post = await star.published((await star.post())["id"])
    await fan.follow(star)
    assert await fan.feed() == []
    problem(await fan.http.get(f"/v1/posts/{post['id']}", headers=fan.headers), 404, "not-found")
    await star.approve(fan)
    await fan.sees(post["id"])
    assert (await fan.call("GET", f"/v1/posts/{post['id']}"))["id"] == post["id"]
    await star.remove_follower(fan)
    assert await fan.feed() == []
    problem(await fan.http.get(f"/v1/posts/{post['id']}", headers=fan.headers), 404, "not-found")


@pytest.mark.usefixtures("workers")
async def test_going_public_approves_whoever_asked(sign_up: SignUp, star: Client) -> None:
    fans = [await sign_up() for _ in range(3)]
    for fan in fans:
        await fan.follow(star)
    await star.edit(is_private=False)

    async def approved() -> bool:
        return await counts(star) == (3, 0)

    await eventually(approved)
    assert await star.walk("/v1/me/follow-requests") == []
    for fan in fans:
        assert await fan.relation(star) == NO_RELATION | {"following": True, "notify": True}
        assert await counts(fan) == (0, 1)


async def test_the_approval_of_all_may_run_twice_at_once_and_stops_where_privacy_returns(
    sign_up: SignUp, star: Client, res: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_requests, "_CHUNK", 2)
    fans = [await sign_up() for _ in range(5)]
    for fan in fans:
        await fan.follow(star)
    entry = Entry(id=1, kind=Kind.APPROVE, payload={"account": int(star.id)}, position=0, attempts=1)
    assert await follow_requests.approve_all(res, entry) == []
    assert await counts(star) == (0, 0), "it is private"
    async with res.db.acquire() as connection:  # as if no worker had heard of it yet
        await connection.execute("update accounts set is_private = false where id = $1", int(star.id))
    goes_on = [(Kind.APPROVE, entry.payload)]
    assert goes_on in await asyncio.gather(*(follow_requests.approve_all(res, entry) for _ in range(2)))
    assert await counts(star) in {(2, 0), (3, 0), (4, 0)}
    while await follow_requests.approve_all(res, entry):
        pass
    assert await counts(star) == (5, 0)
    assert [await counts(fan) for fan in fans] == [(0, 1)] * 5


async def test_who_asks_again_once_it_is_public_follows(sign_up: SignUp, star: Client, res: Resources) -> None:
    fan = await sign_up()
    await fan.follow(star)
    async with res.db.acquire() as connection:
        await connection.execute("update accounts set is_private = false where id = $1", int(star.id))
    answer = await fan.call("PUT", f"/v1/accounts/{star.id}/follow")
    assert answer == NO_RELATION | {"following": True, "notify": True}
    assert await star.walk("/v1/me/follow-requests") == []


async def test_an_account_is_changed_by_what_is_sent_only(sign_up: SignUp) -> None:
    one = await sign_up(display_name="Ada")
    before = await one.call("GET", "/v1/me")
    assert await one.edit() == before
    assert await one.edit(bio=" Wrote the\r\nfirst program. ") == before | {"bio": "Wrote the\nfirst program."}
    after = await one.edit(display_name="", is_private=True)
    assert after == before | {"bio": "Wrote the\nfirst program.", "display_name": "", "is_private": True}
    assert after == await one.call("GET", "/v1/me")
    assert (await one.edit(bio="", is_private=False))["bio"] == ""


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"username": ""}, "/username"),
        ({"id": "1"}, "/id"),
        ({"follower_count": 7}, "/follower_count"),
        ({"suspended_at": None}, "/suspended_at"),
        ({"is_private": None}, "/is_private"),
        ({"is_private": "true"}, "/is_private"),
        ({"is_private": 1}, "/is_private"),
        ({"display_name": None}, "/display_name"),
        ({"display_name": "a" * 65}, "/display_name"),
        ({"display_name": "two\nlines"}, "/display_name"),
        ({"bio": "a" * 151}, "/bio"),
        ({"bio": "\u0000"}, "/bio"),
        ({"website": None}, "/website"),
        ({"website": "example.org"}, "/website"),
        ({"website": "javascript://example.org/%0aalert(1)"}, "/website"),
        ({"website": "https://example.org/a b"}, "/website"),
        ({"website": "https://example.org\u202e/"}, "/website"),
        ({"website": "https://bank.example@example.org/"}, "/website"),
        ({"website": "https://ex\u0430mple.org/"}, "/website"),
        ({"website": 'https://example.org/">'}, "/website"),
        ({"website": "https://example.org/" + "a" * 200}, "/website"),
        ([], ""),
        (None, ""),
    ],
)
async def test_other_changes_to_an_account_are_refused(sign_up: SignUp, body: object, pointer: str) -> None:
    one = await sign_up()  # of whom no post is being published
    before = await one.call("GET", "/v1/me")
    answer = await one.http.patch("/v1/me", json=body, headers=one.headers)
    invalid(answer, pointer)
    assert await one.call("GET", "/v1/me") == before


@pytest.mark.usefixtures("workers")
async def test_a_new_display_name_is_on_posts_at_once(sign_up: SignUp) -> None:
    author, fan = await sign_up(display_name="Before"), await sign_up()
    await fan.follow(author)
    post = await author.post()
    await fan.sees(post["id"])
    await author.edit(display_name="After")
    [seen] = (await fan.call("GET", "/v1/feed"))["items"]
    assert seen["author"]["display_name"] == "After"
    assert (await fan.call("GET", f"/v1/posts/{post['id']}"))["author"]["display_name"] == "After"
