"""Mentions in posts as they are sent.

A post is cached as it is sent, the same for every viewer; whom it mentions depends on who looks, and on what those are called
now. So a cached post has places and ids instead, which are put into words for each viewer.
"""

import json
from collections.abc import Mapping, Sequence

from instafeed import models
from instafeed.api import present, schemas
from instafeed.resources import Resources

# Quotes within texts are escaped: nothing that somebody wrote looks like this.
_FIELD = b'"mentions":['
# Before a post with marks: most have none, and a page asks all of its posts.
_SIGN = b" "


def post_json(res: Resources, value: models.Post) -> bytes:
    """What of a post is the same for every viewer, as it is sent, up to where its counts go on: marks stand where its mentions
    belong.
    """
    sent = present.post_content(res, value).model_dump_json()[:-1].encode()
    if not value.mentions:
        return sent
    marks = json.dumps([[mention.start, mention.length, mention.account_id] for mention in value.mentions]).encode()
    return _SIGN + sent.replace(_FIELD, _FIELD + marks[1:-1], 1)


def marked(posts: Sequence[bytes]) -> list[int]:
    """Which of the cached posts have marks."""
    return [at for at, sent in enumerate(posts) if sent.startswith(_SIGN)]


def marked_in(sent: bytes) -> set[int]:
    """The accounts that a marked post mentions."""
    return {account_id for _, _, account_id in _marks(sent)[0]}


def fill(res: Resources, sent: bytes, accounts: Mapping[int, models.Account]) -> bytes:
    """A marked post with those of the mentioned accounts that are given."""
    marks, start, end = _marks(sent)
    shown = [
        schemas.Mention(start=place, length=length, account=present.account_ref(res, accounts[account_id]))
        for place, length, account_id in marks
        if account_id in accounts
    ]
    return sent[:start] + b",".join(mention.model_dump_json().encode() for mention in shown) + sent[end:]


def _marks(sent: bytes) -> tuple[list[tuple[int, int, int]], int, int]:
    """The marks of a marked post, and from where to where they stand."""
    start = sent.find(_FIELD) + len(_FIELD)
    end = sent.index(b"]]", start) + 1
    return json.loads(b"[" + sent[start:end] + b"]"), start, end
