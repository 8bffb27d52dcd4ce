"""What kind of file it is, from its first bytes. Imports no decoder: the API asks this before an upload streams on."""

from enum import Enum

HEAD_BYTES = 64
"""How much of a file `sniff` looks at."""

# The brands of ISO/IEC 23008-12 (HEIF) with HEVC pictures, and of AVIF. `mif1` and `msf1` say only "a HEIF container".
_HEVC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AV1_BRANDS = frozenset({b"avif", b"avis"})
_CONTAINER_BRANDS = frozenset({b"mif1", b"mif2", b"msf1"})


class Format(Enum):
    """The kinds of photo that are taken. The value is Pillow's name of the decoder."""

    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WEBP"
    HEIF = "HEIF"
    AVIF = "AVIF"
    GIF = "GIF"

    @property
    def content_type(self) -> str:
        """The media type, such as `image/jpeg`."""
        return f"image/{self.value.lower()}"


def sniff(head: bytes) -> Format | None:
    """The format that a file's first bytes announce; None if it is none that is taken.

    What a file announces may be a lie; the decoder finds out.

    Args:
        head: the file's beginning, at best `HEAD_BYTES` long; what is beyond is not looked at.
    """
    if head.startswith(b"\xff\xd8\xff"):
        return Format.JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return Format.PNG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return Format.GIF
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return Format.WEBP
    if head[4:8] == b"ftyp":
        return _sniff_brands(head[:HEAD_BYTES])
    return None


def _sniff_brands(head: bytes) -> Format | None:
    """The file-type box: size, `ftyp`, major brand, version, then compatible brands up to the size."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    major = head[8:12]
    compatible = {head[at : at + 4] for at in range(16, end - 3, 4)}
    if major in _AV1_BRANDS:
        return Format.AVIF
    if major in _HEVC_BRANDS:
        return Format.HEIF
    if major in _CONTAINER_BRANDS:
        return Format.AVIF if compatible & _AV1_BRANDS and not compatible & _HEVC_BRANDS else Format.HEIF
    return None
