"""Why a photo is refused, as both sides of the process boundary say it."""

from enum import Enum


class Reason(Enum):
    """Why a photo is refused. The value is a stable name; `sentence` may be shown to whoever sent the photo."""

    UNSUPPORTED = "unsupported"
    TOO_MANY_PIXELS = "too-many-pixels"
    DAMAGED = "damaged"
    TOOK_TOO_LONG = "took-too-long"
    TOO_MUCH_MEMORY = "too-much-memory"
    DECODER_CRASHED = "decoder-crashed"

    @property
    def sentence(self) -> str:
        """The reason in words."""
        return _SENTENCES[self]


_SENTENCES = {
    Reason.UNSUPPORTED: "The file is not a photo of a kind that is taken.",
    Reason.TOO_MANY_PIXELS: "The photo has more pixels than are taken.",
    Reason.DAMAGED: "The photo is damaged, incomplete, or of a variant that cannot be read.",
    Reason.TOOK_TOO_LONG: "The photo takes too long to read.",
    Reason.TOO_MUCH_MEMORY: "The photo takes too much memory to read.",
    Reason.DECODER_CRASHED: "The photo cannot be read.",
}


class Refused(Exception):
    """The photo cannot be used. `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.sentence)
        self.reason = reason
