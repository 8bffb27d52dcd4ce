"""What proves who somebody is: passwords, asked for once more and changed."""

from instafeed import access, sessions
from instafeed.changes import Change, transact
from instafeed.errors import WrongPassword
from instafeed.models import Account, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows


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
        await account_rows.set_password(change.connection, viewer.account_id, new_hash)
        await sessions.end_all(change, viewer.account_id, but=viewer.session_id)

    await transact(res, body)
