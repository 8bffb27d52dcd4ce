"""Which colours a photo's numbers mean, and how they become sRGB."""

import math
import struct
from functools import cache
from importlib import import_module
from io import BytesIO

from PIL import ExifTags, Image

from instafeed.imaging.sniff import Format

PROFILES = "PIL.ImageCms"
"""Loaded for photos that need it, and by the decoders' template."""

_Column = tuple[float, float, float]
_NAMING = {Format.AVIF: (b"colrnclx", ">HH"), Format.PNG: (b"\0\0\0\4cICP", ">BB")}
"""Where a file names its primaries and curve: what stands before them, and how they are packed."""
_SRGB, _UNSPECIFIED = 1, 2
_PRIMARIES: dict[int, tuple[_Column, _Column, _Column]] = {
    _SRGB: ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)),
    9: ((0.67348, 0.27904, -0.00193), (0.16566, 0.67534, 0.02998), (0.12505, 0.04561, 0.79686)),
    12: ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
}
"""Red, green and blue in XYZ, adapted to D50, of BT.709, BT.2020 and Display P3, by their numbers in ITU-T H.273."""
_PQ, _HLG = 16, 18
# cd/m²: what white is in a picture with a high dynamic range (ITU-R BT.2408), and the brightest that we tell apart.
_WHITE, _PEAK = 203.0, 1000.0
_CURVE_STEPS = 1024


def _pq(luminance: float) -> float:
    """The number from 0 to 1 of a luminance in cd/m², by the curve PQ (ITU-R BT.2100, table 4)."""
    part = (luminance / 10_000) ** (2610 / 16384)
    return float(((3424 + 2413 * 32 * part) / (4096 + 2392 * 32 * part)) ** (2523 / 32))


def _luminance_of_pq(number: float) -> float:
    root = number ** (32 / 2523)
    return float(10_000 * (max(0, 4096 * root - 3424) / (32 * (2413 - 2392 * root))) ** (16384 / 2610))


def _luminance_of_hlg(number: float) -> float:
    """For a display with our peak; its gamma is applied to each colour by itself (ITU-R BT.2100, table 5)."""
    scene = number**2 / 3 if number <= 0.5 else (math.exp((number - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return float(_PEAK * scene**1.2)


def _compressed(luminance: float) -> float:
    """As a display shows it whose peak is white: what is dark stays, what is bright comes closer together (the EETF of ITU-R
    BT.2390, 5.4.1).
    """
    peak = _pq(_PEAK)
    number, white = min(1.0, _pq(luminance) / peak), _pq(_WHITE) / peak
    knee = 1.5 * white - 0.5
    if number > knee:
        t = (number - knee) / (1 - knee)
        number = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * white
    return _luminance_of_pq(number * peak)


@cache
def _high_range(curve: int) -> bytes:
    """The curve of an ICC profile that makes 0 to 1 of PQ or HLG."""
    luminance = _luminance_of_pq if curve == _PQ else _luminance_of_hlg
    steps = (_compressed(luminance(step / (_CURVE_STEPS - 1))) / _WHITE for step in range(_CURVE_STEPS))
    numbers = [min(65535, round(65535 * step)) for step in steps]
    return b"curv\0\0\0\0" + struct.pack(f">I{_CURVE_STEPS}H", _CURVE_STEPS, *numbers)


def _matrix_profile(red: _Column, green: _Column, blue: _Column, curve: bytes) -> bytes:
    """An ICC profile of an RGB space, by its primaries, adapted to D50, and the curve of all three (ICC.1:2010, 8.3)."""

    def xyz(values: _Column) -> bytes:
        return struct.pack(">3i", *(round(65536 * value) for value in values))

    white = xyz((0.9642, 1.0, 0.8249))
    columns = {b"rXYZ": xyz(red), b"gXYZ": xyz(green), b"bXYZ": xyz(blue), b"wtpt": white}
    tags = {name: b"XYZ \0\0\0\0" + value for name, value in columns.items()}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, data, begin = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">2I", begin + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    size = 128 + len(table + data)
    kinds = b"mntr" + b"RGB " + b"XYZ "
    head = struct.pack(">I4xI12s12x4s28x12s48x", size, 0x04200000, kinds, b"acsp", white)
    return head + table + data


# IEC 61966-2-1.
_SRGB_CURVE = b"para\0\0\0\0\0\3\0\0" + struct.pack(
    ">5i", *(round(65536 * part) for part in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
)
ADOBE_RGB = _matrix_profile(
    (0.60974, 0.31111, 0.01947),
    (0.20528, 0.62567, 0.06087),
    (0.14919, 0.06322, 0.74457),
    # 563 / 256, as Adobe RGB (1998) has it.
    b"curv\0\0\0\0\0\0\0\1\2\x33\0\0",
)


def profile_of(image: Image.Image, kind: Format, content: bytes, exif: Image.Exif) -> bytes | None:
    """The ICC profile of a photo's colours: its own, or that of what it names; None if it has none and names none.

    Not all that have other colours than sRGB embed a profile. HEIF and AVIF may name primaries and a curve (ISO/IEC 14496-12,
    12.1.5), as may PNG (PNG, third edition, 11.3.2.6), and cameras that are set to Adobe RGB say so in EXIF (DCF 2.0,
    "option file").
    """
    profile: bytes | None = image.info.get("icc_profile")
    if profile:
        return profile
    primaries, curve = _named(image, kind, content)
    if primaries in _PRIMARIES and (primaries != _SRGB or curve in {_PQ, _HLG}):
        return named_profile(primaries, curve)
    if kind in {Format.HEIF, Format.AVIF}:
        return None
    return ADOBE_RGB if _is_option_file(exif) else None


def _named(image: Image.Image, kind: Format, content: bytes) -> tuple[int, int]:
    """Primaries and curve by H.273, as the file names them; "unspecified" if it does not."""
    if kind is Format.HEIF and (named := image.info.get("nclx_profile")):
        # The decoder knows which of the file's pictures it gives: those beside it may have other colours.
        return named["color_primaries"], named["transfer_characteristics"]
    if kind in _NAMING:
        mark, packed = _NAMING[kind]
        at = content.find(mark)
        if 0 <= at <= len(content) - len(mark) - 4:
            primaries, curve = struct.unpack_from(packed, content, at + len(mark))
            return primaries, curve
    return _UNSPECIFIED, _UNSPECIFIED


def named_profile(primaries: int, curve: int) -> bytes:
    """The ICC profile of named primaries and a named curve, by H.273; every curve but those of a high dynamic range is taken for
    that of sRGB.
    """
    return _matrix_profile(*_PRIMARIES[primaries], _high_range(curve) if curve in {_PQ, _HLG} else _SRGB_CURVE)


def _is_option_file(exif: Image.Exif) -> bool:
    try:
        return exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex) == "R03"
    except Exception:  # it may be cut off, or point nowhere
        return False


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB, or RGBA if something is transparent. A profile that is broken or of other colours is as good as none."""
    alpha = image.getchannel("A") if image.mode in {"LA", "RGBA"} else None
    colours = image if alpha is None else image.convert(image.mode.removesuffix("A"))
    if profile:
        cms = import_module(PROFILES)
        try:
            embedded = cms.ImageCmsProfile(BytesIO(profile))
            colours = cms.profileToProfile(colours, embedded, cms.createProfile("sRGB"), outputMode="RGB")
        except (cms.PyCMSError, OSError, ValueError):
            pass
    colours = colours.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        # What was erased is often there still, only transparent.
        colours.paste("black", mask=alpha.point([255] + [0] * 255))
        colours.putalpha(alpha)
    return colours
