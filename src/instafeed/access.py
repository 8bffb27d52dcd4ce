"""How a viewer stands to accounts, as `visibility` wants to know it: looked at, looked at to be changed, and in lists; and
which posts a viewer sees.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from instafeed.errors import NotFound, Unauthenticated
from instafeed.models import Account, Listed, Page, Post, Relation, Viewer
from instafeed.storage import accounts as account_rows
from instafeed.storage import locks
from instafeed.storage import posts as post_rows
from instafeed.storage import relations as relation_rows
from instafeed.storage.database import Connection
from instafeed.visibility import listed, posts_visible, visible

RowT = TypeVar("RowT")
ItemT = TypeVar("ItemT")

Rule = Callable[[Account, int, Relation], bool]
"""One of `visibility`: (account, viewer, how the viewer stands to it)."""
Fetch = Callable[..., Awaitable[list[tuple[int, int]]]]
"""Called with `below` and `limit`: the next (edge id, account or post id) of a list, newest first."""

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


async def see_post(connection: Connection, viewer: Viewer, post_id: int) -> Post:
    """A post, without its photos.

    Raises:
        NotFound: there is none that the viewer may see.
    """
    post = await post_rows.get_bare(connection, post_id)
    if post is None:
        raise NotFound
    relation = await relation_rows.get(connection, viewer.account_id, post.author.id)
    if not visible(post, viewer.account_id, relation):
        raise NotFound
    return post


async def join_post(connection: Connection, viewer: Viewer, post_id: int) -> Post:
    """Like `see_post`, for a viewer who is about to add something to the post, or take it away: until the transaction ends
    nobody deletes the post, nor changes the viewer's account.

    Raises:
        NotFound: there is none that the viewer may see.
        Unauthenticated: the viewer was suspended a moment ago.
    """
    # The post before the account: whoever deletes a post takes them in this order too.
    await locks.share(connection, post_id)
    await lock_self(connection, viewer)
    return await see_post(connection, viewer, post_id)


async def page(
    connection: Connection, viewer: Viewer, fetch: Fetch, *, below: int, limit: int, rule: Rule = listed
) -> Page[Listed]:
    """A page of a list of accounts, without those that the viewer may not see by this rule."""

    async def some(position: int, size: int) -> list[tuple[int, int]]:
        return await fetch(below=position, limit=size)

    async def shown(found: list[tuple[int, int]]) -> list[tuple[int, Listed]]:
        seen = await among(connection, viewer, [account_id for _, account_id in found], rule)
        return [
            (id_, Listed(id_, seen[account_id][0], None if account_id == me else seen[account_id][1]))
            for id_, account_id in found
            if account_id in seen
        ]

    me = viewer.account_id
    return await filled(some, shown, position=below, limit=limit)


async def page_of_posts(
    connection: Connection, viewer: Viewer, fetch: Fetch, *, below: int, limit: int, rule: Rule = posts_visible
) -> Page[Post]:
    """A page of a list of posts, without those that the viewer may not see, and of authors whose posts are not for the viewer by
    this rule; `fetch` gives (place, post id).
    """

    async def some(position: int, size: int) -> list[tuple[int, int]]:
        return await fetch(below=position, limit=size)

    async def shown(found: list[tuple[int, int]]) -> list[tuple[int, Post]]:
        posts = await post_rows.get_many(connection, [post_id for _, post_id in found])
        relations = await relation_rows.get_many(connection, me, {post.author.id for post in posts.values()})

        def for_viewer(post: Post) -> bool:
            relation = relations[post.author.id]
            return visible(post, me, relation) and rule(post.author, me, relation)

        return [(id_, posts[post_id]) for id_, post_id in found if post_id in posts and for_viewer(posts[post_id])]

    me = viewer.account_id
    return await filled(some, shown, position=below, limit=limit)


async def filled(
    fetch: Callable[[int, int], Awaitable[list[tuple[int, RowT]]]],
    show: Callable[[list[tuple[int, RowT]]], Awaitable[list[tuple[int, ItemT]]]],
    *,
    position: int,
    limit: int,
    batch: int = _BATCH,
) -> Page[ItemT]:
    """A page of what may be shown of a list. It is filled up: that something was left out shows in no page's length.

    Args:
        fetch: called with a position and a size, gives so many entries after it, each with its position.
        show: gives what the viewer may see of them.
        position: where the page begins.
        limit: how many items at most.
        batch: how many entries are looked at at once where the first ones do not fill the page.
    """
    items: list[tuple[int, ItemT]] = []
    size = limit + 1
    for _ in range(_BATCHES):
        found = await fetch(position, size)
        items += await show(found) if found else []
        if len(items) > limit:
            return Page([item for _, item in items[:limit]], next=items[limit - 1][0])
        if len(found) < size:
            return Page([item for _, item in items])
        position, size = found[-1][0], batch
    return Page([item for _, item in items], next=position)
