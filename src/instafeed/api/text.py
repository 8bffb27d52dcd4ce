"""Text that people write: what is taken, in which form it is kept."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

# Control characters but tab and newline; surrogates; private use and unassigned are left to fonts.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
# What ends a line.
_LINE = re.compile("[\n\t\u2028\u2029]")
# Letters and symbols that look like nothing: fillers of Hangul, the Braille cell without dots.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
# Direction overrides and isolates reach beyond the text that holds them: names with them pass for others.
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")


# Whatever opens anything else than a page, or shows another host than it opens, is none.
_WEB_ADDRESS = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z0-9-]{2,63}(?::[0-9]{1,5})?(?:[/?#][!#-;=?-\[\]_a-z~]*)?",
    re.ASCII | re.IGNORECASE,
)

_INVISIBLE = frozenset({"Cf", "Zs", "Zl", "Zp", "Mn", "Me", "Cc"})


def _clean(value: str, *, lines: bool) -> str:
    value = value.replace("\r\n", "\n")
    if _FORBIDDEN.search(value) or (not lines and _LINE.search(value)):
        raise ValueError("has control characters")
    value = unicodedata.normalize("NFC", _DIRECTION.sub("", value)).strip()
    # What consists of invisible characters only says nothing.
    return value if any(map(_shows, value)) else ""


def _shows(character: str) -> bool:
    return character not in _BLANK and unicodedata.category(character) not in _INVISIBLE


def one_line(value: str) -> str:
    """`value` in the form in which a single line is kept.

    Raises:
        ValueError: it has control characters or line breaks.
    """
    return _clean(value, lines=False)


def paragraphs(value: str) -> str:
    """`value` in the form in which text with line breaks is kept.

    Raises:
        ValueError: it has control characters.
    """
    return _clean(value, lines=True)


CAPTION_MAX_CHARACTERS = 2200
ALT_TEXT_MAX_CHARACTERS = 1500
COMMENT_MAX_CHARACTERS = CAPTION_MAX_CHARACTERS


def _something(value: str) -> str:
    if not value:
        raise ValueError("says nothing")
    return value


def web_address(value: str) -> str:
    """`value` if it is empty or the address of a page.

    Raises:
        ValueError: it is none.
    """
    if value and not _WEB_ADDRESS.fullmatch(value):
        raise ValueError("is not a web address: one begins with https:// or http:// and holds no spaces")
    return value


DisplayName = Annotated[str, StringConstraints(max_length=64), AfterValidator(one_line)]
DeviceName = Annotated[str, StringConstraints(max_length=100), AfterValidator(one_line)]
Bio = Annotated[str, StringConstraints(max_length=150), AfterValidator(paragraphs)]
WebAddress = Annotated[str, StringConstraints(max_length=200), AfterValidator(web_address)]
Caption = Annotated[str, StringConstraints(max_length=CAPTION_MAX_CHARACTERS), AfterValidator(paragraphs)]
AltText = Annotated[str, StringConstraints(max_length=ALT_TEXT_MAX_CHARACTERS), AfterValidator(paragraphs)]
Remark = Annotated[str, StringConstraints(max_length=1000), AfterValidator(paragraphs)]
CommentText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=COMMENT_MAX_CHARACTERS),
    AfterValidator(paragraphs),
    AfterValidator(_something),
]
