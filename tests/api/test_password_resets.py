"""A new password for whoever forgot theirs: by a mail, and without telling who exists."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import httpx
import pytest

from instafeed.api import limits
from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.settings import Settings
from tests.api.answers import anonymous, invalid, problem
from tests.api.test_emails import addresses, confirm, give
from tests.api.test_passwords import NEW, change, fits
from tests.api.test_rate_limits import an_address, from_, limited, refused
from tests.api.test_sessions import is_in, log_in
from tests.client import PASSWORD, Client, http_client
from tests.conftest import running_api
from tests.mail import CONFIRM, PASSWORD_CHANGED, RESET, Mailbox

SignUp = Callable[..., Awaitable[Client]]
pytestmark = pytest.mark.usefixtures("workers")


@pytest.fixture
async def reader(sign_up: SignUp, settings: Settings) -> tuple[Client, Mailbox]:
    """Somebody whose address counts, and their mailbox."""
    box = Mailbox(settings, f"r{secrets.token_hex(8)}@example.org")
    one = await sign_up(email=box.address)
    assert (await confirm(one.http, await box.token(CONFIRM))).status_code == 204
    return one, box


async def ask(http: httpx.AsyncClient, name: object) -> httpx.Response:
    return await http.post("/v1/password-resets", json={"name": name})


async def choose(http: httpx.AsyncClient, token: object, password: object = NEW) -> httpx.Response:
    return await http.post("/v1/password-resets/confirm", json={"token": token, "new_password": password})


async def test_whoever_reads_the_accounts_mails_chooses_a_new_password(
    http: httpx.AsyncClient, reader: tuple[Client, Mailbox]
) -> None:
    phone, box = reader
    tablet = await log_in(phone)
    assert [await is_in(one) for one in (phone, tablet)] == [True] * 2
    answer = await ask(http, box.address.upper())
    assert (answer.status_code, answer.content) == (202, b"")
    token = await box.token(RESET)
    answer = await choose(http, token)
    assert (answer.status_code, answer.content) == (204, b"")
    assert [await is_in(one) for one in (phone, tablet)] == [False] * 2
    assert await fits(phone, NEW)
    assert not await fits(phone, PASSWORD)
    await box.texts(PASSWORD_CHANGED)
    problem(await choose(http, token, "yet another password"), 422, "token-unusable")
    assert await fits(phone, NEW)


async def test_the_username_does_as_well_a_former_one_too(
    http: httpx.AsyncClient, reader: tuple[Client, Mailbox]
) -> None:
    one, box = reader
    old = one.account["username"]
    await one.edit(username=f"n{secrets.token_hex(8)}")
    await ask(http, f" {old.upper()} ")
    assert (await choose(http, await box.token(RESET))).status_code == 204
    assert await fits(one, NEW)


async def test_who_exists_is_not_told(
    http: httpx.AsyncClient, sign_up: SignUp, reader: tuple[Client, Mailbox], res: Resources
) -> None:
    one, box = reader
    without = await sign_up()
    pending = await sign_up(email=f"p{secrets.token_hex(8)}@example.org")
    suspended = await sign_up()
    async with res.db.acquire() as connection:
        await connection.execute("update accounts set suspended_at = now() where id = $1", int(suspended.id))
    names = [
        box.address,
        one.account["username"],
        without.account["username"],
        pending.account["username"],
        pending.account["pending_email"],
        suspended.account["username"],
        f"n{secrets.token_hex(8)}",
        f"n{secrets.token_hex(8)}@example.org",
    ]
    answers = [await ask(http, name) for name in names]
    assert len({str(anonymous(answer)) for answer in answers}) == 1
    # Nor is more done for one than for another before the answer: a line in the outbox, for others to look at.
    await box.texts(RESET, count=2)
    async with res.db.acquire() as connection:
        noted = await connection.fetch(
            "select payload, error, dead_at from outbox where kind = 'mail' and payload ->> 'name' = any($1)", names
        )
        granted = await connection.fetchval(
            "select count(*) from mail_tokens where purpose = 'reset_password' and account_id = any($1)",
            [int(who.id) for who in (without, pending, suspended)],
        )
    assert len(noted) == len(names)
    assert {tuple(sorted(row["payload"])) for row in noted} == {("mail", "name")}
    assert all(row["error"] is None and row["dead_at"] is None for row in noted)
    assert granted == 0


async def test_what_is_chosen_in_between_ends_a_reset(
    http: httpx.AsyncClient, reader: tuple[Client, Mailbox], settings: Settings
) -> None:
    one, box = reader
    await ask(http, box.address)
    first = await box.token(RESET)
    assert (await change(one, PASSWORD, PASSWORD)).status_code == 204
    problem(await choose(http, first), 422, "token-unusable")
    await ask(http, box.address)
    second = await box.token(RESET, count=2)
    other = Mailbox(settings, f"r{secrets.token_hex(8)}@example.org")
    await give(one, other.address)
    assert (await confirm(http, await other.token(CONFIRM))).status_code == 204
    problem(await choose(http, second), 422, "token-unusable")
    # The new address is where mails go now, whatever one asks with; the old one is nobody's.
    await ask(http, box.address)
    await ask(http, one.account["username"])
    assert (await choose(http, await other.token(RESET))).status_code == 204
    assert len([mail for mail in box.mails() if mail["Subject"] == RESET]) == 2


async def test_a_token_works_once_whoever_is_quicker(http: httpx.AsyncClient, reader: tuple[Client, Mailbox]) -> None:
    one, box = reader
    await ask(http, box.address)
    token = await box.token(RESET)
    answers = await asyncio.gather(*(choose(http, token, f"{NEW} {number}") for number in range(3)))
    assert sorted(answer.status_code for answer in answers) == [204, 422, 422]
    right = [await fits(one, f"{NEW} {number}") for number in range(3)]
    assert right == [answer.status_code == 204 for answer in answers]


async def test_one_reset_ends_the_others(http: httpx.AsyncClient, reader: tuple[Client, Mailbox]) -> None:
    _, box = reader
    await ask(http, box.address)
    first = await box.token(RESET)
    await ask(http, box.address)
    second = await box.token(RESET, count=2)
    assert (await choose(http, first)).status_code == 204
    problem(await choose(http, second), 422, "token-unusable")


async def test_an_expired_token_and_a_suspended_accounts_are_worth_nothing(
    http: httpx.AsyncClient, reader: tuple[Client, Mailbox], res: Resources
) -> None:
    one, box = reader
    await ask(http, box.address)
    token = await box.token(RESET)
    where = "where shard = $1 and account_id = $2"
    async with res.db.acquire() as connection:
        me = (shard_of(int(one.id)), int(one.id))
        assert await connection.fetchval(
            f"select expires_at between now() + interval '58 minutes' and now() + interval '1 hour' from mail_tokens {where}"
            " and purpose = 'reset_password'",
            *me,
        )
        await connection.execute("update accounts set suspended_at = now() where shard = $1 and id = $2", *me)
        problem(await choose(http, token), 422, "token-unusable")
        await connection.execute("update accounts set suspended_at = null where shard = $1 and id = $2", *me)
        await connection.execute(f"update mail_tokens set expires_at = now() {where}", *me)
    problem(await choose(http, token), 422, "token-unusable")
    assert await fits(one, PASSWORD)


async def test_a_token_confirms_nothing_else(http: httpx.AsyncClient, reader: tuple[Client, Mailbox]) -> None:
    one, box = reader
    await ask(http, box.address)
    problem(await confirm(http, await box.token(RESET)), 422, "token-unusable")
    assert await addresses(one) == (box.address, None)


@pytest.mark.parametrize("name", ["", "ada lovelace", "@", "ada@", "a" * 301, "ada\u0000", 7, None])
async def test_what_is_no_name_is_refused(http: httpx.AsyncClient, name: object) -> None:
    invalid(await ask(http, name), "/name")


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/token", "/new_password"]),
        ({"token": "1.a", "new_password": "1234567"}, ["/new_password"]),
        ({"token": "1.a", "new_password": "a" * 257}, ["/new_password"]),
        ({"token": "a" * 201, "new_password": NEW}, ["/token"]),
        ({"token": "1.a", "new_password": NEW, "username": "ada"}, ["/username"]),
    ],
)
async def test_what_is_no_choice_is_refused(
    http: httpx.AsyncClient, body: dict[str, object], pointers: list[str]
) -> None:
    invalid(await http.post("/v1/password-resets/confirm", json=body), *pointers)


async def test_asking_is_limited_by_name_and_by_address_of_whoever_asks(
    settings: Settings, reader: tuple[Client, Mailbox]
) -> None:
    one, _ = reader
    async with running_api(limited(settings)) as url, http_client(base_url=url) as gate:

        async def ask_from(address: str, name: str) -> httpx.Response:
            return await gate.post("/v1/password-resets", json={"name": name}, headers=from_(address))

        for name in (one.account["username"], f"n{secrets.token_hex(8)}"):  # whether it exists or not
            for _ in range(limits.RESET_NAME.quota):
                assert (await ask_from(an_address(), name)).status_code == 202
            refused(await ask_from(an_address(), name.upper()), limits.RESET_NAME)
        here = an_address()
        for _ in range(limits.RESET.quota):
            assert (await ask_from(here, f"n{secrets.token_hex(8)}")).status_code == 202
        refused(await ask_from(here, f"n{secrets.token_hex(8)}"), limits.RESET)
