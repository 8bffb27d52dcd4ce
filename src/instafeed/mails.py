"""Mails: what they say, the tokens that they carry, and sending them."""

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum

from instafeed import base64url, telemetry
from instafeed.changes import Change
from instafeed.errors import TokenUnusable
from instafeed.ids import MAX_ID, shard_of
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import emails as email_rows
from instafeed.storage import mail_tokens as token_rows
from instafeed.storage.database import Connection
from instafeed.storage.mail_tokens import Granted
from instafeed.storage.mailer import Mailer, MailRefused
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import FollowUp

_TOKEN = re.compile(r"([1-9][0-9]{0,18})\.([A-Za-z0-9_-]{43})")


class Mail(StrEnum):
    """What mails there are. Those with a token are also what it is good for."""

    CONFIRM_EMAIL = "confirm_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - no password
    PASSWORD_CHANGED = "password_changed"  # noqa: S105
    EMAIL_CHANGED = "email_changed"


@dataclass(frozen=True, slots=True)
class _Template:
    subject: str
    text: str
    page: str = ""
    """Which page of the app its token opens."""
    hours: int = 0
    """For how long the token counts."""


_TEMPLATES = {
    Mail.CONFIRM_EMAIL: _Template(
        "Confirm your e-mail address",
        "Hello @{username},\n\nthis address was given for your account. To confirm it, {action}:\n\n{token}\n\n"
        "It works for 24 hours. If it was not you who gave the address, do nothing: it is not used then.\n",
        "confirm-email",
        24,
    ),
    Mail.RESET_PASSWORD: _Template(
        "Choose a new password",
        "Hello @{username},\n\nsomebody asked for a new password for your account. To choose one, {action}:\n\n{token}\n\n"
        "It works for an hour, and once. If it was not you who asked, do nothing: your password stays as it is.\n",
        "reset-password",
        1,
    ),
    Mail.PASSWORD_CHANGED: _Template(
        "Your password was changed",
        "Hello @{username},\n\nthe password of your account was changed, and all other devices were logged out.\n"
        "If it was not you, ask for a new password now.\n",
    ),
    Mail.EMAIL_CHANGED: _Template(
        "Your e-mail address was changed",
        "Hello @{username},\n\nthis is not the e-mail address of your account any more.\n"
        "If it was not you who changed that, change your password and the address.\n",
    ),
}

_log = telemetry.logger()


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail that is written."""

    to: str
    subject: str
    text: str
    unsubscribe: str | None = None
    """Where a mail program asks for no more of its kind."""


async def note(change: Change, account_id: int, mail: Mail, *, to: str | None = None) -> None:
    """Let a mail go out after the change: to the account's address (the pending one to confirm it), or to `to`."""
    await change.note(shard_of(account_id), Kind.MAIL, {"mail": mail, "account": account_id, "to": to})


async def send(res: Resources, entry: Entry) -> list[FollowUp]:
    """Send the mail of an outbox entry, if there is anybody to send it to.

    Its token is made here and now: it counts from when it is sent, and the outbox never holds it. `name` in the payload,
    instead of `account`, is a username or an address that somebody typed.
    """
    if res.mailer is None:
        _log.warning("no mail is sent: INSTAFEED_MAIL_URL is not set", entry=str(entry.id))
        return []
    letter = await res.db.transact(lambda connection: _write(res, connection, entry))
    if letter is not None:
        await hand_over(res.mailer, entry.id, letter)
    return []


async def hand_over(mailer: Mailer, entry_id: int, letter: Letter) -> None:
    """Hand the mail of an outbox entry to the mail server; one that is refused for good is let go.

    Raises:
        MailRefused: not now.
        Unavailable: the mail server does not answer.
    """
    try:
        await mailer.send(
            entry_id, to=letter.to, subject=letter.subject, text=letter.text, unsubscribe=letter.unsubscribe
        )
    except MailRefused as refused:
        if not refused.is_final:
            raise
        _log.warning("a mail was refused", entry=str(entry_id), reason=str(refused))


async def _write(res: Resources, connection: Connection, entry: Entry) -> Letter | None:
    mail = Mail(entry.payload["mail"])
    account_id = entry.payload.get("account") or await _who(connection, entry.payload["name"])
    account = (await account_rows.lock(connection, [account_id] if account_id else [])).get(account_id or 0)
    if account is None or account.suspended:
        return None
    emails = await email_rows.get(connection, account.id)
    to = entry.payload.get("to") or (emails.pending if mail is Mail.CONFIRM_EMAIL else emails.confirmed)
    if to is None:
        return None
    template = _TEMPLATES[mail]
    token = ""
    if template.hours:
        secret = _secret(res, entry.id)
        granted = await token_rows.grant(
            connection, account.id, entry.id, purpose=mail, email=to, token_hash=_hash(secret), hours=template.hours
        )
        if not granted:
            return None
        token = f"{account.id}.{secret}"
    text = template.text.format(
        username=account.username,
        action="open this link" if res.settings.app_url else "enter this code in the app",
        token=f"{res.settings.app_url.rstrip('/')}/{template.page}#{token}" if res.settings.app_url else token,
    )
    return Letter(to, template.subject, text)


async def _who(connection: Connection, name: str) -> int | None:
    return await (email_rows.owner if "@" in name else account_rows.id_of_username)(connection, name)


def _secret(res: Resources, entry_id: int) -> str:
    """The secret half of the token in the mail of an outbox entry: the same one each time it is sent."""
    key = res.settings.secret_key.get_secret_value().encode()
    return base64url.encode(hmac.digest(key, f"mail\0{entry_id}".encode(), hashlib.sha256))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


async def look(connection: Connection, token: str, mail: Mail) -> tuple[int, Granted]:
    """The account of a token from such a mail, and the token; lock the account before you rely on it.

    Raises:
        TokenUnusable: it is malformed or unknown, was used, or has expired.
    """
    match = _TOKEN.fullmatch(token)
    if match is None or int(match[1]) > MAX_ID:
        raise TokenUnusable
    account_id, token_hash = int(match[1]), _hash(match[2])
    found = [
        granted
        for granted in await token_rows.usable(connection, account_id, mail)
        if hmac.compare_digest(granted.token_hash, token_hash)
    ]
    if not found:
        raise TokenUnusable
    return account_id, found[0]
