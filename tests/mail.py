"""The mails that landed in a folder, and an SMTP server that takes some."""

import asyncio
import email
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from aiosmtpd.smtp import SMTP, Envelope

from instafeed.settings import Settings
from tests.client import eventually


class Mailbox:
    """What arrives for an address."""

    def __init__(self, settings: Settings, address: str) -> None:
        assert settings.mail_url is not None
        self._folder = Path(unquote(urlsplit(settings.mail_url.get_secret_value()).path))
        self.address = address

    def mails(self) -> list[EmailMessage]:
        """Those that are there, in the order in which they were noted."""
        files = sorted(self._folder.glob("*.eml"), key=lambda file: int(file.stem))
        found = [email.message_from_string(file.read_text(), policy=default) for file in files]
        return [mail for mail in found if mail["To"] == self.address]

    async def texts(self, subject: str, count: int = 1) -> list[str]:
        """The texts of the mails with this subject, once there are so many."""

        async def probe() -> list[str]:
            texts = [mail.get_content() for mail in self.mails() if mail["Subject"] == subject]
            return texts if len(texts) >= count else []

        found = await eventually(probe)
        assert len(found) == count
        return found

    async def token(self, subject: str, count: int = 1) -> str:
        """The token in the last one."""
        return token_in((await self.texts(subject, count))[-1])


def token_in(text: str) -> str:
    """The token in the text of a mail."""
    [token] = re.findall(r"^[0-9]+\.[A-Za-z0-9_-]{43}$", text, re.MULTILINE)
    return str(token)


CONFIRM = "Confirm your e-mail address"
RESET = "Choose a new password"
PASSWORD_CHANGED = "Your password was changed"
EMAIL_CHANGED = "Your e-mail address was changed"


@dataclass
class MailServer:
    """What an SMTP server is told, and answers."""

    port: int = 0
    recipient_answer: str = "250 OK"
    data_answer: str = "250 OK"
    taken: list[Envelope] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)

    async def handle_RCPT(self, _: Any, __: Any, envelope: Envelope, address: str, ___: Any) -> str:  # noqa: N802
        """Whether it takes mails for an address."""
        if self.recipient_answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.recipient_answer

    async def handle_DATA(self, server: SMTP, _: Any, envelope: Envelope) -> str:  # noqa: N802
        """Whether it takes a mail."""
        if self.data_answer.startswith("250"):
            self.taken.append(envelope)
            transport = server.transport
            assert transport is not None
            self.encrypted.append(transport.get_extra_info("ssl_object") is not None)
        return self.data_answer


@asynccontextmanager
async def running_mail_server(
    port: int = 0, *, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[MailServer]:
    """An SMTP server on this machine; `tls` is spoken from the first byte, `options` are aiosmtpd's."""
    told = MailServer()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(told, loop=loop, hostname="localhost", **options), "127.0.0.1", port, ssl=tls
    )
    told.port = server.sockets[0].getsockname()[1]
    async with server:
        yield told
