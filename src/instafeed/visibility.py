"""Who may see what. Every surface asks here; what may not be seen answers like what does not exist."""

from instafeed.models import Post


def visible(post: Post, viewer_id: int) -> bool:
    """Whether the viewer may see the post: everybody may once it is published, and its author always."""
    return post.published_at is not None or post.author.id == viewer_id


def in_home_feed(post: Post, viewer_id: int, followees: set[int]) -> bool:
    """Whether the post belongs to the viewer's home feed: published, and by the viewer or by somebody whom the viewer
    follows now.
    """
    return post.published_at is not None and (post.author.id == viewer_id or post.author.id in followees)
