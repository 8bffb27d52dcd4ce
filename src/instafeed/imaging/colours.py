"""Which colours a photo's numbers mean, and how they become sRGB."""

import struct
from importlib import import_module
from io import BytesIO

from PIL import ExifTags, Image

from instafeed.imaging.sniff import Format

PROFILES = "PIL.ImageCms"
"""Loaded for photos that need it, and by the decoders' template."""

_Column = tuple[float, float, float]
_NCLX = b"colrnclx", ">HH"
_NAMING = {Format.HEIF: _NCLX, Format.AVIF: _NCLX, Format.PNG: (b"\0\0\0\4cICP", ">BB")}
"""Where a file names its primaries and curve: what stands before them, and how they are packed."""
# By ITU-T H.273: the primaries of Display P3, and the curves of PQ and HLG, which a matrix does not undo.
_P3_PRIMARIES, _HDR_CURVES = 12, {16, 18}


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


DISPLAY_P3 = _matrix_profile(
    (0.51512, 0.24120, -0.00105),
    (0.29198, 0.69225, 0.04189),
    (0.15710, 0.06657, 0.78407),
    # The curve of sRGB (IEC 61966-2-1).
    b"para\0\0\0\0\0\3\0\0"
    + struct.pack(">5i", *(round(65536 * part) for part in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))),
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

    Not all that have other colours than sRGB embed a profile. HEIF and AVIF may name primaries (ISO/IEC 14496-12, 12.1.5),
    as may PNG (PNG, third edition, 11.3.2.6), and cameras that are set to Adobe RGB say so in EXIF (DCF 2.0, "option file").
    """
    profile: bytes | None = image.info.get("icc_profile")
    if profile:
        return profile
    if kind in _NAMING and _names_p3(content, *_NAMING[kind]):
        return DISPLAY_P3
    if kind in {Format.HEIF, Format.AVIF}:
        return None
    return ADOBE_RGB if _is_option_file(exif) else None


def _names_p3(content: bytes, mark: bytes, packed: str) -> bool:
    at = content.find(mark)
    if at < 0 or len(content) < at + len(mark) + 4:
        return False
    primaries, curve = struct.unpack_from(packed, content, at + len(mark))
    return primaries == _P3_PRIMARIES and curve not in _HDR_CURVES


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
