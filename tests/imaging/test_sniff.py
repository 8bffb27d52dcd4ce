"""What a file's first bytes announce."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instafeed.imaging.sniff import HEAD_BYTES, Format, sniff


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    brands = major + bytes(4) + b"".join(compatible)
    return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + b"\0\0\0\x08mdat"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", Format.JPEG),
        (b"\xff\xd8\xff\xe1", Format.JPEG),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", Format.PNG),
        (b"GIF87a\1\0\1\0", Format.GIF),
        (b"GIF89a\1\0\1\0", Format.GIF),
        (b"RIFF\0\1\0\0WEBPVP8 ", Format.WEBP),
        (ftyp(b"heic", b"mif1", b"heic"), Format.HEIF),
        (ftyp(b"heix", b"mif1", b"heix"), Format.HEIF),
        (ftyp(b"hevc", b"msf1", b"hevc"), Format.HEIF),
        (ftyp(b"heim"), Format.HEIF),
        (ftyp(b"heis"), Format.HEIF),
        (ftyp(b"mif1", b"mif1", b"heic"), Format.HEIF),
        (ftyp(b"msf1", b"hevc"), Format.HEIF),
        (ftyp(b"mif1"), Format.HEIF),
        (ftyp(b"avif", b"mif1", b"miaf"), Format.AVIF),
        (ftyp(b"avis", b"msf1"), Format.AVIF),
        (ftyp(b"mif1", b"mif1", b"avif"), Format.AVIF),
    ],
)
def test_photos_are_known(head: bytes, expected: Format) -> None:
    assert sniff(head) is expected
    assert sniff(head.ljust(4096, b"\0")) is expected


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff\xd8",
        b"\x89PNG\r\n",
        b"GIF88a",
        b"RIFF\0\1\0\0WAVEfmt ",
        b"RIFF",
        b"BM\0\0",
        b"II*\0",
        b"MM\0*",
        b"<svg xmlns='http://www.w3.org/2000/svg'>",
        b"%PDF-1.7",
        b"PK\3\4",
        b"<!doctype html>",
        b"\0\0\0\x0cJXL \r\n\x87\n",
        b"ftyp",
        b"\0\0\0\x18ftyp",
        ftyp(b"isom", b"avif", b"heic"),
        ftyp(b"qt  "),
        ftyp(b"M4V "),
    ],
)
def test_anything_else_is_not(head: bytes) -> None:
    assert sniff(head) is None


def test_brands_after_the_box_do_not_count() -> None:
    assert sniff(ftyp(b"mif1", b"mif1") + b"avifavifavif") is Format.HEIF


@given(st.binary(max_size=2 * HEAD_BYTES))
def test_only_the_head_is_looked_at(content: bytes) -> None:
    assert sniff(content) is sniff(content[:HEAD_BYTES])
    assert sniff(b"\0\0\0\x40ftyp" + content) in {None, Format.HEIF, Format.AVIF}


def test_content_types() -> None:
    assert {kind.content_type for kind in Format} == {
        f"image/{name}" for name in ("jpeg", "png", "webp", "heif", "avif", "gif")
    }


@pytest.mark.parametrize("module", ["sniff", "process"])
def test_no_decoder_is_loaded(module: str) -> None:
    code = f"import sys, instafeed.imaging.{module}; print({{'PIL', 'pillow_heif', 'blurhash'}} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
