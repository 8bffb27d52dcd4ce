"""Renditions as phones, browsers and caches get them from the real store."""

import time
from types import SimpleNamespace

import httpx
import pytest

from instafeed.resources import Resources
from instafeed.storage import blobs
from instafeed.storage import media as media_rows
from instafeed.storage.blobs import original_key
from tests.client import Client

pytestmark = pytest.mark.usefixtures("workers")


async def test_renditions_may_be_kept_for_ever_have_their_type_and_are_read_by_pages_of_any_origin(
    author: Client,
) -> None:
    photo = await author.ready((await author.upload())["id"])
    assert {rendition["content_type"] for rendition in photo["renditions"]} == {"image/jpeg", "image/webp"}
    async with httpx.AsyncClient() as browser:
        for rendition in photo["renditions"]:
            answer = await browser.get(rendition["url"], headers={"Origin": "https://web.example.org"})
            assert answer.status_code == 200
            assert answer.headers["content-type"] == rendition["content_type"]
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["access-control-allow-origin"] in {"*", "https://web.example.org"}
            assert answer.headers["access-control-allow-methods"] == "GET, HEAD", "and nothing that changes anything"
            again = await browser.get(rendition["url"], headers={"If-None-Match": answer.headers["etag"]})
            assert again.status_code == 304


async def test_a_url_that_has_expired_opens_nothing(
    author: Client, res: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    media_id = int((await author.upload())["id"])
    await author.ready(str(media_id))
    async with res.db.acquire() as connection:
        found = await media_rows.get(connection, media_id)
    assert found is not None
    key, seconds = found.renditions[0].key, 2 * res.settings.media_url_seconds
    good = res.blobs.url(key)
    monkeypatch.setattr(blobs, "time", SimpleNamespace(time=lambda: time.time() - seconds - 1))
    expired = res.blobs.url(key)
    async with httpx.AsyncClient() as phone:
        assert (await phone.get(good)).status_code == 200
        answer = await phone.get(expired)
        assert answer.status_code == 403
        assert "cache-control" not in answer.headers
        unsigned = await phone.get(good.partition("?")[0])
        assert unsigned.status_code == 403
        stranger = await phone.get(good.replace(key, original_key(found.object_key)))
        assert stranger.status_code == 403, "a rendition's signature is not its original's"
