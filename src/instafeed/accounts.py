"""Signing up, who is who, who is an admin, and whose account is suspended."""

import re
import unicodedata
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from functools import partial

from instafeed import access, feeds, mails
from instafeed.changes import Change, transact
from instafeed.errors import Invalid, NotFound, RateLimited, UsernameTaken
from instafeed.folding import terms_of
from instafeed.ids import MAX_ID, shard_of
from instafeed.mails import Mail
from instafeed.models import Account, AccountChanges, Action, Emails, Relation, Session, Subject, SubjectKind, Viewer
from instafeed.resources import Resources
from instafeed.sessions import LogIn, end_all, open_session
from instafeed.storage import accounts as account_rows
from instafeed.storage import admins as admin_rows
from instafeed.storage import audit_log as audit_rows
from instafeed.storage import emails as email_rows
from instafeed.storage import search as search_rows
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
            await search_rows.put(connection, account_id, terms_of(username, display_name), followers=0)
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
        renamed = (after.username, after.display_name) != (before.username, before.display_name)
        if renamed or after.is_private != before.is_private:
            await change.hold_author(me)
        if renamed:
            terms = terms_of(after.username, after.display_name)
            await search_rows.put(change.connection, me, terms, followers=after.follower_count)
        if before.is_private and not after.is_private:
            await change.note(shard_of(me), Kind.APPROVE, {"account": me})
            await _tag_all(change, me)
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


async def suspend(res: Resources, username: str, *, operator: str = "cli", note: str = "") -> None:
    """Let an account vanish from every surface, and log it out everywhere; what it has stays as it is.

    Args:
        res: the resources.
        username: normalized.
        operator: who does it, for the audit log.
        note: why.

    Raises:
        NotFound: nobody has this username.
        RedisAway: it goes on: its sessions could not be ended everywhere.
    """
    body = partial(set_suspended, suspended=True)
    await _operate(res, username, Action.SUSPEND, body, operator=operator, note=note)


async def unsuspend(res: Resources, username: str, *, operator: str = "cli", note: str = "") -> None:
    """Bring a suspended account back, which can log in again. Arguments and errors are those of `suspend`."""
    body = partial(set_suspended, suspended=False)
    await _operate(res, username, Action.UNSUSPEND, body, operator=operator, note=note)


async def promote(res: Resources, username: str, *, operator: str = "cli", note: str = "") -> None:
    """Make an account an admin's. Arguments and errors are those of `suspend`."""

    def body(change: Change, account_id: int) -> Awaitable[bool]:
        return admin_rows.insert(change.connection, account_id)

    await _operate(res, username, Action.PROMOTE, body, operator=operator, note=note)


async def demote(res: Resources, username: str, *, operator: str = "cli", note: str = "") -> None:
    """Make an account an admin's no more, from its next request on. Arguments and errors are those of `suspend`."""

    def body(change: Change, account_id: int) -> Awaitable[bool]:
        return admin_rows.delete(change.connection, account_id)

    await _operate(res, username, Action.DEMOTE, body, operator=operator, note=note)


async def _operate(
    res: Resources,
    username: str,
    action: Action,
    body: Callable[[Change, int], Awaitable[bool]],
    *,
    operator: str,
    note: str,
) -> None:
    """Do to the account, which `body` finds locked, what an operator asks for; what changes nothing is not noted."""

    async def locked(change: Change) -> None:
        connection = change.connection
        account_id = await account_rows.id_of_username(connection, username)
        if account_id is None or not await account_rows.lock(connection, [account_id]):
            raise NotFound
        if await body(change, account_id):
            subject = Subject(SubjectKind.ACCOUNT, account_id)
            entry_id = res.ids.next(shard_of(account_id))
            await audit_rows.add(connection, entry_id, action, subject, account_id=account_id, by=operator, note=note)

    await transact(res, locked)


async def set_suspended(change: Change, account_id: int, *, suspended: bool) -> bool:
    """Suspend an account, or bring it back, in the running transaction, in which it is locked; False if it is so already.

    Raises:
        NotFound: it left, and does not come back.
        RedisAway: it goes on: its sessions could not be ended everywhere.
    """
    account = await account_rows.get(change.connection, account_id)
    if account is None or account.suspended == suspended:
        return False
    await change.hold_author(account_id)
    if not await account_rows.set_suspended(change.connection, account_id, suspended=suspended):
        raise NotFound
    if suspended:
        await end_all(change, account_id)
    else:
        await _tag_all(change, account_id)
    return True


async def _tag_all(change: Change, account_id: int) -> None:
    """Everybody may see the account's posts from now on: those who follow the posts' tags, in their home feeds."""
    await change.note(shard_of(account_id), Kind.TAG, {"author": account_id, "above": 0, "up_to": MAX_ID})
