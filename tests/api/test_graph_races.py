"""What two people do at once: whoever comes second sees what the first did, and the books balance."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import httpx
import pytest

from instafeed import accounts
from instafeed.resources import Resources
from instafeed.storage.database import Connection
from tests.client import PASSWORD, Client

SignUp = Callable[..., Awaitable[Client]]

PAIRS = {
    "following": ("follower_id, followee_id, id, notify", "followers"),
    "requesting": ("requester_id, followee_id, id, notify", "requesters"),
    "blocks": ("blocker_id, blocked_id", "blocked_by"),
}
NEVER = {
    "a follow across a block": "select 1 from following f join blocks b on"
    " (b.blocker_id, b.blocked_id) in ((f.follower_id, f.followee_id), (f.followee_id, f.follower_id))",
    "a request across a block": "select 1 from requesting r join blocks b on"
    " (b.blocker_id, b.blocked_id) in ((r.requester_id, r.followee_id), (r.followee_id, r.requester_id))",
    "a request of a follower": "select 1 from requesting r join following f on"
    " (f.follower_id, f.followee_id) = (r.requester_id, r.followee_id)",
    "two who block each other": "select 1 from blocks a join blocks b on"
    " (a.blocker_id, a.blocked_id) = (b.blocked_id, b.blocker_id)",
    "a wrong count": "select 1 from accounts a where"
    " follower_count <> (select count(*) from followers where followee_id = a.id)"
    " or following_count <> (select count(*) from following where follower_id = a.id)"
    " or post_count <> (select count(*) from posts where author_id = a.id and published_at is not null)",
}


async def balance(connection: Connection) -> None:
    """Fail unless both rows of each edge agree, counters are counts, and no two edges contradict each other."""
    for table, (columns, other) in PAIRS.items():
        for one, two in ((table, other), (other, table)):
            found = await connection.fetch(f"select {columns} from {one} except select {columns} from {two}")
            assert not found, f"in {one}, not in {two}"
    for what, query in NEVER.items():
        assert not await connection.fetch(query), what


async def send(client: Client, method: str, path: str, **options: Any) -> int:
    answer = await client.http.request(method, path, headers=client.headers, **options)
    assert answer.status_code < 500, answer.text
    return answer.status_code


def follow(one: Client, other: Client) -> Coroutine[Any, Any, int]:
    return send(one, "PUT", f"/v1/accounts/{other.id}/follow")


def unfollow(one: Client, other: Client) -> Coroutine[Any, Any, int]:
    return send(one, "DELETE", f"/v1/accounts/{other.id}/follow")


def block(one: Client, other: Client) -> Coroutine[Any, Any, int]:
    return send(one, "PUT", f"/v1/accounts/{other.id}/block")


def approve(one: Client, other: Client) -> Coroutine[Any, Any, int]:
    return send(one, "PUT", f"/v1/me/follow-requests/{other.id}")


def privacy(one: Client, value: bool) -> Coroutine[Any, Any, int]:
    return send(one, "PATCH", "/v1/me", json={"is_private": value})


TIMES = range(4)


async def test_a_follow_and_a_block(sign_up: SignUp, res: Resources) -> None:
    for _ in TIMES:
        one, other = await sign_up(), await sign_up()
        statuses = await asyncio.gather(follow(one, other), block(other, one), follow(other, one), block(one, other))
        assert {statuses[1], statuses[3]} == {204, 404}, "the second one finds nobody to block"
        async with res.db.acquire() as connection:
            await balance(connection)


async def test_an_approval_and_a_withdrawal(sign_up: SignUp, res: Resources) -> None:
    for _ in TIMES:
        star, fan = await sign_up(), await sign_up()
        await star.edit(is_private=True)
        await follow(fan, star)
        approved, withdrawn = await asyncio.gather(approve(star, fan), unfollow(fan, star))
        assert (approved, withdrawn) in {(204, 204), (404, 204)}
        relation = await fan.relation(star)
        assert not relation["following"]
        assert not relation["requested"]
        async with res.db.acquire() as connection:
            await balance(connection)


async def test_two_approvals_a_refusal_and_a_block(sign_up: SignUp, res: Resources) -> None:
    for _ in TIMES:
        star, fan = await sign_up(), await sign_up()
        await star.edit(is_private=True)
        await follow(fan, star)
        refusal = send(star, "DELETE", f"/v1/me/follow-requests/{fan.id}")
        await asyncio.gather(approve(star, fan), approve(star, fan), refusal)
        async with res.db.acquire() as connection:
            await balance(connection)
        await asyncio.gather(approve(star, fan), follow(fan, star), block(star, fan))
        assert await star.walk("/v1/me/follow-requests") == []
        async with res.db.acquire() as connection:
            await balance(connection)


async def test_going_private_and_a_follow(sign_up: SignUp, res: Resources) -> None:
    for _ in TIMES:
        star, fan = await sign_up(), await sign_up()
        await asyncio.gather(privacy(star, True), follow(fan, star))
        relation = await fan.relation(star)
        assert relation["following"] != relation["requested"]
        async with res.db.acquire() as connection:
            await balance(connection)


async def test_a_follow_that_waits_for_a_block_is_told_of_nobody(sign_up: SignUp, res: Resources) -> None:
    one, other = await sign_up(), await sign_up()
    async with res.db.acquire() as connection:
        async with connection.transaction():
            # Both stand before the first row that they lock, the block first.
            await connection.fetch("select 1 from accounts where id = $1 for update", min(int(one.id), int(other.id)))
            blocking = asyncio.create_task(block(other, one))
            await waiting(connection, 1)
            following = asyncio.create_task(follow(one, other))
            await waiting(connection, 2)
        assert (await blocking, await following) == (204, 404)
        await balance(connection)


async def waiting(connection: Connection, count: int) -> None:
    """Wait until so many statements wait for a row."""
    query = (
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        " and query like '%from accounts%for update'"
    )
    async with asyncio.timeout(5):
        while await connection.fetchval(query) < count:
            await connection.execute("select pg_stat_clear_snapshot()")
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("workers")
async def test_in_a_crowd_the_books_balance(http: httpx.AsyncClient, sign_up: SignUp, res: Resources) -> None:
    crowd = [await sign_up() for _ in range(5)]
    chance = random.Random(7)

    async def act(number: int) -> None:
        one, other = chance.sample(crowd, 2)
        match number % 12:
            case 0:
                await privacy(one, chance.random() < 0.5)
            case 1:
                await block(one, other)
            case 2 | 3:
                await send(one, "DELETE", f"/v1/accounts/{other.id}/block")
            case 4 | 5:
                await approve(one, other)
            case 6:
                await unfollow(one, other)
            case 7:
                await send(one, "DELETE", f"/v1/me/followers/{other.id}")
            case 8:
                await send(one, "PUT" if chance.random() < 0.5 else "DELETE", f"/v1/accounts/{other.id}/mute")
            case 9 if number % 4 == 1:
                await accounts.suspend(res, one.account["username"])
                await accounts.unsuspend(res, one.account["username"])
                body = {"username": one.account["username"], "password": PASSWORD}
                one.token = (await http.post("/v1/sessions", json=body)).json().get("token", one.token)
            case _:
                await follow(one, other)

    for _ in range(8):
        await asyncio.gather(*(act(number) for number in range(36)))
        async with res.db.acquire() as connection:
            await balance(connection)
