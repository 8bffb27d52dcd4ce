from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from instafeed.cursors import decode, encode
from instafeed.errors import Invalid
from instafeed.ids import MAX_ID

KEY = b"a secret key"
positions = st.integers(0, MAX_ID)
scopes = st.text(max_size=60)


def refused(key: bytes, scope: str, cursor: str) -> None:
    with pytest.raises(Invalid) as error:
        decode(key, scope, cursor)
    assert [field.pointer for field in error.value.errors] == ["cursor"]


@given(position=positions, scope=scopes)
def test_a_cursor_says_where_its_list_goes_on(position: int, scope: str) -> None:
    cursor = encode(KEY, scope, position)
    assert decode(KEY, scope, cursor) == position
    assert cursor.replace("-", "a").replace("_", "a").isalnum()
    assert len(cursor) == 24


@given(position=positions, scope=scopes, other=scopes)
def test_a_cursor_is_bound_to_its_list_and_reader(position: int, scope: str, other: str) -> None:
    assume(scope != other)
    refused(KEY, other, encode(KEY, scope, position))


@given(position=positions, scope=scopes)
def test_a_cursor_is_bound_to_the_key(position: int, scope: str) -> None:
    refused(b"another key", scope, encode(KEY, scope, position))


def test_what_separates_reader_and_list_cannot_be_moved() -> None:
    refused(KEY, "1 2/v1/feed", encode(KEY, "1 /v1/feed", 7))
    refused(KEY, "12 /v1/feed", encode(KEY, "1 2/v1/feed", 7))


@given(position=positions, bit=st.integers(0, 18 * 8 - 1))
def test_a_cursor_with_one_bit_changed_is_none(position: int, bit: int) -> None:
    data = bytearray(urlsafe_b64decode(encode(KEY, "list", position)))
    data[bit // 8] ^= 1 << bit % 8
    refused(KEY, "list", urlsafe_b64encode(data).decode())


@given(cursor=st.text(max_size=60) | st.binary(max_size=60).map(lambda data: urlsafe_b64encode(data).decode()))
def test_what_we_did_not_make_is_no_cursor(cursor: str) -> None:
    refused(KEY, "list", cursor)


@pytest.mark.parametrize("change", ["{}=", " {}", "{}\n", "{}.", "{}{}", "={}", "{}\u00e9"])
def test_a_cursor_has_one_spelling(change: str) -> None:
    refused(KEY, "list", change.replace("{}", encode(KEY, "list", 412345678901234567)))
