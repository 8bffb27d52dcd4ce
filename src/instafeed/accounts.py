"""Signing up, who is who, and whose account is suspended."""

import re
import unicodedata
from dataclasses import asdict, replace

from instafeed import access, feeds, mails
from instafeed.changes import Change, transact
from instafeed.errors import Invalid, NotFound, RateLimited, UsernameTaken
from instafeed.ids import shard_of
from instafeed.mails import Mail
from instafeed.models import Account, AccountChanges, Emails, Relation, Session, Viewer
from instafeed.resources import Resources
from instafeed.sessions import LogIn, end_all, open_session
from instafeed.storage import accounts as account_rows
from instafeed.storage import emails as email_rows
from instafeed.storage import sessions as session_rows
from instafeed.storage.outbox import Kind
from instafeed.visibility import profile_visible

USERNAME = re.compile(r"(?!.*[._]{2})[a-z0-9][a-z0-9._]{0,28}[a-z0-9]|[a-z0-9]")

_NAMES_HELD = 3

# Names that would pass for us, for a part of the site, or for nobody.
# fmt: off
_RESERVED = frozenset({
    "about", "account", "accounts", "activity", "admin", "administrator", "anonymous", "api", "app", "apps", "auth",
    "billing", "blog", "contact", "docs", "everyone", "explore", "feed", "guest", "help", "here", "home", "info",
    "instafeed", "legal", "login", "logout", "mail", "me", "media", "mod", "moderator", "mods", "news", "nobody",
    "null", "oauth", "official", "owner", "photo", "photos", "post", "posts", "press", "privacy", "problems",
    "register", "root", "security", "session", "sessions", "settings", "signup", "staff", "status", "support",
    "sysadmin", "system", "tag", "tags", "team", "terms", "undefined", "user", "username", "users", "v1",
    "webmaster", "www", "you",
})
# fmt: on


def normalize_username(name: str) -> str:
    """The one form of a name that all its Unicode and case variants share."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _must_be_free(username: str) -> None:
    if username in _RESERVED:
        raise UsernameTaken("This username is reserved.")


async def sign_up(
    res: Resources,
    *,
    account_id: int,
    username: str,
    password: str,
    email: str | None,
    display_name: str,
    device_name: str,
    repeat_key: str | None,
) -> LogIn:
    """Make an account and log it in. Its first session has the account's own id.

    Args:
        res: the resources.
        account_id: the id to give it; where the account is there already, made by the same request, it is found again.
        username: normalized, and of the form of `USERNAME`.
        password: as it was typed.
        email: lower-case, or None; a mail goes there, so that it can be confirmed.
        display_name: may be empty.
        device_name: what the session is called in the list of devices.
        repeat_key: see `sessions.repeatable_secret`.

    Raises:
        UsernameTaken: somebody else has it or had it until lately, or it is reserved.
    """
    _must_be_free(username)
    password_hash = await res.passwords.hash(password)

    async def body(change: Change) -> tuple[str, Account | None, Emails, Session | None]:
        connection = change.connection
        if await account_rows.get(connection, account_id) is None:
            await account_rows.insert(
                connection,
                account_id,
                username=username,
                display_name=display_name,
                password_hash=password_hash,
            )
            if email:
                await email_rows.put(connection, account_id, before=Emails(), after=Emails(pending=email))
                await mails.note(change, account_id, Mail.CONFIRM_EMAIL)
        token = await open_session(
            res, connection, account_id, account_id, device_name=device_name, repeat_key=repeat_key
        )
        account = await account_rows.get(connection, account_id)
        emails = await email_rows.get(connection, account_id)
        return token, account, emails, await session_rows.get(connection, account_id, account_id)

    token, account, emails, session = await transact(res, body)
    if account is None or session is None:
        raise Invalid("The account could not be made.")
    await feeds.materialise(res, account_id)
    return LogIn(account, emails, session, token)


async def get_own(res: Resources, viewer: Viewer) -> tuple[Account, Emails]:
    """The viewer's own account.

    Raises:
        NotFound: it is gone.
    """
    async with res.db.acquire() as connection:
        account, _ = await access.see(connection, viewer, viewer.account_id, profile_visible)
        return account, await email_rows.get(connection, viewer.account_id)


async def get(res: Resources, viewer: Viewer, account_id: int) -> tuple[Account, Relation | None]:
    """An account and how the viewer stands to it (None: it is the viewer's own).

    Raises:
        NotFound: there is none that the viewer may see.
    """
    async with res.db.acquire() as connection:
        account, relation = await access.see(connection, viewer, account_id, profile_visible)
    return account, None if account_id == viewer.account_id else relation


async def get_by_username(res: Resources, viewer: Viewer, username: str) -> tuple[Account, Relation | None]:
    """Like `get`, by a normalized username; one that it gave up finds it for as long as it is held."""
    async with res.db.acquire() as connection:
        account_id = await account_rows.id_of_username(connection, username)
    if account_id is None:
        raise NotFound
    return await get(res, viewer, account_id)


async def update(res: Resources, viewer: Viewer, changes: AccountChanges) -> tuple[Account, Emails]:
    """Change the viewer's own account, and return it.

    From then on an account that goes private shows its posts to its followers only, who are still those that it had;
    when it goes public, whoever asked to follow it does. A username that it gives up is held for it: see docs/accounts.md.

    Raises:
        UsernameTaken: the new username is reserved, or somebody else has it or had it until lately.
        RateLimited: it would give up more names than are held for one account.
    """
    me = viewer.account_id

    async def body(change: Change) -> tuple[Account, Emails]:
        before = await access.lock_self(change.connection, viewer)
        after = replace(before, **{name: value for name, value in asdict(changes).items() if value is not None})
        if after.username != before.username:
            await _rename(change, before, after.username)
        if (after.username, after.display_name) != (before.username, before.display_name):
            await change.hold_author(me)
        if before.is_private and not after.is_private:
            await change.note(shard_of(me), Kind.APPROVE, {"account": me})
        await account_rows.update(change.connection, after)
        return after, await email_rows.get(change.connection, me)

    return await transact(res, body)


async def _rename(change: Change, account: Account, username: str) -> None:
    _must_be_free(username)
    await account_rows.rename(change.connection, account, username)
    # Counted afterwards: to take a former name back is always allowed.
    held = await account_rows.names_held(change.connection, account.id)
    if len(held) > _NAMES_HELD:
        raise RateLimited(
            f"At most {_NAMES_HELD} former usernames are held for an account. Take one of them, or wait.",
            retry_after=held[0].total_seconds(),
        )


async def suspend(res: Resources, username: str) -> None:
    """Let an account vanish from every surface, and log it out everywhere; what it has stays as it is.

    Raises:
        NotFound: nobody has this normalized username.
        RedisAway: it goes on: its sessions could not be ended everywhere.
    """
    await _set_suspended(res, username, suspended=True)


async def unsuspend(res: Resources, username: str) -> None:
    """Bring a suspended account back, which can log in again.

    Raises:
        NotFound: nobody has this normalized username.
    """
    await _set_suspended(res, username, suspended=False)


async def _set_suspended(res: Resources, username: str, *, suspended: bool) -> None:
    async def body(change: Change) -> None:
        account_id = await account_rows.id_of_username(change.connection, username)
        locked = await account_rows.lock(change.connection, [account_id] if account_id else [])
        if not account_id or account_id not in locked:
            raise NotFound
        if locked[account_id].suspended == suspended:
            return
        await change.hold_author(account_id)
        await account_rows.set_suspended(change.connection, account_id, suspended=suspended)
        if suspended:
            await end_all(change, account_id)

    await transact(res, body)
