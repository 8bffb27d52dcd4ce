"""Mails that tell of what is unread: some time after it happened, and at most one an hour for an account."""

import hashlib
import hmac
import re
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from instafeed import activity, base64url, mails, wording
from instafeed.errors import TokenUnusable
from instafeed.ids import MAX_ID, shard_of
from instafeed.mails import Letter
from instafeed.models import ActivityKind, Audience, Channel, Preferences, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import activity as activity_rows
from instafeed.storage import digests as digest_rows
from instafeed.storage import emails as email_rows
from instafeed.storage import inboxes as inbox_rows
from instafeed.storage import outbox
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import FollowUp

_FIRST_SECONDS = 300.0
"""What is read within this time needs no mail."""
_PAUSE_SECONDS = 3600.0
_LINES = 20
_TOKEN = re.compile(r"([1-9][0-9]{0,18})\.([A-Za-z0-9_-]{43})")


class _Written(NamedTuple):
    letter: Letter
    up_to: int


async def note(res: Resources, connection: Connection, account_ids: Iterable[int]) -> None:
    """Let a mail wait for each of these accounts, in the running transaction, unless one does."""
    waits = await digest_rows.begin(connection, account_ids, pause=_PAUSE_SECONDS)
    for account_id, seconds in waits.items():
        entry_id = res.ids.next(shard_of(account_id))
        payload = {"account": account_id}
        await outbox.add(connection, entry_id, Kind.DIGEST, payload, seconds=max(seconds, _FIRST_SECONDS))


async def send(res: Resources, entry: Entry) -> list[FollowUp]:
    """Job: tell an account by mail of all that is unread, of which it wants mails, and of which no mail told it.

    It may be sent twice, with the same `Message-ID`, where a worker was killed.
    """
    account_id: int = entry.payload["account"]
    written = await res.db.transact(partial(_write, res, account_id))
    if written is not None and res.mailer is not None:
        await mails.hand_over(res.mailer, entry.id, written.letter)
        async with res.db.acquire() as connection:
            await digest_rows.mark(connection, account_id, written.up_to)
    return []


async def _write(res: Resources, account_id: int, connection: Connection) -> _Written | None:
    mailed_id = await digest_rows.lock(connection, account_id)
    account = await account_rows.get(connection, account_id)
    to = (await email_rows.get(connection, account_id)).confirmed
    inbox = await inbox_rows.get(connection, account_id)
    viewer = Viewer.of(account_id)
    above = max(mailed_id, inbox.read_id - activity_rows.STILL)
    off = [kind for kind in ActivityKind if inbox.preferences.audience(kind, Channel.MAIL) is Audience.OFF]
    rows = await activity_rows.page(
        connection, account_id, below=MAX_ID, limit=_LINES, above=max(above, 0), without=off
    )
    told = await activity.entries(connection, viewer, inbox, rows, channel=Channel.MAIL)
    unread = [told[row] for row in rows if row in told and told[row].unread]
    if not unread or to is None or account is None or account.suspended:
        await digest_rows.take(connection, account_id, sends=False)
        return None
    await digest_rows.take(connection, account_id, sends=True)
    lines = [f"{wording.told(item).text}." for item in unread]
    subject = lines[0].removesuffix(".") + (f", and {len(lines) - 1} more" if len(lines) > 1 else "")
    url = res.settings.app_url
    place = f"Open {url.rstrip('/')}/activity to see it" if url else "Open the app to see it"
    text = (
        f"Hello @{account.username},\n\n"
        + "".join(f"{line}\n" for line in lines)
        + f"\n{place}. What you get mails about, if any, is for you to say in your preferences there.\n"
    )
    return _Written(Letter(to, subject, text, unsubscribe=_unsubscribe_url(res, account_id)), rows[0].id)


def _unsubscribe_url(res: Resources, account_id: int) -> str | None:
    url = res.settings.api_url
    return f"{url.rstrip('/')}/v1/mails/unsubscribe/{_token(res, account_id)}" if url else None


def _token(res: Resources, account_id: int) -> str:
    key = res.settings.secret_key.get_secret_value().encode()
    mark = hmac.digest(key, f"unsubscribe\0{account_id}".encode(), hashlib.sha256)
    return f"{account_id}.{base64url.encode(mark)}"


async def unsubscribe(res: Resources, token: str) -> None:
    """Send the account that got this token by mail no more mails of what happens.

    Raises:
        TokenUnusable: we never sent it, or the account is gone.
    """
    match = _TOKEN.fullmatch(token)
    account_id = int(match[1]) if match else 0
    if not 0 < account_id <= MAX_ID or not hmac.compare_digest(token, _token(res, account_id)):
        raise TokenUnusable

    async def body(connection: Connection) -> None:
        if account_id not in await account_rows.lock(connection, [account_id]):
            raise TokenUnusable
        said = dict((await inbox_rows.get(connection, account_id)).preferences.said)
        for kind in ActivityKind:
            if kind is not ActivityKind.OTHER:
                said[kind] = {**said.get(kind, {}), Channel.MAIL: Audience.OFF}
        await inbox_rows.set_preferences(connection, account_id, Preferences(said))

    await res.db.transact(body)
