"""How a viewer stands to accounts, as `visibility` wants to know it: looked at, looked at to be changed, and in lists."""

from collections.abc import Awaitable, Callable, Iterable

from instafeed.errors import NotFound, Unauthenticated
from instafeed.models import Account, Listed, Page, Relation, Viewer
from instafeed.storage import accounts as account_rows
from instafeed.storage import relations as relation_rows
from instafeed.storage.database import Connection
from instafeed.visibility import listed

Rule = Callable[[Account, int, Relation], bool]
"""One of `visibility`: (account, viewer, how the viewer stands to it)."""
Fetch = Callable[..., Awaitable[list[tuple[int, int]]]]
"""Called with `below` and `limit`: the next (edge id, account id) of a list, newest first."""

_BATCH = 500
_BATCHES = 20
"""After so many full of accounts that may not be shown, a page ends early; the next one goes on."""


async def see(connection: Connection, viewer: Viewer, account_id: int, rule: Rule = listed) -> tuple[Account, Relation]:
    """An account and how the viewer stands to it.

    Raises:
        NotFound: there is none that the viewer may see by this rule.
    """
    account = await account_rows.get(connection, account_id)
    return await _judge(connection, viewer, account, rule)


async def lock(
    connection: Connection, viewer: Viewer, account_id: int, rule: Rule = listed
) -> tuple[Account, Relation]:
    """Like `see`; until the transaction ends nobody else changes how the two accounts stand to each other.

    Raises:
        NotFound: there is none that the viewer may see by this rule.
        Unauthenticated: the viewer was suspended a moment ago.
    """
    locked = await account_rows.lock(connection, [viewer.account_id, account_id])
    _must_be_active(locked.get(viewer.account_id))
    return await _judge(connection, viewer, locked.get(account_id), rule)


async def lock_self(connection: Connection, viewer: Viewer) -> Account:
    """The viewer's own account, its row locked until the transaction ends.

    Raises:
        Unauthenticated: the viewer was suspended a moment ago.
    """
    locked = await account_rows.lock(connection, [viewer.account_id])
    return _must_be_active(locked.get(viewer.account_id))


async def among(
    connection: Connection, viewer: Viewer, account_ids: Iterable[int], rule: Rule = listed
) -> dict[int, tuple[Account, Relation]]:
    """Those of the accounts that the viewer may see by this rule, and how the viewer stands to them."""
    wanted = list(account_ids)
    if not wanted:
        return {}
    accounts = await account_rows.get_many(connection, wanted)
    relations = await relation_rows.get_many(connection, viewer.account_id, accounts)
    return {
        id_: (account, relations[id_])
        for id_, account in accounts.items()
        if rule(account, viewer.account_id, relations[id_])
    }


def _must_be_active(account: Account | None) -> Account:
    if account is None or account.suspended:
        raise Unauthenticated
    return account


async def _judge(
    connection: Connection, viewer: Viewer, account: Account | None, rule: Rule
) -> tuple[Account, Relation]:
    if account is None:
        raise NotFound
    relation = await relation_rows.get(connection, viewer.account_id, account.id)
    if not rule(account, viewer.account_id, relation):
        raise NotFound
    return account, relation


async def page(
    connection: Connection, viewer: Viewer, fetch: Fetch, *, below: int, limit: int, rule: Rule = listed
) -> Page[Listed]:
    """A page of a list of accounts, without those that the viewer may not see by this rule.

    It is filled up: that somebody was left out shows in no page's length.
    """
    items: list[Listed] = []
    position, size = below, limit + 1
    for _ in range(_BATCHES):
        found = await fetch(below=position, limit=size)
        items += await _shown(connection, viewer, found, rule)
        if len(items) > limit:
            return Page(items[:limit], next=items[limit - 1].id)
        if len(found) < size:
            return Page(items)
        position, size = found[-1][0], _BATCH
    return Page(items, next=position)


async def _shown(connection: Connection, viewer: Viewer, found: list[tuple[int, int]], rule: Rule) -> list[Listed]:
    if not found:
        return []
    wanted = [account_id for _, account_id in found]
    accounts = await account_rows.get_many(connection, wanted)
    relations = await relation_rows.get_many(connection, viewer.account_id, wanted)
    return [
        Listed(id_, accounts[account_id], None if account_id == viewer.account_id else relations[account_id])
        for id_, account_id in found
        if account_id in accounts and rule(accounts[account_id], viewer.account_id, relations[account_id])
    ]
