"""From an uploaded photo to renditions that anybody may be shown."""

import asyncio
import contextlib
import io
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image, ImageChops, ImageStat
from pydantic import ValidationError

from instafeed import media
from instafeed.errors import Unavailable
from instafeed.imaging.process import Decoder, DecoderFailed
from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from instafeed.storage import media as media_rows
from instafeed.storage import posts as post_rows
from instafeed.storage.blobs import original_key, rendition_prefix
from instafeed.storage.database import Connection
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import perform
from tests.client import Client, eventually, http_client
from tests.conftest import running_api
from tests.media.traces import Traces, tracing
from tests.photos import REAL, jpeg, jpeg_of_a_camera, slow_jpeg
from tests.processes import running_worker
from tests.test_cli import environ_of
from tests.workers import all_done, running_workers

# What marks metadata in a JPEG or a WebP file; and words that cameras write into it.
# None so short that compressed pixels have it by chance. A place is written within EXIF or XMP only.
MARKERS = [b"Exif\0\0", b"EXIF", b"http://ns.adobe.com", b"XMP ", b"xpacket", b"ICC_PROFILE", b"ICCP", b"MPF\0"]
MARKERS += [b"Photoshop", b"Apple", b"NIKON", b"Canon", b"Nokia", b"HMD Global", b"Jolla"]
BOUNDS = {"1080": 1080, "640": 640, "320": 320}
TYPES = {"image/jpeg": "JPEG", "image/webp": "WEBP"}


def real(folder: str, *patterns: str) -> list[Any]:
    """Parameters: real photos, or one that skips."""
    found = sorted(path for pattern in patterns or ("*",) for path in (REAL / folder).glob(pattern))
    absent = [pytest.param(Path(), id=folder, marks=pytest.mark.skip("needs the real photos"))]
    return [pytest.param(path, id=path.name) for path in found] or absent


async def downloaded(found: dict[str, Any]) -> dict[tuple[str, str], tuple[dict[str, Any], bytes, str]]:
    """The renditions by name and type: as described, as bytes, and the type that S3 says."""
    async with http_client() as phone:
        answers = [(rendition, await phone.get(rendition["url"])) for rendition in found["renditions"]]
    assert all(answer.status_code == 200 for _, answer in answers)
    return {
        (rendition["name"], rendition["content_type"]): (rendition, answer.content, answer.headers["content-type"])
        for rendition, answer in answers
    }


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("path", real("cameras", "DSCN0010.jpg", "HMD*", "canon_hdr_YES*", "iphone*YES*", "jolla*"))
async def test_real_photos_become_clean_renditions_of_the_right_sizes_and_types(author: Client, path: Path) -> None:
    data = path.read_bytes()
    found = await author.ready((await author.upload(data))["id"])
    assert (found["status"], found["failure"]) == ("ready", None)
    renditions = await downloaded(found)
    assert set(renditions) == set(itertools.product(["1080", "640", "320", "150"], TYPES))
    for (name, kind), (told, content, type_in_s3) in renditions.items():
        assert type_in_s3 == kind
        assert len(content) == told["bytes"]
        with Image.open(io.BytesIO(content)) as picture:
            assert (picture.format, picture.size) == (TYPES[kind], (told["width"], told["height"]))
            assert not picture.getexif()
        if name == "150":
            assert (told["width"], told["height"]) == (150, 150)
        else:
            assert max(told["width"], told["height"]) == min(BOUNDS[name], max(found["width"], found["height"]))
            assert told["width"] / told["height"] == pytest.approx(found["width"] / found["height"], rel=0.01)
        assert not [marker for marker in MARKERS if marker in content]
    assert any(marker in data for marker in MARKERS), "the original has something to lose"
    assert len(found["blurhash"]) == 28


def likeness(one: Image.Image, other: Image.Image) -> float:
    """How far two pictures are apart: 0 for alike, 255 for opposite."""
    small = (32, 32)
    difference = ImageChops.difference(one.convert("L").resize(small), other.convert("L").resize(small))
    return ImageStat.Stat(difference).mean[0]


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize(("side", "orientations"), [("Landscape", "1-8"), ("Portrait", "168")])
async def test_photos_of_every_orientation_come_out_upright(author: Client, side: str, orientations: str) -> None:
    paths = sorted((REAL / "orientation").glob(f"{side}_[{orientations}].jpg"))
    if not paths:
        pytest.skip("needs the real photos")
    taken = [(await author.upload(path.read_bytes()))["id"] for path in paths]
    pictures = []
    for media_id in taken:
        _, content, _ = (await downloaded(await author.ready(media_id)))["320", "image/webp"]
        pictures.append(Image.open(io.BytesIO(content)))
    upright = pictures[0]
    assert (upright.width > upright.height) == (side == "Landscape")
    assert {picture.size for picture in pictures} == {upright.size}
    assert max(likeness(upright, picture) for picture in pictures) < 10
    assert likeness(upright, upright.transpose(Image.Transpose.ROTATE_180)) > 20, "it would be noticed"


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("path", real("heif", "arrow*", "RGB_10*"))
async def test_heif_photos_become_renditions_that_every_browser_shows(author: Client, path: Path) -> None:
    pytest.importorskip("pillow_heif")
    found = await author.ready((await author.upload(path.read_bytes()))["id"])
    assert (found["status"], found["failure"]) == ("ready", None)
    _, content, kind = (await downloaded(found))["640", "image/jpeg"]
    with Image.open(io.BytesIO(content)) as picture:
        assert (kind, picture.format) == ("image/jpeg", "JPEG")


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("path", real("odd", "corrupted*", "36-*", "35-*"))
async def test_odd_photos_come_to_an_end(author: Client, path: Path) -> None:
    found = await author.ready((await author.upload(path.read_bytes()))["id"])
    assert found["status"] == "ready" or found["failure"]


@pytest.mark.usefixtures("workers")
async def test_what_the_camera_wrote_is_shown_only_if_that_was_chosen(author: Client, http: httpx.AsyncClient) -> None:
    data = jpeg_of_a_camera()
    plain = await author.ready((await author.upload(data))["id"])
    assert plain["camera"] is None
    chosen = await author.upload(data, params={"camera_facts": "true"})
    assert chosen["camera"] is None
    assert (await author.ready(chosen["id"]))["camera"] == {
        "make": "Maker",
        "model": "Model 1",
        "lens": "Lens 1",
        "exposure_seconds": 0.008,
        "f_number": 2.8,
        "iso": 400,
        "focal_length_mm": 4.25,
    }
    post = await author.call("POST", "/v1/posts", 201, json={"caption": "", "media": [{"id": chosen["id"]}]})
    await author.published(post["id"])
    seen = await (await Client.sign_up(http)).call("GET", f"/v1/posts/{post['id']}")
    assert seen["media"][0]["camera"]["model"] == "Model 1"
    assert not [word for word in ("Somebody", "2026:01", "S/N 7", "48.0") if word in str(seen)]
    await author.call("POST", "/v1/media", 422, content=data, params={"camera_facts": "perhaps"})
    for choice, model in (("true", "Model 1"), ("false", None)):
        photo = {"photo": ("photo.jpg", data)}
        post = await author.call("POST", "/v1/posts/form", 201, files=photo, params={"camera_facts": choice})
        camera = (await author.published(post["id"]))["media"][0]["camera"]
        assert (camera and camera["model"]) == model


@pytest.mark.usefixtures("workers")
async def test_the_colour_of_a_photo_is_told(author: Client) -> None:
    taken = await author.upload(jpeg_of_a_camera())
    assert taken["dominant_color"] is None
    colour = (await author.ready(taken["id"]))["dominant_color"]
    assert [abs(int(colour[at : at + 2], 16) - value) <= 3 for at, value in ((1, 30), (3, 60), (5, 90))] == [True] * 3


@pytest.mark.usefixtures("workers")
async def test_a_url_that_was_tampered_with_opens_nothing(author: Client) -> None:
    found = await author.ready((await author.upload())["id"])
    url = found["renditions"][0]["url"]
    async with http_client() as phone:
        assert (await phone.get(url)).status_code == 200
        assert (await phone.get(url.partition("?")[0])).status_code == 403
        assert (await phone.get(url.replace("Expires=7200", "Expires=7201"))).status_code == 403
        assert (await phone.get(url.replace(".jpg?", ".webp?"))).status_code == 403
        assert (await phone.put(url, content=b"mine")).status_code == 403


@pytest.mark.usefixtures("workers")
async def test_a_deleted_post_takes_its_originals_and_renditions_along(
    author: Client, res: Resources, traces: Traces
) -> None:
    post = await author.post("short-lived", photos=2)
    await author.published(post["id"])
    keys = [await object_key(res, item["id"]) for item in post["media"]]
    prefixes = [original_key(key) for key in keys] + [rendition_prefix(key) for key in keys]
    assert all([await traces.objects(prefix) for prefix in prefixes])
    await author.call("DELETE", f"/v1/posts/{post['id']}", 204)

    async def gone() -> bool:
        return not any([await traces.objects(prefix) for prefix in prefixes])

    await eventually(gone)
    for item in post["media"]:
        await author.call("GET", f"/v1/media/{item['id']}", 404)


async def object_key(res: Resources, media_id: str) -> str:
    """What a photo's objects are called."""
    async with res.db.acquire() as connection:
        found = await media_rows.get(connection, int(media_id))
    assert found is not None
    return found.object_key


async def entries(res: Resources, kind: Kind) -> list[Entry]:
    """The work of a kind that was ever noted, as at its first attempt."""
    async with res.db.acquire() as connection:
        records = await connection.fetch("select id, payload from outbox where kind = $1 order by id", kind)
    return [Entry(record["id"], kind, record["payload"], position=0, attempts=1) for record in records]


async def test_a_photo_that_is_rendered_twice_at_once_and_once_more_is_published_once(
    fresh_res: Resources, poster: Client
) -> None:
    post = await poster.post()
    [entry] = await entries(fresh_res, Kind.RENDER)
    await asyncio.gather(media.render(fresh_res, entry), media.render(fresh_res, entry))
    assert await media.render(fresh_res, entry) == []
    assert len(await entries(fresh_res, Kind.FAN_OUT)) == 1
    assert (await poster.call("GET", "/v1/me"))["post_count"] == 1
    assert len(await downloaded(await poster.ready(post["media"][0]["id"]))) == 8


async def test_a_post_that_is_published_while_it_is_read_is_read_with_its_photos_ready(
    fresh_res: Resources, poster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    post_id = int((await poster.post())["id"])
    [entry] = await entries(fresh_res, Kind.RENDER)

    async def of_posts_then_published(connection: Connection, post_ids: Iterable[int]) -> Any:
        found = await of_posts(connection, post_ids)
        monkeypatch.setattr(media_rows, "of_posts", of_posts)
        await media.render(fresh_res, entry)
        return found

    of_posts = media_rows.of_posts
    monkeypatch.setattr(media_rows, "of_posts", of_posts_then_published)
    async with fresh_res.db.acquire() as connection:
        [post] = (await post_rows.get_many(connection, [post_id])).values()
    assert post.published_at is not None
    assert [photo.status for photo in post.media] == ["ready"]


async def test_a_photo_that_is_deleted_while_it_is_rendered_leaves_nothing(
    fresh_res: Resources, poster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tracing(fresh_res) as traces:
        post = await poster.post()
        rendered = asyncio.Event()

        async def render_and_wait(*arguments: Any, render: Any = Decoder.render, **options: Any) -> Any:
            found = await render(*arguments, **options)
            await poster.call("DELETE", f"/v1/posts/{post['id']}", 204)

            async def gone() -> bool:
                return not await traces.objects()

            await eventually(gone)
            rendered.set()
            return found

        monkeypatch.setattr(Decoder, "render", render_and_wait)
        async with running_workers(fresh_res.settings):
            await rendered.wait()
            await eventually(lambda: all_done(fresh_res))
        assert await traces.objects() == {}
        assert len(await entries(fresh_res, Kind.DISCARD)) == 1


async def test_the_renditions_of_a_worker_that_was_killed_after_the_photo_was_deleted_are_deleted(
    fresh_res: Resources, poster: Client
) -> None:
    post = await poster.post()
    await poster.call("DELETE", f"/v1/posts/{post['id']}", 204)
    [entry] = await entries(fresh_res, Kind.RENDER)
    assert await media.render(fresh_res, entry) == [(Kind.DISCARD, {"key": entry.payload["key"]})]


async def test_a_post_with_a_photo_that_failed_stays_its_authors_alone(fresh_res: Resources, poster: Client) -> None:
    good, bad = await poster.upload(), await poster.upload(jpeg()[:200])
    body = {"caption": "half", "media": [{"id": good["id"]}, {"id": bad["id"]}]}
    post = await poster.call("POST", "/v1/posts", 201, json=body)
    for entry in await entries(fresh_res, Kind.RENDER):
        await media.render(fresh_res, entry)
    seen = await poster.call("GET", f"/v1/posts/{post['id']}")
    assert (seen["published_at"], [item["status"] for item in seen["media"]]) == (None, ["ready", "failed"])
    stranger = await Client.sign_up(poster.http)
    await stranger.call("GET", f"/v1/posts/{post['id']}", 404)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_a_photo_that_kills_its_decoder_is_tried_twice_and_delays_no_other(
    fresh_res: Resources, poster: Client
) -> None:
    deadly = await poster.upload(slow_jpeg())
    [entry] = await entries(fresh_res, Kind.RENDER)

    async def killed() -> bool:
        process = fresh_res.decoder._process
        template = process and Path(f"/proc/{process.pid}/task/{process.pid}/children")
        pids = template.read_text().split() if template else []
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # another photo's, which has just ended
                os.kill(int(pid), signal.SIGSEGV)
        return bool(pids)

    for attempt in (1, 2):
        assert (await poster.call("GET", f"/v1/media/{deadly['id']}"))["status"] == "processing"
        rendering = asyncio.create_task(perform(fresh_res, entry.id, Kind.RENDER, media.render))
        other = await poster.upload(jpeg(seed=attempt))
        *_, another = await entries(fresh_res, Kind.RENDER)
        await perform(fresh_res, another.id, Kind.RENDER, media.render)
        assert (await poster.ready(other["id"]))["status"] == "ready"
        assert not rendering.done()
        await eventually(killed)
        await rendering
    found = await poster.ready(deadly["id"])
    assert (found["status"], found["failure"]) == ("failed", "The photo cannot be read.")
    async with fresh_res.db.acquire() as connection:
        assert await connection.fetchval("select count(*) from outbox where kind = 'render' and done_at is null") == 0


async def test_a_photo_over_which_workers_die_is_tried_twice(fresh_res: Resources, poster: Client) -> None:
    deadly = await poster.upload(slow_jpeg())
    [entry] = await entries(fresh_res, Kind.RENDER)
    for tries in (1, 2):

        async def begun(tries: int = tries) -> bool:
            async with fresh_res.db.acquire() as connection:
                return bool(
                    await connection.fetchval("select position = $2 from outbox where id = $1", entry.id, tries)
                )

        async with running_worker(fresh_res.settings, "media") as worker:
            await fresh_res.queue.ring(Kind.RENDER, entry.id)  # whoever was killed may have lost the bell too
            await eventually(begun)
            await worker.kill()
        assert (await poster.call("GET", f"/v1/media/{deadly['id']}"))["status"] == "processing"
        async with fresh_res.db.acquire() as connection:
            await connection.execute("update outbox set leased_until = null where id = $1", entry.id)
    await perform(fresh_res, entry.id, Kind.RENDER, media.render)
    assert (await poster.ready(deadly["id"]))["failure"] == "The photo cannot be read."
    assert fresh_res.decoder._process is None, "it is not tried a third time"


async def test_what_ends_no_decoder_counts_as_no_try(fresh_res: Resources, poster: Client) -> None:
    taken = await poster.upload(slow_jpeg())
    [entry] = await entries(fresh_res, Kind.RENDER)

    async def tries() -> int:
        async with fresh_res.db.acquire() as connection:
            return int(await connection.fetchval("select position from outbox where id = $1", entry.id))

    async def begun() -> bool:
        return await tries() == 1

    for _ in range(3):
        rendering = asyncio.create_task(perform(fresh_res, entry.id, Kind.RENDER, media.render))
        await eventually(begun)
        rendering.cancel()  # its worker stops
        await asyncio.wait({rendering})
        assert await tries() == 0
    assert (await poster.call("GET", f"/v1/media/{taken['id']}"))["status"] == "processing"


async def test_a_burst_of_photos_is_decoded_two_at_once_and_holds_no_post_up(
    fresh_res: Resources, poster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = await Client.sign_up(poster.http)
    await reader.follow(poster)
    ready = await poster.upload()
    [entry] = await entries(fresh_res, Kind.RENDER)
    await perform(fresh_res, entry.id, Kind.RENDER, media.render)
    burst = []
    for first in range(0, 60, 10):
        burst += await asyncio.gather(*(reader.upload(jpeg(seed=number)) for number in range(first, first + 10)))
    delivered = asyncio.Event()
    jobs = most = 0

    async def render_and_wait(self: Decoder, *arguments: Any, render: Any = Decoder.render, **options: Any) -> Any:
        nonlocal jobs, most
        jobs += 1
        most = max(most, jobs)
        found = await render(self, *arguments, **options)
        await delivered.wait()
        jobs -= 1
        return found

    monkeypatch.setattr(Decoder, "render", render_and_wait)

    async def pool_is_full() -> bool:
        return jobs == 2

    async def fanned_out() -> bool:
        async with fresh_res.db.acquire() as connection:
            return bool(await connection.fetchval("select done_at is not null from outbox where kind = 'fan_out'"))

    async with running_workers(fresh_res.settings):
        post = await poster.call("POST", "/v1/posts", 201, json={"caption": "", "media": [{"id": ready["id"]}]})
        await eventually(fanned_out)
        assert [item["id"] for item in (await reader.call("GET", "/v1/feed"))["items"]] == [post["id"]]
        await eventually(pool_is_full)
        delivered.set()
        for taken in burst:
            assert (await reader.ready(taken["id"]))["status"] == "ready"
    assert most == 2


async def test_avif_is_made_served_and_told_where_it_is_wished(fresh_settings: Settings) -> None:
    settings = fresh_settings.model_copy(update={"avif_renditions": "on"})
    async with (
        running_workers(settings),
        running_api(settings) as url,
        http_client(base_url=url) as http,
    ):
        poster = await Client.sign_up(http)
        renditions = await downloaded(await poster.ready((await poster.upload())["id"]))
    assert set(renditions) == set(itertools.product(BOUNDS.keys() | {"150"}, TYPES.keys() | {"image/avif"}))
    for name in BOUNDS:
        told, content, type_in_s3 = renditions[name, "image/avif"]
        assert type_in_s3 == "image/avif"
        with Image.open(io.BytesIO(content)) as picture:
            assert (picture.format, picture.size) == ("AVIF", (told["width"], told["height"]))


async def test_sizes_are_as_set_and_what_is_shown_in_lists_follows(fresh_settings: Settings) -> None:
    prefix = fresh_settings.s3_prefix
    environ = environ_of(fresh_settings, s3_prefix=prefix, rendition_sizes="800, 200", rendition_square="96")
    settings = Settings.from_environ(environ)
    async with (
        running_workers(settings),
        running_api(settings) as url,
        http_client(base_url=url) as http,
    ):
        poster = await Client.sign_up(http)
        photo = await poster.ready((await poster.upload(jpeg(1200, 900)))["id"])
        sizes = [(item["name"], item["width"], item["height"]) for item in photo["renditions"][::2]]
        assert sizes == [("800", 800, 600), ("200", 200, 150), ("96", 96, 96)]
        shown = await poster.call("PUT", "/v1/me/avatar", json={"media_id": photo["id"]})
        assert [item["name"] for item in shown["avatar"]] == ["200", "200", "96", "96"]
        post = await poster.post()
        assert [item["name"] for item in post["author"]["avatar"]] == ["96", "96"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"rendition_sizes": "320,640"},
        {"rendition_sizes": "640,640"},
        {"rendition_sizes": ""},
        {"rendition_sizes": "10000"},
        {"rendition_sizes": "640,wide"},
        {"rendition_square": "320"},
    ],
)
def test_sizes_that_make_no_sense_are_refused_at_the_start(settings: Settings, wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="rendition_s"):
        Settings.from_environ(environ_of(settings, **wrong))


async def test_a_photo_whose_original_is_lost_fails(fresh_res: Resources, poster: Client) -> None:
    taken = await poster.upload()
    [entry] = await entries(fresh_res, Kind.RENDER)
    await fresh_res.blobs.delete_photo(entry.payload["key"])
    for attempt in range(1, 6):
        with pytest.raises(media.OtherBytes):
            await media.render(fresh_res, replace(entry, attempts=attempt))
    assert (await poster.call("GET", f"/v1/media/{taken['id']}"))["status"] == "processing"
    await media.render(fresh_res, replace(entry, attempts=6))
    assert (await poster.ready(taken["id"]))["failure"] == "The photo is lost."


async def test_what_is_the_decoders_fault_is_tried_three_times(
    fresh_res: Resources, poster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: Any, **__: Any) -> Any:
        raise DecoderFailed("The disk is full.")

    monkeypatch.setattr(Decoder, "render", failing)
    taken = await poster.upload()
    [entry] = await entries(fresh_res, Kind.RENDER)
    for attempt in (1, 2):
        with pytest.raises(DecoderFailed):
            await media.render(fresh_res, replace(entry, attempts=attempt))
    assert (await poster.call("GET", f"/v1/media/{taken['id']}"))["status"] == "processing"
    await media.render(fresh_res, replace(entry, attempts=3))
    assert (await poster.ready(taken["id"]))["failure"] == "The photo could not be read."


async def test_while_s3_is_away_a_photo_stays_in_processing(fresh_res: Resources, poster: Client) -> None:
    taken = await poster.upload()
    [entry] = await entries(fresh_res, Kind.RENDER)
    async with open_resources(fresh_res.settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})) as apart:
        with pytest.raises(Unavailable):
            await media.render(apart, entry)
    assert (await poster.call("GET", f"/v1/media/{taken['id']}"))["status"] == "processing"
    await media.render(fresh_res, entry)
    assert (await poster.ready(taken["id"]))["status"] == "ready"


async def test_originals_that_a_killed_worker_left_on_the_disk_are_cleared_away(
    fresh_res: Resources, poster: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, in_use = tmp_path / "instafeed-render-left", tmp_path / "instafeed-render-in-use"
    for folder in (left, in_use):
        folder.mkdir()
        (folder / "original").write_bytes(jpeg())
    os.utime(left, (0, 0))
    await poster.upload()
    [entry] = await entries(fresh_res, Kind.RENDER)
    await media.render(fresh_res, entry)
    assert list(tmp_path.iterdir()) == [in_use]


async def test_what_a_killed_worker_was_rendering_is_done_by_another_within_30_seconds(
    fresh_res: Resources, poster: Client
) -> None:
    taken = [(await poster.upload(jpeg(3000, 2000, seed)))["id"] for seed in range(3)]
    async with running_worker(fresh_res.settings, "media") as worker, fresh_res.db.acquire() as connection:

        async def at_work() -> bool:
            return bool(await connection.fetchval("select count(*) from outbox where leased_until > now()"))

        await eventually(at_work)
        await worker.kill()
        assert await at_work(), "it was killed in the middle"
    async with running_worker(fresh_res.settings, "media", "default"):
        await poster.ready((await poster.upload())["id"])  # however long a program takes to start here
        async with fresh_res.db.acquire() as connection:
            # As if 12 of the 15 seconds of the killed one's lease had passed.
            await connection.execute(
                "update outbox set leased_until = leased_until - interval '12 s', due_at = due_at - interval '12 s'"
                " where done_at is null"
            )

        async def all_ready() -> bool:
            found = [await poster.call("GET", f"/v1/media/{media_id}") for media_id in taken]
            return {item["status"] for item in found} == {"ready"}

        await eventually(all_ready, seconds=18)
