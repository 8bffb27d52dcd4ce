"""What captions name: tags, by which posts are found, and accounts, which are told.

A post's row keeps what its caption names; the index of tags and what accounts are told follow it in the same transaction,
from when the post is published until it is deleted.
"""

from collections.abc import Iterable
from dataclasses import replace

from instafeed import access, entities
from instafeed.models import Account, Mention, Post, Relation, Viewer
from instafeed.resources import Resources
from instafeed.storage import accounts as account_rows
from instafeed.storage import activity
from instafeed.storage import captions as caption_rows
from instafeed.storage import mutes as mute_rows
from instafeed.storage import relations as relation_rows
from instafeed.storage import tags as tag_rows
from instafeed.storage.captions import Named
from instafeed.storage.database import Connection
from instafeed.visibility import posts_visible


async def write(connection: Connection, viewer: Viewer, post_id: int, caption: str) -> None:
    """Keep what the caption of the viewer's post names from now on, in the running transaction."""
    before, published = await caption_rows.lock(connection, post_id)
    after = await named_in(connection, viewer, caption, before.mentions)
    if after == before:
        return
    await caption_rows.set_named(connection, post_id, after)
    if published:
        await _follow(connection, post_id, viewer.account_id, before, after)


async def named_in(connection: Connection, viewer: Viewer, caption: str, before: tuple[Mention, ...] = ()) -> Named:
    """What a caption of the viewer's names now; `before` is whom it mentioned already."""
    return Named(tuple(entities.tags_in(caption)), await _mentions(connection, viewer, caption, before))


async def publish(connection: Connection, author_id: int, post_id: int) -> None:
    """Let the post, which is published in the running transaction, be found and told of."""
    named, _ = await caption_rows.lock(connection, post_id)
    await _follow(connection, post_id, author_id, Named(), named)


async def erase(connection: Connection, author_id: int, post_id: int) -> None:
    """Let the post, which is deleted in the running transaction, be found and told of no more."""
    named, published = await caption_rows.lock(connection, post_id)
    if published:
        await _follow(connection, post_id, author_id, named, Named())


async def _mentions(
    connection: Connection, viewer: Viewer, caption: str, before: tuple[Mention, ...]
) -> tuple[Mention, ...]:
    """Whom the caption names, of whom the viewer may come across. A name that was there means whom it meant, also when it
    has become another's.
    """
    names = entities.names_in(caption)
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


async def _follow(connection: Connection, post_id: int, author_id: int, before: Named, after: Named) -> None:
    """Bring the index of tags, and what accounts are told, from one state to the other."""
    old_tags, new_tags = set(before.tags), set(after.tags)
    if old_tags - new_tags:
        await tag_rows.remove(connection, post_id, old_tags - new_tags)
    if new_tags - old_tags:
        await tag_rows.add(connection, post_id, author_id, new_tags - old_tags)
    old_accounts, new_accounts = [{mention.account_id for mention in named.mentions} for named in (before, after)]
    if old_accounts - new_accounts:
        await activity.remove_mentions(connection, old_accounts - new_accounts, author_id=author_id, post_id=post_id)
    told = await _told(connection, author_id, new_accounts - old_accounts)
    if told:
        await activity.add_mentions(connection, told, author_id=author_id, post_id=post_id)


async def _told(connection: Connection, author_id: int, account_ids: set[int]) -> set[int]:
    """Who of the accounts is told of a mention: who may see the author's posts, and does not mute the author."""
    others = account_ids - {author_id}
    author = await account_rows.get(connection, author_id) if others else None
    if author is None:
        return set()
    muters = await mute_rows.muters_among(connection, author_id, others)
    relations = await relation_rows.get_many(connection, author_id, others - muters)
    return {id_ for id_, relation in relations.items() if posts_visible(author, id_, _seen_from_there(relation))}


def _seen_from_there(relation: Relation) -> Relation:
    return Relation(following=relation.followed_by, blocking=relation.blocked_by, blocked_by=relation.blocking)


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
    return [
        replace(
            post,
            mentions=tuple(
                replace(mention, account=seen[mention.account_id][0])
                for mention in post.mentions
                if mention.account_id in seen
            ),
        )
        if post.mentions
        else post
        for post in posts
    ]
