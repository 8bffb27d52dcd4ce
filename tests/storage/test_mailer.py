"""Mails handed to a real SMTP server: encrypted, authenticated, refused, or not at all."""

import asyncio
import ssl
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiosmtplib
import pytest
from aiosmtpd.smtp import AuthResult
from pydantic import ValidationError

from instafeed.errors import Unavailable
from instafeed.settings import Settings
from instafeed.storage.mailer import Mailer, MailRefused
from tests.mail import running_mail_server

SENDER = "instafeed <no-reply@example.org>"
PASSWORD = "p@ss:w/rd #1"


async def send(url: str, to: str = "ada@example.org") -> None:
    await Mailer(url, SENDER).send(17, to=to, subject="Hello", text="Hello.\n\n.\n")


async def test_a_mail_arrives_as_it_was_written() -> None:
    async with running_mail_server() as server:
        for _ in range(2):
            await send(f"smtp://127.0.0.1:{server.port}")
    first, second = server.taken
    assert (first.mail_from, first.rcpt_tos) == ("no-reply@example.org", ["ada@example.org"])
    mails = [message_from_bytes(taken.original_content or b"", policy=default) for taken in (first, second)]
    assert [str(mail["Message-ID"]) for mail in mails] == ["<17@example.org>"] * 2
    assert (mails[0]["From"], mails[0]["To"], mails[0]["Subject"]) == (SENDER, "ada@example.org", "Hello")
    assert mails[0]["Date"].datetime.tzinfo is not None
    assert mails[0].get_content().replace("\r\n", "\n") == "Hello.\n\n.\n"  # a lone dot ends no mail
    assert mails[0].get_content_type() == "text/plain"


def authenticator(_: Any, __: Any, ___: Any, mechanism: str, data: Any) -> AuthResult:
    """Lets one name with one password in."""
    right = (getattr(data, "login", None), getattr(data, "password", None)) == (b"mailer", PASSWORD.encode())
    return AuthResult(success=right, handled=right)


@pytest.mark.usefixtures("trusted")
@pytest.mark.filterwarnings("ignore:Session.login_data is deprecated:DeprecationWarning")  # of the server's by itself
async def test_starttls_goes_before_the_password(tls: ssl.SSLContext) -> None:
    options: dict[str, Any] = {
        "tls_context": tls,
        "require_starttls": True,
        "auth_required": True,
        "authenticator": authenticator,
    }
    async with running_mail_server(**options) as server:
        here = f"127.0.0.1:{server.port}"
        await send(f"smtp+starttls://mailer:{quote(PASSWORD, safe='')}@{here}")
        with pytest.raises(aiosmtplib.SMTPAuthenticationError):
            await send(f"smtp+starttls://mailer:wrong@{here}")
    assert server.encrypted == [True]


@pytest.mark.usefixtures("trusted")
@pytest.mark.filterwarnings("ignore:Session.login_data is deprecated:DeprecationWarning")  # of the server's by itself
async def test_a_log_in_is_tried_without_a_mail(tls: ssl.SSLContext) -> None:
    options: dict[str, Any] = {"tls_context": tls, "auth_required": True, "authenticator": authenticator}
    async with running_mail_server(**options) as server:
        here = f"127.0.0.1:{server.port}"
        await Mailer(f"smtp+starttls://mailer:{quote(PASSWORD, safe='')}@{here}", SENDER).ping()
        with pytest.raises(Unavailable, match="log-in"):
            await Mailer(f"smtp+starttls://mailer:wrong@{here}", SENDER).ping()
    with pytest.raises(Unavailable, match="does not answer"):
        await Mailer(f"smtp://{here}", SENDER).ping()
    assert server.taken == []


async def test_a_server_without_starttls_gets_neither_password_nor_mail() -> None:
    async with running_mail_server() as server:
        with pytest.raises(aiosmtplib.SMTPException, match="STARTTLS"):
            await send(f"smtp+starttls://mailer:{quote(PASSWORD, safe='')}@127.0.0.1:{server.port}")
    assert server.taken == []


@pytest.mark.usefixtures("trusted")
async def test_tls_from_the_first_byte(tls: ssl.SSLContext) -> None:
    async with running_mail_server(tls=tls) as server:
        await send(f"smtps://127.0.0.1:{server.port}")
    assert server.encrypted == [True]


async def test_a_server_that_nobody_vouches_for_gets_nothing(tls: ssl.SSLContext) -> None:
    async with running_mail_server(tls=tls) as server:
        with pytest.raises(Unavailable):
            await send(f"smtps://127.0.0.1:{server.port}")
    async with running_mail_server(tls_context=tls) as server:
        with pytest.raises(Unavailable):
            await send(f"smtp+starttls://127.0.0.1:{server.port}")
    assert server.taken == []


@pytest.mark.parametrize(("answer", "is_final"), [("550 no such mailbox", True), ("450 come again later", False)])
async def test_an_address_that_is_refused_is_told_apart_and_not_named(answer: str, is_final: bool) -> None:
    async with running_mail_server() as server:
        server.recipient_answer = answer
        with pytest.raises(MailRefused) as caught:
            await send(f"smtp://127.0.0.1:{server.port}")
    assert caught.value.is_final is is_final
    assert "ada" not in str(caught.value)


async def test_a_server_that_takes_none_now_is_away() -> None:
    async with running_mail_server() as server:
        server.data_answer = "452 too much to do"
        with pytest.raises(Unavailable):
            await send(f"smtp://127.0.0.1:{server.port}")
        server.data_answer = "554 this is spam"
        with pytest.raises(aiosmtplib.SMTPDataError):
            await send(f"smtp://127.0.0.1:{server.port}")
    with pytest.raises(Unavailable):  # it is gone
        await send(f"smtp://127.0.0.1:{server.port}")


async def test_a_server_that_says_nothing_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instafeed.storage.mailer._SECONDS", 0.1)
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server:
        with pytest.raises(Unavailable):
            await send(f"smtp://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with asyncio.timeout(30):
            await asked.wait()


async def test_a_folder_holds_mails_that_nobody_else_reads(tmp_path: Path) -> None:
    folder = tmp_path / "a folder" / "mails"
    for _ in range(2):
        await send(folder.as_uri())
    [file] = folder.iterdir()
    assert file.name == "17.eml"
    assert file.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file.read_text().endswith("Hello.\n\n.\n")


@pytest.mark.parametrize(
    "wrong",
    [
        {"mail_url": "http://mail.example.org"},
        {"mail_url": "mail.example.org"},
        {"mail_url": f"smtp://mailer:{quote(PASSWORD, safe='')}@mail.example.org:25"},
        {"mail_url": f"smtps://mailer:{PASSWORD}@mail.example.org:465"},
        {"mail_url": "smtps://mail.example.org:100000"},
        {"mail_url": "smtps://:465"},
        {"mail_url": "file://here/mails"},
        {"mail_from": "nobody"},
        {"mail_from": "instafeed <a@b>\nbcc: c@d"},
        {"mail_from": ""},
        {"app_url": "javascript:alert(1)"},
        {"app_url": "https://example.org/?a=b"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: Settings, wrong: dict[str, str]) -> None:
    given = settings.model_dump() | {"environment": "production", "rate_limits": "on"}
    Settings.model_validate(given)
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(given | wrong)
    assert PASSWORD not in str(caught.value.errors(include_input=False))
