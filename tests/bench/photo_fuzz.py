"""Mutated photos, each of which must be rendered or refused; by hand: `python -m tests.bench.photo_fuzz [--count 2000]
[--seconds 600] [--seed 0]`.

Bits are flipped, bytes overwritten, parts cut out, doubled, or taken from another photo. Counted are the answers, none of which may
be that we have failed; at the end the template must still be the first one, with no more descriptors than at the beginning, no
process, and hardly more memory.
"""

import argparse
import asyncio
import io
import random
import shutil
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pillow_heif
from PIL import Image

from instafeed.imaging.process import Decoder, DecoderFailed, Encodings, Limits, Refused
from tests.photos import REAL

_LARGEST = 400_000
_GROWTH_KIB = 4096


def corpus() -> list[bytes]:
    """Small photos of every kind, and the real ones that are not too large."""
    pillow_heif.register_heif_opener()
    picture = Image.effect_noise((120, 90), 60).convert("RGB")
    found = []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF", "MPO"):
        out = io.BytesIO()
        picture.save(out, kind)
        found.append(out.getvalue())
    for mode, kind, options in (
        ("RGB", "JPEG", {"progressive": True}),
        ("CMYK", "JPEG", {}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("I;16", "PNG", {}),
        ("P", "PNG", {}),
    ):
        out = io.BytesIO()
        (picture.convert("L").convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)).save(
            out, kind, **options
        )
        found.append(out.getvalue())
    real = [path for path in sorted(REAL.glob("*/*")) if path.stat().st_size <= _LARGEST and path.suffix != ".md"]
    return found + [path.read_bytes() for path in real]


def mutated(chance: random.Random, photos: list[bytes]) -> bytes:
    """One photo, changed in one to four ways."""
    content = bytearray(chance.choice(photos))
    for _ in range(chance.randint(1, 4)):
        # Headers are where it matters: half of all changes are in the first 600 bytes.
        end = len(content) if chance.random() < 0.5 else min(600, len(content))
        at, size = chance.randrange(max(1, end)), chance.randint(1, 64)
        match chance.randrange(6):
            case 0:
                content[at : at + 1] = bytes([content[at] ^ 1 << chance.randrange(8)]) if content else b""
            case 1:
                content[at : at + size] = chance.randbytes(size)
            case 2:
                content[at : at + size] = bytes([chance.choice((0, 0x7F, 0x80, 0xFF))]) * size
            case 3:
                del content[at : at + size * chance.choice((1, 50))]
            case 4:
                content[at:at] = content[at : at + size]
            case _:
                other = chance.choice(photos)
                content[at:] = other[min(at, len(other)) :]
        if not content:
            break
    return bytes(content)


async def fuzz(count: int, seconds: float, seed: int) -> Counter[str]:
    """Renders so many, or for so long; returns how often each answer came."""
    end = time.monotonic() + seconds
    chance, photos, answers = random.Random(seed), corpus(), Counter[str]()
    decoder = Decoder()
    with TemporaryDirectory(prefix="instafeed-fuzz-") as name:
        source, out = Path(name) / "source", Path(name) / "out"

        async def one(content: bytes) -> str:
            source.write_bytes(content)
            out.mkdir()
            try:
                await decoder.render(source, out, limits=Limits(), encodings=Encodings())
            except Refused as refused:
                return refused.reason.value
            except DecoderFailed as failed:
                return f"FAILED: {failed}"
            finally:
                shutil.rmtree(out)
            return "rendered"

        await one(photos[0])
        assert decoder._process is not None
        template = decoder._process.pid
        proc = Path(f"/proc/{template}")
        before = len(list((proc / "fd").iterdir())), _memory(proc)
        for number in range(count):
            if time.monotonic() > end:
                break
            content = mutated(chance, photos)
            answer = await one(content)
            answers[answer] += 1
            if answer.startswith(("FAILED", "decoder-crashed", "took-too-long")):
                kept = Path(f"photo-fuzz-{seed}-{number}")
                kept.write_bytes(content)
                print(f"{answer}: kept as {kept}")
        after = len(list((proc / "fd").iterdir())), _memory(proc)
        print(f"descriptors and KiB of the template: {before} -> {after}")
        assert decoder._process.pid == template, "the template has died"
        assert after[0] == before[0], "a descriptor is left"
        assert after[1] - before[1] < _GROWTH_KIB, "memory is left"
        assert not (proc / "task" / str(template) / "children").read_text().split(), "a decoder is left"
        assert list(Path(name).iterdir()) == [source], "a file is left"
        await decoder.close()
    return answers


def _memory(proc: Path) -> int:
    lines = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0])


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parsed = parser.parse_args()
    began = time.perf_counter()
    answers = asyncio.run(fuzz(parsed.count, parsed.seconds, parsed.seed))
    for answer, times in answers.most_common():
        print(f"{times:8} {answer}")
    print(f"{sum(answers.values())} of {parsed.count} answered in {time.perf_counter() - began:.0f} s")
    assert not any(answer.startswith("FAILED") for answer in answers), "that is our fault, and no photo's"


if __name__ == "__main__":
    main()
