"""Mentions in posts as they are sent.

A post is cached as it is sent, the same for every viewer; whom it mentions depends on who looks, and on what those are called
now. So a cached post has places and ids instead, which are put into words for each viewer.
"""

import json
import re
from collections.abc import Mapping

from instafeed import models
from instafeed.api import present, schemas
from instafeed.resources import Resources

# Quotes within texts are escaped: nothing that somebody wrote looks like this.
_NONE = b'"mentions":[]'
_MARKED = re.compile(rb'"mentions":(\[\[[0-9,\[\]]+\]\])')


def post_json(res: Resources, value: models.Post) -> bytes:
    """A post as it is sent, the same for every viewer: its mentions are marked."""
    return mark(present.post(res, value).model_dump_json().encode(), value.mentions)


def mark(sent: bytes, mentions: tuple[models.Mention, ...]) -> bytes:
    """A post without mentions, with marks where they belong."""
    marks = [[mention.start, mention.length, mention.account_id] for mention in mentions]
    return sent.replace(_NONE, b'"mentions":' + json.dumps(marks, separators=(",", ":")).encode(), 1) if marks else sent


def marked_in(sent: bytes) -> set[int]:
    """The accounts that a marked post mentions."""
    return {account_id for _, _, account_id in _marks(sent)}


def fill(sent: bytes, accounts: Mapping[int, models.Account]) -> bytes:
    """A marked post with those of the mentioned accounts that are given."""
    shown = [
        schemas.Mention(start=start, length=length, account=present.account_ref(accounts[account_id]))
        for start, length, account_id in _marks(sent)
        if account_id in accounts
    ]
    words = b'"mentions":[' + b",".join(mention.model_dump_json().encode() for mention in shown) + b"]"
    return _MARKED.sub(lambda _: words, sent, count=1)


def _marks(sent: bytes) -> list[tuple[int, int, int]]:
    found = _MARKED.search(sent)
    return [(start, length, account_id) for start, length, account_id in json.loads(found[1])] if found else []
