"""What may be kept of a photo's EXIF, if whoever sent it wishes so: never place, time or serial numbers."""

from collections.abc import Mapping
from typing import TypedDict

from PIL import ExifTags, Image

_TEXT_CHARACTERS = 64
_DIGITS = 6
_Base = ExifTags.Base


class Facts(TypedDict):
    """What a camera wrote down of itself and its settings; None for what it did not, or not legibly."""

    make: str | None
    model: str | None
    lens: str | None
    exposure_seconds: float | None
    f_number: float | None
    iso: int | None
    focal_length_mm: float | None


def read_facts(exif: Image.Exif) -> Facts | None:
    """The facts; None if there are none. Texts have at most 64 characters, all of them printable."""
    try:
        settings: Mapping[int, object] = exif.get_ifd(ExifTags.IFD.Exif)
    except Exception:  # it may be cut off, or point nowhere
        settings = {}
    iso = _number(settings, _Base.ISOSpeedRatings, 1, 10_000_000)
    facts = Facts(
        make=_text(exif, _Base.Make),
        model=_text(exif, _Base.Model),
        lens=_text(settings, _Base.LensModel),
        exposure_seconds=_number(settings, _Base.ExposureTime, 1e-9, 1e6),
        f_number=_number(settings, _Base.FNumber, 0.1, 1000),
        iso=None if iso is None else round(iso),
        focal_length_mm=_number(settings, _Base.FocalLength, 0.1, 100_000),
    )
    return facts if any(value is not None for value in facts.values()) else None


def _text(tags: Mapping[int, object], tag: int) -> str | None:
    try:
        value = tags.get(tag)
    except Exception:  # a tag is read only when it is asked for
        return None
    if not isinstance(value, str):
        return None
    words = "".join(letter if letter.isprintable() else " " for letter in value.partition("\0")[0]).split()
    return " ".join(words)[:_TEXT_CHARACTERS].rstrip() or None


def _number(tags: Mapping[int, object], tag: int, least: float, most: float) -> float | None:
    """With six digits, which is more than any camera means."""
    try:
        value = tags.get(tag)
        number = float(value[0] if isinstance(value, tuple) else value)  # type: ignore[arg-type]
    except Exception:  # as above; or it is no number
        return None
    # NaN is not between any two.
    return float(f"{number:.{_DIGITS}g}") if least <= number <= most else None
