"""S3: the photos' bytes. Uploads stream through; nothing is ever held but a part of an upload without a length."""

import asyncio
import contextlib
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aioboto3
import aiohttp
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from instafeed.errors import Unavailable
from instafeed.settings import Settings
from instafeed.storage.s3_signing import Signer

PART_BYTES = 5 << 20  # the least that S3 takes for a part
_SIGNED_SECONDS = 900
_CONNECT_SECONDS = 3
_ANSWER_SECONDS = 30
_DELETE_BATCH = 1000

_FAILURES = (BotoCoreError, ClientError, aiohttp.ClientError, OSError, asyncio.TimeoutError)


def new_object_key() -> str:
    """A name for a photo's objects that nobody can guess."""
    return secrets.token_urlsafe(18)


def original_key(object_key: str) -> str:
    """Where a photo is kept as it was sent: private."""
    return f"originals/{object_key}"


def rendition_prefix(object_key: str) -> str:
    """What the keys of a photo's renditions begin with. It follows from the photo's key, but does not give it away."""
    return f"renditions/{hashlib.sha256(object_key.encode()).hexdigest()[:32]}/"


def _away(error: BaseException) -> Unavailable:
    unavailable = Unavailable("The photo store does not answer.", retry_after=2)
    unavailable.__cause__ = error
    return unavailable


class Blobs:
    """One bucket. Every method raises `Unavailable` when S3 does not answer or refuses; it then has stored nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prefix = settings.s3_prefix
        self._bucket = settings.s3_bucket
        self._stack = AsyncExitStack()
        self._parts = asyncio.Semaphore(settings.upload_parts_in_memory)
        endpoint = settings.s3_endpoint or f"https://s3.{settings.s3_region}.amazonaws.com"
        credentials = {
            "region": settings.s3_region,
            "bucket": settings.s3_bucket,
            "access_key": settings.s3_access_key.get_secret_value(),
            "secret_key": settings.s3_secret_key.get_secret_value(),
        }
        self._inside = Signer(endpoint=endpoint, **credentials)
        self._outside = Signer(endpoint=settings.s3_public_endpoint or endpoint, **credentials)
        self._http: aiohttp.ClientSession
        self._s3: Any

    async def open(self) -> None:
        """Make the clients; S3 itself may be away."""
        settings = self._settings
        self._http = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_ANSWER_SECONDS),
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
            )
        )
        self._s3 = await self._stack.enter_async_context(
            aioboto3.Session().client(
                "s3",
                endpoint_url=settings.s3_endpoint,
                region_name=settings.s3_region,
                aws_access_key_id=settings.s3_access_key.get_secret_value(),
                aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
                config=Config(
                    signature_version="s3v4",
                    s3={"addressing_style": "path"},
                    # Stores other than AWS do not know the newer checksums.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    connect_timeout=_CONNECT_SECONDS,
                    read_timeout=_ANSWER_SECONDS,
                    retries={"max_attempts": 2, "mode": "standard"},
                ),
            )
        )

    async def close(self) -> None:
        """Close the clients."""
        await self._stack.aclose()

    def url(self, key: str) -> str:
        """A URL of the object for phones. It stays the same for `media_url_seconds`, so that it can be cached, and is
        valid for that long at least.
        """
        step = self._settings.media_url_seconds
        return self._outside.url("GET", self._prefix + key, at=time.time() // step * step, seconds=2 * step)

    async def put(self, key: str, body: AsyncIterator[bytes], *, size: int, content_type: str) -> None:
        """Stream `size` bytes into an object, in one request. If `body` raises, there is no object."""
        url = self._inside.url("PUT", self._prefix + key, at=time.time(), seconds=_SIGNED_SECONDS)
        await self._put(url, body, size, content_type)

    async def put_unsized(self, key: str, body: AsyncIterator[bytes], *, content_type: str) -> None:
        """Stream bytes of unknown number into an object, in parts. If `body` raises, there is no object and no upload."""
        name = {"Bucket": self._bucket, "Key": self._prefix + key}
        try:
            upload_id = (await self._s3.create_multipart_upload(**name, ContentType=content_type))["UploadId"]
        except _FAILURES as error:
            raise _away(error) from error
        try:
            etags = await self._put_parts(key, upload_id, body)
            parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
            await self._s3.complete_multipart_upload(**name, UploadId=upload_id, MultipartUpload={"Parts": parts})
        except BaseException as error:
            await asyncio.shield(self._abort(name, upload_id))
            if isinstance(error, _FAILURES):
                raise _away(error) from error
            raise

    async def _abort(self, name: dict[str, str], upload_id: str) -> None:
        with contextlib.suppress(*_FAILURES):  # the bucket's lifecycle rule aborts what is a day old
            await self._s3.abort_multipart_upload(**name, UploadId=upload_id)

    async def _put_parts(self, key: str, upload_id: str, body: AsyncIterator[bytes]) -> list[str]:
        etags: list[str] = []
        done = False
        while not done:
            # A part's buffer exists only under the semaphore: that bounds the memory of all uploads together.
            async with self._parts:
                part = bytearray()
                done = True
                async for chunk in body:
                    part += chunk
                    if len(part) >= PART_BYTES:
                        done = False
                        break
                if part or not etags:
                    query = f"partNumber={len(etags) + 1}&uploadId={quote(upload_id, safe='')}"
                    url = self._inside.url(
                        "PUT", self._prefix + key, at=time.time(), seconds=_SIGNED_SECONDS, query=query
                    )
                    etags.append(await self._put(url, part, len(part), None))
        return etags

    async def _put(self, url: str, body: Any, size: int, content_type: str | None) -> str:
        headers = {"Content-Length": str(size)} | ({"Content-Type": content_type} if content_type else {})
        try:
            async with self._http.put(url, data=body, headers=headers, skip_auto_headers=["Content-Type"]) as answer:
                text = await answer.content.read(2000)
                # A 200 with a body is an error in disguise: a PUT that went well answers nothing.
                if answer.status != 200 or text.strip():
                    raise Unavailable(f"The photo store answered {answer.status}.", retry_after=2)
                return answer.headers.get("ETag", "")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _away(error) from error

    async def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        """Store a file."""
        size = path.stat().st_size
        with path.open("rb") as file:
            url = self._inside.url("PUT", self._prefix + key, at=time.time(), seconds=_SIGNED_SECONDS)
            await self._put(url, file, size, content_type)

    async def fetch(self, key: str, path: Path) -> bool:
        """Write an object into a file; False if there is no such object."""
        url = self._inside.url("GET", self._prefix + key, at=time.time(), seconds=_SIGNED_SECONDS)
        try:
            async with self._http.get(url) as answer:
                if answer.status == 404:
                    return False
                if answer.status != 200:
                    raise Unavailable(f"The photo store answered {answer.status}.", retry_after=2)
                with path.open("wb") as file:
                    async for chunk in answer.content.iter_chunked(1 << 18):
                        file.write(chunk)
                return True
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _away(error) from error

    async def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there do not matter."""
        names = [{"Key": self._prefix + key} for key in keys]
        try:
            for at in range(0, len(names), _DELETE_BATCH):
                answer = await self._s3.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": names[at : at + _DELETE_BATCH], "Quiet": True}
                )
                if answer.get("Errors"):
                    raise Unavailable("The photo store did not delete everything.", retry_after=2)
        except _FAILURES as error:
            raise _away(error) from error

    async def keys(self, prefix: str) -> list[str]:
        """The keys that begin with `prefix`."""
        found: list[str] = []
        try:
            async for page in self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            ):
                found += [entry["Key"].removeprefix(self._prefix) for entry in page.get("Contents", [])]
        except _FAILURES as error:
            raise _away(error) from error
        return found

    async def delete_photo(self, object_key: str) -> None:
        """Delete everything that is stored of a photo."""
        await self.delete([original_key(object_key), *await self.keys(rendition_prefix(object_key))])

    async def ping(self) -> None:
        """See that the bucket is there."""
        try:
            await self._s3.head_bucket(Bucket=self._bucket)
        except _FAILURES as error:
            raise _away(error) from error
