"""Names as they are searched: without case, accents and punctuation, one slip forgiven."""

import re
import unicodedata
import zlib
from collections.abc import Iterable

TERMS = 12
"""Of one account at most."""
TERM_CHARACTERS = 64

SLIPS_FROM = 4
"""Letters of a word from which on a slip is forgiven: shorter ones have too many neighbours."""
_HEAD = 12
"""Letters that are looked at for slips."""

_WORD = re.compile(r"[^\W_]+")
# Letters that no normal form takes apart.
_PLAIN = str.maketrans({"\u00f8": "o", "\u0142": "l", "\u0111": "d", "\u00e6": "ae", "\u0153": "oe", "\u0131": "i"})


def fold(text: str) -> str:
    """Its words in small letters without accents, a space between them; empty if it has none."""
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    bare = "".join(character for character in apart if unicodedata.category(character) != "Mn")
    return " ".join(_WORD.findall(unicodedata.normalize("NFC", bare).translate(_PLAIN)))


def terms_of(username: str, display_name: str) -> list[str]:
    """What an account is found by, folded: whatever begins with one of its words and goes on as the name does."""
    terms: dict[str, None] = {}
    for name in (username, display_name):
        words = fold(name).split()
        for start in range(len(words)):
            terms[" ".join(words[start:])[:TERM_CHARACTERS].rstrip()] = None
    return list(terms)[:TERMS]


def words_of(terms: Iterable[str]) -> set[str]:
    """The words of folded terms in which a slip is forgiven. Of numbers, each is a slip from many others."""
    return {word for term in terms for word in term.split() if len(word) >= SLIPS_FROM and word.isalpha()}


def slips(word: str) -> list[int]:
    """Hashes of 32 bits of the word and of what is left of it with one letter left out (Mor and Fraenkel, 1982).

    Words that are one slip apart have one in common; so have a few others.
    """
    head = word[:_HEAD]
    return sorted(zlib.crc32(text.encode()) - (1 << 31) for text in {head, *_with_one_left_out(head)})


def is_slip(one: str, other: str) -> bool:
    """Whether a letter too many, too few, wrong, or changed round with the next, makes one word of the other."""
    if len(one) != len(other):
        short, long = sorted((one, other), key=len)
        return short in _with_one_left_out(long)
    wrong = [at for at in range(len(one)) if one[at] != other[at]]
    if len(wrong) == 2:
        first, second = wrong
        return second == first + 1 and one[first] + one[second] == other[second] + other[first]
    return len(wrong) == 1


def _with_one_left_out(word: str) -> set[str]:
    return {word[:at] + word[at + 1 :] for at in range(len(word))}
