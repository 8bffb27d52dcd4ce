"""What becomes of a photo's pixels, and of everything else in its file. Here the decoder runs in the test's process."""

import importlib
import io
import json
import math
import re
import shutil
import struct
import subprocess
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, cast

import blurhash
import pytest
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageOps, ImageStat, features

from instafeed.imaging import colours
from instafeed.imaging import render as render_module
from instafeed.imaging.process import Encodings
from instafeed.imaging.refusals import Reason, Refused
from instafeed.imaging.render import Document, render_photo
from instafeed.imaging.sniff import Format
from tests.imaging.ssim import ssim
from tests.photos import REAL

NAMES = ["1080", "640", "320", "150"]
T = Image.Transpose
# What a camera stores if it is held so that a picture comes out with this orientation.
STORED = {
    1: None,
    2: T.FLIP_LEFT_RIGHT,
    3: T.ROTATE_180,
    4: T.FLIP_TOP_BOTTOM,
    5: T.TRANSPOSE,
    6: T.ROTATE_90,
    7: T.TRANSVERSE,
    8: T.ROTATE_270,
}
ORIENTATION = 0x0112
MARKER = b"PLANTED"


@dataclass
class Output:
    """A document, and the pictures that it tells of."""

    document: Document
    jpeg: dict[str, Image.Image]
    webp: dict[str, Image.Image]
    avif: dict[str, Image.Image]
    content: dict[str, bytes]

    def sizes(self) -> dict[str, tuple[int, int]]:
        return {name: picture.size for name, picture in self.jpeg.items()}


Renderer = Callable[..., Output]


@pytest.fixture
def render(tmp_path: Path) -> Renderer:
    def render(content: bytes, max_pixels: int = 50_000_000, **encodings: Any) -> Output:
        source, out = tmp_path / "source", Path(mkdtemp(dir=tmp_path))
        source.write_bytes(content)
        pillows_own = Image.MAX_IMAGE_PIXELS
        try:
            document = render_photo(
                str(source), str(out), max_pixels, cast("render_module.Encodings", asdict(Encodings(**encodings)))
            )
        finally:
            Image.MAX_IMAGE_PIXELS = pillows_own
        pictures: dict[str, dict[str, Image.Image]] = {"jpg": {}, "webp": {}, "avif": {}}
        for file in document["files"]:
            picture = pictures[file["file"].partition(".")[2]][file["name"]] = Image.open(out / file["file"])
            picture.load()
            assert picture.size == (file["width"], file["height"])
        files = {path.name: path.read_bytes() for path in out.iterdir()}
        assert set(files) == {file["file"] for file in document["files"]}
        return Output(document, pictures["jpg"], pictures["webp"], pictures["avif"], files)

    return render


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(width: int = 300, height: int = 200) -> Image.Image:
    """Different in every corner, smooth with some edges."""
    down = Image.linear_gradient("L")
    across = down.transpose(T.ROTATE_90)
    picture = Image.merge(
        "RGB", [across.resize((width, height)), down.resize((width, height)), down.resize((width, height))]
    )
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width // 4, height // 4), "red")
    draw.ellipse((width // 2, height // 2, width - 1, height - 1), "blue")
    return picture


def psnr(one: Image.Image, other: Image.Image) -> float:
    difference = ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB")))
    square = sum(difference.sum2) / sum(difference.count)
    return 10 * math.log10(255**2 / square) if square else math.inf


def close(one: Any, other: Any, tolerance: int = 6) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def middle(picture: Image.Image) -> Any:
    return picture.getpixel((picture.width // 2, picture.height // 2))


# Upright


def with_heif() -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_ends_upright(render: Renderer, kind: str, orientation: int) -> None:
    if kind == "HEIF":
        with_heif()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    upright = scene()
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"quality": 92} if kind in {"JPEG", "AVIF", "HEIF"} else {"lossless": True} if kind == "WEBP" else {}
    output = render(
        encoded(upright.transpose(turn) if turn is not None else upright, kind, exif=exif.tobytes(), **options)
    )
    assert (output.document["width"], output.document["height"]) == upright.size
    for picture in (output.jpeg["1080"], output.webp["1080"]):
        assert psnr(picture, upright) > 30
    square = upright.crop((50, 0, 250, 200)).resize((150, 150), Image.Resampling.LANCZOS)
    assert psnr(output.jpeg["150"], square) > 28


@pytest.mark.parametrize("shape", ["Landscape", "Portrait"])
def test_photos_of_every_orientation_look_alike(render: Renderer, shape: str) -> None:
    paths = [REAL / "orientation" / f"{shape}_{orientation}.jpg" for orientation in range(1, 9)]
    if not all(path.exists() for path in paths):
        pytest.skip("no photos here")
    first, *others = [render(path.read_bytes()) for path in paths]
    for other in others:
        assert (other.document["width"], other.document["height"]) == (
            first.document["width"],
            first.document["height"],
        )
        for name in NAMES:
            assert psnr(other.jpeg[name], first.jpeg[name]) > 28


def short_entry(order: str, tag: int) -> bytes:
    """How an EXIF entry of one 16-bit number begins."""
    return struct.pack(f"{order}HHI", tag, 3, 1)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize(("container", "exif"), [(6, 6), (8, 8), (5, 5), (1, 6), (6, 1), (6, 3)])
def test_only_the_container_turns_heif_and_avif_whatever_exif_says(
    render: Renderer, kind: str, container: int, exif: int
) -> None:
    if kind == "HEIF":
        with_heif()
    elif not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    turn, stand_in = STORED[container], 0x0113
    wanted = Image.Exif()
    wanted[ORIENTATION], wanted[stand_in] = container, exif
    content = encoded(scene().transpose(turn) if turn is not None else scene(), kind, exif=wanted.tobytes(), quality=92)
    # The encoders tell the container, and leave in EXIF no orientation, or one that turns nothing: another tag becomes it.
    for tag, becomes in ((ORIENTATION, 0x0111), (stand_in, ORIENTATION)):
        for order in "<>":
            content = content.replace(short_entry(order, tag), short_entry(order, becomes))
    [said] = [order for order in "<>" if short_entry(order, ORIENTATION) + struct.pack(f"{order}H", exif) in content]
    assert content.count(short_entry(said, ORIENTATION)) == 1
    output = render(content)
    assert (output.document["width"], output.document["height"]) == scene().size
    assert psnr(output.jpeg["1080"], scene()) > 30


def clean_aperture(width: int, height: int, x: int, y: int, under: int = 1) -> bytes:
    """The box by which a HEIF or AVIF file is cropped; `x` and `y` are how far from its centre."""
    return struct.pack(">I4s4IiIiI", 40, b"clap", width, under, height, under, x, under, y, under)


@pytest.mark.parametrize("orientation", [1, 6])
def test_what_was_cropped_away_of_an_avif_stays_away(render: Renderer, orientation: int) -> None:
    if not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    content = encoded(scene(), "AVIF", exif=exif.tobytes(), quality=92)
    output = render(content + clean_aperture(150, 100, 75, -50))
    upright = scene().crop((150, 0, 300, 100))
    if orientation == 6:
        upright = upright.transpose(T.ROTATE_270)
    assert (output.document["width"], output.document["height"]) == upright.size
    assert psnr(output.jpeg["1080"], upright) > 30


@pytest.mark.parametrize(
    "box",
    [
        clean_aperture(301, 200, 0, 0),
        clean_aperture(150, 100, 76, 0),
        clean_aperture(150, 100, 0, -51),
        clean_aperture(0, 0, 0, 0),
        clean_aperture(150, 100, 0, 0, under=0),
        clean_aperture(150, 100, 0, 0)[:-1],
    ],
    ids=["larger", "beyond the right", "beyond the top", "empty", "by zero", "cut"],
)
def test_a_crop_that_cannot_be_is_ignored(render: Renderer, box: bytes) -> None:
    if not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    output = render(encoded(scene(), "AVIF", quality=92) + box)
    assert psnr(output.jpeg["1080"], scene()) > 30


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_orientations_that_do_not_exist_are_ignored(render: Renderer, value: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    assert psnr(render(encoded(scene(), "PNG", exif=exif)).webp["1080"], scene()) > 30


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", MARKER]
)
def test_broken_exif_does_not_matter(render: Renderer, exif: bytes) -> None:
    assert psnr(render(encoded(scene(), "JPEG", quality=92, exif=exif)).jpeg["1080"], scene()) > 30


def tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    """EXIF whose one directory is at 8: of each entry tag, type, count, and value or place."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


@pytest.mark.parametrize(
    "exif",
    [
        tiff((0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0xA005, 4, 1, 8), following=8),
        tiff((0x010F, 2, 0xFFFFFFFF, 8)),
        tiff((0x0112, 3, 0xFFFFFFFF, 8)),
        tiff((0x8769, 4, 1, 0xFFFFFFF0)),
        tiff(*[(0x010F, 2, 60_000, 8)] * 5000),
    ],
    ids=["cyclic", "an endless text", "endless numbers", "nowhere", "the same text five thousand times"],
)
def test_exif_that_leads_round_in_circles_or_out_of_the_file_does_not_matter(render: Renderer, exif: bytes) -> None:
    began = time.process_time()
    assert psnr(render(encoded(scene(), "JPEG", quality=92, exif=exif)).jpeg["1080"], scene()) > 30
    assert time.process_time() - began < 2


def test_enormous_metadata(render: Renderer) -> None:
    segment = b"\xff\xe1\xff\xffExif\0\0" + MARKER.ljust(65_527, b"\0")
    photo = encoded(scene(), "JPEG", quality=92)
    assert psnr(render(photo[:2] + segment * 100 + photo[2:]).jpeg["1080"], scene()) > 30
    text = zlib.compress(bytes(20_000_000), 9)
    for chunk in ((b"zTXt", b"Comment\0\0" + text), (b"iTXt", b"Comment\0\1\0\0\0" + text)):
        assert close(middle(render(png(9, 9, 8, 0, b"\x5a" * 9, chunk)).webp["1080"]), (90, 90, 90))
    assert refusal(render, png(9, 9, 8, 0, bytes(9), (b"iCCP", b"Profile\0\0" + text))) is Reason.DAMAGED


@pytest.mark.parametrize("name", [b"acTL", b"cHRM", b"gAMA", b"iTXt", b"pHYs", b"sRGB"])
def test_what_is_broken_in_a_png_beside_its_picture_does_not_matter(render: Renderer, name: bytes) -> None:
    content = png(9, 9, 8, 0, b"\x5a" * 9, (name, b"?"))
    for damaged in (content, content.replace(name + b"?", name + b"!")):  # too short, and with a wrong checksum
        assert close(middle(render(damaged).webp["1080"]), (90, 90, 90))


# Sizes


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((4000, 3000), [(1080, 810), (640, 480), (320, 240), (150, 150)]),
        ((1500, 2000), [(810, 1080), (480, 640), (240, 320), (150, 150)]),
        ((1080, 1080), [(1080, 1080), (640, 640), (320, 320), (150, 150)]),
        ((900, 300), [(900, 300), (640, 213), (320, 107), (150, 150)]),
        ((500, 400), [(500, 400), (500, 400), (320, 256), (150, 150)]),
        ((200, 100), [(200, 100), (200, 100), (200, 100), (100, 100)]),
        ((90, 90), [(90, 90)] * 4),
        ((1, 3000), [(1, 1080), (1, 640), (1, 320), (1, 1)]),
        ((3000, 1), [(1080, 1), (640, 1), (320, 1), (1, 1)]),
        ((5000, 400), [(1080, 86), (640, 51), (320, 26), (150, 150)]),
        ((1, 1), [(1, 1)] * 4),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_sizes(render: Renderer, kind: str, size: tuple[int, int], expected: list[tuple[int, int]]) -> None:
    output = render(encoded(scene(40, 40).resize(size), kind))
    assert (output.document["width"], output.document["height"]) == size
    assert output.sizes() == dict(zip(NAMES, expected, strict=True))
    assert output.webp.keys() == output.jpeg.keys()
    assert len(output.content) == 2 * len(set(expected))


def test_the_same_picture_is_encoded_once(render: Renderer) -> None:
    files = {file["name"]: file["file"] for file in render(encoded(scene(300, 200), "PNG")).document["files"]}
    assert files == {"1080": "1080.webp", "640": "1080.webp", "320": "1080.webp", "150": "150.webp"}


def test_the_square_is_cut_from_the_centre(render: Renderer) -> None:
    picture = Image.new("RGB", (900, 300), "red")
    picture.paste("lime", (300, 0, 600, 300))
    square = render(encoded(picture, "PNG")).webp["150"]
    assert close(square.getpixel((3, 75)), (0, 255, 0), 30)
    assert close(square.getpixel((146, 75)), (0, 255, 0), 30)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(3000, 2000), (2160, 1440), (4500, 2000)])
def test_renditions_are_as_good_as_lanczos(render: Renderer, kind: str, size: tuple[int, int]) -> None:
    original = scene(*size)
    output = render(encoded(original, kind, **({"quality": 95} if kind == "JPEG" else {})))
    for name in ("1080", "640", "320"):
        reference = original.resize(output.jpeg[name].size, Image.Resampling.LANCZOS)
        assert psnr(output.jpeg[name], reference) > 32
        assert psnr(output.webp[name], reference) > 32


def test_encodings(render: Renderer) -> None:
    output = render(encoded(scene(2000, 1000), "JPEG"))
    for name in NAMES:
        jpeg: Any = output.jpeg[name]
        assert (jpeg.format, jpeg.mode) == ("JPEG", "RGB")
        assert jpeg.info["progressive"]
        assert [component[1:3] for component in jpeg.layer] == [(2, 2), (1, 1), (1, 1)]
        assert output.webp[name].format == "WEBP"
    for file in output.document["files"]:
        assert len(output.content[file["file"]]) < 200_000


def test_sizes_are_as_wished(render: Renderer) -> None:
    output = render(encoded(scene(3000, 2000), "JPEG"), bounds=(2048, 900, 256), square=400)
    assert output.sizes() == {"2048": (2048, 1365), "900": (900, 600), "256": (256, 171), "400": (400, 400)}
    assert [file["name"] for file in output.document["files"][::2]] == ["2048", "900", "256", "400"]
    reference = scene(3000, 2000).resize((2048, 1365), Image.Resampling.LANCZOS)
    assert psnr(output.jpeg["2048"], reference) > 32
    # A long picture is decoded as large as its square wants it.
    assert render(encoded(scene(4000, 500), "JPEG"), bounds=(320,), square=450).sizes()["450"] == (450, 450)


def test_qualities_are_as_wished(render: Renderer) -> None:
    poor, rich = (
        render(encoded(scene(), "PNG"), jpeg_quality=quality, webp_quality=quality).content for quality in (30, 95)
    )
    assert all(len(poor[name]) < len(rich[name]) for name in ("1080.jpg", "1080.webp"))
    if features.check("avif"):
        poor, rich = (render(encoded(scene(), "PNG"), avif=True, avif_quality=quality).content for quality in (30, 95))
        assert len(poor["1080.avif"]) < len(rich["1080.avif"])


def test_avif_is_made_where_it_is_wished(render: Renderer) -> None:
    if not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    picture = scene().convert("RGBA")
    picture.putpixel((0, 0), (0, 0, 0, 0))
    output = render(encoded(picture, "PNG"), avif=True)
    assert set(output.avif) == set(output.webp) == set(NAMES)
    assert (output.avif["1080"].format, output.avif["1080"].mode) == ("AVIF", "RGBA")
    assert psnr(output.avif["1080"], scene()) > 28
    assert render(encoded(picture, "PNG")).avif == {}
    laden_too = render(laden("JPEG"), avif=True)
    assert not any(word in laden_too.content["1080.avif"] for word in (MARKER, b"Exif", b"xmp", b"acsp"))


# Of all that we have, these come out least alike.
@pytest.mark.parametrize(
    "name", ["cameras/jolla.jpg", "orientation/Landscape_1.jpg", "odd/35-empty.jpg", "odd/87_OSError.jpg"]
)
def test_real_photos_look_like_reference_resizes(render: Renderer, name: str) -> None:
    path = REAL / name
    if not path.exists():
        pytest.skip("no photos here")
    avif = features.check("avif")
    output = render(path.read_bytes(), avif=avif)
    with Image.open(path) as photo:
        upright = ImageOps.exif_transpose(photo).convert("RGB")
    reference = upright.resize(output.jpeg["1080"].size, Image.Resampling.LANCZOS)
    assert ssim(output.jpeg["1080"], reference) >= 0.98
    assert ssim(output.webp["1080"], reference) >= 0.98
    assert not avif or ssim(output.avif["1080"], reference) >= 0.98


def test_renditions_look_like_a_reference_resize(render: Renderer) -> None:
    photo = Image.new("L", (1620, 1080), 128)
    # Detail of every size: with qualities of 90 it would not be like enough.
    for cells in (6, 24, 96, 384, 810):
        noise = Image.effect_noise((cells, cells * 2 // 3), 10).resize(photo.size, Image.Resampling.BICUBIC)
        photo = ImageChops.add(photo, noise, offset=-128)
    content = encoded(Image.merge("RGB", [photo, photo.transpose(T.ROTATE_180), photo]), "JPEG", quality=95)
    output = render(content)
    with Image.open(io.BytesIO(content)) as decoded:
        reference = decoded.convert("RGB").resize((1080, 720), Image.Resampling.LANCZOS)
    assert ssim(output.jpeg["1080"], reference, step=32) >= 0.98
    assert ssim(output.webp["1080"], reference, step=32) >= 0.98


@pytest.mark.parametrize(("size", "components"), [((600, 400), (4, 3)), ((400, 600), (3, 4)), ((1, 3000), (3, 4))])
def test_blurhash(render: Renderer, size: tuple[int, int], components: tuple[int, int]) -> None:
    original = scene(*size)
    found = render(encoded(original, "PNG")).document["blurhash"]
    assert blurhash.components(found) == components
    if min(size) > 1:
        blurred = blurhash.decode(found, 16, 16)
        # Red at the top left, blue at the bottom right.
        assert blurred[2][1][0] > blurred[2][1][2] + 50
        assert blurred[12][12][2] > blurred[12][12][0] + 50


# Colours and depths


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_the_dominant_colour_is_the_one_of_the_largest_part(render: Renderer, mode: str) -> None:
    picture = Image.new("RGB", (600, 400), (200, 120, 40)).convert(mode)
    picture.paste(Image.new(mode, (240, 400)), (0, 0))
    expected = {"RGB": (200, 120, 40), "RGBA": (200, 120, 40), "L": (135, 135, 135)}[mode]
    colour = render(encoded(picture, "PNG")).document["dominant_color"]
    assert len(colour) == 7
    assert close(bytes.fromhex(colour[1:]), expected, 3)


def png(width: int, height: int, depth: int, colour_type: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of the kinds that Pillow does not write; every row the same."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour_type, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(*extra) for extra in chunks)
        + chunk(b"IDAT", zlib.compress((b"\0" + row) * height))
        + chunk(b"IEND", b"")
    )


def plain(mode: str, colour: Any) -> Image.Image:
    return Image.new(mode, (200, 100), colour)


def palette(*colours: tuple[int, int, int]) -> Image.Image:
    picture = plain("P", 0)
    picture.putpalette([value for colour in colours for value in colour])
    return picture


def ycck() -> bytes:
    """A JPEG as Photoshop writes it for print: luma, chroma and black of a pure red."""
    content = encoded(plain("CMYK", (76, 84, 254, 0)), "JPEG", quality=95)
    adobe = b"\xff\xee\0\x0eAdobe\0\x64" + bytes(4)
    assert adobe + b"\0" in content
    return content.replace(adobe + b"\0", adobe + b"\2")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(encoded(plain("1", 1), "PNG"), (255, 255, 255), id="bilevel"),
        pytest.param(encoded(plain("L", 90), "PNG"), (90, 90, 90), id="grey"),
        pytest.param(encoded(plain("L", 90), "JPEG"), (90, 90, 90), id="grey-jpeg"),
        pytest.param(encoded(plain("L", 90), "GIF"), (90, 90, 90), id="grey-gif"),
        pytest.param(encoded(plain("RGB", (200, 60, 20)), "PNG"), (200, 60, 20), id="rgb"),
        pytest.param(encoded(palette((200, 60, 20), (0, 0, 0)), "PNG"), (200, 60, 20), id="palette"),
        pytest.param(encoded(palette((200, 60, 20), (0, 0, 0)), "GIF"), (200, 60, 20), id="gif"),
        pytest.param(encoded(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=95), (255, 0, 0), id="cmyk"),
        pytest.param(ycck(), (255, 0, 0), id="ycck"),
        pytest.param(
            encoded(plain("RGB", (200, 60, 20)), "JPEG", quality=95, progressive=True), (200, 60, 20), id="progressive"
        ),
        pytest.param(encoded(plain("YCbCr", (128, 128, 128)), "JPEG"), (128, 128, 128), id="ycbcr"),
        pytest.param(encoded(plain("LA", (90, 255)), "PNG"), (90, 90, 90), id="grey-opaque-alpha"),
        pytest.param(encoded(plain("RGBA", (200, 60, 20, 255)), "PNG"), (200, 60, 20), id="rgb-opaque-alpha"),
        pytest.param(encoded(plain("RGBA", (200, 60, 20, 255)), "WEBP", lossless=True), (200, 60, 20), id="webp"),
        pytest.param(png(200, 100, 16, 0, b"\x5a\x80" * 200), (90, 90, 90), id="grey-16"),
        pytest.param(png(200, 100, 16, 0, b"\xff\xff" * 200), (255, 255, 255), id="grey-16-white"),
        pytest.param(png(200, 100, 16, 2, b"\xc8\x80\x3c\x80\x14\x80" * 200), (200, 60, 20), id="rgb-16"),
        pytest.param(png(200, 100, 16, 4, b"\x5a\x80\xff\xff" * 200), (90, 90, 90), id="grey-alpha-16"),
        pytest.param(png(200, 100, 16, 6, b"\xc8\x80\x3c\x80\x14\x80\xff\xff" * 200), (200, 60, 20), id="rgba-16"),
        pytest.param(png(200, 100, 4, 0, b"\x66" * 100), (102, 102, 102), id="grey-4"),
        pytest.param(png(200, 100, 4, 0, b"\x66" * 100, (b"tRNS", b"\0\x66")), (102, 102, 102), id="grey-4-no-key"),
        pytest.param(png(200, 100, 1, 0, b"\xff" * 25, (b"tRNS", bytes(2))), (255, 255, 255), id="bilevel-other-key"),
        pytest.param(
            png(200, 100, 1, 3, b"\xff" * 25, (b"PLTE", b"\0\0\0\xc8\x3c\x14")), (200, 60, 20), id="palette-1"
        ),
    ],
)
def test_opaque_photos_of_every_kind(render: Renderer, content: bytes, expected: tuple[int, int, int]) -> None:
    output = render(content)
    assert not output.document["has_alpha"]
    for name in NAMES:
        assert output.jpeg[name].mode == output.webp[name].mode == "RGB"
        assert close(middle(output.jpeg[name]), expected)
        assert close(middle(output.webp[name]), expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(encoded(plain("LA", (90, 128)), "PNG"), (90, 90, 90, 128), id="grey"),
        pytest.param(encoded(plain("RGBA", (200, 60, 20, 128)), "PNG"), (200, 60, 20, 128), id="rgb"),
        pytest.param(encoded(plain("RGBA", (200, 60, 20, 128)), "WEBP", lossless=True), (200, 60, 20, 128), id="webp"),
        pytest.param(encoded(plain("RGB", (9, 9, 9)), "PNG", transparency=(9, 9, 9)), (0, 0, 0, 0), id="rgb-key"),
        pytest.param(encoded(plain("L", 9), "PNG", transparency=9), (0, 0, 0, 0), id="grey-key"),
        pytest.param(
            encoded(palette((200, 60, 20)), "PNG", transparency=b"\x80"), (200, 60, 20, 128), id="palette-alphas"
        ),
        pytest.param(encoded(palette((1, 2, 3), (4, 5, 6)), "PNG", transparency=0), (0, 0, 0, 0), id="palette-key"),
        pytest.param(encoded(palette((1, 2, 3), (4, 5, 6)), "GIF", transparency=0), (0, 0, 0, 0), id="gif"),
        *(
            pytest.param(
                png(200, 100, depth, 0, bytes(25 * depth), (b"tRNS", bytes(2))),
                (0, 0, 0, 0),
                id=f"grey-{depth}-black-key",
            )
            for depth in (1, 2, 4, 8, 16)
        ),
        pytest.param(png(200, 100, 1, 0, b"\xff" * 25, (b"tRNS", b"\0\1")), (0, 0, 0, 0), id="bilevel-white-key"),
        pytest.param(png(200, 100, 4, 0, b"\x33" * 100, (b"tRNS", b"\0\3")), (0, 0, 0, 0), id="grey-4-key"),
        pytest.param(png(200, 100, 16, 0, b"\x5a\x80" * 200, (b"tRNS", b"\x5a\x80")), (0, 0, 0, 0), id="grey-16-key"),
        pytest.param(
            png(200, 100, 16, 2, b"\xc8\x80\x3c\x80\x14\x80" * 200, (b"tRNS", b"\xc8\x80\x3c\x80\x14\x80")),
            (0, 0, 0, 0),
            id="rgb-16-key",
        ),
        pytest.param(png(200, 100, 16, 6, b"\xc8\x80\x3c\x80\x14\x80\x80\x00" * 200), (200, 60, 20, 128), id="rgba-16"),
        pytest.param(png(200, 100, 16, 4, b"\x5a\x80\x80\x00" * 200), (90, 90, 90, 128), id="grey-alpha-16"),
    ],
)
def test_transparency_is_kept_in_webp_and_white_in_jpeg(
    render: Renderer, content: bytes, expected: tuple[int, int, int, int]
) -> None:
    output = render(content)
    assert output.document["has_alpha"]
    *colour, alpha = expected
    on_white = [255 + (value - 255) * alpha // 255 for value in colour]
    for name in NAMES:
        assert output.webp[name].mode == "RGBA"
        assert close(middle(output.webp[name])[3:], [alpha], 1)
        assert alpha == 0 or close(middle(output.webp[name])[:3], colour)
        assert close(middle(output.jpeg[name]), on_white)


def test_hidden_colours_do_not_bleed_into_visible_ones(render: Renderer) -> None:
    picture = Image.new("RGBA", (2000, 2000), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, 1000, 2000))
    output = render(encoded(picture, "PNG"))
    for x in range(0, 320, 4):
        red, _, blue = output.jpeg["320"].convert("RGB").getpixel((x, 160))  # type: ignore[misc]
        assert red <= blue + 20


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("size", [(300, 200), (1200, 800)])
def test_what_was_erased_is_not_there_any_more(render: Renderer, kind: str, size: tuple[int, int]) -> None:
    if kind == "HEIF":
        with_heif()
    avif = features.check("avif")
    if kind == "AVIF" and not avif:
        pytest.skip("Pillow is built without AVIF")
    picture = scene(*size)
    picture.putalpha(0)
    output = render(encoded(picture, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {})), avif=avif)
    for written in (output.webp, output.avif):
        for rendition in written.values():
            assert max(ImageStat.Stat(rendition.convert("RGB")).stddev) < 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_fine_patterns_become_grey(render: Renderer, mode: str) -> None:
    board = Image.frombytes("L", (2160, 2160), (b"\0\xff" * 1080 + b"\xff\0" * 1080) * 1080)
    picture = render(encoded(board.convert(mode), "PNG")).webp["1080"]
    assert close(middle(picture), (128, 128, 128), 12)


def profile() -> bytes:
    """An RGB profile whose red is sRGB's green, and the other way round."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    table = 128 + 4 + 12 * int.from_bytes(content[128:132], "big")
    tags = content[:table].replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    return tags + content[table:]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_colours_are_converted_by_the_embedded_profile(render: Renderer, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    output = render(encoded(plain("RGB", (255, 0, 0)), kind, icc_profile=profile(), **options))
    for name in NAMES:
        assert close(middle(output.jpeg[name]), (0, 255, 0), 12)
        assert close(middle(output.webp[name]), (0, 255, 0), 12)


def small_profile(kind: bytes, space: bytes, name: bytes, tag: bytes) -> bytes:
    """An ICC profile that has one tag beside its white."""
    white = struct.pack(">3i", 63190, 65536, 54061)
    tags = {b"wtpt": b"XYZ \0\0\0\0" + white, name: tag}
    table, data = struct.pack(">I", len(tags)), b""
    for key, content in tags.items():
        table += key + struct.pack(">2I", 128 + 4 + 12 * len(tags) + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(
        ">I4xI4s4s4s12x4s28x12s48x", 128 + len(table + data), 0x02400000, b"prtr", kind, space, b"acsp", white
    )
    return head + table + data


def grey_profile() -> bytes:
    """Of grey whose numbers are linear."""
    return small_profile(b"GRAY", b"XYZ ", b"kTRC", b"curv" + bytes(8))


def print_profile() -> bytes:
    """Of a printer whose cyan is black, and whose other inks cannot be seen."""
    inks = b"".join(bytes((cyan, 128, 128)) * 8 for cyan in (255, 0))
    ramp, unit = bytes(range(256)), struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    return small_profile(b"CMYK", b"Lab ", b"A2B0", b"mft1\0\0\0\0\4\3\2\0" + unit + ramp * 4 + inks + ramp * 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "AVIF", "HEIF"])
def test_grey_is_converted_by_its_profile(render: Renderer, kind: str) -> None:
    if kind == "HEIF":
        with_heif()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    output = render(encoded(plain("L", 90), kind, icc_profile=grey_profile(), quality=95))
    assert close(middle(output.webp["1080"]), (160, 160, 160), 3)


@pytest.mark.parametrize("alpha", [128, 255])
def test_grey_is_converted_beside_alpha(render: Renderer, alpha: int) -> None:
    output = render(encoded(plain("LA", (90, alpha)), "PNG", icc_profile=grey_profile()))
    assert close(middle(output.webp["1080"].convert("RGBA")), (160, 160, 160, alpha), 3)


@pytest.mark.parametrize(("inks", "expected"), [((0, 255, 255, 255), 255), ((255, 0, 0, 0), 0), ((128, 0, 0, 0), 118)])
def test_inks_are_converted_by_their_profile(render: Renderer, inks: tuple[int, ...], expected: int) -> None:
    output = render(encoded(plain("CMYK", inks), "JPEG", quality=95, icc_profile=print_profile()))
    assert close(middle(output.webp["1080"]), (expected,) * 3, 4)
    assert close(middle(output.jpeg["1080"]), (expected,) * 3, 4)


def test_profiles_may_be_large(render: Renderer) -> None:
    for kind in ("JPEG", "PNG"):
        content = encoded(plain("RGB", (255, 0, 0)), kind, icc_profile=profile() + bytes(2_000_000))
        assert close(middle(render(content).webp["1080"]), (0, 255, 0), 12)


# Profile, exponent of the curve or None for sRGB's, and linear RGB to linear sRGB.
DISPLAY_P3 = (
    colours.named_profile(12, 13),
    None,
    [(1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)],
)
ADOBE_RGB = (
    colours.ADOBE_RGB,
    563 / 256,
    [(1.3984, -0.3984, 0.0), (0.0, 1.0, 0.0), (0.0, -0.0429, 1.0429)],
)
BT_2020 = (
    colours.named_profile(9, 14),
    None,
    [(1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)],
)
WIDE = (180, 110, 80)
LOSSLESS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "HEIF": {"quality": 95, "chroma": 444},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}
"""As good as."""


def wide_in_srgb(space: Any) -> list[int]:
    """What `WIDE` in this space is in sRGB."""
    _, gamma, matrix = space

    def linear(value: int) -> float:
        part = value / 255
        return float(part**gamma) if gamma else ((part + 0.055) / 1.055) ** 2.4

    def as_srgb(part: float) -> int:
        return int(0.5 + 255 * (1.055 * part ** (1 / 2.4) - 0.055))

    return [as_srgb(sum(a * linear(v) for a, v in zip(row, WIDE, strict=True))) for row in matrix]


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize("space", [DISPLAY_P3, ADOBE_RGB], ids=["Display P3", "Adobe RGB"])
def test_wide_colours_become_srgb(render: Renderer, space: Any, kind: str) -> None:
    if kind == "HEIF":
        with_heif()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    expected = wide_in_srgb(space)
    assert not close(expected, WIDE, 10)
    output = render(encoded(plain("RGB", WIDE), kind, icc_profile=space[0], **LOSSLESS[kind]))
    assert close(middle(output.webp["1080"]), expected, 3)
    assert close(middle(output.jpeg["1080"]), expected, 3)


@pytest.mark.parametrize("index", ["R03", "R98"])
def test_a_camera_that_is_set_to_adobe_rgb_need_not_embed_it(render: Renderer, index: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA001: 0xFFFF, 0xA005: {1: index}})
    output = render(encoded(plain("RGB", WIDE), "JPEG", exif=exif.tobytes(), **LOSSLESS["JPEG"]))
    assert close(middle(output.webp["1080"]), wide_in_srgb(ADOBE_RGB) if index == "R03" else WIDE, 3)


NCLX = b"\0\0\0\x13colrnclx"


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "PNG"])
@pytest.mark.parametrize(("primaries", "curve"), [(12, 13), (1, 13)])
def test_display_p3_may_be_named_instead_of_embedded(render: Renderer, kind: str, primaries: int, curve: int) -> None:
    expected = wide_in_srgb(DISPLAY_P3) if primaries == 12 else WIDE
    assert close(middle(render(naming(kind, WIDE, primaries, curve)).webp["1080"]), expected, 4)


def naming(kind: str, colour: tuple[int, ...], primaries: int, curve: int) -> bytes:
    """A photo of one colour that names what its numbers mean."""
    if kind == "HEIF":
        with_heif()
    elif kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    if kind == "PNG":
        return png(200, 100, 8, 2, bytes(colour) * 200, (b"cICP", bytes((primaries, curve, 0, 1))))
    content = encoded(plain("RGB", colour), kind, **LOSSLESS[kind])
    at = content.index(NCLX) + len(NCLX)
    return content[:at] + struct.pack(">HH", primaries, curve) + content[at + 4 :]


# By ITU-R BT.2100, of 8 bits: greys of 1, 10, 203, 1,000 and 10,000 cd/m² in PQ, and of 0, 51, 203 and 1,000 in HLG. The dark
# ones are what they are, in parts of a white of 203.
@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "PNG"])
@pytest.mark.parametrize(
    ("curve", "number", "expected"),
    [
        *((16, 38, 16), (16, 77, 63), (16, 148, 230), (16, 192, 255), (16, 255, 255)),
        *((18, 0, 0), (18, 128, 137), (18, 191, 230), (18, 255, 255)),
    ],
)
def test_a_high_dynamic_range_is_compressed_to_what_a_phone_shows(
    render: Renderer, kind: str, curve: int, number: int, expected: int
) -> None:
    for primaries in (1, 9, 12):
        picture = render(naming(kind, (number,) * 3, primaries, curve)).webp["1080"]
        assert close(middle(picture), (expected,) * 3, 4)


def test_what_another_picture_of_a_heif_file_names_is_not_for_the_one_that_is_shown(render: Renderer) -> None:
    with_heif()
    pillow_heif: Any = importlib.import_module("pillow_heif")
    pictures = pillow_heif.from_pillow(plain("RGB", WIDE))  # such as what brightens it on a better display
    pictures.add_from_pillow(plain("RGB", WIDE))
    pictures[0].info["nclx_profile"] = {
        "color_primaries": 9,
        "transfer_characteristics": 16,
        "matrix_coefficients": 6,
        "full_range_flag": 1,
    }
    content = io.BytesIO()
    pictures.save(content, primary_index=1, save_nclx_profile=True, **LOSSLESS["HEIF"])
    assert content.getvalue().index(NCLX + struct.pack(">HH", 9, 16)) == content.getvalue().index(NCLX)
    assert close(middle(render(content.getvalue()).webp["1080"]), WIDE, 4)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF", "PNG"])
def test_the_colours_of_bt_2020_become_srgb(render: Renderer, kind: str) -> None:
    assert close(middle(render(naming(kind, WIDE, 9, 14)).webp["1080"]), wide_in_srgb(BT_2020), 4)
    for curve in (16, 18):
        red, green, _ = middle(render(naming(kind, (120, 90, 90), 9, curve)).webp["1080"])
        other_red, other_green, _ = middle(render(naming(kind, (120, 90, 90), 1, curve)).webp["1080"])
        assert red - green > other_red - other_green + 5, "its red is redder than sRGB's"


def test_colours_are_converted_beside_alpha(render: Renderer) -> None:
    output = render(encoded(plain("RGBA", (255, 0, 0, 128)), "PNG", icc_profile=profile()))
    assert close(middle(output.webp["1080"]), (0, 255, 0, 128), 12)


@pytest.mark.parametrize(
    "broken",
    [
        b"nonsense",
        profile()[:200],
        profile()[:-100],
        bytes(3000),
        ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
        profile().replace(b"RGB ", b"CMYK", 1),
        profile().replace(b"RGB ", b"GRAY", 1),
    ],
    ids=["nonsense", "header", "cut", "zeros", "lab", "cmyk", "grey"],
)
def test_a_broken_profile_is_ignored(render: Renderer, broken: bytes) -> None:
    output = render(encoded(plain("RGB", (200, 60, 20)), "PNG", icc_profile=broken))
    assert close(middle(output.webp["1080"]), (200, 60, 20))


def test_a_profile_for_other_colours_is_ignored(render: Renderer) -> None:
    output = render(encoded(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=95, icc_profile=profile()))
    assert close(middle(output.jpeg["1080"]), (255, 0, 0))


# Several pictures in one file


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "MPO", "HEIF"])
def test_the_first_picture_of_several_is_taken(render: Renderer, kind: str) -> None:
    if kind == "HEIF":
        with_heif()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    frames = [plain("RGB", colour) for colour in ("red", "lime", "blue")]
    output = render(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert close(middle(output.webp["1080"]), (255, 0, 0), 10)


@pytest.mark.parametrize("transparency", [None, 7])
def test_around_the_first_frame_of_a_gif_there_is_nothing(render: Renderer, transparency: int | None) -> None:
    options = {} if transparency is None else {"transparency": transparency}
    content = bytearray(encoded(palette((200, 60, 20), (0, 0, 0)), "GIF", **options))
    content[6:10] = struct.pack("<HH", 400, 300)  # the screen
    frame = content.index(b"\x2c\0\0\0\0")
    content[frame + 1 : frame + 5] = struct.pack("<HH", 100, 150)
    picture = render(bytes(content)).webp["1080"]
    assert picture.mode == "RGBA"
    for x, y, alpha in ((50, 200, 0), (350, 200, 0), (200, 100, 0), (200, 280, 0), (110, 160, 255), (290, 240, 255)):
        assert cast("Any", picture.getpixel((x, y)))[3] == alpha
    assert close(cast("Any", picture.getpixel((200, 200))), (200, 60, 20, 255))


def test_of_a_heif_file_the_primary_picture_is_taken(render: Renderer) -> None:
    with_heif()
    frames = [plain("RGB", colour) for colour in ("red", "lime", "blue")]
    output = render(encoded(frames[0], "HEIF", save_all=True, append_images=frames[1:], primary_index=1))
    assert close(middle(output.webp["1080"]), (0, 255, 0), 10)


def many_frames(kind: str) -> bytes:
    """A red picture, and thousands of blue ones after it."""
    content = encoded(plain("RGB", "red"), kind, save_all=True, append_images=[plain("RGB", "blue")])
    if kind == "GIF":
        frame = content[content.rindex(b"\x21\xf9") : -1]
        return content[:-1] + frame * 20_000 + content[-1:]
    frame = content[content.rindex(b"ANMF") :]
    content += frame * 20_000
    return content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:]


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_enormous_in_frames(render: Renderer, kind: str) -> None:
    began = time.process_time()
    assert close(middle(render(many_frames(kind)).webp["1080"]), (255, 0, 0), 10)
    assert time.process_time() - began < 1.5, "no other frame was decoded"


def test_what_follows_the_photo_is_ignored(render: Renderer) -> None:
    output = render(encoded(scene(), "JPEG", quality=92) + b"PK\3\4" + MARKER + encoded(scene(), "PNG"))
    assert psnr(output.jpeg["1080"], scene()) > 30
    assert not any(MARKER in content for content in output.content.values())


# Nothing but pixels


def exif_with_everything() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = exif[0x0110] = exif[0x013B] = MARKER.decode()  # description, model, artist
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 12.0, 30.0), 29: MARKER.decode()})  # GPS
    exif.get_ifd(0x8769).update({0x927C: MARKER * 100, 0x9286: b"ASCII\0\0\0" + MARKER})  # maker note, user comment
    return exif


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>1</tiff:Orientation>' + MARKER + b"</x:xmpmeta>"


def laden(kind: str) -> bytes:
    """A photo with a marker wherever its format has room for one."""
    named = profile().replace(b"sRGB", MARKER[:4])
    match kind:
        case "JPEG":
            thumbnail = b"\xff\xec" + (2 + len(MARKER)).to_bytes(2, "big") + MARKER
            content = encoded(
                scene(),
                "JPEG",
                exif=exif_with_everything(),
                xmp=XMP,
                comment=MARKER,
                icc_profile=named + MARKER,
                extra=thumbnail + b"\xff\xed\0\x17Photoshop 3.0\0" + MARKER,
            )
        case "PNG":
            from PIL.PngImagePlugin import PngInfo

            info = PngInfo()
            info.add_text("Comment", MARKER.decode())
            info.add_text("Compressed", MARKER.decode(), zip=True)
            info.add_itxt("XML:com.adobe.xmp", XMP.decode())
            content = encoded(
                scene(), "PNG", pnginfo=info, exif=exif_with_everything(), icc_profile=named, dpi=(72, 72)
            )
        case "WEBP" | "AVIF" | "HEIF":
            content = encoded(scene(), kind, exif=exif_with_everything(), xmp=XMP, icc_profile=named)
        case _:
            content = encoded(scene().convert("P"), "GIF", comment=MARKER)
    return content + MARKER


def jpeg_segments(content: bytes) -> set[int]:
    at, found = 2, set()
    while at < len(content) - 2:
        assert content[at] == 0xFF
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        found.add(marker)
        at += 2 + length
        if marker == 0xDA:
            while content[at] != 0xFF or content[at + 1] == 0 or 0xD0 <= content[at + 1] <= 0xD7:
                at += 1
            if content[at + 1] == 0xD9:
                at += 2
    assert at == len(content)
    return found


def webp_chunks(content: bytes) -> set[bytes]:
    at, found = 12, set()
    while at < len(content):
        found.add(content[at : at + 4])
        length = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    assert at == len(content) == int.from_bytes(content[4:8], "little") + 8
    return found


def assert_only_pixels(output: Output) -> None:
    for name, content in output.content.items():
        if name.endswith(".jpg"):
            # JFIF's own header, tables, a progressive frame, scans.
            assert jpeg_segments(content) <= {0xE0, 0xDB, 0xC2, 0xC4, 0xDA}
            assert content[2:20] == b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
        else:
            assert webp_chunks(content) <= {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"])
def test_nothing_that_came_with_the_pixels_leaves(render: Renderer, kind: str) -> None:
    if kind == "HEIF":
        with_heif()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    content = laden(kind)
    assert MARKER in content[: -len(MARKER)]
    output = render(content)
    for written in output.content.values():
        assert not any(word in written for word in (MARKER, b"Exif", b"xmp", b"ICC", b"acsp", b"Photoshop", b"http"))
    assert_only_pixels(output)


def test_a_comment_alone_does_not_leave_either(render: Renderer) -> None:
    output = render(encoded(scene(), "JPEG", comment=MARKER))
    assert not any(MARKER in written for written in output.content.values())
    assert_only_pixels(output)


@pytest.mark.parametrize("folder", ["cameras", "heif"])
def test_nothing_that_a_camera_wrote_leaves(render: Renderer, folder: str) -> None:
    paths = sorted((REAL / folder).glob("*"))
    if not paths:
        pytest.skip("no photos here")
    if folder == "heif":
        with_heif()
    for path in paths:
        output = render(path.read_bytes())
        assert_only_pixels(output)
        for written in output.content.values():
            assert not any(word in written for word in (b"Exif", b"NIKON", b"Canon", b"Apple", b"Nokia", b"Jolla"))


@pytest.mark.parametrize("bits", [10, 12])
def test_heif_of_more_than_eight_bits(render: Renderer, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    monkeypatch.setattr(heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    deep = bytes(byte for byte in scene().tobytes() for _ in range(2))
    content = io.BytesIO()
    heif.from_bytes("RGB;16", scene().size, deep).save(content, quality=92, chroma=444)
    assert heif.open_heif(content, convert_hdr_to_8bit=False).info["bit_depth"] == bits
    assert psnr(render(content.getvalue()).jpeg["1080"], scene()) > 30


@pytest.mark.parametrize(("name", "size"), [("pug", (4032, 3024)), ("arrow", (3024, 4032)), ("zPug_3", (64, 64))])
def test_heic_photos(render: Renderer, name: str, size: tuple[int, int]) -> None:
    with_heif()
    path = REAL / "heif" / f"{name}.heic"
    if not path.exists():
        pytest.skip("no photos here")
    output = render(path.read_bytes())
    assert (output.document["width"], output.document["height"]) == size
    reference = Image.open(path).convert("RGB").resize(output.jpeg["320"].size, Image.Resampling.LANCZOS)
    assert psnr(output.jpeg["320"], reference) > 18  # not equal: its colours are converted


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
def test_exiftool_finds_pixels_only(render: Renderer, tmp_path: Path) -> None:
    with_heif()
    photos = [laden(kind) for kind in ("JPEG", "PNG", "WEBP", "HEIF")]
    photos += [path.read_bytes() for path in sorted([*REAL.glob("heif/a*"), *REAL.glob("cameras/[!D]*")])]
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    for number, photo in enumerate(photos):
        (before / f"{number}").write_bytes(photo)
        for name, content in render(photo).content.items():
            (after / f"{number}-{name}").write_bytes(content)

    def told(folder: Path) -> set[str]:
        out = subprocess.check_output(["exiftool", "-q", "-j", "-a", "-u", "-ee", "-G1", "-ext", "*", folder])
        return {tag for file in json.loads(out) for tag in file}

    assert {"IFD0:Model", "GPS:GPSLatitude", "XMP-tiff:Orientation", "File:Comment"} <= told(before)
    # What is said of the file as such, of how its pixels are encoded, and of their number.
    groups, tags = {"ExifTool", "System", "JFIF", "RIFF", "Composite"}, {"FileType", "FileTypeExtension", "MIMEType"}
    tags |= {"ImageWidth", "ImageHeight", "BitsPerSample", "ColorComponents", "EncodingProcess", "YCbCrSubSampling"}
    after_all = {tag for tag in told(after) if tag.partition(":")[0] not in groups}
    assert after_all == {"SourceFile", *(f"File:{tag}" for tag in tags)}


# Refused


def refusal(render: Renderer, content: bytes, max_pixels: int = 50_000_000) -> Reason:
    with pytest.raises(Refused) as caught:
        render(content, max_pixels)
    return caught.value.reason


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 1000,
        b"a photo, believe me",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        encoded(plain("RGB", "red"), "BMP"),
        encoded(plain("RGB", "red"), "TIFF"),
        encoded(plain("RGB", "red"), "ICO"),
    ],
    ids=["empty", "zeros", "text", "svg", "eps", "bmp", "tiff", "ico"],
)
def test_what_is_no_photo(render: Renderer, content: bytes) -> None:
    assert refusal(render, content) is Reason.UNSUPPORTED


def test_where_the_decoder_of_heif_is_not_installed_there_is_none(
    render: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_heif()
    content = encoded(scene(), "HEIF")
    monkeypatch.setitem(render_module._DECODERS, Format.HEIF, ("no_such_module", "HeifImageFile"))
    render_module.preload()
    assert refusal(render, content) is Reason.UNSUPPORTED
    assert psnr(render(encoded(scene(), "PNG")).webp["1080"], scene()) > 30


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_cut_short(render: Renderer, kind: str, part: float) -> None:
    if kind == "HEIF":
        with_heif()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    content = encoded(scene(), kind)
    assert refusal(render, content[: max(64, int(len(content) * part))]) is Reason.DAMAGED


def grainy(mode: str) -> Image.Image:
    """Every bit of its data matters."""
    bands = [Image.effect_noise((61, 35), 60) for _ in Image.new(mode, (1, 1)).getbands()]
    return Image.merge(mode, [Image.blend(band, scene(61, 35).convert("L"), 0.5) for band in bands])


JPEGS_OF_ONE_SCAN = [
    pytest.param("RGB", {"subsampling": 0}, id="baseline"),
    pytest.param("RGB", {"subsampling": 2}, id="4:2:0"),
    pytest.param("RGB", {"subsampling": 2, "restart_marker_blocks": 2}, id="restart markers"),
    pytest.param("RGB", {"subsampling": 1, "restart_marker_rows": 1}, id="a restart marker a row"),
    pytest.param("L", {}, id="grey"),
    pytest.param("CMYK", {}, id="CMYK"),
]


@pytest.mark.parametrize(("mode", "options"), JPEGS_OF_ONE_SCAN)
@pytest.mark.parametrize("left", [b"", b"\xff", b"\xff\xff"], ids=["nothing", "half", "half, filled"])
def test_a_jpeg_may_lack_its_end_marker(render: Renderer, mode: str, options: dict[str, Any], left: bytes) -> None:
    whole = encoded(grainy(mode), "JPEG", quality=90, **options)
    assert whole.endswith(b"\xff\xd9")
    there, lacking = render(whole), render(whole[:-2] + left)
    assert lacking.document == there.document
    assert lacking.content == there.content


@pytest.mark.parametrize(("mode", "options"), JPEGS_OF_ONE_SCAN)
def test_a_jpeg_that_lacks_any_of_its_data_is_refused(render: Renderer, mode: str, options: dict[str, Any]) -> None:
    whole = encoded(grainy(mode), "JPEG", quality=90, **options)
    data = whole.rindex(b"\xff\xda") + 14
    restarts = {match.start() + more for match in re.finditer(rb"\xff[\xd0-\xd7]", whole[data:]) for more in range(3)}
    for end in sorted({*range(len(whole) - 40, len(whole) - 2), *(data + at for at in restarts)}):
        for left in (b"", b"\xff"):
            assert refusal(render, whole[:end] + left) is Reason.DAMAGED, (end, left)


def test_a_jpeg_of_several_scans_needs_its_end_marker(render: Renderer) -> None:
    whole = encoded(scene(), "JPEG", progressive=True)
    for end in (
        len(whole) - 2,
        whole.rindex(b"\xff\xda"),
    ):  # what a scan adds is not missed by whoever does not know of it
        assert refusal(render, whole[:end]) is Reason.DAMAGED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "HEIF", "AVIF"])
@pytest.mark.parametrize("said", ["JPEG", "PNG", "WEBP", "GIF", "HEIF", "AVIF"])
def test_a_lie_about_its_kind(render: Renderer, said: str, kind: str) -> None:
    heads = {
        "JPEG": b"\xff\xd8\xff\xe0",
        "PNG": b"\x89PNG\r\n\x1a\n",
        "WEBP": b"RIFF\0\0\0\0WEBPVP8 ",
        "GIF": b"GIF89a",
        "HEIF": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "AVIF": b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
    }
    with_heif()
    if "AVIF" in {kind, said} and not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    content = encoded(scene(60, 40), kind)
    if said == kind:
        content = content[40:]
    # What stands where a GIF has its size may make a large one.
    assert refusal(render, heads[said] + content) in {Reason.DAMAGED, Reason.TOO_MANY_PIXELS}


def bomb(kind: str) -> bytes:
    """A small file that announces a picture of gigapixels (WebP: as many as it can)."""
    side = 60_000
    match kind:
        case "PNG":
            return png(side, side, 8, 6, bytes(4))
        case "GIF":
            return encoded(plain("P", 0), "GIF").replace(
                (200).to_bytes(2, "little") + (100).to_bytes(2, "little"), b"\xff\xff\xff\xff"
            )
        case "JPEG":
            return encoded(plain("RGB", 0), "JPEG").replace(b"\x08\0\x64\0\xc8", b"\x08\xff\xff\xff\xff")
        case "WEBP":
            inner = encoded(plain("RGB", 0), "WEBP")[12:]
            body = b"WEBPVP8X\x0a\0\0\0" + bytes(4) + (16_382).to_bytes(3, "little") * 2 + inner
            return b"RIFF" + len(body).to_bytes(4, "little") + body
        case _:
            content = encoded(plain("RGB", 0), kind)
            size = b"ispe\0\0\0\0"
            return content.replace(size + b"\0\0\0\xc8\0\0\0\x64", size + side.to_bytes(4, "big") * 2)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "JPEG", "WEBP"])
def test_enormous_in_pixels_though_small_in_bytes(render: Renderer, kind: str) -> None:
    content = bomb(kind)
    assert len(content) < 1_000_000
    assert refusal(render, content, 100_000_000) is Reason.TOO_MANY_PIXELS


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_enormous_by_its_container_only(render: Renderer, kind: str) -> None:
    if kind == "HEIF":
        with_heif()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    assert refusal(render, bomb(kind)) in {Reason.TOO_MANY_PIXELS, Reason.DAMAGED}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_the_limit_is_the_last_size_that_passes(render: Renderer, kind: str) -> None:
    content = encoded(plain("RGB", "red"), kind)
    assert refusal(render, content, 200 * 100 - 1) is Reason.TOO_MANY_PIXELS
    assert render(content, 200 * 100).document["width"] == 200


def test_a_frame_that_outgrows_its_file(render: Renderer) -> None:
    content = bytearray(encoded(plain("P", 0), "GIF"))
    at = content.index(b"\x2c\0\0\0\0")  # the first frame's place and size
    content[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    assert refusal(render, bytes(content), 1_000_000) is Reason.TOO_MANY_PIXELS


# What the camera wrote


def camera(render: Renderer, base: dict[int, Any], settings: dict[int, Any], kind: str = "JPEG") -> Any:
    exif = Image.Exif()
    exif.update(base)
    exif.get_ifd(0x8769).update(settings)
    return render(encoded(scene(), kind, exif=exif.tobytes())).document["camera"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
def test_facts_of_the_camera(render: Renderer, kind: str) -> None:
    if kind == "HEIF":
        with_heif()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow is built without AVIF")
    base = {0x010F: "Maker", 0x0110: "Model", 0x013B: "Somebody", 0xC62F: "serial"}
    settings = {
        0x829A: 1 / 125,
        0x829D: 1.8,
        0x8827: 64,
        0x920A: 4.25,
        0xA434: "Lens",
        0xA431: "serial",
        0xA435: "serial",
    }
    assert camera(render, base, settings, kind) == {
        "make": "Maker",
        "model": "Model",
        "lens": "Lens",
        "exposure_seconds": 0.008,
        "f_number": 1.8,
        "iso": 64,
        "focal_length_mm": 4.25,
    }


def test_texts_of_the_camera_are_bounded_and_clean(render: Renderer) -> None:
    found = camera(render, {0x010F: " A\x01\x1b  B\0hidden", 0x0110: "x" * 5000}, {0xA434: "\x07 \n"})
    assert (found["make"], found["model"], found["lens"]) == ("A B", "x" * 64, None)


@pytest.mark.parametrize("value", [0.0, -1.0, 1e9])
def test_numbers_that_no_camera_means_are_dropped(render: Renderer, value: float) -> None:
    settings = {0x829D: value, 0x920A: value}
    if value > 0:
        settings[0x829A] = value
    assert camera(render, {}, settings) is None


def test_no_camera(render: Renderer) -> None:
    assert camera(render, {0x013B: "Somebody"}, {}) is None
    assert render(encoded(scene(), "GIF")).document["camera"] is None


@pytest.mark.parametrize("name", ["iphone_hdr_YES", "DSCN0010", "canon_hdr_NO"])
def test_facts_of_real_cameras(render: Renderer, name: str) -> None:
    path = REAL / "cameras" / f"{name}.jpg"
    if not path.exists():
        pytest.skip("no photos here")
    facts = render(path.read_bytes()).document["camera"]
    assert facts is not None
    assert all(facts[key] for key in ("make", "model", "exposure_seconds", "f_number", "iso", "focal_length_mm"))
