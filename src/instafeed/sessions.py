"""Logging in and out, and who a token is."""

import asyncio
import contextlib
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Any, NamedTuple

from instafeed import base64url
from instafeed.changes import Change, transact
from instafeed.errors import NotFound, RedisAway, Unauthenticated, WrongCredentials
from instafeed.ids import MAX_ID
from instafeed.models import Account, Emails, Page, Session, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import emails as email_rows
from instafeed.storage import sessions as session_rows
from instafeed.storage.database import Connection

_SECRET_CHARACTERS = 43  # 256 bits in base64


@dataclass(frozen=True, slots=True)
class LogIn:
    """A fresh session with its token, which is known only now."""

    account: Account
    emails: Emails
    session: Session
    token: str


def _key(account_id: int, token_hash: bytes) -> str:
    return f"{account_id}:{token_hash.hex()}"


def repeatable_secret(res: Resources, session_id: int, repeat_key: str) -> str:
    """The secret half of the token of a session that a request with this Idempotency-Key opens.

    It follows from the two and from our secret key: a request that is sent again gets the same token, and no token is
    ever kept.
    """
    text = f"token\0{session_id}\0{repeat_key}"
    key = res.settings.secret_key.get_secret_value().encode()
    return base64url.encode(hmac.digest(key, text.encode(), hashlib.sha256))


async def open_session(
    res: Resources,
    connection: Connection,
    account_id: int,
    session_id: int,
    *,
    device_name: str,
    repeat_key: str | None,
) -> str:
    """Add a session in the running transaction and return its token.

    `repeat_key` is the request's Idempotency-Key: see `repeatable_secret`.
    """
    secret = secrets.token_urlsafe(32) if repeat_key is None else repeatable_secret(res, session_id, repeat_key)
    await session_rows.insert(
        connection,
        session_id,
        account_id=account_id,
        token_hash=hashlib.sha256(secret.encode()).digest(),
        device_name=device_name,
    )
    return f"{account_id}.{secret}"


async def log_in(
    res: Resources, *, username: str, password: str, device_name: str, session_id: int, repeat_key: str | None
) -> LogIn:
    """Open a session named `session_id`, or find it open; for `repeat_key` see `repeatable_secret`.

    Raises:
        WrongCredentials: one of the two is wrong, or the account is suspended; all take the same time.
    """
    async with res.db.acquire() as connection:
        account_id = await account_rows.id_of_username(connection, username)
        kept = await account_rows.password_hash(connection, account_id) if account_id else None
    if not await res.passwords.verify(password, kept) or account_id is None:
        raise WrongCredentials

    async def body(connection: Connection) -> tuple[str, Account, Emails, Session | None]:
        # Locked: a suspension or another password finds this session, and ends it, or is found.
        account = (await account_rows.lock(connection, [account_id])).get(account_id)
        if account is None or account.suspended or await account_rows.password_hash(connection, account_id) != kept:
            raise WrongCredentials
        token = await open_session(
            res, connection, account_id, session_id, device_name=device_name, repeat_key=repeat_key
        )
        emails = await email_rows.get(connection, account_id)
        return token, account, emails, await session_rows.get(connection, account_id, session_id)

    token, account, emails, session = await res.db.transact(body)
    if session is None:
        raise WrongCredentials
    return LogIn(account, emails, session, token)


class Claim(NamedTuple):
    """What a token says of itself, unproven; `asked` is the cache's answer, under way."""

    account_id: int
    token_hash: bytes
    asked: "asyncio.Future[Any] | None"

    @property
    def key(self) -> str:
        """What the session is called in the cache."""
        return _key(self.account_id, self.token_hash)


async def begin_authenticate(res: Resources, token: str) -> Claim:
    """Ask the cache for the session of this token; `finish_authenticate` says who it is.

    Raises:
        Unauthenticated: the token is malformed.
    """
    name, dot, secret = token.partition(".")
    if not (dot and name.isascii() and name.isdigit() and name[0] != "0" and len(name) <= 19 and secret.isascii()):
        raise Unauthenticated
    account_id = int(name)
    if len(secret) != _SECRET_CHARACTERS or account_id > MAX_ID:
        raise Unauthenticated
    token_hash = hashlib.sha256(secret.encode()).digest()
    try:
        asked = await res.sessions.begin_get(_key(account_id, token_hash))
    except RedisAway:
        asked = None
    return Claim(account_id, token_hash, asked)


async def finish_authenticate(res: Resources, claim: Claim) -> Viewer:
    """Who it is.

    Raises:
        Unauthenticated: the session does not exist, was ended, or idled too long.
    """
    session_id = None
    if claim.asked is not None:
        try:
            session_id = res.sessions.finish_get(await claim.asked)
        except RedisAway:
            session_id = None
    if session_id is None:
        session_id = await _look_up(res, claim.account_id, claim.token_hash)
    if not session_id:
        raise Unauthenticated
    return Viewer(claim.account_id, session_id, claim.key)


async def authenticate(res: Resources, token: str) -> Viewer:
    """Who sends this token.

    Raises:
        Unauthenticated: the token is malformed, or its session does not exist, was ended, or idled too long.
    """
    return await finish_authenticate(res, await begin_authenticate(res, token))


async def is_open(res: Resources, viewer: Viewer) -> bool:
    """Whether the viewer's session goes on, as the database says; the cache knows it again then."""
    token_hash = bytes.fromhex(viewer.session_key.partition(":")[2])
    return await _look_up(res, viewer.account_id, token_hash) is not None


async def _look_up(res: Resources, account_id: int, token_hash: bytes) -> int | None:
    key, epoch = _key(account_id, token_hash), None
    with contextlib.suppress(RedisAway):
        epoch = await res.sessions.epoch(key)
    async with res.db.acquire() as connection:
        session_id = await session_rows.use(connection, account_id, token_hash, idle_days=res.settings.session_days)
    if session_id is not None and epoch is not None:
        with contextlib.suppress(RedisAway):
            await res.sessions.fill(key, session_id, epoch=epoch)
    return session_id


async def page(res: Resources, viewer: Viewer, *, below: int, limit: int) -> Page[Session]:
    """The viewer's devices, newest first."""
    async with res.db.acquire() as connection:
        found = await session_rows.page(
            connection, viewer.account_id, below=below, limit=limit + 1, idle_days=res.settings.session_days
        )
    shown = found[:limit]
    return Page(shown, next=shown[-1].id if len(found) > limit else None)


async def end(res: Resources, viewer: Viewer, session_id: int) -> None:
    """Log one of the viewer's devices out.

    Raises:
        NotFound: the viewer has no such session.
        RedisAway: the session goes on: it could not be ended everywhere.
    """

    async def body(change: Change) -> None:
        token_hash = await session_rows.delete(change.connection, viewer.account_id, session_id)
        if token_hash is None:
            raise NotFound
        await _end(change, viewer.account_id, [token_hash])

    await transact(res, body)


async def end_others(res: Resources, viewer: Viewer) -> None:
    """Log the viewer out everywhere else.

    Raises:
        RedisAway: the sessions go on: they could not be ended everywhere.
    """

    async def body(change: Change) -> None:
        await end_all(change, viewer.account_id, but=viewer.session_id)

    await transact(res, body)


async def end_all(change: Change, account_id: int, *, but: int = 0) -> None:
    """Log an account out everywhere, but in one of its sessions if it is named, in the running transaction.

    Raises:
        RedisAway: the sessions could not be ended everywhere.
    """
    await _end(change, account_id, await session_rows.delete_others(change.connection, account_id, but))


async def _end(change: Change, account_id: int, token_hashes: list[bytes]) -> None:
    # Inside the transaction: sessions that cannot be ended in the cache stay, and so do those whose rows cannot go.
    await change.end_sessions(_key(account_id, token_hash) for token_hash in token_hashes)
