"""What captions name: tags, by which posts are found, and accounts; and accounts that comments name.

A post's row keeps what its caption names; the index of tags follows it in the same transaction, from when the post is
published until it is deleted.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from instafeed import access, entities
from instafeed.models import Account, Mention, Post, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import captions as caption_rows
from instafeed.storage import tags as tag_rows
from instafeed.storage.captions import Named
from instafeed.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Added:
    """What a published post's caption names that it did not name before."""

    tags: AbstractSet[str] = frozenset()
    accounts: AbstractSet[int] = frozenset()


async def write(connection: Connection, viewer: Viewer, post_id: int, caption: str) -> Added:
    """Keep what the caption of the viewer's post names from now on, in the running transaction."""
    before, published = await caption_rows.lock(connection, post_id)
    after = await named_in(connection, viewer, caption, before.mentions)
    if after != before:
        await caption_rows.set_named(connection, post_id, after)
    if not published:
        return Added()
    await _index(connection, post_id, viewer.account_id, before.tags, after.tags)
    old, new = [{mention.account_id for mention in named.mentions} for named in (before, after)]
    return Added({*after.tags}.difference(before.tags), new - old)


async def named_in(connection: Connection, viewer: Viewer, caption: str, before: tuple[Mention, ...] = ()) -> Named:
    """What a caption of the viewer's names now; `before` is whom it mentioned already."""
    return Named(tuple(entities.tags_in(caption)), await mentions_in(connection, viewer, caption, before))


async def publish(connection: Connection, author_id: int, post_id: int) -> None:
    """Let the post, which is published in the running transaction, be found."""
    named, _ = await caption_rows.lock(connection, post_id)
    await _index(connection, post_id, author_id, (), named.tags)


async def erase(connection: Connection, author_id: int, post_id: int) -> None:
    """Let the post, which is deleted in the running transaction, be found no more."""
    named, published = await caption_rows.lock(connection, post_id)
    if published:
        await _index(connection, post_id, author_id, named.tags, ())


async def mentions_in(
    connection: Connection, viewer: Viewer, text: str, before: tuple[Mention, ...] = ()
) -> tuple[Mention, ...]:
    """Whom a text of the viewer's names, of whom the viewer may come across. A name that was there means whom it meant, also
    when it has become another's.
    """
    names = entities.names_in(text)
    meant = {mention.name: mention.account_id for mention in before}
    new = {name.username for name in names} - meant.keys()
    if new:
        meant |= await account_rows.ids_of_usernames(connection, new)
    accounts = await access.among(
        connection, viewer, {meant[name.username] for name in names if name.username in meant}
    )
    return tuple(
        Mention(name.username, name.start, name.length, meant[name.username])
        for name in names
        if meant.get(name.username) in accounts
    )


async def _index(
    connection: Connection, post_id: int, author_id: int, before: Iterable[str], after: Iterable[str]
) -> None:
    """Bring the index of tags from one state to the other."""
    old, new = set(before), set(after)
    if old - new:
        await tag_rows.remove(connection, post_id, old - new)
    if new - old:
        await tag_rows.add(connection, post_id, author_id, new - old)


async def mentioned(res: Resources, viewer: Viewer, account_ids: Iterable[int]) -> dict[int, Account]:
    """Those of the accounts that the viewer may come across, as they are called now."""
    async with res.db.acquire() as connection:
        seen = await access.among(connection, viewer, account_ids)
    return {id_: account for id_, (account, _) in seen.items()}


async def with_mentions(connection: Connection, viewer: Viewer, posts: list[Post]) -> list[Post]:
    """The posts with the accounts that they mention, as these are called now; those that the viewer may not come across
    are left out.
    """
    seen = await access.among(connection, viewer, {mention.account_id for post in posts for mention in post.mentions})
    accounts = {id_: account for id_, (account, _) in seen.items()}
    return [replace(post, mentions=among(post.mentions, accounts)) if post.mentions else post for post in posts]


def among(mentions: Iterable[Mention], accounts: Mapping[int, Account]) -> tuple[Mention, ...]:
    """Those of the mentions that are of these accounts, with them."""
    return tuple(
        replace(mention, account=accounts[mention.account_id]) for mention in mentions if mention.account_id in accounts
    )
