"""Decodes one photo and writes its renditions. Runs in the decoder's process only; no byte of the photo is trusted."""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any, TypedDict, cast

import blurhash
from PIL import ExifTags, Image, ImageFile

from instafeed.imaging import colours
from instafeed.imaging.camera import Facts, read_facts
from instafeed.imaging.refusals import Reason, Refused
from instafeed.imaging.sniff import HEAD_BYTES, Format, sniff

# Cheap averaging may shrink a picture to this many times its final size; the rest of the way is Lanczos. On real photos
# the result is 43 to 52 dB (PSNR) from Lanczos alone, which the encoders' own loss (31 to 36 dB) hides.
_MARGIN = 1.5
_FEW_COLOURS, _COLOUR_STEP = 8, 3
_AVIF_SPEED = 8
_HASH_SIDE = 20
_HASH_COMPONENTS = (4, 3)
_JPEG_END = b"\xff\xd9"
_JPEG_RESTARTS = [b"\xff%c" % number for number in range(0xD0, 0xD8)]
# That they begin with different bits: one may happen to be what a decoder makes up.
_JPEG_DATA = [byte * 8192 for byte in (b"\x55", b"\xaa", b"\xcc")]
_JPEG_LAST_ROWS = 64
_CLEAN_APERTURE = b"\0\0\0\x28clap"
_PNG_DEPTH_AT = 24
# Those chunks of a PNG that tell of its picture beside the critical ones, whose names begin with a capital.
_PNG_CHUNKS = {b"tRNS", b"iCCP", b"cICP", b"eXIf"}
# Of a profile in a PNG, unpacked: as much as a JPEG has room for.
_PROFILE_BYTES = 1 << 24

# Module and class for each format. Opening by class tries (and imports) no other decoder, and takes of a JPEG file with
# several pictures the first.
_DECODERS = {
    Format.JPEG: ("PIL.JpegImagePlugin", "JpegImageFile"),
    Format.PNG: ("PIL.PngImagePlugin", "PngImageFile"),
    Format.WEBP: ("PIL.WebPImagePlugin", "WebPImageFile"),
    Format.AVIF: ("PIL.AvifImagePlugin", "AvifImageFile"),
    Format.GIF: ("PIL.GifImagePlugin", "GifImageFile"),
    Format.HEIF: ("pillow_heif", "HeifImageFile"),
}

# What turns a picture upright, by its EXIF orientation (Exif 2.32, 4.6.4.A).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_SIDEWAYS = 5

_Size = tuple[int, int]


class File(TypedDict):
    """One rendition in one encoding. Renditions that would be the same picture share one `file`, a name in `out`."""

    name: str
    file: str
    width: int
    height: int


class Encodings(TypedDict):
    """Which renditions are made: `process.Encodings`."""

    bounds: tuple[int, ...]
    square: int
    jpeg_quality: int
    webp_quality: int
    avif: bool
    avif_quality: int


class Document(TypedDict):
    """What `render_photo` made. `width` and `height` are the photo's own, upright."""

    width: int
    height: int
    has_alpha: bool
    blurhash: str
    dominant_color: str
    camera: Facts | None
    files: list[File]


def preload() -> None:
    """Imports whatever `render_photo` may need; HEIF's decoder may be missing."""
    for module, _ in _DECODERS.values():
        with suppress(ModuleNotFoundError):
            import_module(module)
    import_module(colours.PROFILES)


def render_photo(source: str, out: str, max_pixels: int, encodings: Encodings) -> Document:
    """Writes all renditions of the photo `source` into the directory `out`.

    The photo is decoded once. Each rendition is upright, in sRGB, no larger than the photo, and carries nothing but
    its pixels.

    Raises:
        Refused: the photo cannot be used.
        OSError: `source` cannot be read, or `out` not be written.
    """
    # Read whole, so that a fault of the disk cannot pass for one of the photo.
    content = Path(source).read_bytes()
    kind = sniff(content[:HEAD_BYTES])
    if kind is None:
        raise Refused(Reason.UNSUPPORTED)
    if kind is Format.PNG:
        content = _picture_only(content)
    try:
        with warnings.catch_warnings(action="ignore"):
            size, master, camera = _decode_whole(kind, content, max_pixels, encodings)
        return _write(size, master, camera, out, encodings)
    except MemoryError:
        raise Refused(Reason.TOO_MUCH_MEMORY) from None


def _picture_only(png: bytes) -> bytes:
    """A PNG without texts and the like, of which broken or enormous ones would have it refused."""
    kept, at = bytearray(png[:8]), 8
    while at < len(png):
        name, end = png[at + 4 : at + 8], at + 12 + int.from_bytes(png[at : at + 4], "big")
        if name[:1].isupper() or name in _PNG_CHUNKS:
            kept += png[at:end]
        at = end
    return bytes(kept)


@contextmanager
def _refusing() -> Iterator[None]:
    """Decoders raise whatever they like on bad input: nearly all of it means that the photo cannot be used."""
    try:
        yield
    except (Refused, MemoryError, ImportError):
        raise
    except Image.DecompressionBombError:
        raise Refused(Reason.TOO_MANY_PIXELS) from None
    except Exception:
        raise Refused(Reason.DAMAGED) from None


def _decode_whole(
    kind: Format, content: bytes, max_pixels: int, encodings: Encodings
) -> tuple[_Size, Image.Image, Facts | None]:
    """As `_decode`; a JPEG may lack its end marker, as some cameras and programs leave it out, but nothing else."""
    try:
        with _refusing():
            return _decode(kind, BytesIO(content), max_pixels, encodings)
    except Refused as refused:
        if kind is not Format.JPEG or refused.reason is not Reason.DAMAGED:
            raise
    with _refusing():
        if not _lacks_only_its_end(content):
            raise Refused(Reason.DAMAGED)
        return _decode(kind, BytesIO(content + _JPEG_END), max_pixels, encodings)


def _lacks_only_its_end(jpeg: bytes) -> bool:
    """Whether a JPEG with one scan has all of its data, and nothing after that."""
    file = BytesIO(jpeg)
    layers = cast("Any", _open(Format.JPEG, file)).layers
    # The head of the only scan (ITU-T T.81, B.2.3): of all components, all coefficients, in all their bits.
    head = jpeg[: file.tell()][-6 - 2 * layers :]
    if head[:3] != bytes([0, 6 + 2 * layers, layers]) or head[-3:] != b"\0\x3f\0":
        return False
    data = jpeg.rstrip(b"\xff")  # half a marker
    return _is_complete(data) and not _is_complete(data[:-1].rstrip(b"\xff"))


def _is_complete(jpeg: bytes) -> bool:
    """Whether a JPEG that ends with a byte of data lacks none. libjpeg makes up what is missing, and tells nobody; but then
    data that follows would make a difference.
    """

    def last_rows(more: bytes) -> bytes:
        image = _open(Format.JPEG, BytesIO(jpeg + more + _JPEG_END))
        image.load()
        return image.crop((0, max(0, image.height - _JPEG_LAST_ROWS), *image.size)).tobytes()

    last = max(range(8), key=lambda number: jpeg.rfind(_JPEG_RESTARTS[number]))
    # Where a marker is expected, only what comes after it counts.
    restart = _JPEG_RESTARTS[(last + 1) % 8 if _JPEG_RESTARTS[last] in jpeg else 0]
    whole = last_rows(b"")
    return all(whole == last_rows(data + restart + data) for data in _JPEG_DATA)


def _decode(
    kind: Format, file: BytesIO, max_pixels: int, encodings: Encodings
) -> tuple[_Size, Image.Image, Facts | None]:
    """The photo's upright size, the photo upright in sRGB (RGB or RGBA), as large as the renditions need it, and what its
    camera wrote.
    """
    # Pillow itself refuses what is above twice this, also where it allocates before the size can be seen here.
    Image.MAX_IMAGE_PIXELS = (max_pixels + 1) // 2
    image: Image.Image = _open(kind, file)
    size = _bounded(image.size, max_pixels)
    draft = image.draft(None, _master_size(size, encodings, _MARGIN)) if kind is Format.JPEG else None
    image.load()
    if kind is Format.AVIF:
        image = _clean_aperture(image, file.getvalue())
    elif kind is Format.GIF:
        image = _on_screen(image, cast("Any", image).dispose_extent)
    if draft is None:
        # Only now it is certain how large a HEIF picture is.
        size = _bounded(image.size, max_pixels)
    exif = _exif(image)
    depth = file.getvalue()[_PNG_DEPTH_AT] if kind is Format.PNG else 8
    profile, orientation = colours.profile_of(image, kind, file.getvalue(), exif), _orientation(kind, exif)
    # Turned and converted when it is small: the same picture for a twelfth of the work.
    master = _resized(_eight_bit(image, depth), _master_size(size, encodings), draft and draft[1])
    if orientation in _TURNS:
        master = master.transpose(_TURNS[orientation])
    if orientation >= _FIRST_SIDEWAYS:
        size = size[1], size[0]
    master = colours.to_srgb(master, profile)
    # The encoders would write some of it: the JPEG comment, for one.
    master.info = {}
    return size, master, read_facts(exif)


def _open(kind: Format, file: BytesIO) -> ImageFile.ImageFile:
    """Reads the header, decodes nothing."""
    module, name = _DECODERS[kind]
    try:
        plugin: Any = import_module(module)
    except ModuleNotFoundError:
        raise Refused(Reason.UNSUPPORTED) from None
    # One photo, one core: others wait for the rest, and each thread takes address space.
    if kind is Format.HEIF:
        plugin.options.DECODE_THREADS = 1
    elif kind is Format.AVIF:
        plugin.DEFAULT_MAX_THREADS = 1
    elif kind is Format.PNG:
        plugin.MAX_TEXT_CHUNK = _PROFILE_BYTES
    image: ImageFile.ImageFile = getattr(plugin, name)(file)
    return image


def _bounded(size: _Size, max_pixels: int) -> _Size:
    if size[0] * size[1] > max_pixels:
        raise Refused(Reason.TOO_MANY_PIXELS)
    return size


def _scaled(size: _Size, scale: float) -> _Size:
    """Never enlarges."""
    scale = min(1.0, scale)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _master_size(size: _Size, encodings: Encodings, times: float = 1.0) -> _Size:
    """`times` the least that both the largest rendition and the square can be made of."""
    return _scaled(size, times * max(encodings["bounds"][0] / max(size), encodings["square"] / min(size)))


def _resized(image: Image.Image, size: _Size, box: tuple[float, float, float, float] | None = None) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=_MARGIN)


def _exif(image: Image.Image) -> Image.Exif:
    """Empty where it is unreadable: that does not make the picture unusable."""
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        exif.get(ExifTags.Base.Orientation)
    except Exception:
        return Image.Exif()
    return exif


def _orientation(kind: Format, exif: Image.Exif) -> int:
    """The EXIF orientation, 1 to 8, that still has to be undone.

    Only EXIF counts, as in browsers; XMP's copy does not. In HEIF and AVIF not even EXIF does: the container says how
    to turn the picture (ISO/IEC 23000-22, 7.3.10.1). The HEIF decoder has done so already; Pillow's AVIF decoder leaves
    it to us, and puts what the container says in the place of EXIF's orientation.
    """
    if kind is Format.HEIF:
        return 1
    orientation = exif.get(ExifTags.Base.Orientation)
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def _clean_aperture(image: Image.Image, avif: bytes) -> Image.Image:
    """What is to be seen of an AVIF picture (ISO/IEC 14496-12, 12.1.4): Pillow gives all of it, unlike the HEIF decoder."""
    at = avif.find(_CLEAN_APERTURE)
    if at < 0 or len(avif) < at + 40:
        return image
    numbers = struct.unpack_from(">4IiIiI", avif, at + 8)
    if 0 in numbers[1::2]:
        return image
    width, height, x, y = (round(over / under) for over, under in zip(numbers[::2], numbers[1::2], strict=True))
    left, top = (image.width - width) // 2 + x, (image.height - height) // 2 + y
    is_within = 0 <= left < left + width <= image.width and 0 <= top < top + height <= image.height
    return image.crop((left, top, left + width, top + height)) if is_within else image


def _on_screen(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """A GIF whose first frame may be smaller: around it there is nothing, where Pillow puts one of its colours."""
    if frame == (0, 0, *image.size):
        return image
    screen = Image.new("RGBA", image.size)
    screen.paste(image.crop(frame).convert("RGBA"), frame)
    return screen


def _eight_bit(image: Image.Image, depth: int) -> Image.Image:
    """The picture as L, RGB or CMYK; as LA or RGBA if it can be transparent. `depth` is its file's, in bits."""
    key = image.info.get("transparency")
    if image.mode.startswith("I"):
        # 16-bit grey. Pillow's own conversion to L clips at 255.
        image = image.convert("I").point([value >> 8 for value in range(1 << 16)], "L")
    if key is not None and image.mode in {"L", "RGB"}:
        # One colour stands for transparency. Pillow leaves it as deep as it is in the file, unlike the picture.
        deep = (key,) if isinstance(key, int) else key
        eight = tuple(value >> 8 if depth > 8 else value * 255 // ((1 << depth) - 1) for value in deep)
        image.info["transparency"] = eight if image.mode == "RGB" else eight[0]
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in {"1", "L", "LA"} else "RGBA")
    if image.mode in {"L", "RGB", "CMYK"}:
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _write(size: _Size, master: Image.Image, camera: Facts | None, out: str, encodings: Encodings) -> Document:
    files: list[File] = []
    stems: dict[_Size, str] = {}
    *sides, square = pictures = _renditions(size, master, encodings)
    suffixes = ("jpg", "webp", "avif") if encodings["avif"] else ("jpg", "webp")
    for name, picture in pictures.items():
        # Two renditions have the same size only where both are the whole photo.
        stem = stems.setdefault(picture.size, name)
        if stem == name:
            _save(picture, f"{out}/{stem}", encodings)
        files += [
            File(name=name, file=f"{stem}.{suffix}", width=picture.width, height=picture.height) for suffix in suffixes
        ]
    return Document(
        width=size[0],
        height=size[1],
        has_alpha=master.mode == "RGBA",
        blurhash=_blurhash(pictures[sides[-1]]),
        dominant_color=_dominant_color(pictures[square]),
        camera=camera,
        files=files,
    )


def _save(picture: Image.Image, stem: str, encodings: Encodings) -> None:
    flat = _flat(picture)
    flat.save(f"{stem}.jpg", quality=encodings["jpeg_quality"], progressive=True, optimize=True, subsampling="4:2:0")
    picture.save(f"{stem}.webp", quality=encodings["webp_quality"], method=2)
    if encodings["avif"]:
        picture.save(f"{stem}.avif", quality=encodings["avif_quality"], speed=_AVIF_SPEED, max_threads=1)


def _renditions(size: _Size, master: Image.Image, encodings: Encodings) -> dict[str, Image.Image]:
    """By their names, the square last."""
    pictures = {}
    picture = master
    for bound in encodings["bounds"]:
        # Each from the one before: a quarter of the work of starting from the master.
        smaller = _scaled(size, bound / max(size))
        picture = picture if picture.size == smaller else _resized(picture, smaller)
        pictures[str(bound)] = picture
    width, height = master.size
    short = min(width, height)
    left, top = (width - short) // 2, (height - short) // 2
    side = min(encodings["square"], short)
    pictures[str(encodings["square"])] = _resized(master, (side, side), (left, top, left + short, top + short))
    return pictures


def _flat(image: Image.Image) -> Image.Image:
    """On white."""
    if image.mode == "RGB":
        return image
    paper = Image.new("RGB", image.size, "white")
    paper.paste(image, mask=image)
    return paper


def _dominant_color(image: Image.Image) -> str:
    """The commonest of the few colours that the picture is reduced to, as `#rrggbb`."""
    few = _flat(image).reduce(_COLOUR_STEP).quantize(_FEW_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    _, commonest = max(cast("list[tuple[int, int]]", few.getcolors()))
    red, green, blue = cast("list[int]", few.getpalette())[3 * commonest :][:3]
    return f"#{red:02x}{green:02x}{blue:02x}"


def _blurhash(image: Image.Image) -> str:
    """The BlurHash, from a thumbnail: it keeps nothing finer. https://github.com/woltapp/blurhash."""
    tiny = _flat(image).resize(_scaled(image.size, _HASH_SIDE / max(image.size)), Image.Resampling.BOX)
    pixels = [[tiny.getpixel((x, y)) for x in range(tiny.width)] for y in range(tiny.height)]
    across, down = _HASH_COMPONENTS if image.width >= image.height else _HASH_COMPONENTS[::-1]
    encoded: str = blurhash.encode(pixels, across, down)
    return encoded
