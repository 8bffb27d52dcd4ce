"""E-mail addresses: given by their owner, and counting once a token from their mail has come back."""

from instafeed import credentials, mails
from instafeed.changes import Change, transact
from instafeed.errors import TokenUnusable
from instafeed.mails import Mail
from instafeed.models import Account, Emails, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import emails as email_rows
from instafeed.storage import mail_tokens as token_rows


async def give(res: Resources, viewer: Viewer, *, address: str | None, password: str) -> tuple[Account, Emails]:
    """Give the viewer's account another address, which counts once it is confirmed; None takes all away at once.

    A mail goes to the new address; the one that is confirmed goes on counting until then. Whether another account has the
    address is told to nobody but to whoever confirms it.

    Raises:
        WrongPassword: it is not the viewer's password.
    """
    kept = await credentials.check(res, viewer, password)

    async def body(change: Change) -> tuple[Account, Emails]:
        account = await credentials.lock(change, viewer, kept)
        before = await email_rows.get(change.connection, account.id)
        after = Emails()
        if address is not None:
            after = Emails(before.confirmed, None if address == before.confirmed else address)
        if after.pending:
            await mails.note(change, account.id, Mail.CONFIRM_EMAIL)
        await _put(change, account.id, before, after)
        return account, after

    return await transact(res, body)


async def confirm(res: Resources, token: str) -> None:
    """Let an address count whose mail carried this token.

    Raises:
        TokenUnusable: it was used, has expired, or the account has another address by now.
        EmailTaken: another account confirmed the address before.
    """
    async with res.db.acquire() as connection:
        account_id, _ = await mails.look(connection, token, Mail.CONFIRM_EMAIL)

    async def body(change: Change) -> None:
        account = (await account_rows.lock(change.connection, [account_id])).get(account_id)
        _, granted = await mails.look(change.connection, token, Mail.CONFIRM_EMAIL)
        before = await email_rows.get(change.connection, account_id)
        if account is None or account.suspended or granted.email != before.pending:
            raise TokenUnusable
        await token_rows.use_up(change.connection, account_id, Mail.CONFIRM_EMAIL)
        await _put(change, account_id, before, Emails(granted.email))

    await transact(res, body)


async def _put(change: Change, account_id: int, before: Emails, after: Emails) -> None:
    await email_rows.put(change.connection, account_id, before=before, after=after)
    if before.confirmed and before.confirmed != after.confirmed:
        # What its mails carried must not let anybody in any more, and who reads it is to know.
        await token_rows.use_up(change.connection, account_id, Mail.RESET_PASSWORD)
        await mails.note(change, account_id, Mail.EMAIL_CHANGED, to=before.confirmed)
