"""E-mail addresses: who may use one, and from when it counts."""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable

import httpx
import pytest

from instafeed.api import limits
from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.settings import Settings
from tests.api.answers import anonymous, invalid, problem
from tests.api.test_rate_limits import limited, refused
from tests.api.test_sessions import everything_in_postgres, everything_in_redis
from tests.client import PASSWORD, Client, http_client
from tests.conftest import running_api
from tests.mail import CONFIRM, EMAIL_CHANGED, Mailbox, token_in

SignUp = Callable[..., Awaitable[Client]]
pytestmark = pytest.mark.usefixtures("workers")


@pytest.fixture
def mailbox(settings: Settings) -> Callable[[], Mailbox]:
    """Gives mailboxes of one's own."""
    return lambda: Mailbox(settings, f"m{secrets.token_hex(8)}@example.org")


async def give(client: Client, address: object, password: object = PASSWORD) -> httpx.Response:
    body = {"email": address, "current_password": password}
    return await client.http.put("/v1/me/email", json=body, headers=client.headers)


async def confirm(http: httpx.AsyncClient, token: object) -> httpx.Response:
    return await http.post("/v1/emails/confirm", json={"token": token})


async def addresses(client: Client) -> tuple[str | None, str | None]:
    me = await client.call("GET", "/v1/me")
    return me["email"], me["pending_email"]


async def confirmed(sign_up: SignUp, box: Mailbox) -> Client:
    """Somebody whose address counts."""
    one = await sign_up(email=box.address)
    assert (await confirm(one.http, await box.token(CONFIRM))).status_code == 204
    return one


async def test_an_address_counts_once_its_mails_token_came_back(
    http: httpx.AsyncClient, sign_up: SignUp, mailbox: Callable[[], Mailbox]
) -> None:
    box = mailbox()
    one = await sign_up(email=box.address.upper())
    assert (one.account["email"], one.account["pending_email"]) == (None, box.address)
    assert await addresses(one) == (None, box.address)
    token = await box.token(CONFIRM)
    [mail] = box.mails()
    assert f"@{one.account['username']}" in mail.get_content()
    assert (mail["From"], mail["Auto-Submitted"]) == ("instafeed <instafeed@localhost>", "auto-generated")
    answer = await confirm(http, token)  # from any device, whoever is logged in there
    assert (answer.status_code, answer.content) == (204, b"")
    assert await addresses(one) == (box.address, None)
    problem(await confirm(http, token), 422, "token-unusable")


async def test_an_address_is_shown_to_its_owner_only(
    sign_up: SignUp, bob: Client, mailbox: Callable[[], Mailbox]
) -> None:
    box, pending = mailbox(), mailbox()
    one = await confirmed(sign_up, box)
    assert (await give(one, pending.address)).status_code == 200
    await bob.follow(one)
    for who in (bob, one):
        for path in (
            f"/v1/accounts/{one.id}",
            f"/v1/accounts/by-username/{one.account['username']}",
            f"/v1/accounts/{bob.id}/following",
        ):
            seen = await who.http.get(path, headers=who.headers)
            assert seen.status_code == 200
            assert "email" not in seen.text
            assert box.address not in seen.text


async def test_another_address_counts_in_place_of_the_one_before_whose_reader_is_told(
    http: httpx.AsyncClient, sign_up: SignUp, mailbox: Callable[[], Mailbox]
) -> None:
    old, new = mailbox(), mailbox()
    one = await confirmed(sign_up, old)
    answer = await give(one, new.address)
    assert answer.json() == await one.call("GET", "/v1/me")
    assert await addresses(one) == (old.address, new.address)
    assert (await confirm(http, await new.token(CONFIRM))).status_code == 204
    assert await addresses(one) == (new.address, None)
    [text] = await old.texts(EMAIL_CHANGED)
    assert new.address not in text


async def test_the_same_address_once_more_sends_another_mail(
    http: httpx.AsyncClient, sign_up: SignUp, mailbox: Callable[[], Mailbox]
) -> None:
    box = mailbox()
    one = await sign_up(email=box.address)
    first = await box.token(CONFIRM)
    assert (await give(one, box.address)).status_code == 200
    second = await box.token(CONFIRM, count=2)
    assert first != second
    assert (await confirm(http, first)).status_code == 204
    problem(await confirm(http, second), 422, "token-unusable")
    # Once it counts there is nothing to confirm.
    assert (await give(one, box.address)).json()["pending_email"] is None
    assert await addresses(one) == (box.address, None)


async def test_an_address_that_was_overtaken_cannot_be_confirmed_any_more(
    http: httpx.AsyncClient, sign_up: SignUp, mailbox: Callable[[], Mailbox]
) -> None:
    box, other = mailbox(), mailbox()
    one = await sign_up(email=box.address)
    token = await box.token(CONFIRM)
    await give(one, other.address)
    problem(await confirm(http, token), 422, "token-unusable")
    assert await addresses(one) == (None, other.address)


async def test_null_takes_addresses_away(
    http: httpx.AsyncClient, sign_up: SignUp, mailbox: Callable[[], Mailbox]
) -> None:
    box, pending = mailbox(), mailbox()
    one = await confirmed(sign_up, box)
    await give(one, pending.address)
    token = await pending.token(CONFIRM)
    for _ in range(2):
        answer = await give(one, None)
        assert (answer.json()["email"], answer.json()["pending_email"]) == (None, None)
    problem(await confirm(http, token), 422, "token-unusable")
    await box.texts(EMAIL_CHANGED)
    # It is free for whoever reads its mails.
    other = await sign_up(email=box.address)
    assert (await confirm(http, await box.token(CONFIRM, count=2))).status_code == 204
    assert await addresses(other) == (box.address, None)


async def test_nobody_keeps_an_address_from_whoever_reads_its_mails(
    http: httpx.AsyncClient, sign_up: SignUp, mailbox: Callable[[], Mailbox]
) -> None:
    """And nobody learns who has one: giving it is answered alike, whether it is free, squatted on, or confirmed."""
    box, free = mailbox(), mailbox()
    squatter = await sign_up(email=box.address)
    squatted = await box.token(CONFIRM)
    owner = await sign_up()
    assert (await give(owner, box.address)).status_code == 200
    assert (await confirm(http, await box.token(CONFIRM, count=2))).status_code == 204
    assert await addresses(owner) == (box.address, None)
    problem(await confirm(http, squatted), 409, "email-taken")
    assert await addresses(squatter) == (None, box.address)
    other = await sign_up()
    taken, not_taken = await give(other, box.address), await give(other, free.address)
    assert taken.status_code == not_taken.status_code == 200
    assert taken.text.replace(box.address, "") == not_taken.text.replace(free.address, "")


async def test_of_those_who_confirm_an_address_at_once_one_gets_it(
    http: httpx.AsyncClient, sign_up: SignUp, mailbox: Callable[[], Mailbox]
) -> None:
    box = mailbox()
    many = [await sign_up(email=box.address) for _ in range(4)]
    await box.texts(CONFIRM, count=4)
    tokens = [token_in(mail.get_content()) for mail in box.mails()]
    answers = await asyncio.gather(*(confirm(http, token) for token in tokens))
    assert sorted(answer.status_code for answer in answers) == [204, 409, 409, 409]
    shown = sorted([await addresses(one) for one in many], key=str)
    assert shown == sorted([(box.address, None), *[(None, box.address)] * 3], key=str)


async def test_addresses_of_the_release_before_count_for_nothing(
    http: httpx.AsyncClient, sign_up: SignUp, res: Resources, mailbox: Callable[[], Mailbox]
) -> None:
    box = mailbox()
    async with res.db.acquire() as connection:
        await connection.execute("insert into emails (email, account_id) values ($1, 1)", box.address)
    one = await confirmed(sign_up, box)
    assert await addresses(one) == (box.address, None)


@pytest.mark.parametrize("password", ["a wrong password", ""])
async def test_whoever_holds_only_the_token_changes_no_address(
    sign_up: SignUp, mailbox: Callable[[], Mailbox], password: str
) -> None:
    box = mailbox()
    one = await confirmed(sign_up, box)
    for address in (mailbox().address, None):
        problem(await give(one, address, password), 403, "wrong-password")
    assert await addresses(one) == (box.address, None)


async def test_a_suspended_account_confirms_nothing(
    http: httpx.AsyncClient, sign_up: SignUp, res: Resources, mailbox: Callable[[], Mailbox]
) -> None:
    box = mailbox()
    one = await sign_up(email=box.address)
    token = await box.token(CONFIRM)
    async with res.db.acquire() as connection:
        await connection.execute("update accounts set suspended_at = now() where id = $1", int(one.id))
    problem(await confirm(http, token), 422, "token-unusable")


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/email", "/current_password"]),
        ({"email": "ada", "current_password": PASSWORD}, ["/email"]),
        ({"email": "", "current_password": PASSWORD}, ["/email"]),
        ({"email": 7, "current_password": PASSWORD}, ["/email"]),
        ({"email": "ada@example.org\nbcc: x@example.org", "current_password": PASSWORD}, ["/email"]),
        ({"email": None, "current_password": None}, ["/current_password"]),
        ({"email": None, "current_password": PASSWORD, "confirmed": True}, ["/confirmed"]),
    ],
)
async def test_what_is_no_address_is_refused(ada: Client, body: dict[str, object], pointers: list[str]) -> None:
    invalid(await ada.http.put("/v1/me/email", json=body, headers=ada.headers), *pointers)
    assert await addresses(ada) == (None, None)


async def test_no_other_token_confirms(
    http: httpx.AsyncClient, sign_up: SignUp, res: Resources, mailbox: Callable[[], Mailbox]
) -> None:
    box = mailbox()
    one, other = await sign_up(email=box.address), await sign_up()
    token = await box.token(CONFIRM)
    secret = token.partition(".")[2]
    wrong = [
        "",
        ".",
        secret,
        f"{one.id}.",
        f"{one.id}.{'a' * 43}",
        f"{other.id}.{secret}",
        f"0{token}",
        f"{token}x",
        f"{token}\n",
        f" {token}",
        f"9999999999999999999.{secret}",
        one.token,
        "\u0661.\u00e9",
    ]
    answers = [await confirm(http, text) for text in wrong]
    for answer in answers:
        problem(answer, 422, "token-unusable")
    assert len({str(anonymous(answer)) for answer in answers}) == 1
    for text in ("a" * 201, 7, None):
        invalid(await confirm(http, text), "/token")
    # It is no token of a session, nor does it reset a password.
    problem(await http.get("/v1/me", headers={"Authorization": f"Bearer {token}"}), 401, "unauthenticated")
    body = {"token": token, "new_password": "staple battery horse"}
    problem(await http.post("/v1/password-resets/confirm", json=body), 422, "token-unusable")
    async with res.db.acquire() as connection:
        await connection.execute(
            "update mail_tokens set expires_at = now() - interval '1 second' where shard = $1 and account_id = $2",
            shard_of(int(one.id)),
            int(one.id),
        )
    problem(await confirm(http, token), 422, "token-unusable")
    assert await addresses(one) == (None, box.address)


async def test_the_token_of_a_mail_is_kept_nowhere(
    sign_up: SignUp, res: Resources, mailbox: Callable[[], Mailbox]
) -> None:
    box = mailbox()
    await sign_up(email=box.address)
    secret = (await box.token(CONFIRM)).partition(".")[2]
    kept = await everything_in_postgres(res) + await everything_in_redis(res)
    assert hashlib.sha256(secret.encode()).hexdigest() in kept
    assert secret not in kept
    assert secret.encode().hex() not in kept


async def test_mails_to_one_address_are_limited_whoever_causes_them(settings: Settings) -> None:
    async with running_api(limited(settings)) as url, http_client(base_url=url) as gate:
        address = f"m{secrets.token_hex(8)}@example.org"
        clients = [await Client.sign_up(gate, email=address) for _ in range(limits.EMAIL.quota)]
        refused(await give(clients[0], address), limits.EMAIL)
        body = {"username": f"m{secrets.token_hex(8)}", "password": PASSWORD}
        refused(await gate.post("/v1/accounts", json=body | {"email": address}), limits.EMAIL)
        assert (await gate.post("/v1/accounts", json=body)).status_code == 201
