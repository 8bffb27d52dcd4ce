"""What accounts are told, in words: in English, and as keys and arguments by which apps find their own language's."""

from typing import NamedTuple

from instafeed.models import Activity, ActivityKind

_DID = {
    ActivityKind.LIKE: "liked your photo",
    ActivityKind.COMMENT: "commented on your photo",
    ActivityKind.REPLY: "replied to your comment",
    ActivityKind.MENTION: "mentioned you",
    ActivityKind.FOLLOW: "started following you",
    ActivityKind.FOLLOW_REQUEST: "asked to follow you",
    ActivityKind.REQUEST_ACCEPTED: "accepted your request to follow",
    ActivityKind.POST: "posted a photo",
}


class Words(NamedTuple):
    """A sentence."""

    text: str
    key: str
    """`<kind>_one`, `<kind>_two` or `<kind>_many`, by how many did it."""
    arguments: tuple[str, ...]
    """One username; two; or one, and how many others."""


def told(item: Activity) -> Words:
    """What an entry of activity says."""
    did, kind = _DID[item.kind], item.kind
    first = item.actors[0].username
    if item.count <= 1:
        return Words(f"@{first} {did}", f"{kind}_one", (first,))
    if item.count == 2 and len(item.actors) > 1:
        second = item.actors[1].username
        return Words(f"@{first} and @{second} {did}", f"{kind}_two", (first, second))
    others = item.count - 1
    return Words(f"@{first} and {others} others {did}", f"{kind}_many", (first, str(others)))
