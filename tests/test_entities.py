"""What a text names: tags and accounts."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from instafeed.accounts import USERNAME
from instafeed.entities import (
    NAMES_PER_TEXT,
    TAG_CHARACTERS,
    TAGS_PER_TEXT,
    fold_prefix,
    fold_tag,
    names_in,
    tags_in,
)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("", []),
        ("#", []),
        ("# a", []),
        ("#a", ["a"]),
        ("Evening #Harbour, #lights!", ["harbour", "lights"]),
        ("#one#two", ["one"]),
        ("##two", []),
        ("a#b", []),
        ("(#a)/#b", ["a"]),
        ("&#39; &#x27;", []),
        ("https://example.org/#part", []),
        ("#2026", []),
        ("#2026_11", []),
        ("#2026summer", ["2026summer"]),
        ("#_", []),
        ("#_a", ["_a"]),
        ("#snake_case-kebab", ["snake_case"]),
        ("#a #A #\uff21 \uff03a", ["a"]),
        ("#stra\u00dfe #STRASSE", ["strasse"]),
        ("#caf\u00e9 #cafe\u0301", ["caf\u00e9"]),
        ("#\u65e5\u843d\u3001#\u591c", ["\u65e5\u843d", "\u591c"]),
        ("#\u0939\u093f\u0928\u094d\u0926\u0940", ["\u0939\u093f\u0928\u094d\u0926\u0940"]),
        ("#\u0663\u0661", []),
        ("#a\ufe0f", ["a"]),
        ("#\u3164", []),
        ("#\ufdfa", []),  # one letter that folds to several words
        ("#sun\u2600", ["sun"]),
        ("#" + "a" * TAG_CHARACTERS, ["a" * TAG_CHARACTERS]),
        ("#" + "a" * (TAG_CHARACTERS + 1), []),
        ("#" + "\ufb03" * (TAG_CHARACTERS // 3 + 1), []),  # within the limit only until it is folded
    ],
)
def test_the_tags_of_a_text(text: str, tags: list[str]) -> None:
    assert tags_in(text) == tags


def test_a_text_has_so_many_tags_and_each_once() -> None:
    text = " ".join(f"#t{number % 40}" for number in range(100))
    assert tags_in(text) == [f"t{number}" for number in range(TAGS_PER_TEXT)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@", []),
        ("@ada", [("ada", 0, 4)]),
        ("with @Ada.Lovelace.", [("ada.lovelace", 5, 13)]),
        ("@ada,@bob", [("ada", 0, 4), ("bob", 5, 4)]),
        ("@ada @ada", [("ada", 0, 4), ("ada", 5, 4)]),
        ("\U0001f305 \uff20ada", [("ada", 2, 4)]),
        ("(@a_b)", [("a_b", 1, 4)]),
        ("ada@example.org", []),
        ("@ada@example.org", []),
        ("https://example.org/@ada", []),
        ("@@ada", []),
        ("@ad\u00e0", []),
        ("@ada_", []),
        ("@ada..b", [("ada", 0, 4)]),
        ("@\u212aen", []),  # the sign of Kelvin
        ("@" + "a" * 30, [("a" * 30, 0, 31)]),
        ("@" + "a" * 31, []),
    ],
)
def test_the_names_in_a_text(text: str, names: list[tuple[str, int, int]]) -> None:
    assert names_in(text) == names


def test_a_text_has_so_many_names() -> None:
    assert len(names_in("@a " * 100)) == NAMES_PER_TEXT


texts = st.text(max_size=40) | st.text(alphabet="#\uff03@\uff20 aA1_.\u00df\u0301\ufb03\u0345\u65e5&/", max_size=40)


@given(texts)
@example("\u0345\u0301a")
@example("\u1e9e\u0130")
def test_folding_a_tag_again_changes_nothing(text: str) -> None:
    folded = fold_tag(text)
    if folded is not None:
        assert fold_tag(folded) == folded == unicodedata.normalize("NFC", folded)
        assert fold_prefix(folded) == folded
        assert 0 < len(folded) <= TAG_CHARACTERS
        for variant in (text.upper(), unicodedata.normalize("NFD", text)):
            if len(variant) <= TAG_CHARACTERS and fold_tag(variant) is not None:
                assert fold_tag(variant.lower()) == fold_tag(variant)


@given(texts)
def test_a_tag_found_in_a_text_is_one(text: str) -> None:
    for tag in tags_in(text):
        assert fold_tag(tag) == tag
        assert tags_in(f"#{tag}") == [tag]


@given(texts)
def test_a_name_stands_where_it_is_said_to(text: str) -> None:
    end = 0
    for name in names_in(text):
        written = text[name.start : name.start + name.length]
        assert written[0] in "@\uff20"
        assert written[1:].lower() == name.username
        assert USERNAME.fullmatch(name.username)
        assert name.start >= end
        end = name.start + name.length
