"""Who may see what. Every surface asks here; what may not be seen answers like what does not exist.

An account can be seen less and less: its posts and lists, its name in lists, its profile. A suspended account is seen by
nobody; a block hides both from each other; what a private account shows is for its followers.
"""

from collections.abc import Set as AbstractSet

from instafeed.models import Account, Audience, Event, EventType, Post, Relation


def profile_visible(account: Account, viewer_id: int, relation: Relation) -> bool:
    """Whether the viewer may open the account's profile: whoever blocks it may, in order to unblock it."""
    return account.id == viewer_id or not (account.suspended or relation.blocked_by)


def listed(account: Account, viewer_id: int, relation: Relation) -> bool:
    """Whether the viewer comes across the account: in lists, and as somebody to do something with."""
    return profile_visible(account, viewer_id, relation) and not relation.blocking


def posts_visible(account: Account, viewer_id: int, relation: Relation) -> bool:
    """Whether the viewer may see the account's posts, its followers, and whom it follows."""
    if account.is_private and account.id != viewer_id and not relation.following:
        return False
    return listed(account, viewer_id, relation)


def heard(account: Account, viewer_id: int, relation: Relation, audience: Audience) -> bool:
    """Whether the viewer, who wants to hear of this audience, is told of what the account does."""
    if audience is Audience.OFF or relation.muting or (audience is Audience.FOLLOWING and not relation.following):
        return False
    return listed(account, viewer_id, relation)


def public(account: Account) -> bool:
    """Whether whoever is not on the other side of a block may see the account's posts."""
    return not (account.is_private or account.suspended)


def explorable(account: Account, viewer_id: int, relation: Relation) -> bool:
    """Whether explore shows the viewer the account's posts: those of public accounts, but for what the home feed shows anyway,
    or leaves out at the viewer's wish.
    """
    known = account.id == viewer_id or relation.following or relation.muting
    return not known and public(account) and listed(account, viewer_id, relation)


def visible(post: Post, viewer_id: int, relation: Relation) -> bool:
    """Whether the viewer, who stands so to its author, may see the post: once it is published; its author always."""
    if post.author.id == viewer_id:
        return True
    return post.published_at is not None and posts_visible(post.author, viewer_id, relation)


def shown_in_feeds(post: Post) -> bool:
    """Whether home feeds may show the post at all: it is published, and its author is not suspended. Whose feeds show it is
    for `storage/rights_cache.py`: the author's, and those of whoever follows the author now and does not mute it. Nobody
    follows across a block. `tags_in_feeds` tells whose else.
    """
    return post.published_at is not None and not post.author.suspended


def tags_in_feeds(post: Post) -> frozenset[str]:
    """By which tags home feeds of those who follow one may show the post, if its author is not kept away from them: muted, or
    on the other side of a block.
    """
    return frozenset(post.tags) if public(post.author) else frozenset()


def told(event: Event, accounts: AbstractSet[int], *, followers: AbstractSet[int], published: bool) -> AbstractSet[int]:
    """Which of `accounts` are told of an event: its author, and followers who hear of the author, if the post is still there.

    Of a deleted post nothing is there, and its deletion is told. `followers` are those of `accounts` at least.
    """
    if event.type is EventType.POST_DELETED or (event.type is EventType.POST_CREATED and published):
        return accounts & (followers | {event.author_id})
    return frozenset()
