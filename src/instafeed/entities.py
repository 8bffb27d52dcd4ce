"""What a text names: tags and accounts. Places are counted in Unicode code points."""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

TAGS_PER_TEXT = 30
"""Tags beyond these are text like any other."""
TAG_CHARACTERS = 64
"""Of a tag in its folded form; what is longer is no tag."""
NAMES_PER_TEXT = 20
"""Names beyond these are text like any other."""

_SIGN = re.compile("[#\uff03]")
# Behind one of these a sign belongs to something else: an address, a reference to a character, another sign.
_NO_TAG_AFTER = frozenset("&/#\uff03")
# Letters and marks that look like nothing: two tags that look the same are the same.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")
_SELECTORS = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
_NAME = re.compile(r"(?<![\w@/.])[@\uff20]((?>[A-Za-z0-9]+(?:[._][A-Za-z0-9]+)*))(?![\w@])")
_NAME_CHARACTERS = 30


class Name(NamedTuple):
    """An account's name in a text; `start` and `length` include the sign before it."""

    username: str
    """Folded."""
    start: int
    length: int


def fold_tag(text: str) -> str | None:
    """The one form that all variants of a tag share (NFKC, case folded); None if it is no tag.

    A tag consists of letters, marks, decimal digits and underscores, and has a letter: the characters of UAX #31's hashtags
    without those that cannot be seen.
    """
    if len(text) > TAG_CHARACTERS:
        return None
    folded = _fold(text)
    if len(folded) > TAG_CHARACTERS or not all(map(_continues, folded)):
        return None
    return folded if any(unicodedata.category(character)[0] == "L" for character in folded) else None


def fold_prefix(text: str) -> str | None:
    """What the folded forms of tags begin with that begin so; None if none does."""
    if len(text) > TAG_CHARACTERS:
        return None
    folded = _fold(text)
    return folded if 0 < len(folded) <= TAG_CHARACTERS and all(map(_continues, folded)) else None


def _fold(text: str) -> str:
    # To fold may give what is not composed yet, and to compose what is not folded yet.
    while (folded := unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())) != text:
        text = folded
    return text


def _continues(character: str) -> bool:
    if character == "_":
        return True
    if character in _BLANK or any(ord(character) in some for some in _SELECTORS):
        return False
    category = unicodedata.category(character)
    return category[0] in "LM" or category == "Nd"


def tags_in(text: str) -> list[str]:
    """The tags of a text, folded, each once, in their order; at most `TAGS_PER_TEXT`."""
    return list(dict.fromkeys(_tags(text)))[:TAGS_PER_TEXT]


def _tags(text: str) -> Iterator[str]:
    for sign in _SIGN.finditer(text):
        start = end = sign.end()
        before = text[start - 2] if start > 1 else " "
        if before in _NO_TAG_AFTER or _continues(before):
            continue
        while end < len(text) and _continues(text[end]):
            end += 1
        tag = fold_tag(text[start:end])
        if tag is not None:
            yield tag


def names_in(text: str) -> list[Name]:
    """The names of accounts in a text, in their order; at most `NAMES_PER_TEXT`, each of which may be there several times."""
    found = [
        Name(name[1].lower(), name.start(), name.end() - name.start())
        for name in _NAME.finditer(text)
        if len(name[1]) <= _NAME_CHARACTERS
    ]
    return found[:NAMES_PER_TEXT]
