"""Who may see what. Every surface asks here; what may not be seen answers like what does not exist.

An account can be seen less and less: its posts and lists, its name in lists, its profile. A suspended account is seen by
nobody; a block hides both from each other; what a private account shows is for its followers.
"""

from collections.abc import Set as AbstractSet

from instafeed.models import Account, Event, EventType, Post, Relation


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


def explorable(account: Account, viewer_id: int, relation: Relation) -> bool:
    """Whether explore shows the viewer the account's posts: those of public accounts, but for what the home feed shows anyway,
    or leaves out at the viewer's wish.
    """
    known = account.id == viewer_id or relation.following or relation.muting
    return not (account.is_private or known) and listed(account, viewer_id, relation)


def visible(post: Post, viewer_id: int, relation: Relation) -> bool:
    """Whether the viewer, who stands so to its author, may see the post: once it is published; its author always."""
    if post.author.id == viewer_id:
        return True
    return post.published_at is not None and posts_visible(post.author, viewer_id, relation)


def shown_in_feeds(post: Post) -> bool:
    """Whether home feeds may show the post at all: it is published, and its author is not suspended. Whose feeds show it is
    for `storage/rights_cache.py`: the author's, and those of whoever follows the author now and does not mute it. Nobody
    follows across a block.
    """
    return post.published_at is not None and not post.author.suspended


def told(event: Event, accounts: AbstractSet[int], *, followers: AbstractSet[int], published: bool) -> AbstractSet[int]:
    """Which of `accounts` are told of an event: its author, and followers who hear of the author, if the post is still there.

    Of a deleted post nothing is there, and its deletion is told. `followers` are those of `accounts` at least.
    """
    if event.type is EventType.POST_DELETED or (event.type is EventType.POST_CREATED and published):
        return accounts & (followers | {event.author_id})
    return frozenset()
