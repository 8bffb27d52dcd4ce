"""The decoder's process: what it hands back, what ends it, and that nothing of it stays."""

import asyncio
import contextlib
import ctypes
import io
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from instafeed.imaging import process
from instafeed.imaging.process import Decoder, DecoderFailed, Encodings, Limits, Reason, Refused, Rendered
from tests.photos import REAL, slow_jpeg

LIMITS = Limits()

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Decoder]:
    decoder = Decoder()
    yield decoder
    await decoder.close()


@pytest.fixture
def decoder(shared: Decoder) -> Iterator[Decoder]:
    yield shared
    assert not decoding(shared)


@pytest.fixture
async def broken(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[str], Decoder]]:
    """Makes a decoder whose template is other code."""
    decoder = Decoder()

    def start(code: str) -> Decoder:
        monkeypatch.setattr(process, "_START", code)
        return decoder

    yield start
    await decoder.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny"
    Image.linear_gradient("L").convert("RGB").resize((64, 48)).save(path, "JPEG")
    return path


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    path = tmp_path / "slow"
    path.write_bytes(slow_jpeg())
    return path


class Endless:
    """A file whose reader waits for ever: a decoder can be looked at, and ended."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._writer: int | None = None

    async def opened(self) -> None:
        """Returns when a decoder reads it: another one than the last time."""
        self.close()
        async with asyncio.timeout(20):
            while self._writer is None:
                try:
                    self._writer = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
                except OSError:  # no reader yet
                    await asyncio.sleep(0.005)

    def close(self) -> None:
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[Endless]:
    file = Endless(tmp_path / "endless")
    yield file
    file.close()


def children(pid: int | str = "self") -> set[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found: set[int] = set()
    for task in tasks:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found |= {int(child) for child in (task / "children").read_text().split()}
    return found


def alive(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def template_of(decoder: Decoder) -> int:
    assert decoder._process is not None
    return decoder._process.pid


def decoding(decoder: Decoder) -> set[int]:
    """The pids of its decoders, those included that nobody has collected."""
    return children(template_of(decoder)) if decoder._process else set()


async def hanging(decoder: Decoder, endless: Endless, out: Path) -> tuple[asyncio.Task[Rendered], int]:
    """A decoder that waits, and its pid."""
    task = asyncio.create_task(decoder.render(endless.path, out, limits=LIMITS, encodings=Encodings()))
    await endless.opened()
    (pid,) = decoding(decoder)
    return task, pid


async def refused(decoder: Decoder, source: Path, out: Path, limits: Limits = LIMITS) -> Reason:
    with pytest.raises(Refused) as caught:
        await decoder.render(source, out, limits=limits, encodings=Encodings())
    return caught.value.reason


# What it hands back


async def test_files(decoder: Decoder, tmp_path: Path, out: Path) -> None:
    source = tmp_path / "photo"
    Image.linear_gradient("L").convert("RGB").resize((900, 1200)).save(source, "JPEG")
    rendered = await decoder.render(source, out, limits=LIMITS, encodings=Encodings())
    assert (rendered.width, rendered.height, rendered.has_alpha) == (900, 1200, False)
    assert 6 <= len(rendered.blurhash) <= 32
    found = [(file.name, file.width, file.height, file.content_type) for file in rendered.files]
    assert found == [
        (name, width, height, f"image/{kind}")
        for name, width, height in (("1080", 810, 1080), ("640", 480, 640), ("320", 240, 320), ("150", 150, 150))
        for kind in ("jpeg", "webp")
    ]
    assert {file.path for file in rendered.files} == set(out.iterdir())
    for file in rendered.files:
        assert file.bytes == file.path.stat().st_size > 0
        with Image.open(file.path) as picture:
            assert (picture.size, Image.MIME[str(picture.format)]) == ((file.width, file.height), file.content_type)


async def test_small_photos_share_files(decoder: Decoder, tiny: Path, out: Path) -> None:
    rendered = await decoder.render(tiny, out, limits=LIMITS, encodings=Encodings())
    paths = {(file.name, file.content_type): file.path for file in rendered.files}
    assert len(paths) == 8
    assert paths["1080", "image/webp"] == paths["640", "image/webp"] == paths["320", "image/webp"]
    assert paths["1080", "image/webp"] != paths["150", "image/webp"]
    assert set(paths.values()) == set(out.iterdir())


@pytest.mark.parametrize("path", sorted((REAL / "odd").glob("*")), ids=lambda path: path.name)
async def test_odd_photos_are_rendered_or_refused(decoder: Decoder, path: Path, out: Path) -> None:
    try:
        rendered = await decoder.render(path, out, limits=LIMITS, encodings=Encodings())
    except Refused:
        return
    assert len(rendered.files) == 8


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
async def test_whatever_is_done_to_a_file(decoder: Decoder, kind: str, tmp_path: Path, out: Path) -> None:
    chance = random.Random(kind)
    source = tmp_path / "source"
    buffer = io.BytesIO()
    Image.frombytes("RGB", (90, 60), chance.randbytes(90 * 60 * 3)).save(buffer, kind)
    for _ in range(4):
        content = bytearray(buffer.getvalue())
        for _ in range(chance.randint(1, 20)):
            content[chance.randrange(len(content) // chance.choice((1, 10)))] = chance.randrange(256)
        source.write_bytes(content)
        try:
            await decoder.render(source, out, limits=LIMITS, encodings=Encodings())
        except Refused as refusal:
            assert refusal.reason in {Reason.DAMAGED, Reason.UNSUPPORTED, Reason.TOO_MANY_PIXELS}  # noqa: PT017


def test_reasons_can_be_shown() -> None:
    for reason in Reason:
        assert str(Refused(reason)) == reason.sentence
        assert reason.sentence.startswith("The ")
        assert reason.sentence.endswith(".")


# What ends it


async def test_no_photo(decoder: Decoder, tmp_path: Path, out: Path) -> None:
    source = tmp_path / "photo.jpg"
    source.write_text("not really")
    assert await refused(decoder, source, out) is Reason.UNSUPPORTED


async def test_too_many_pixels(decoder: Decoder, tiny: Path, out: Path) -> None:
    assert await refused(decoder, tiny, out, Limits(max_pixels=64 * 48 - 1)) is Reason.TOO_MANY_PIXELS
    assert (await decoder.render(tiny, out, limits=Limits(max_pixels=64 * 48), encodings=Encodings())).width == 64


async def test_too_many_pixels_is_said_before_memory_runs_out(decoder: Decoder, tmp_path: Path, out: Path) -> None:
    # The WebP decoder allocates twice the canvas when it is made; these 144 megapixels would not fit.
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "WEBP")
    canvas = (12_000 - 1).to_bytes(3, "little")
    body = b"WEBPVP8X\x0a\0\0\0" + bytes(4) + canvas * 2 + buffer.getvalue()[12:]
    source = tmp_path / "bomb"
    source.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    assert await refused(decoder, source, out, Limits(memory_bytes=1 << 30)) is Reason.TOO_MANY_PIXELS


@pytest.mark.parametrize(("kind", "mebibytes"), [("PNG", 100), ("WEBP", 256)])
async def test_too_much_memory(decoder: Decoder, kind: str, mebibytes: int, tmp_path: Path, out: Path) -> None:
    source = tmp_path / "large"
    Image.new("RGB", (5000, 5000), "teal").save(source, kind)
    assert await refused(decoder, source, out, Limits(memory_bytes=mebibytes << 20)) is Reason.TOO_MUCH_MEMORY


async def test_too_much_processor_time(decoder: Decoder, slow: Path, out: Path) -> None:
    start = time.monotonic()
    assert await refused(decoder, slow, out, Limits(cpu_seconds=1)) is Reason.TOOK_TOO_LONG
    assert time.monotonic() - start < LIMITS.cpu_seconds


async def test_too_long(decoder: Decoder, slow: Path, out: Path) -> None:
    start = time.monotonic()
    assert await refused(decoder, slow, out, Limits(wall_seconds=0.4)) is Reason.TOOK_TOO_LONG
    assert time.monotonic() - start < LIMITS.cpu_seconds


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
async def test_a_crash(decoder: Decoder, how: signal.Signals, endless: Endless, out: Path) -> None:
    task, pid = await hanging(decoder, endless, out)
    os.kill(pid, how)
    with pytest.raises(Refused) as caught:
        await task
    assert caught.value.reason is Reason.DECODER_CRASHED


# What is not the photo's fault


@pytest.mark.parametrize("missing", ["source", "out"])
async def test_a_missing_file_is_our_fault(
    decoder: Decoder, missing: str, tiny: Path, out: Path, tmp_path: Path
) -> None:
    nowhere = tmp_path / "secret" / "place"
    with pytest.raises(DecoderFailed, match="No such file or directory") as caught:
        await (
            decoder.render(nowhere, out, limits=LIMITS, encodings=Encodings())
            if missing == "source"
            else decoder.render(tiny, nowhere, limits=LIMITS, encodings=Encodings())
        )
    assert "secret" not in str(caught.value)


async def test_a_full_disk_is_our_fault(decoder: Decoder, tiny: Path, out: Path) -> None:
    (out / "1080.jpg").symlink_to("/dev/full")
    # Where files outside are out of reach, it does not even come that far.
    with pytest.raises(DecoderFailed, match=r"No space left on device|Permission denied"):
        await decoder.render(tiny, out, limits=LIMITS, encodings=Encodings())


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("raise SystemExit('no decoder')", "no decoder"),
        ("import nothing_of_this_name", "No module named"),
        ("print('nonsense')", "nonsense"),
        ("pass", "does not say"),
    ],
)
async def test_a_broken_installation_is_our_fault(
    broken: Callable[[str], Decoder], code: str, cause: str, tiny: Path, out: Path
) -> None:
    decoder = broken(code)
    for _ in range(2):
        with pytest.raises(DecoderFailed, match=cause):
            await decoder.render(tiny, out, limits=LIMITS, encodings=Encodings())


WITH = """
import os, sys
sys.path += sys.argv.pop(1).split(':')
from instafeed.imaging import confine, template
{}
def changed(source, out, *others):
    {}
    return render(source, out, *others)
render, template.render_photo = template.render_photo, changed
template.main()
"""


def decoding_with(code: str, *, before: str = "") -> str:
    """A template whose decoders first do this, when they are bounded and confined; it does that `before` itself."""
    return WITH.format(before, code)


@pytest.mark.parametrize(
    "code",
    [
        "os._exit(0)",
        "os._exit(7)",
        "return []",
        "return {}",
        "os.write(3, b'nonsense'); os._exit(0)",
        """os.write(3, b'{"refused": "by me"}'); os._exit(0)""",
    ],
)
async def test_a_decoder_that_says_nothing_of_use_is_our_fault(
    broken: Callable[[str], Decoder], code: str, tiny: Path, out: Path
) -> None:
    with pytest.raises(DecoderFailed, match="does not say"):
        await broken(decoding_with(code)).render(tiny, out, limits=LIMITS, encodings=Encodings())


@pytest.mark.parametrize("file", ["../secret.jpg", "/etc/passwd", "link.jpg", "fifo.jpg", "..", "none.jpg"])
async def test_a_decoder_cannot_have_other_files_published(
    broken: Callable[[str], Decoder], file: str, tiny: Path, out: Path
) -> None:
    (out.parent / "secret.jpg").write_bytes(b"secret")
    (out / "link.jpg").symlink_to(out.parent / "secret.jpg")
    os.mkfifo(out / "fifo.jpg")
    code = f"document = render(source, out, *others); document['files'][0]['file'] = {file!r}; return document"
    with pytest.raises(DecoderFailed, match="does not say"):
        await broken(decoding_with(code)).render(tiny, out, limits=LIMITS, encodings=Encodings())


async def test_what_decoders_print_is_dropped(broken: Callable[[str], Decoder], tiny: Path, out: Path) -> None:
    noise = "[os.write(to, b'warning\\n' * 10_000) for to in (1, 2)]"
    decoder = broken(decoding_with(noise, before=noise))
    assert (await decoder.render(tiny, out, limits=LIMITS, encodings=Encodings())).width == 64


# What a decoder that a photo has taken over cannot do


def landlock() -> bool:
    """Whether this kernel has it, and lets us."""
    return sys.platform == "linux" and int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)) >= 1


def seccomp() -> bool:
    """Whether this kernel has it, on a machine whose calls have numbers that we know."""
    return platform.machine() in {"x86_64", "aarch64"} and "Seccomp:" in Path("/proc/self/status").read_text()


NEEDS_LANDLOCK = pytest.mark.skipif(not landlock(), reason="the kernel has no Landlock")
NEEDS_SECCOMP = pytest.mark.skipif(not seccomp(), reason="the kernel has no seccomp filters")
FILES = {
    "another file": "open('/etc/passwd').read()",
    "another folder": "open(out + '/../outside', 'w')",
    "the photo": "open(source, 'w')",
    "a file out of the way": "os.rename(out + '/there', out + '/../outside')",
    "a link": "os.symlink(out + '/../outside', out + '/1080.jpg')",
    "a memory": "open(f'/proc/{os.getppid()}/mem', 'rb')",
}
CALLS = {
    "the network": "import socket; socket.create_connection(('127.0.0.1', 9))",
    "who listens here": "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "a program": "os.execv('/bin/true', ['true'])",
    "a process": "os.fork()",
    "the template": "os.kill(os.getppid(), 9)",
    "another group": "os.setsid()",
    "the worker's limits": "import resource; resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))",
}


@pytest.mark.parametrize(
    "code",
    [
        *(pytest.param(code, id=name, marks=NEEDS_LANDLOCK) for name, code in FILES.items()),
        *(pytest.param(code, id=name, marks=NEEDS_SECCOMP) for name, code in CALLS.items()),
    ],
)
async def test_a_decoder_that_was_taken_over_reaches_nothing(
    broken: Callable[[str], Decoder], code: str, tiny: Path, out: Path
) -> None:
    (out / "there").touch()
    before = tiny.read_bytes()
    decoder = broken(decoding_with(code))
    with pytest.raises(DecoderFailed, match=r"(PermissionError|error): (Operation not permitted|Permission denied)"):
        await decoder.render(tiny, out, limits=LIMITS, encodings=Encodings())
    assert tiny.read_bytes() == before
    assert not (out.parent / "outside").exists()


@pytest.mark.parametrize(
    "without",
    [
        "confine._LANDLOCK_CREATE_RULESET = 9999",
        "confine._MACHINES.clear()",
    ],
    ids=["no Landlock", "another machine"],
)
async def test_what_cannot_be_confined_is_bounded(
    broken: Callable[[str], Decoder], without: str, tiny: Path, out: Path
) -> None:
    decoder = broken(decoding_with("", before=without))
    assert (await decoder.render(tiny, out, limits=LIMITS, encodings=Encodings())).width == 64


async def test_a_template_that_dies_is_started_anew(
    broken: Callable[[str], Decoder], endless: Endless, tiny: Path, out: Path
) -> None:
    decoder = broken(process._START)
    task, pid = await hanging(decoder, endless, out)
    template = template_of(decoder)
    os.kill(template, signal.SIGKILL)
    with pytest.raises(Refused) as caught:
        await task
    assert caught.value.reason is Reason.DECODER_CRASHED
    await gone(pid)
    assert (await decoder.render(tiny, out, limits=LIMITS, encodings=Encodings())).width == 64
    assert template_of(decoder) != template


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_stop_the_worker_ends_no_photo(
    decoder: Decoder, stop: signal.Signals, endless: Endless, out: Path
) -> None:
    task, pid = await hanging(decoder, endless, out)
    for one in (template_of(decoder), pid):
        os.kill(one, stop)
    endless.close()
    with pytest.raises(Refused) as caught:
        await task
    assert caught.value.reason is Reason.UNSUPPORTED


async def test_nothing_goes_from_one_photo_to_the_next(
    decoder: Decoder, endless: Endless, tiny: Path, out: Path
) -> None:
    await decoder.render(tiny, out, limits=LIMITS, encodings=Encodings())
    template = template_of(decoder)
    descriptors = Path(f"/proc/{template}/fd")
    before = len(list(descriptors.iterdir()))
    pids = set()
    for _ in range(3):
        task, pid = await hanging(decoder, endless, out)
        pids.add(pid)
        os.kill(pid, signal.SIGSEGV)
        with pytest.raises(Refused):
            await task
        await decoder.render(tiny, out, limits=LIMITS, encodings=Encodings())
    assert len(pids) == 3
    assert template_of(decoder) == template
    assert len(list(descriptors.iterdir())) == before


# That nothing stays, and nothing goes along


async def test_it_is_bounded_and_knows_nothing(
    broken: Callable[[str], Decoder], endless: Endless, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTAFEED_SECRET_KEY", "hush")
    decoder = broken(process._START)
    task, pid = await hanging(decoder, endless, out)
    proc = Path(f"/proc/{pid}")
    rows = [line.rsplit(maxsplit=3) for line in (proc / "limits").read_text().splitlines()[1:]]
    limits = {name.strip(): (soft, hard) for name, soft, hard, _ in rows}
    assert limits["Max address space"] == (str(LIMITS.memory_bytes),) * 2
    assert limits["Max cpu time"] == (str(LIMITS.cpu_seconds), str(LIMITS.cpu_seconds + 1))
    assert limits["Max core file size"] == ("0", "0")
    assert limits["Max open files"] == ("64", "64")
    assert limits["Max file size"] == (str(16 << 20),) * 2
    assert b"hush" not in (proc / "environ").read_bytes()
    assert os.getpgid(pid) == pid
    assert os.getsid(pid) == template_of(decoder)
    assert (proc / "fd" / "0").readlink() == Path("/dev/null")
    assert len(list((proc / "fd").iterdir())) <= 5  # the three, the photo, and the answer
    assert (proc / "oom_score_adj").read_text() == "1000\n"
    assert (
        len(list(Path(f"/proc/{template_of(decoder)}/task").iterdir())) == 1
    )  # or a fork would copy locks that are held
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled(decoder: Decoder, endless: Endless, out: Path) -> None:
    task, pid = await hanging(decoder, endless, out)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not Path(f"/proc/{pid}").exists()


async def test_cancelled_at_any_moment(decoder: Decoder, tiny: Path, out: Path) -> None:
    await decoder.render(tiny, out, limits=LIMITS, encodings=Encodings())
    for delay in range(20):
        task = asyncio.create_task(decoder.render(tiny, out, limits=LIMITS, encodings=Encodings()))
        await asyncio.sleep(delay / 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not decoding(decoder)


async def test_cancelled_at_any_moment_of_the_start(broken: Callable[[str], Decoder], tiny: Path, out: Path) -> None:
    decoder = broken(f"{process._START}  # of this test")

    def left() -> list[int]:
        found = []
        for pid in children():
            with contextlib.suppress(OSError):  # one that has just ended
                found += [pid] if b"# of this test" in Path(f"/proc/{pid}/cmdline").read_bytes() else []
        return found

    for delay in range(0, 160, 16):
        task = asyncio.create_task(decoder.render(tiny, out, limits=LIMITS, encodings=Encodings()))
        await asyncio.sleep(delay / 1000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await decoder.render(tiny, out, limits=LIMITS, encodings=Encodings())).width == 64
    await decoder.close()
    async with asyncio.timeout(20):
        while left():  # noqa: ASYNC110 -- no event comes from another process
            await asyncio.sleep(0.01)


async def test_cancelled_twice(decoder: Decoder, endless: Endless, out: Path) -> None:
    task, pid = await hanging(decoder, endless, out)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(20):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110 -- no event comes from another process
            await asyncio.sleep(0.01)


async def gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while alive(pid):  # noqa: ASYNC110 -- no event comes from another process
            await asyncio.sleep(0.01)


async def test_many_at_once(decoder: Decoder, tiny: Path, tmp_path: Path) -> None:
    def directory(number: int) -> Path:
        path = tmp_path / str(number)
        path.mkdir()
        return path

    rendered = await asyncio.gather(
        *(decoder.render(tiny, directory(number), limits=LIMITS, encodings=Encodings()) for number in range(6))
    )
    assert len({one.blurhash for one in rendered}) == 1


WORKER = """
import asyncio, sys
from pathlib import Path
from instafeed.imaging.process import Decoder, Encodings, Limits
asyncio.run(Decoder().render(Path(sys.argv[1]), Path(sys.argv[2]), limits=Limits(), encodings=Encodings()))
"""


async def test_a_killed_worker_leaves_no_decoder(endless: Endless, out: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER, endless.path, out]) as worker:  # noqa: ASYNC220 -- at once
        await endless.opened()
        (template,) = children(worker.pid)
        (pid,) = children(template)
        assert alive(pid)
        worker.kill()
        await gone(pid)
        await gone(template)


@pytest.mark.parametrize("run", ["asyncio", "uvloop"])
def test_event_loops(run: str, endless: Endless, tiny: Path, out: Path) -> None:
    loop: Callable[[], asyncio.AbstractEventLoop] = (
        asyncio.new_event_loop if run == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    )
    decoder = Decoder()
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(decoder.render(tiny, out, limits=LIMITS, encodings=Encodings())).width == 64
        tiny.write_bytes(b"\xff\xd8\xff broken")
        assert runner.run(refused(decoder, tiny, out)) is Reason.DAMAGED
        assert runner.run(refused(decoder, endless.path, out, Limits(wall_seconds=0.01))) is Reason.TOOK_TOO_LONG
        runner.run(decoder.close())
