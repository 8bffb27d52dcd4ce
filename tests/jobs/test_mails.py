"""Mails as jobs: whatever becomes of the mail server, none is lost."""

import re
import secrets
from dataclasses import replace

import pytest

from instafeed import accounts, emails, sweep, work
from instafeed.errors import TokenUnusable
from instafeed.ids import random_shard
from instafeed.mails import send
from instafeed.storage import emails as email_rows
from instafeed.storage import outbox
from instafeed.storage.mailer import Mailer
from instafeed.storage.outbox import Kind
from tests.client import PASSWORD
from tests.feeds.world import World
from tests.mail import MailServer, running_mail_server, token_in
from tests.ports import free_port

SENDER = "instafeed@example.org"


def with_mailer(world: World, server: MailServer) -> World:
    """The world with a mail server."""
    return World(replace(world.res, mailer=Mailer(f"smtp://127.0.0.1:{server.port}", SENDER)))


async def somebody(world: World) -> int:
    """An account whose address waits to be confirmed; its mail is noted."""
    account = world.res.ids.next(random_shard())
    name = f"n{secrets.token_hex(8)}"
    await accounts.sign_up(
        world.res,
        account_id=account,
        username=name,
        password=PASSWORD,
        email=f"{name}@example.org",
        display_name="",
        device_name="",
        repeat_key=None,
    )
    return account


async def entry_of(world: World) -> int:
    """The only mail that waits."""
    [entry] = [id_ for id_, kind in await world.pending() if kind is Kind.MAIL]
    return entry


async def perform(world: World, entry: int) -> None:
    await work.perform(world.res, entry, Kind.MAIL, send)


def texts(server: MailServer) -> list[str]:
    return [(envelope.original_content or b"").decode().replace("\r\n", "\n") for envelope in server.taken]


async def test_a_mail_server_that_is_away_is_waited_for_however_long(world: World) -> None:
    port = free_port()
    world = with_mailer(world, MailServer(port))
    account = await somebody(world)
    entry = await entry_of(world)
    for _ in range(outbox.MAX_ATTEMPTS + 3):
        await perform(world, entry)
        await world.lapse()
    assert await world.sql("select error from outbox where id = $1 and dead_at is null and done_at is null", entry) == [
        "Unavailable: The mail server does not answer."
    ]
    # The token counts from when it is sent.
    await world.sql(
        "update mail_tokens set expires_at = now() - interval '1 day' where account_id = $1 returning 1", account
    )
    async with running_mail_server(port) as server:
        await perform(world, entry)
    [text] = texts(server)
    assert token_in(text).startswith(f"{account}.")
    assert await world.sql(
        "select expires_at > now() + interval '23 hours' from mail_tokens where account_id = $1", account
    )
    assert await world.pending() == []


async def test_a_mail_that_is_sent_again_carries_the_same_token_until_it_was_used(world: World) -> None:
    """As when a worker is killed after the mail server took it."""
    async with running_mail_server() as server:
        world = with_mailer(world, server)
        account = await somebody(world)
        async with world.res.db.acquire() as connection:
            entry = await outbox.claim(connection, await entry_of(world))
        assert entry is not None
        for _ in range(2):
            await send(world.res, entry)
        first, second = texts(server)
        token = token_in(first)
        assert token == token_in(second)
        assert [re.findall("^Message-ID: .*$", text, re.MULTILINE) for text in (first, second)] == [
            [f"Message-ID: <{entry.id}@example.org>"]
        ] * 2
        await emails.confirm(world.res, token)
        await send(world.res, entry)
        with pytest.raises(TokenUnusable):
            await emails.confirm(world.res, token)
    assert len(server.taken) == 2
    async with world.res.db.acquire() as connection:
        assert (await email_rows.get(connection, account)).pending is None


async def test_an_address_that_does_not_exist_is_given_up_and_not_named(world: World) -> None:
    async with running_mail_server() as server:
        server.recipient_answer = "550 no such mailbox"
        world = with_mailer(world, server)
        await somebody(world)
        entry = await entry_of(world)
        await perform(world, entry)
    assert server.taken == []
    assert await world.pending() == []
    assert await world.sql("select error from outbox where id = $1", entry) == [None]


async def test_an_address_that_is_refused_for_now_is_tried_again_with_pauses(world: World) -> None:
    async with running_mail_server() as server:
        server.recipient_answer = "450 come again later"
        world = with_mailer(world, server)
        await somebody(world)
        entry = await entry_of(world)
        for _ in range(3):
            before = await world.sql("select now()")
            await perform(world, entry)
        assert await world.sql("select error from outbox where id = $1 and attempts = 3", entry) == [
            "MailRefused: the mail server answers 450 to the address"
        ]
        assert await world.sql(
            "select due_at >= $2::timestamptz + interval '4 seconds' from outbox where id = $1", entry, *before
        ) == [True]
        server.recipient_answer = "250 OK"
        await perform(world, entry)
    assert len(server.taken) == 1


async def test_who_was_suspended_meanwhile_gets_no_mail(world: World) -> None:
    async with running_mail_server() as server:
        world = with_mailer(world, server)
        account = await somebody(world)
        await world.sql("update accounts set suspended_at = now() where id = $1 returning 1", account)
        await perform(world, await entry_of(world))
    assert server.taken == []
    assert await world.pending() == []


async def test_without_a_mail_server_mails_are_let_go(world: World) -> None:
    assert world.res.mailer is None
    await somebody(world)
    await perform(world, await entry_of(world))
    assert await world.pending() == []


async def test_a_link_opens_the_app_where_it_is(world: World) -> None:
    async with running_mail_server() as server:
        world = with_mailer(world, server)
        settings = world.res.settings.model_copy(update={"app_url": "https://example.org/app/"})
        world = World(replace(world.res, settings=settings))
        account = await somebody(world)
        await perform(world, await entry_of(world))
    [text] = texts(server)
    assert re.search(rf"^https://example\.org/app/confirm-email#{account}\.[\w-]{{43}}$", text, re.MULTILINE)


async def test_tokens_are_forgotten_a_week_after_they_expired(world: World) -> None:
    async with running_mail_server() as server:
        world = with_mailer(world, server)
        accounts_ = [await somebody(world) for _ in range(2)]
        for entry, kind in await world.pending():
            await world.perform(entry, kind)
    set_ = "update mail_tokens set expires_at = now() - make_interval(days => $2) where account_id = $1 returning 1"
    await world.sql(set_, accounts_[0], 8)
    await world.sql(set_, accounts_[1], 6)
    await sweep.clear(world.res)
    assert await world.sql("select account_id from mail_tokens where account_id = any($1)", accounts_) == accounts_[1:]
