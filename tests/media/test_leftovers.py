"""What crashes leave of photos is found in both directions, and what is kept no longer goes."""

import asyncio
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest

from instafeed import leftovers, media, posts, sweep, telemetry, work
from instafeed.errors import Unavailable
from instafeed.ids import span
from instafeed.leftovers import Finding, Sweep
from instafeed.resources import Resources, open_resources
from instafeed.settings import Settings
from instafeed.storage import media as media_rows
from instafeed.storage import stored
from instafeed.storage.blobs import PART_BYTES, Listed, first_object_key, new_object_key, original_key, rendition_prefix
from instafeed.storage.outbox import Entry, Kind
from instafeed.storage.stored import Stored
from tests.client import Client
from tests.media.traces import Traces, tracing
from tests.photos import jpeg
from tests.test_cli import Run, environ_of, run

__all__ = ["run"]

DAY = 86_400


@pytest.fixture
async def traces(fresh_res: Resources) -> AsyncIterator[Traces]:
    """Looks at what is stored."""
    async with tracing(fresh_res) as found:
        yield found


Later = Callable[[float], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Lets the sweep's clock be ahead by so many seconds, for the test alone: workers of others may be sweeping too."""
    ahead = ContextVar("ahead", default=0.0)
    clock = SimpleNamespace(time=lambda: time.time() + ahead.get(), monotonic=time.monotonic)
    monkeypatch.setattr(sweep, "time", clock)
    monkeypatch.setattr(leftovers, "time", clock)

    def set_clock(seconds: float) -> None:
        ahead.set(seconds)

    return set_clock


async def some(res: Resources) -> dict[Finding, int]:
    """What a run by the clock finds."""
    sweep = Sweep(res)
    await sweep.some()
    return dict(sweep.found)


async def store(res: Resources, *keys: str) -> None:
    """Store objects."""

    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    for key in keys:
        await res.blobs.put(key, body(), size=1, content_type="image/webp")


async def perform(res: Resources) -> None:
    """Do all the work that waits in the outbox, of photos and of deleted posts."""
    bodies: dict[Kind, work.Body] = {
        Kind.RENDER: media.render,
        Kind.DISCARD: media.discard,
        Kind.RETRACT: posts.retract,
    }
    async with res.db.acquire() as connection:
        records = await connection.fetch(
            "select id, kind from outbox where done_at is null and kind = any($1::text[]) order by id", list(bodies)
        )
    for record in records:
        await work.perform(res, record["id"], record["kind"], bodies[record["kind"]])


async def sql(res: Resources, statement: str, *values: object) -> list[Any]:
    """Run a statement."""
    async with res.db.acquire() as connection:
        return list(await connection.fetch(statement, *values))


async def key_of(res: Resources, media_id: str) -> str:
    """What a photo's objects are called."""
    async with res.db.acquire() as connection:
        found = await media_rows.get(connection, int(media_id))
    assert found is not None
    return found.object_key


async def ready(res: Resources, poster: Client, photos: int = 1) -> tuple[dict[str, Any], list[str]]:
    """A published post, and the object keys of its photos."""
    post = await poster.post(photos=photos)
    await perform(res)
    return post, [await key_of(res, item["id"]) for item in post["media"]]


async def test_objects_without_a_row_are_deleted_when_no_upload_can_be_at_them_any_more(
    fresh_res: Resources, poster: Client, traces: Traces, later: Later
) -> None:
    await ready(fresh_res, poster)
    kept = await traces.objects()
    assert len(kept) > 2
    stray = new_object_key()
    left = [original_key(stray), rendition_prefix(stray) + "640.webp", rendition_prefix(stray) + "640.jpg"]
    await store(fresh_res, *left)
    assert await some(fresh_res) == {}
    later(4 * 3600)
    before = telemetry.LEFTOVERS.labels(Finding.OBJECT)._value.get()
    assert await some(fresh_res) == {Finding.OBJECT: 3}
    assert telemetry.LEFTOVERS.labels(Finding.OBJECT)._value.get() == before + 3
    assert await traces.objects() == kept
    assert await some(fresh_res) == {}


async def test_uploads_in_parts_without_a_row_are_aborted(
    fresh_res: Resources, traces: Traces, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaking_off() -> AsyncIterator[bytes]:
        yield bytes(PART_BYTES)
        raise ConnectionError

    for _ in range(3):
        with pytest.raises(ConnectionError):
            await fresh_res.blobs.put_unsized(original_key(new_object_key()), breaking_off(), content_type="image/jpeg")
    assert len(await traces.open_uploads()) == 3
    assert await some(fresh_res) == {}
    later(4 * 3600)
    monkeypatch.setattr(leftovers, "_PAGE", 2)
    assert await some(fresh_res) == {Finding.UPLOAD: 3}
    assert await traces.open_uploads() == set()


async def test_an_upload_that_is_under_way_is_left_alone_by_several_sweepers(
    fresh_res: Resources, poster: Client, traces: Traces, later: Later
) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def photo() -> AsyncIterator[bytes]:
        yield jpeg() + bytes(PART_BYTES)
        began.set()
        await go_on.wait()
        yield bytes(1000)

    upload = asyncio.create_task(poster.call("POST", "/v1/media", 201, content=photo()))
    await began.wait()
    later(fresh_res.settings.upload_longest_seconds + 3000)
    assert await asyncio.gather(*(some(fresh_res) for _ in range(3))) == [{}, {}, {}]
    go_on.set()
    key = await key_of(fresh_res, (await upload)["id"])
    assert await some(fresh_res) == {}
    assert set(await traces.objects()) == {original_key(key)}


async def test_what_broke_off_lately_is_found_without_a_walk_through_the_whole_bucket(
    fresh_res: Resources, poster: Client, traces: Traces, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_SCANS", {})
    monkeypatch.setattr(leftovers, "_PAGE", 2)
    page, asked = fresh_res.blobs.page, []

    async def asking(prefix: str, *, after: str, limit: int) -> tuple[list[Listed], bool]:
        found = await page(prefix, after=after, limit=limit)
        asked.append([item.key for item in found[0]])
        return found

    def key(began: float) -> str:
        return original_key(f"{first_object_key(began)}-{secrets.token_urlsafe(18)}")

    def over(seconds: float) -> None:
        later(fresh_res.settings.upload_longest_seconds + 3600 + seconds)

    await ready(fresh_res, poster, photos=3)
    [*photos] = await traces.objects("originals/")
    now = time.time()
    ancient, first, second, next_one = key(now - 3 * DAY), key(now - 600), key(now + 600), key(now + 3600)
    await store(fresh_res, ancient, first, second, next_one)
    monkeypatch.setattr(fresh_res.blobs, "page", asking)
    assert await some(fresh_res) == {}, "it might still be coming"
    over(1800)
    assert await some(fresh_res) == {Finding.OBJECT: 2}
    assert set(await traces.objects("originals/")) == {ancient, *photos, next_one}
    asked.clear()
    assert await some(fresh_res) == {}
    assert asked == [[next_one]], "what was looked at is not looked at again"
    over(7200)
    assert await some(fresh_res) == {Finding.OBJECT: 1}
    assert set(await traces.objects("originals/")) == {ancient, *photos}


async def test_lost_renditions_are_made_again_from_the_original(
    fresh_res: Resources, poster: Client, traces: Traces, later: Later
) -> None:
    post, [key] = await ready(fresh_res, poster)
    before = await traces.objects()
    [lost] = [name for name in before if name.endswith("/150.webp")]
    await fresh_res.blobs.delete([lost])
    later(4 * 3600)
    assert await some(fresh_res) == {Finding.RENDITIONS: 1}
    assert await some(fresh_res) == {}, "it is noted already"
    assert (await poster.call("GET", f"/v1/posts/{post['id']}"))["media"][0]["status"] == "ready"
    await perform(fresh_res)
    assert await traces.objects() == before
    assert await some(fresh_res) == {}
    await fresh_res.blobs.delete([original_key(key), lost])
    assert await some(fresh_res) == {Finding.LOST: 1}
    assert (await poster.ready(post["media"][0]["id"]))["status"] == "ready", "the others can still be shown"


async def test_a_photo_that_nobody_was_going_to_render_is_rendered_or_fails_without_its_original(
    fresh_res: Resources, poster: Client, later: Later
) -> None:
    one, other = [(await poster.upload())["id"] for _ in range(2)]
    later(4 * 3600)
    assert await some(fresh_res) == {}, "they wait in the outbox"
    await sql(fresh_res, "delete from outbox")
    await fresh_res.blobs.delete([original_key(await key_of(fresh_res, other))])
    assert await some(fresh_res) == {Finding.UNRENDERED: 2}
    assert await some(fresh_res) == {}
    for _ in range(6):
        await sql(fresh_res, "update outbox set due_at = now() where done_at is null")
        await perform(fresh_res)
    assert (await poster.ready(one))["status"] == "ready"
    assert (await poster.ready(other))["failure"] == "The photo is lost."


async def test_photos_that_are_not_posted_in_time_are_deleted(
    fresh_res: Resources, poster: Client, traces: Traces, later: Later
) -> None:
    _, [kept] = await ready(fresh_res, poster)
    unposted = [(await poster.upload(data))["id"] for data in (jpeg(), jpeg()[:200], jpeg(seed=1))]
    await perform(fresh_res)
    assert [(await poster.ready(id_))["status"] for id_ in unposted] == ["ready", "failed", "ready"]
    later(DAY - 600)
    assert await some(fresh_res) == {}
    later(DAY + 600)
    assert await some(fresh_res) == {Finding.UNPOSTED: 3}
    for id_ in unposted:
        await poster.call("GET", f"/v1/media/{id_}", 404)
    body = {"caption": "", "media": [{"id": unposted[0]}]}
    await poster.call("POST", "/v1/posts", 422, json=body)
    await perform(fresh_res)
    assert {name for name in await traces.objects() if rendition_prefix(kept) not in name} == {original_key(kept)}


async def test_a_photo_that_is_found_by_its_digest_can_be_posted_for_as_long_as_a_new_one(
    fresh_res: Resources, poster: Client, later: Later
) -> None:
    photo, _ = [await poster.upload(jpeg(seed=seed)) for seed in (1, 2)]
    await perform(fresh_res)
    await sql(fresh_res, "update media set uploaded_at = now() - interval '23 hours'")
    size, sha256 = len(jpeg(seed=1)), hashlib.sha256(jpeg(seed=1)).hexdigest()
    found = await poster.call("POST", "/v1/media/uploads", 200, json={"size": size, "sha256": sha256})
    assert found["id"] == photo["id"]
    later(2 * 3600)
    # Ids tell when an upload began: of one in parts, maybe yesterday.
    await sql(fresh_res, "update media set id = id - $1::bigint", span(hours=24))
    assert await some(fresh_res) == {Finding.UNPOSTED: 1}
    [left] = await sql(fresh_res, "select sha256 from media")
    assert left["sha256"].hex() == sha256


@pytest.mark.parametrize("how", ["announced", "posted"])
async def test_a_photo_that_is_wanted_while_the_sweep_is_at_it_stays(
    fresh_res: Resources, poster: Client, later: Later, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    photo = await poster.upload()
    await perform(fresh_res)
    await sql(
        fresh_res, "update media set uploaded_at = now() - interval '2 days', id = id - $1::bigint", span(hours=48)
    )
    id_ = str(int(photo["id"]) - span(hours=48))
    unposted = stored.unposted

    async def just_before(*found: Any, **more: Any) -> list[Stored]:
        photos = await unposted(*found, **more)
        assert [photo.id for photo in photos] == [int(id_)]
        if how == "announced":
            sha256 = hashlib.sha256(jpeg()).hexdigest()
            body = {"size": len(jpeg()), "sha256": sha256}
            assert (await poster.call("POST", "/v1/media/uploads", 200, json=body))["id"] == id_
        else:
            await poster.call("POST", "/v1/posts", 201, json={"media": [{"id": id_}]})
        return photos

    monkeypatch.setattr(stored, "unposted", just_before)
    assert await some(fresh_res) == {}
    assert (await poster.ready(id_))["status"] == "ready"


async def test_an_open_upload_in_parts_is_left_alone_from_its_first_part_until_it_is_a_photo_or_expires(
    fresh_res: Resources, poster: Client, traces: Traces, later: Later
) -> None:
    data = jpeg() + bytes(PART_BYTES)
    announced = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    one, other = [await poster.call("POST", "/v1/media/uploads", 201, json=announced) for _ in range(2)]
    for upload in (one, other):
        for number, part in enumerate((data[:PART_BYTES], data[PART_BYTES:]), 1):
            await poster.call("PUT", f"/v1/media/uploads/{upload['id']}/parts/{number}", 204, content=part)
    later(23 * 3600)
    assert await some(fresh_res) == {}
    # S3 has put the other one together, and whoever told it to was killed before the commit.
    [row] = await sql(fresh_res, "select * from uploads where id = $1", int(other["id"]))
    name = original_key(row["object_key"])
    parts = await fresh_res.blobs.parts(name, row["s3_upload_id"])
    await fresh_res.blobs.complete_upload(name, row["s3_upload_id"], [parts[number].etag for number in (1, 2)])
    assert await some(fresh_res) == {}
    photo = await poster.call("POST", f"/v1/media/uploads/{one['id']}/complete", 201)
    kept = original_key(await key_of(fresh_res, photo["id"]))
    assert set(await traces.objects()) == {kept, name}
    # Its row goes when it expires, with an entry for the object; should that be lost, the sweep finds the object.
    await sql(fresh_res, "update uploads set expires_at = now()")
    await sweep.clear(fresh_res)
    await sql(fresh_res, "delete from outbox where kind = 'discard'")
    assert await some(fresh_res) == {Finding.OBJECT: 1}
    assert set(await traces.objects()) == {kept}
    assert await traces.open_uploads() == set()


async def test_what_a_job_is_to_delete_is_left_to_it_unless_it_gave_up(
    fresh_res: Resources, poster: Client, traces: Traces, later: Later
) -> None:
    post, _ = await ready(fresh_res, poster)
    kept = await traces.objects()
    announced = {"size": PART_BYTES + 1, "sha256": hashlib.sha256(b"another").hexdigest()}
    upload = await poster.call("POST", "/v1/media/uploads", 201, json=announced)
    for path in (f"/v1/posts/{post['id']}", f"/v1/media/uploads/{upload['id']}"):
        await poster.call("DELETE", path, 204)
    later(4 * 3600)
    assert await some(fresh_res) == {}
    await sql(fresh_res, "update outbox set done_at = now() where done_at is null")
    assert await some(fresh_res) == {}, "it may have been listed before"
    await sql(fresh_res, "update outbox set done_at = done_at - interval '2 minutes' where kind = 'discard'")
    assert await some(fresh_res) == {Finding.UPLOAD: 1}
    await sql(fresh_res, "update outbox set done_at = null, dead_at = now() where kind = 'retract'")
    assert await some(fresh_res) == {Finding.OBJECT: len(kept)}
    assert await traces.objects() == {}


async def test_what_is_not_ours_is_left_alone(fresh_res: Resources, traces: Traces, later: Later) -> None:
    others = {"originals/read.me", "originals/a/b", "renditions/read.me", "renditions/a/150.jpg", "avatars/1/150.jpg"}
    await store(fresh_res, *others)
    later(1000 * DAY)
    assert await some(fresh_res) == {}
    assert set(await traces.objects()) == others


async def test_a_scan_that_cannot_go_on_does_not_hold_up_the_others(
    fresh_res: Resources, traces: Traces, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = new_object_key()
    await store(fresh_res, rendition_prefix(stray) + "640.webp")

    async def refused(*_: object, **__: object) -> None:
        raise Unavailable("The photo store did not delete everything.", retry_after=2)

    later(4 * 3600)
    monkeypatch.setattr(fresh_res.blobs, "page_of_uploads", refused)
    assert await some(fresh_res) == {Finding.OBJECT: 1}
    assert await traces.objects() == {}


async def test_originals_are_deleted_after_their_days_and_renditions_stay(
    fresh_settings: Settings, fresh_res: Resources, poster: Client, traces: Traces, later: Later
) -> None:
    post, [key] = await ready(fresh_res, poster)
    later(1000 * DAY)
    assert await some(fresh_res) == {}, "by default they are kept"
    async with open_resources(fresh_settings.model_copy(update={"originals_days": 30})) as res:
        later(30 * DAY - 600)
        assert await some(res) == {}
        later(30 * DAY + 600)
        assert await some(res) == {Finding.ORIGINAL: 1}
        assert await some(res) == {}
    stays = await traces.objects()
    assert stays
    assert all(name.startswith(rendition_prefix(key)) for name in stays)
    [row] = await sql(fresh_res, "select original_deleted_at from media where post_id = $1", int(post["id"]))
    assert row["original_deleted_at"] is not None
    await fresh_res.blobs.delete(list(stays))
    assert await some(fresh_res) == {Finding.LOST: 1}


async def test_an_original_whose_deletion_a_crash_came_before_is_deleted_by_the_next_sweep(
    fresh_settings: Settings, fresh_res: Resources, poster: Client, traces: Traces, later: Later
) -> None:
    post, [key] = await ready(fresh_res, poster)
    await sql(fresh_res, "update media set original_deleted_at = now() where post_id = $1", int(post["id"]))
    async with open_resources(fresh_settings.model_copy(update={"originals_days": 30})) as res:
        later(31 * DAY)
        assert await some(res) == {Finding.ORIGINAL: 1}
    assert await traces.objects(original_key(key)) == {}


@pytest.mark.parametrize(("page", "rows"), [(3, 2), (9, 100)])
async def test_page_by_page_and_run_by_run_everything_is_found_once(
    fresh_res: Resources,
    poster: Client,
    traces: Traces,
    later: Later,
    monkeypatch: pytest.MonkeyPatch,
    page: int,
    rows: int,
) -> None:
    post, keys = await ready(fresh_res, poster, photos=5)
    kept = await traces.objects()
    lost = [rendition_prefix(key) + "150.webp" for key in (keys[0], keys[3])]
    lost += await fresh_res.blobs.keys(rendition_prefix(keys[1]))
    await fresh_res.blobs.delete(lost)
    strays = [new_object_key() for _ in range(4)]
    await store(
        fresh_res, *(original_key(key) for key in strays), *(rendition_prefix(key) + "a.webp" for key in strays)
    )
    later(4 * 3600)
    monkeypatch.setattr(leftovers, "_PAGE", page)
    monkeypatch.setattr(leftovers, "_ROWS", rows)
    monkeypatch.setattr(leftovers, "_SCAN_SECONDS", 0)
    found: Counter[Finding] = Counter()
    rounds: Counter[str] = Counter()
    # Two rounds of each: the second finds nothing. They are of different lengths, and need never end together.
    for _ in range(50):
        found.update(await some(fresh_res))
        rounds.update(row["name"] for row in await sql(fresh_res, "select * from scans where position = ''"))
        if min(rounds["originals"], rounds["renditions"]) >= 2:
            break
    assert min(rounds["originals"], rounds["renditions"]) >= 2
    await perform(fresh_res)
    assert found == {Finding.OBJECT: 8, Finding.RENDITIONS: 3}
    assert await traces.objects() == kept
    assert (await poster.call("GET", f"/v1/posts/{post['id']}"))["published_at"]


async def test_a_bucket_where_most_objects_have_no_row_is_left_alone_unless_told_otherwise(
    fresh_res: Resources, traces: Traces, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leftovers, "_FEW", 3)
    for _ in range(4):
        await fresh_res.blobs.begin_upload(original_key(new_object_key()))
    await store(fresh_res, *(original_key(new_object_key()) for _ in range(4)))
    later(4 * 3600)
    assert await some(fresh_res) == {Finding.DOUBTFUL: 12}, "the objects twice: as what came lately, too"
    assert len(await traces.open_uploads()) == 4
    assert len(await traces.objects()) == 4
    told = Sweep(fresh_res, all=True)
    await told.whole()
    assert told.found == {Finding.OBJECT: 4, Finding.UPLOAD: 4}
    assert await traces.open_uploads() == set()
    assert await traces.objects() == {}


async def test_by_hand_everything_is_found_and_said_and_only_without_dry_run_dealt_with(
    fresh_settings: Settings, fresh_res: Resources, poster: Client, traces: Traces, later: Later, run: Run
) -> None:
    post, _ = await ready(fresh_res, poster)
    stray = original_key(new_object_key())
    await store(fresh_res, stray)
    [lost] = [name for name in await traces.objects() if name.endswith("/150.jpg")]
    await fresh_res.blobs.delete([lost])
    later(4 * 3600)
    environ = environ_of(fresh_settings, s3_prefix=fresh_settings.s3_prefix)
    said = f"object_without_row    {stray}\nlost_renditions       {post['media'][0]['id']}\n2 found"
    for _ in range(2):
        done = await asyncio.to_thread(run, "admin", "sweep", "--dry-run", environ=environ)
        assert (done.status, done.output) == (0, f"{said}, nothing changed\n")
    done = await asyncio.to_thread(run, "admin", "sweep", environ=environ)
    assert (done.status, done.output) == (0, f"{said}\n")
    await perform(fresh_res)
    assert stray not in await traces.objects()
    assert lost in await traces.objects()
    done = await asyncio.to_thread(run, "admin", "sweep", environ=environ)
    assert (done.status, done.output) == (0, "0 found\n")


async def test_a_post_that_is_deleted_while_s3_is_away_leaves_no_object_when_it_is_back(
    fresh_res: Resources, poster: Client, traces: Traces
) -> None:
    post, _ = await ready(fresh_res, poster)
    kept = await traces.objects()
    await poster.call("DELETE", f"/v1/posts/{post['id']}", 204)
    async with open_resources(fresh_res.settings.model_copy(update={"s3_endpoint": "http://127.0.0.1:9"})) as apart:
        for _ in range(3):
            await perform(apart)
    assert await traces.objects() == kept
    [entry] = await sql(
        fresh_res, "select dead_at, due_at > now() as soon, attempts from outbox where kind = 'retract'"
    )
    assert (entry["dead_at"], entry["soon"], entry["attempts"]) == (None, True, 0)
    await perform(fresh_res)
    assert await traces.objects() == {}


async def test_a_post_whose_deleting_worker_was_killed_between_two_photos_leaves_nothing(
    fresh_res: Resources, poster: Client, traces: Traces
) -> None:
    post, [first, _] = await ready(fresh_res, poster, photos=2)
    await poster.call("DELETE", f"/v1/posts/{post['id']}", 204)
    await fresh_res.blobs.delete([original_key(first)])
    [row] = await sql(fresh_res, "select id, payload from outbox where kind = 'retract'")
    await posts.retract(fresh_res, Entry(row["id"], Kind.RETRACT, row["payload"], position=0, attempts=2, again=True))
    assert await traces.objects() == {}
