"""Names as they are searched."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instafeed.folding import TERM_CHARACTERS, TERMS, fold, is_slip, slips, terms_of, words_of


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("", ""),
        ("Ada  Lovelace", "ada lovelace"),
        ("@ada.lovelace_1", "ada lovelace 1"),
        ("\u00c9mile Zola", "emile zola"),
        ("S\u00f8ren \u0141ukasz", "soren lukasz"),
        ("Stra\u00dfe", "strasse"),
        ("\uff21\uff44\uff41", "ada"),
        ("\u5c71\u7530\u592a\u90ce", "\u5c71\u7530\u592a\u90ce"),
        ("\U0001f305 \u2014 !", ""),
    ],
)
def test_a_name_is_folded(text: str, folded: str) -> None:
    assert fold(text) == folded


@given(st.text(max_size=40))
def test_folding_again_changes_nothing_and_variants_are_the_same(text: str) -> None:
    folded = fold(text)
    assert fold(folded) == folded
    assert fold(unicodedata.normalize("NFD", text)) == folded


def test_an_account_is_found_from_each_word_on() -> None:
    assert terms_of("ada.l", "Ada King Lovelace") == ["ada l", "l", "ada king lovelace", "king lovelace", "lovelace"]
    assert terms_of("ada", "Ada") == ["ada"]
    many = terms_of("a" * 30, " ".join(["word"] * 12 + ["w" * 100]))
    assert len(many) <= TERMS
    assert max(map(len, many)) <= TERM_CHARACTERS


def test_in_words_and_not_in_numbers_a_slip_is_forgiven() -> None:
    assert words_of(["ada king lovelace2", "king lovelace2", "\u5c71\u7530\u592a\u90ce", "jos3"]) == {
        "king",
        "\u5c71\u7530\u592a\u90ce",
    }


@pytest.mark.parametrize(
    ("one", "other", "slip"),
    [
        ("maria", "marja", True),
        ("maria", "mariia", True),
        ("maria", "aria", True),
        ("maria", "mraia", True),
        ("maria", "mariae", True),
        ("maria", "maria", False),
        ("maria", "marjo", False),
        ("maria", "marina2", False),
        ("maria", "airam", False),
        ("maria", "raima", False),
        ("", "", False),
    ],
)
def test_a_slip_is_one_letter(one: str, other: str, *, slip: bool) -> None:
    assert is_slip(one, other) == is_slip(other, one) == slip


@given(st.text(alphabet="ab\u00e9", min_size=4, max_size=20), st.data())
def test_words_a_slip_apart_are_found_by_each_other(word: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(word) - 1))
    letter = data.draw(st.sampled_from("abx"))
    around = word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :]
    for other in (
        word[:at] + word[at + 1 :],
        word[:at] + letter + word[at:],
        word[:at] + letter + word[at + 1 :],
        around,
    ):
        assert other == word or is_slip(word, other)
        assert set(slips(word)) & set(slips(other))
    assert all(-(2**31) <= slip < 2**31 for slip in slips(word))
