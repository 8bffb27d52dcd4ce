"""Mails: handed to an SMTP server, or written to a folder."""

import asyncio
import os
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import aiosmtplib

from instafeed.errors import Unavailable

_SECONDS = 15
# Lines are not broken: a token is found whole in the raw mail too.
_POLICY = policy.SMTP.clone(max_line_length=500)


class MailRefused(Exception):
    """The server does not take a mail for this address: for good, or not now.

    Says nothing of the address: errors are logged.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"the mail server answers {code} to the address")
        self.is_final = code >= 500


class Mailer:
    """Sends plain text."""

    def __init__(self, url: str, sender: str) -> None:
        """`url` and `sender` are the settings `mail_url` and `mail_from`."""
        self._url = urlsplit(url)
        self._sender = sender

    async def send(self, mail_id: int, *, to: str, subject: str, text: str, unsubscribe: str | None = None) -> None:
        """Send a mail. One that is sent twice has the same `Message-ID`. `unsubscribe` is the URL that a mail program posts to
        for no more of them (RFC 8058).

        Raises:
            MailRefused: not to this address.
            Unavailable: the server does not answer, or cannot take mails now.
        """
        message = EmailMessage(_POLICY)
        message["From"] = self._sender
        message["To"] = to
        message["Subject"] = subject
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = f"<{mail_id}@{parseaddr(self._sender)[1].partition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        if unsubscribe is not None:
            message["List-Unsubscribe"] = f"<{unsubscribe}>"
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message.set_content(text)
        if self._url.scheme == "file":
            await asyncio.to_thread(self._write, f"{mail_id}.eml", bytes(message))
        else:
            await self._hand_over(message, to)

    async def ping(self) -> None:
        """Log in, and hand nothing over.

        Raises:
            Unavailable: the server does not answer, or does not take the log-in.
            OSError: there is no folder for mails, and none can be made.
        """
        if self._url.scheme == "file":
            await asyncio.to_thread(self._open_folder)
            return
        try:
            async with aiosmtplib.SMTP(**self._log_in()):
                pass
        except OSError as error:
            raise Unavailable("The mail server does not answer.") from error
        except aiosmtplib.SMTPException as error:
            raise Unavailable("The mail server does not take our log-in.") from error

    def _write(self, name: str, data: bytes) -> None:
        folder = self._open_folder()
        new = folder / f".{name}.{os.getpid()}"
        new.touch(mode=0o600)
        new.write_bytes(data)
        new.rename(folder / name)

    def _open_folder(self) -> Path:
        folder = Path(unquote(self._url.path))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    async def _hand_over(self, message: EmailMessage, to: str) -> None:
        try:
            await aiosmtplib.send(message, sender=parseaddr(self._sender)[1], recipients=[to], **self._log_in())
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise MailRefused(error.recipients[0].code) from None
        except OSError as error:  # what aiosmtplib raises of connections and time-outs is one too
            raise Unavailable("The mail server does not answer.") from error
        except aiosmtplib.SMTPResponseException as error:
            if error.code >= 500:
                raise
            raise Unavailable("The mail server takes no mails now.") from error

    def _log_in(self) -> dict[str, Any]:
        url = self._url
        return {
            "hostname": url.hostname,
            "port": url.port,
            "username": unquote(url.username) if url.username else None,
            "password": unquote(url.password) if url.password else None,
            "use_tls": url.scheme == "smtps",
            "start_tls": url.scheme == "smtp+starttls",
            "timeout": _SECONDS,
        }
