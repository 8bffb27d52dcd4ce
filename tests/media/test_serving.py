"""Renditions as phones, browsers and caches get them from the real store."""

import time
from types import SimpleNamespace

import pytest

from instafeed.models import Media
from instafeed.resources import Resources
from instafeed.storage import blobs
from instafeed.storage import media as media_rows
from instafeed.storage.blobs import original_key
from instafeed.storage.s3_signing import Signer
from tests.client import Client, eventually, http_client

pytestmark = pytest.mark.usefixtures("workers")


async def test_renditions_may_be_kept_for_ever_have_their_type_and_are_read_by_pages_of_any_origin(
    author: Client,
) -> None:
    photo = await author.ready((await author.upload())["id"])
    assert {rendition["content_type"] for rendition in photo["renditions"]} == {"image/jpeg", "image/webp"}
    async with http_client() as browser:
        for rendition in photo["renditions"]:
            answer = await browser.get(rendition["url"], headers={"Origin": "https://web.example.org"})
            assert answer.status_code == 200
            assert answer.headers["content-type"] == rendition["content_type"]
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["access-control-allow-origin"] in {"*", "https://web.example.org"}
            assert answer.headers["access-control-allow-methods"] == "GET, HEAD", "and nothing that changes anything"
            again = await browser.get(rendition["url"], headers={"If-None-Match": answer.headers["etag"]})
            assert again.status_code == 304


async def row(res: Resources, media_id: str) -> Media:
    """What is on record of a photo."""
    async with res.db.acquire() as connection:
        found = await media_rows.get(connection, int(media_id))
    assert found is not None
    return found


async def test_a_url_dies_when_its_time_is_over_or_its_post_is_deleted(author: Client, res: Resources) -> None:
    post = await author.post()
    photo = await author.ready(post["media"][0]["id"])
    [url, *_] = [rendition["url"] for rendition in photo["renditions"]]
    settings = res.settings
    signer = Signer(
        endpoint=settings.s3_public_endpoint or settings.s3_endpoint or "",
        region=settings.s3_region,
        bucket=settings.s3_bucket,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
    )
    found = await row(res, photo["id"])
    # The same URL with a shorter life, which may be over before the first answer.
    short = signer.url("GET", settings.s3_prefix + found.renditions[0].key, at=time.time(), seconds=2)
    async with http_client() as phone:

        async def answers(url: str, status: int) -> bool:
            return (await phone.get(url)).status_code == status

        assert short.partition("?")[0] == url.partition("?")[0]
        await eventually(lambda: answers(short, 403))
        assert await answers(url, 200)
        await author.call("DELETE", f"/v1/posts/{post['id']}", 204)
        await eventually(lambda: answers(url, 404))


async def test_a_url_that_has_expired_opens_nothing(
    author: Client, res: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await row(res, (await author.ready((await author.upload())["id"]))["id"])
    key, seconds = found.renditions[0].key, 2 * res.settings.media_url_seconds
    good = res.blobs.url(key)
    monkeypatch.setattr(blobs, "time", SimpleNamespace(time=lambda: time.time() - seconds - 1))
    expired = res.blobs.url(key)
    async with http_client() as phone:
        assert (await phone.get(good)).status_code == 200
        answer = await phone.get(expired)
        assert answer.status_code == 403
        assert "cache-control" not in answer.headers
        unsigned = await phone.get(good.partition("?")[0])
        assert unsigned.status_code == 403
        stranger = await phone.get(good.replace(key, original_key(found.object_key)))
        assert stranger.status_code == 403, "a rendition's signature is not its original's"
