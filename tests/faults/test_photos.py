"""Photos that are made ready, and deleted, while S3 fails: late, and never half."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from instafeed import media, posts
from instafeed.dev.embedded import Endpoints
from instafeed.errors import Unavailable
from instafeed.leftovers import Sweep
from instafeed.resources import Resources, open_resources
from instafeed.storage import blobs
from instafeed.storage.outbox import Entry, Kind
from instafeed.work import perform
from tests.client import Client, http_client
from tests.conftest import _database, _redis_number, make_settings, running_api
from tests.faults.test_uploads import REFUSALS
from tests.media import s3_proxy
from tests.media.s3_proxy import S3Proxy, Which, answering, first, running_s3_proxy
from tests.media.traces import Traces, tracing
from tests.photos import jpeg
from tests.redis import redis_client

NOT_DELETED = (
    '<?xml version="1.0"?><DeleteResult><Error><Key>k</Key><Code>InternalError</Code><Message>We failed.</Message>'
    "</Error></DeleteResult>"
)
FAULTS = REFUSALS | {"error_inside": answering(200, NOT_DELETED)}


@pytest.fixture(scope="module")
async def quiet(endpoints: Endpoints) -> AsyncIterator[Resources]:
    """A world without workers."""
    async with _database(endpoints) as url:
        settings = make_settings(endpoints, url, redis_number=_redis_number() + 2)
        async with redis_client(settings) as redis:
            await redis.flushdb()
        async with open_resources(settings) as res:
            yield res


@pytest.fixture(scope="module")
async def proxy(quiet: Resources) -> AsyncIterator[S3Proxy]:
    """S3 that fails to order."""
    assert quiet.settings.s3_endpoint
    async with running_s3_proxy(quiet.settings.s3_endpoint) as running:
        yield running


@pytest.fixture(scope="module")
async def worker(quiet: Resources, proxy: S3Proxy) -> AsyncIterator[Resources]:
    """What a worker holds whose S3 fails to order."""
    async with open_resources(quiet.settings.model_copy(update={"s3_endpoint": proxy.url})) as res:
        yield res


@pytest.fixture(scope="module")
async def poster(quiet: Resources) -> AsyncIterator[Client]:
    """Somebody with photos."""
    async with running_api(quiet.settings) as url, http_client(base_url=url) as http:
        yield await Client.sign_up(http)


@pytest.fixture(scope="module")
async def traces(quiet: Resources) -> AsyncIterator[Traces]:
    """Looks at what is stored."""
    async with tracing(quiet) as found:
        yield found


async def last(res: Resources, kind: Kind) -> Entry:
    """The last work of a kind."""
    async with res.db.acquire() as connection:
        record = await connection.fetchrow("select * from outbox where kind = $1 order by id desc limit 1", kind)
    assert record is not None
    return Entry(record["id"], kind, record["payload"], record["position"], record["attempts"])


@pytest.mark.parametrize(
    ("which", "fault"),
    [
        *((s3_proxy.read, fault) for fault in ("500", "error_in_200", "reset", "hanging")),
        *((s3_proxy.put, fault) for fault in ("500", "error_in_200", "lost_answer")),
    ],
)
async def test_a_photo_is_made_ready_when_s3_is_back(
    quiet: Resources,
    worker: Resources,
    poster: Client,
    proxy: S3Proxy,
    monkeypatch: pytest.MonkeyPatch,
    which: Which,
    fault: str,
) -> None:
    post = await poster.post()
    entry = await last(quiet, Kind.RENDER)
    with monkeypatch.context() as hasty:
        hasty.setattr(blobs, "_FILE_SECONDS", 1)
        async with proxy.failing(which, FAULTS[fault]):
            await perform(worker, entry.id, Kind.RENDER, media.render)
    seen = await poster.call("GET", f"/v1/posts/{post['id']}")
    assert (seen["published_at"], [item["status"] for item in seen["media"]]) == (None, ["processing"])
    await perform(worker, entry.id, Kind.RENDER, media.render)
    [photo] = (await poster.published(post["id"]))["media"]
    async with http_client() as phone:
        for rendition in photo["renditions"]:
            assert len((await phone.get(rendition["url"])).content) == rendition["bytes"]


@pytest.mark.parametrize("fault", ["500", "error_in_200", "lost_answer"])
async def test_a_rendition_that_s3_does_not_take_once_is_sent_again(
    quiet: Resources, worker: Resources, poster: Client, proxy: S3Proxy, fault: str
) -> None:
    photo = await poster.upload()
    entry = await last(quiet, Kind.RENDER)
    async with proxy.failing(first(s3_proxy.put), FAULTS[fault]):
        await perform(worker, entry.id, Kind.RENDER, media.render)
    assert (await poster.ready(photo["id"]))["status"] == "ready"


async def test_a_photo_of_which_s3_gives_other_bytes_for_ever_fails_and_no_other_picture_is_shown(
    quiet: Resources, poster: Client, traces: Traces
) -> None:
    before = await traces.objects()
    photo = await poster.upload()
    entry = await last(quiet, Kind.RENDER)
    [original] = set(await traces.objects()) - set(before)
    other = jpeg(seed=1)

    async def body() -> AsyncIterator[bytes]:
        yield other

    await quiet.blobs.put(original, body(), size=len(other), content_type="image/jpeg")
    for attempt in range(1, 6):
        with pytest.raises(media.OtherBytes):
            await media.render(quiet, replace(entry, attempts=attempt))
    assert (await poster.call("GET", f"/v1/media/{photo['id']}"))["status"] == "processing"
    await media.render(quiet, replace(entry, attempts=6))
    assert (await poster.ready(photo["id"]))["failure"] == "The photo is lost."
    assert set(await traces.objects()) - set(before) == {original}


@pytest.mark.parametrize(
    ("which", "fault"),
    [
        *((s3_proxy.delete, fault) for fault in ("500", "error_in_200", "error_inside", "reset", "nothing_in_200")),
        *((s3_proxy.listing, fault) for fault in ("500", "error_in_200", "nothing_in_200")),
    ],
)
async def test_what_s3_does_not_delete_is_deleted_when_it_is_back(
    quiet: Resources, worker: Resources, poster: Client, proxy: S3Proxy, traces: Traces, which: Which, fault: str
) -> None:
    before = await traces.objects()
    post = await poster.post()
    await media.render(quiet, await last(quiet, Kind.RENDER))
    await poster.call("DELETE", f"/v1/posts/{post['id']}", 204)
    entry = await last(quiet, Kind.RETRACT)
    stored = await traces.objects()
    async with proxy.failing(which, FAULTS[fault]):
        await perform(worker, entry.id, Kind.RETRACT, posts.retract)
    assert await traces.objects() == stored
    assert not (await last(quiet, Kind.RETRACT)).attempts, "it is no fault of the work's"
    await perform(worker, entry.id, Kind.RETRACT, posts.retract)
    assert await traces.objects() == before


@pytest.mark.parametrize("fault", ["500", "nothing_in_200", "other_in_200"])
async def test_a_sweep_that_s3_does_not_answer_says_so_and_deletes_nothing(
    worker: Resources, poster: Client, proxy: S3Proxy, traces: Traces, fault: str
) -> None:
    await poster.upload()
    stored = await traces.objects()
    async with proxy.failing(s3_proxy.listings, FAULTS[fault]):
        await Sweep(worker).some()
        with pytest.raises(Unavailable):
            await Sweep(worker).whole()
    assert await traces.objects() == stored
