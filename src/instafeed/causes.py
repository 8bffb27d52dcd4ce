"""What an error says of itself where operators read it: in the log and in Sentry.

Its type, where it was raised, and what led to it say most. Its message may quote what somebody typed, a token or a whole URL
with its signature: it is told where we know that it does not.
"""

import itertools
import traceback

import asyncpg

_QUOTE_NOTHING = (OSError, TypeError, AttributeError, NameError, ImportError)
"""Of Python's own; libraries derive theirs from them, and quote."""
_QUOTES_VALUES = frozenset({"22", "P0"})
"""SQLSTATE classes: data exceptions, and what functions of the database raise."""


def words(error: BaseException) -> str:
    """The message of an error, as far as it is fit to be told; empty if it is not."""
    if isinstance(error, asyncpg.PostgresError):
        # The message alone: DETAIL and CONTEXT quote rows and parameters.
        message = "" if error.sqlstate[:2] in _QUOTES_VALUES else str(error.args[0] if error.args else "")
        return f"{error.sqlstate} {message}".rstrip()
    origin = type(error).__module__
    is_told = origin.startswith("instafeed.") or (origin == "builtins" and isinstance(error, _QUOTE_NOTHING))
    return str(error) if is_told else ""


def describe(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__qualname__}: {words(error)}".removesuffix(": ")


def chain(error: BaseException, seen: set[int] | None = None) -> list[BaseException]:
    """What led to `error`, the first cause first, and the members of groups before them; at last the error itself."""
    seen = set() if seen is None else seen
    if id(error) in seen:
        return []
    seen.add(id(error))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    led = [cause] if cause else []
    if isinstance(error, BaseExceptionGroup):
        led += error.exceptions
    return [*itertools.chain.from_iterable(chain(one, seen) for one in led), error]


def trace(error: BaseException) -> str:
    """Where an error and what led to it were raised, over several lines."""
    return "\n".join("".join(traceback.format_tb(one.__traceback__)) + describe(one) for one in chain(error))
