"""Finding accounts."""

import secrets
from collections.abc import Awaitable, Callable
from string import ascii_lowercase

import pytest

from instafeed import accounts
from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from tests.api.answers import invalid
from tests.client import NO_RELATION, Client

SignUp = Callable[..., Awaitable[Client]]


def word() -> str:
    """A name of ten different letters that nobody else has, nor one that looks like it."""
    return "".join(secrets.SystemRandom().sample(ascii_lowercase, 10))


async def found(client: Client, q: str, limit: int = 20) -> list[str]:
    page = await client.call("GET", "/v1/search/accounts", params={"q": q, "limit": str(limit)})
    assert page["next_cursor"] is None
    return [account["id"] for account in page["items"]]


async def followed(res: Resources, who: Client, followers: int) -> None:
    """Give an account so many followers."""
    async with res.db.acquire() as connection:
        await account_rows.count(connection, {int(who.id): (0, followers, 0)})


async def test_an_account_is_found_as_it_is_shown(sign_up: SignUp, ada: Client) -> None:
    name = word()
    other = await sign_up(name, display_name="Somebody")
    await ada.follow(other)
    page = await ada.call("GET", "/v1/search/accounts", params={"q": name})
    assert page["items"] == [await ada.call("GET", f"/v1/accounts/{other.id}")]
    assert page["items"][0]["viewer"] == NO_RELATION | {"following": True, "notify": True}
    assert (await other.call("GET", "/v1/search/accounts", params={"q": name}))["items"][0]["viewer"] is None


async def test_names_are_found_from_every_word_on_in_any_spelling(sign_up: SignUp, ada: Client) -> None:
    first, last = word(), word()
    other = await sign_up(f"{first}.{word()}", display_name=f"M. \u00c9{last} \u00d8sterg\u00e5rd")
    for q in (first[:6], f"@{first.upper()}", f"\u00e9{last}", f"e{last} ost", f"E{last.upper()}", f"M e{last}"):
        assert await found(ada, q) == [other.id], q


async def test_one_slip_is_forgiven_in_any_word(sign_up: SignUp, ada: Client) -> None:
    first, last = word(), word()
    other = await sign_up(display_name=f"{first} {last}")
    without, more, around = (
        f"{last[:5]}{last[6:]}",
        f"{last[:5]}0{last[5:]}",
        f"{first[:4]}{first[5]}{first[4]}{first[6:]}",
    )
    assert await found(ada, f"{around} {last}") == [other.id]
    for q in (without, f"{first} {without}", f"{first[:4]}\u00e9{first[5:]}", f"{last[:3]}a{last[3:]}"):
        assert await found(ada, q) == [other.id], q
    for q in (more, f"{without[:-1]}", f"{around}{word()}", word()):
        assert await found(ada, q) == [], q


async def test_what_was_meant_are_the_most_popular_names(sign_up: SignUp, ada: Client, res: Resources) -> None:
    name = word()[:9]
    # Each is one slip from what is sought, and more are than are tried.
    close = [await sign_up(display_name=f"{name}{letter}") for letter in "bcdefg"]
    await followed(res, close[5], 1000)
    await followed(res, close[4], 20)
    assert (await found(ada, f"{name}a"))[:2] == [close[5].id, close[4].id]
    # A name that somebody has is no slip.
    known = await sign_up(display_name=f"{name}a")
    assert await found(ada, f"{name}a") == [known.id]


async def test_the_order_is_exact_then_followed_then_followers(sign_up: SignUp, ada: Client, res: Resources) -> None:
    name = word()
    famous, friend, exact, known = [
        await sign_up(username, display_name=display)
        for username, display in [
            (f"{name}.famous", ""),
            (f"{name}.friend", ""),
            (name, ""),
            (word(), f"Known {name}"),
        ]
    ]
    await followed(res, famous, 5000)
    await followed(res, known, 70)
    viewer = await sign_up()
    await viewer.follow(friend)
    expected = [exact.id, friend.id, famous.id, known.id]
    assert await found(viewer, name) == expected
    assert await found(viewer, name, limit=2) == expected[:2]
    # Nobody is kept from the famous by many with few followers.
    assert (await found(ada, name, limit=2)) == [exact.id, famous.id]


async def test_what_begins_so_comes_before_what_is_a_slip_away(sign_up: SignUp, ada: Client, res: Resources) -> None:
    name = word()
    beginning, near = await sign_up(f"{name}x.y"), await sign_up(f"{name[:5]}{name[6:]}")
    await followed(res, near, 90_000)
    assert await found(ada, name) == [beginning.id, near.id]
    assert await found(ada, name, limit=1) == [beginning.id]


async def test_what_an_account_is_called_now_is_what_finds_it(sign_up: SignUp, ada: Client) -> None:
    old, new = word(), word()
    other = await sign_up(display_name=old)
    await other.edit(bio="Hello.")
    assert await found(ada, old) == [other.id]
    await other.edit(display_name=new)
    assert await found(ada, old) == []
    assert await found(ada, new) == [other.id]
    await other.edit(display_name="")
    assert await found(ada, new) == []


async def test_followers_are_counted_in_the_terms_too(sign_up: SignUp, res: Resources) -> None:
    other, fans = await sign_up(), [await sign_up() for _ in range(2)]

    async def level() -> set[int]:
        async with res.db.acquire() as connection:
            records = await connection.fetch(
                "select level from search_terms where shard = $1 and account_id = $2",
                shard_of(int(other.id)),
                int(other.id),
            )
        return {record["level"] for record in records}

    await followed(res, other, 8)
    assert await level() == {0}
    for fan in fans:
        await fan.follow(other)
    assert await level() == {1}
    await other.edit(display_name="Another")
    assert await level() == {1}
    await fans[0].unfollow(other)
    assert await level() == {0}


async def test_who_hides_is_not_found_and_leaves_no_gap(sign_up: SignUp, res: Resources) -> None:
    name = word()
    blocker, blocked, suspended, private, public = [await sign_up(f"{name}.{number}") for number in range(5)]
    viewer = await sign_up()
    await private.edit(is_private=True)
    await blocker.block(viewer)
    await viewer.block(blocked)
    await accounts.suspend(res, suspended.account["username"])
    for q in (name, f"{name[:4]}{name[5:]}"):
        assert set(await found(viewer, q)) == {private.id, public.id}
        assert len(await found(viewer, q, limit=2)) == 2
    for hidden in (blocker, blocked, suspended):
        assert await found(viewer, hidden.account["username"], limit=1) != [hidden.id]


@pytest.mark.parametrize("q", ["", " ", "@", "...", "\u200b", "\x00", "a\nb", "a" * 101, "a" * 10_000, "\U0001f305"])
async def test_what_is_nothing_to_search_for_is_refused(ada: Client, q: str) -> None:
    invalid(await ada.http.get("/v1/search/accounts", params={"q": q}, headers=ada.headers), "q")


@pytest.mark.parametrize(
    "q", ["%", "a%", "a_", "\\", "a'b", 'a"b', "\uffff1", "\U0010ffffa", "a" * 100, "\u0130\u1e9e"]
)
async def test_any_text_is_only_text(ada: Client, q: str) -> None:
    answer = await ada.http.get("/v1/search/accounts", params={"q": q}, headers=ada.headers)
    assert answer.status_code in {200, 422}, answer.text
