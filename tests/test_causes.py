"""What errors say of themselves to operators."""

import asyncpg
import pytest

from instafeed import causes
from instafeed.errors import Unavailable

SECRET = "what somebody typed"


def raised(error: Exception, *, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        RuntimeError(SECRET),
        type("ClientError", (OSError,), {})(SECRET),
        asyncpg.DataError(SECRET),
        asyncpg.RaiseError(SECRET),
        asyncpg.InterfaceError(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_may_quote_tells_its_type_only(error: Exception) -> None:
    around = raised(Unavailable("The database does not answer."), cause=raised(error))
    told = causes.trace(around)
    assert SECRET not in told
    assert type(error).__qualname__ in told
    assert told.endswith("Unavailable: The database does not answer.")


def test_an_error_that_quotes_nothing_tells_all() -> None:
    assert causes.describe(ConnectionRefusedError(111, "refused")) == "ConnectionRefusedError: [Errno 111] refused"
    assert causes.describe(TypeError("it is none")) == "TypeError: it is none"
    assert causes.describe(asyncpg.UndefinedTableError("there is no posts")) == (
        "UndefinedTableError: 42P01 there is no posts"
    )


def test_errors_that_led_to_each_other_are_told_once() -> None:
    first, second = raised(TypeError("first")), raised(TypeError("second"))
    first.__cause__, second.__cause__ = second, first
    both = ExceptionGroup("", [first, second])
    assert causes.chain(both) == [second, first, both]
