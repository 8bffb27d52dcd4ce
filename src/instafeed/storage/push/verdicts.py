"""What became of a push, and which services are not asked for a while."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

_LONGEST_WAIT_SECONDS = 3600.0
_FAILURES = 5
_OPEN_SECONDS = 15.0
_SERVICES = 1000


class Outcome(StrEnum):
    """What a push service made of a push."""

    SENT = "sent"
    GONE = "gone"
    """There is no such device any more."""
    REFUSED = "refused"
    """It takes this push never."""
    LATER = "later"
    """It takes none now, or does not answer."""
    OFF = "off"
    """We have no way to it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome; of `LATER`, in how many seconds another try makes sense, of `REFUSED` why."""

    outcome: Outcome
    seconds: float = 0
    reason: str = ""


SENT = Verdict(Outcome.SENT)
GONE = Verdict(Outcome.GONE)
OFF = Verdict(Outcome.OFF)


def later(retry_after: str | None = None, *, seconds: float = 5) -> Verdict:
    """Another try after what a `Retry-After` header says, an hour at most, or after `seconds`."""
    if retry_after and retry_after.isascii() and retry_after.isdigit():
        seconds = float(retry_after[:9])
    elif retry_after:
        try:
            at = parsedate_to_datetime(retry_after)
        except ValueError:
            pass
        else:
            seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return Verdict(Outcome.LATER, min(max(seconds, 1.0), _LONGEST_WAIT_SECONDS))


class Breaker:
    """Knows which services do not answer. Such a one is not asked for some seconds, so that nobody waits for it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def is_open(self, service: str) -> bool:
        """Whether the service is not to be asked now; after that time one more failure is enough."""
        failures, at = self._failures.get(service, (0, 0.0))
        return failures >= _FAILURES and self._clock() < at + _OPEN_SECONDS

    def failed(self, service: str) -> None:
        """The service did not answer."""
        self._failures[service] = (self._failures.pop(service, (0, 0.0))[0] + 1, self._clock())
        if len(self._failures) > _SERVICES:
            self._failures.popitem(last=False)

    def answered(self, service: str) -> None:
        """The service answered, whatever."""
        self._failures.pop(service, None)
