"""Mails that tell of what is unread."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import cast

import httpx
import pytest

from instafeed import digests, work
from instafeed.models import ActivityKind, Audience, Channel, Preferences
from instafeed.resources import Resources
from instafeed.storage import inboxes
from instafeed.storage.mailer import Mailer
from instafeed.storage.outbox import Kind
from tests.client import Client
from tests.feeds.world import World
from tests.mail import MailServer, running_mail_server
from tests.push.test_pushes import Town

API = "https://api.example.org"


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    """A mail server."""
    async with running_mail_server() as running:
        yield running


@pytest.fixture
async def mailing(world: World, server: MailServer) -> Town:
    """A world that mails, and pushes nothing."""
    mailer = Mailer(f"smtp://127.0.0.1:{server.port}", "instafeed@example.org")
    settings = world.res.settings.model_copy(update={"api_url": API})
    return Town(replace(world.res, mailer=mailer, settings=settings))


async def reader(town: Town, **said: Audience) -> int:
    """An account with a confirmed address, which wants mails of these kinds."""
    account = await town.account()
    await town.sql("update accounts set email = id::text || '@example.org' where id = $1 returning 1", account)
    preferences = Preferences({ActivityKind(kind): {Channel.MAIL: audience} for kind, audience in said.items()})
    async with town.res.db.acquire() as connection:
        await inboxes.set_preferences(connection, account, preferences)
    return account


async def mail(town: Town) -> None:
    """Send the mails that wait, as if their time had come."""
    for entry, kind in await town.pending():
        if kind is Kind.DIGEST:
            await work.perform(town.res, entry, kind, digests.send)


def mails(server: MailServer) -> list[EmailMessage]:
    return [message_from_bytes(cast("bytes", taken.original_content), policy=default) for taken in server.taken]


async def test_one_mail_tells_of_all_that_is_unread(mailing: Town, server: MailServer) -> None:
    bob = await reader(mailing, like=Audience.EVERYONE, follow=Audience.EVERYONE)
    post = await mailing.post(bob)
    likers = await mailing.liked(post, 3)
    await mailing.push()
    eve = await mailing.account()
    await mailing.follow(eve, bob)
    await mailing.push()
    waits = await mailing.sql("select extract(epoch from due_at - now())::int from outbox where kind = 'digest'")
    assert len(waits) == 1
    assert 200 < waits[0] <= 300
    await mail(mailing)
    [sent] = mails(server)
    assert sent["To"] == f"{bob}@example.org"
    assert sent["Subject"] == f"@u{eve} started following you, and 1 more"
    assert (
        f"@u{eve} started following you.\n@u{likers[-1]} and 2 others liked your photo.\n"
        in sent.get_content().replace("\r\n", "\n")
    )


async def test_a_mail_an_hour_and_none_of_what_a_mail_told_before(mailing: Town, server: MailServer) -> None:
    bob = await reader(mailing, like=Audience.EVERYONE)
    await mailing.liked(await mailing.post(bob))
    await mailing.push()
    await mail(mailing)
    await mailing.liked(await mailing.post(bob))
    await mailing.push()
    waits = await mailing.sql(
        "select extract(epoch from due_at - now())::int from outbox where kind = 'digest' and done_at is null"
    )
    assert len(waits) == 1
    assert 3000 < waits[0] <= 3600
    await mail(mailing)
    assert [" more" in sent["Subject"] for sent in mails(server)] == [False, False]


async def test_what_was_read_or_undone_is_not_mailed(mailing: Town, server: MailServer) -> None:
    bob = await reader(mailing, like=Audience.EVERYONE)
    await mailing.liked(await mailing.post(bob))
    await mailing.push()
    await mailing.read(bob)
    await mail(mailing)
    gone = await mailing.post(bob)
    await mailing.liked(gone)
    await mailing.push()
    await mailing.delete(bob, gone)
    await mail(mailing)
    assert mails(server) == []
    assert await mailing.sql("select mailed_at from inboxes where account_id = $1", bob) == [None]


async def test_only_confirmed_addresses_get_mails_and_only_of_what_they_want(mailing: Town, server: MailServer) -> None:
    unconfirmed = await reader(mailing, like=Audience.EVERYONE)
    await mailing.sql("update accounts set pending_email = email, email = null where id = $1 returning 1", unconfirmed)
    usual, off = await reader(mailing), await reader(mailing, follow_request=Audience.OFF)
    for account in (unconfirmed, usual, off):
        await mailing.liked(await mailing.post(account))
        await mailing.set_private(account, True)
        await mailing.follow(await mailing.account(), account)
        await mailing.push()
    await mail(mailing)
    [sent] = mails(server)
    assert sent["To"] == f"{usual}@example.org"
    assert sent["Subject"].endswith("asked to follow you")


async def test_a_mail_that_is_sent_again_has_its_old_name(mailing: Town, server: MailServer) -> None:
    """As when a worker is killed after the mail server took it."""
    bob = await reader(mailing, like=Audience.EVERYONE)
    await mailing.liked(await mailing.post(bob))
    await mailing.push()
    await mail(mailing)
    await mailing.sql("update inboxes set mailed_id = 0 where account_id = $1 returning 1", bob)
    await mailing.sql("update outbox set done_at = null where kind = 'digest' returning 1")
    await mailing.lapse()
    await mail(mailing)
    first, second = mails(server)
    assert first["Message-ID"] == second["Message-ID"]
    assert first.get_content() == second.get_content()


async def test_a_mail_says_how_to_get_no_more(mailing: Town, server: MailServer) -> None:
    bob = await reader(mailing, like=Audience.EVERYONE)
    await mailing.liked(await mailing.post(bob))
    await mailing.push()
    await mail(mailing)
    [sent] = mails(server)
    assert sent["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    url = re.fullmatch(rf"<{API}/v1/mails/unsubscribe/({bob}\.[\w-]{{43}})>", sent["List-Unsubscribe"])
    assert url is not None
    await digests.unsubscribe(mailing.res, url[1])
    await mailing.liked(await mailing.post(bob))
    await mailing.push()
    assert Kind.DIGEST not in {kind for _, kind in await mailing.pending()}
    assert len(mails(server)) == 1


async def test_a_mail_program_stops_mails_by_one_post_with_the_token_of_that_account(
    res: Resources, sign_up: Callable[..., Awaitable[Client]], http: httpx.AsyncClient
) -> None:
    ada, bob = await sign_up(), await sign_up()
    token = digests._token(res, int(ada.id))
    forged = f"{bob.id}.{token.partition('.')[2]}"
    for wrong in (forged, token[:-1], token + "A", "x", f"0{token}", f"{2**63}.{'A' * 43}"):
        answer = await http.post(f"/v1/mails/unsubscribe/{wrong}")
        assert answer.status_code == 422, answer.text
        assert answer.json()["type"] == "/problems/token-unusable"
    for _ in range(2):
        answer = await http.post(f"/v1/mails/unsubscribe/{token}", data={"List-Unsubscribe": "One-Click"})
        assert answer.status_code == 204, answer.text
    [hers, his] = [await client.call("GET", "/v1/me/preferences") for client in (ada, bob)]
    assert "everyone" in str(his)
    assert hers != his
    async with res.db.acquire() as connection:
        preferences = (await inboxes.get(connection, int(ada.id))).preferences
    kinds = [kind for kind in ActivityKind if kind is not ActivityKind.OTHER]
    assert {preferences.audience(kind, Channel.MAIL) for kind in kinds} == {Audience.OFF}
    assert {preferences.audience(kind, Channel.PUSH) for kind in kinds} == {Audience.EVERYONE}
