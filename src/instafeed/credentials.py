"""What proves who somebody is: passwords, asked for once more, changed, and chosen anew by whoever forgot."""

from instafeed import access, mails, sessions
from instafeed.changes import Change, transact
from instafeed.errors import TokenUnusable, WrongPassword
from instafeed.ids import random_shard
from instafeed.mails import Mail
from instafeed.models import Account, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import mail_tokens as token_rows
from instafeed.storage.outbox import Kind


async def check(res: Resources, viewer: Viewer, password: str) -> str:
    """Whether it is the viewer's password; returns the hash that it was held against, for `lock`.

    Raises:
        WrongPassword: it is not.
    """
    async with res.db.acquire() as connection:
        kept = await account_rows.password_hash(connection, viewer.account_id)
    if not await res.passwords.verify(password, kept) or kept is None:
        raise WrongPassword
    return kept


async def lock(change: Change, viewer: Viewer, kept: str) -> Account:
    """The viewer's own account, its row locked, whose password is still the one that was checked.

    Raises:
        WrongPassword: it was changed a moment ago.
        Unauthenticated: the viewer was suspended a moment ago.
    """
    account = await access.lock_self(change.connection, viewer)
    if await account_rows.password_hash(change.connection, viewer.account_id) != kept:
        raise WrongPassword
    return account


async def change_password(res: Resources, viewer: Viewer, *, current: str, new: str) -> None:
    """Change the viewer's password, and log the viewer out everywhere else.

    Raises:
        WrongPassword: `current` is not the password.
        RedisAway: nothing is changed: the sessions could not be ended everywhere.
    """
    kept = await check(res, viewer, current)
    new_hash = await res.passwords.hash(new)

    async def body(change: Change) -> None:
        await lock(change, viewer, kept)
        await _set(change, viewer.account_id, new_hash, but=viewer.session_id)

    await transact(res, body)


async def request_reset(res: Resources, name: str) -> None:
    """Let a mail go out with which a new password can be chosen, if an account has this username or confirmed address.

    Whether one has is looked up later, by whoever sends the mail: nothing here takes longer for one that exists.
    """
    shard = random_shard()
    await transact(res, lambda change: change.note(shard, Kind.MAIL, {"mail": Mail.RESET_PASSWORD, "name": name}))


async def reset(res: Resources, token: str, *, new: str) -> None:
    """Change the password of the account whose mail carried this token, and log it out everywhere.

    Raises:
        TokenUnusable: it was used, or has expired.
        RedisAway: nothing is changed: the sessions could not be ended everywhere.
    """
    async with res.db.acquire() as connection:
        account_id, _ = await mails.look(connection, token, Mail.RESET_PASSWORD)
    new_hash = await res.passwords.hash(new)

    async def body(change: Change) -> None:
        account = (await account_rows.lock(change.connection, [account_id])).get(account_id)
        await mails.look(change.connection, token, Mail.RESET_PASSWORD)
        if account is None or account.suspended:
            raise TokenUnusable
        await _set(change, account_id, new_hash)

    await transact(res, body)


async def _set(change: Change, account_id: int, new_hash: str, *, but: int = 0) -> None:
    """`but` is the session that goes on."""
    await account_rows.set_password(change.connection, account_id, new_hash)
    await token_rows.use_up(change.connection, account_id, Mail.RESET_PASSWORD)
    await mails.note(change, account_id, Mail.PASSWORD_CHANGED)
    await sessions.end_all(change, account_id, but=but)
