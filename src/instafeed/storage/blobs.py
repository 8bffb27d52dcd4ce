"""S3: the photos' bytes. Uploads stream through; nothing is ever held but a part of an upload without a length."""

import asyncio
import hashlib
import random
import re
import secrets
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

import aioboto3
import aiohttp
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from yarl import URL

from instafeed import telemetry
from instafeed.errors import NotFound, Unavailable
from instafeed.settings import Settings
from instafeed.storage import s3_put
from instafeed.storage.cdn_signing import CdnSigner
from instafeed.storage.s3_signing import Signer

T = TypeVar("T")

PART_BYTES = 5 << 20  # the least that S3 takes for a part
_PIECE_BYTES = 1 << 18
_SIGNED_SECONDS = 900
_SIGNED_STEP_SECONDS = 10
_PART_URL_SECONDS = 3600
_FILE_SECONDS = 10
_RETRY_SECONDS = 5
_PAUSES = (0.1, 0.4)
_ROOM_SECONDS = 5
_DELETE_BATCH = 1000
_URL_PHASES = 16
_GONE = frozenset({"NoSuchKey", "NoSuchUpload"})
# Also for caches that many share: who may see a photo has a URL that opens it, and nobody else has.
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A part that S3 has."""

    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Content:
    """What an object holds; `head` is its first bytes."""

    head: bytes
    size: int
    sha256: bytes


@cache
def _session() -> aioboto3.Session:
    """One for the whole process: each reads S3's description anew, which takes 0.1 s."""
    return aioboto3.Session()


def new_object_key() -> str:
    """A name for a photo's objects that nobody can guess. It begins with the time: the bucket lists photos as they came."""
    return f"{int(time.time()):08x}-{secrets.token_urlsafe(18)}"


def began_at(object_key: str) -> int:
    """When the upload to this key began, in seconds since the Unix epoch."""
    return int(object_key.partition("-")[0], 16)


def first_object_key(began: float) -> str:
    """Names of uploads that began at this time or later are above it, all others below."""
    return f"{int(began):08x}"


def is_object_key(name: str) -> bool:
    """Whether `new_object_key` can have made this name, now or when the time was at its end."""
    return re.fullmatch(r"[0-9a-f]{8}-[\w-]{24}|[\w-]{24}-[0-9a-f]{8}", name, re.ASCII) is not None


def new_export_key() -> str:
    """Where a copy of somebody's data is put: a name that nobody can guess."""
    return f"exports/{secrets.token_urlsafe(18)}-{int(time.time()):x}.zip"


def original_key(object_key: str) -> str:
    """Where a photo is kept as it was sent: private."""
    return f"originals/{object_key}"


def rendition_hash(object_key: str) -> str:
    """A photo's name among renditions: 32 hexadecimal digits. It follows from the photo's key, but does not give it away."""
    return hashlib.sha256(object_key.encode()).hexdigest()[:32]


def is_rendition_hash(name: str) -> bool:
    """Whether a photo can have this name among renditions."""
    return re.fullmatch(r"[0-9a-f]{32}", name) is not None


def rendition_prefix(object_key: str) -> str:
    """What the keys of a photo's renditions begin with."""
    return f"renditions/{rendition_hash(object_key)}/"


@dataclass(frozen=True, slots=True)
class Listed:
    """An object, or an open upload in parts, as the bucket lists it."""

    key: str
    since: float
    """When it was stored or begun, in seconds since the Unix epoch."""


@asynccontextmanager
async def _reaching(seconds: float | None = None) -> AsyncIterator[asyncio.Timeout]:
    """A call of S3, which has so many seconds, by default `s3_put.ANSWER_SECONDS`. Raises as `_in_our_words`."""
    with _in_our_words():
        async with asyncio.timeout(seconds or s3_put.ANSWER_SECONDS) as deadline:
            yield deadline


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Says what has failed of a call of S3.

    Raises:
        NotFound: the object or multipart upload is not there.
        Unavailable: it does not answer, or refuses.
    """
    try:
        yield
    except (BotoCoreError, ClientError, aiohttp.ClientError, OSError) as error:
        if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") in _GONE:
            raise NotFound from error
        raise Unavailable("The photo store does not answer.", retry_after=2) from error


async def _again(call: Callable[[], Awaitable[T]]) -> T:
    """What `call`, which may be made several times, gives: after a failure that came soon it is made once more.

    Raises:
        Unavailable: it went on failing.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + _RETRY_SECONDS
    for pause in _PAUSES:
        try:
            return await call()
        except Unavailable:
            if clock() > until:
                raise
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
    return await call()


def _field(answer: Mapping[str, Any], name: str) -> Any:
    """What an answer of S3's has to tell. A 200 may hold nothing, or what is no answer.

    Raises:
        Unavailable: it does not.
    """
    if name not in answer:
        raise Unavailable("The photo store's answer is none.", retry_after=2)
    return answer[name]


class _Part:
    """A part of an upload without a length. Its memory is taken at once: growing, it would take twice as much."""

    def __init__(self) -> None:
        self._buffer = bytearray(PART_BYTES + _PIECE_BYTES)
        telemetry.UPLOAD_MEMORY.inc(len(self._buffer))
        self.size = 0

    async def fill(self, body: AsyncIterator[bytes]) -> bool:
        """Collect `PART_BYTES`, and what comes in one piece with their end; returns whether nothing is left."""
        async for piece in body:
            before = len(self._buffer)
            self._buffer[self.size : self.size + len(piece)] = piece
            telemetry.UPLOAD_MEMORY.inc(len(self._buffer) - before)  # a large piece needs more room
            self.size += len(piece)
            if self.size >= PART_BYTES:
                return False
        return True

    async def pieces(self) -> AsyncIterator[bytes]:
        """What was collected. Not at once: what the socket does not take would be held twice."""
        for at in range(0, self.size, _PIECE_BYTES):
            yield bytes(self._buffer[at : min(at + _PIECE_BYTES, self.size)])

    def free(self) -> None:
        """Give the memory back, whoever still holds the part."""
        telemetry.UPLOAD_MEMORY.dec(len(self._buffer))
        self._buffer = bytearray()


async def _pieces_of_file(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := file.read(_PIECE_BYTES):
        yield piece


def _part_query(upload_id: str, number: int) -> str:
    return f"partNumber={number}&uploadId={quote(upload_id, safe='')}"


class Blobs:
    """One bucket. Every method raises `Unavailable` when S3 does not answer or refuses.

    What has failed may all the same be stored, or be stored in part: S3's answer may be what was lost.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prefix = settings.s3_prefix
        self._bucket = settings.s3_bucket
        self._stack = AsyncExitStack()
        self._room = asyncio.Semaphore(settings.upload_parts_in_memory)
        endpoint = settings.s3_endpoint or f"https://s3.{settings.s3_region}.amazonaws.com"
        credentials = {
            "region": settings.s3_region,
            "bucket": settings.s3_bucket,
            "access_key": settings.s3_access_key.get_secret_value(),
            "secret_key": settings.s3_secret_key.get_secret_value(),
        }
        self._inside = Signer(endpoint=endpoint, **credentials)
        self._putter = s3_put.Putter(self._inside.origin)
        self._outside = Signer(endpoint=settings.s3_public_endpoint or endpoint, **credentials)
        self._cdn: CdnSigner | None = None
        if settings.media_cdn_url and settings.media_cdn_key_pair_id and settings.media_cdn_private_key:
            self._cdn = CdnSigner(
                url=settings.media_cdn_url,
                key_pair_id=settings.media_cdn_key_pair_id,
                private_key=settings.media_cdn_private_key.get_secret_value(),
            )
        self._http: aiohttp.ClientSession
        self._s3: Any

    async def open(self) -> None:
        """Make the clients; S3 itself may be away."""
        settings = self._settings
        self._http = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=s3_put.CONNECT_SECONDS),
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
            )
        )
        self._s3 = await self._stack.enter_async_context(
            _session().client(
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
                    connect_timeout=s3_put.CONNECT_SECONDS,
                    read_timeout=s3_put.ANSWER_SECONDS,
                    retries={"total_max_attempts": 1},  # `_again` does it, where it may be done
                ),
            )
        )

    async def close(self) -> None:
        """Close the clients."""
        self._putter.close()
        await self._stack.aclose()

    def url(self, key: str) -> str:
        """A URL of the object for phones. It stays the same for `media_url_seconds`, so that it can be cached, and is
        valid for that long at least.
        """
        since, seconds = self._url_since(key), 2 * self._settings.media_url_seconds
        if self._cdn is not None:
            return self._cdn.url(key, until=since + seconds)
        return self._outside.url("GET", self._prefix + key, at=since, seconds=seconds)

    def download_url(self, key: str, *, seconds: int) -> str:
        """A URL of the object for its owner, straight from the store, valid for so many seconds."""
        return self._outside.url("GET", self._prefix + key, at=time.time(), seconds=seconds)

    def url_seconds_left(self, key: str) -> int:
        """For how long `url` goes on giving the same URL as now."""
        return self._url_since(key) + self._settings.media_url_seconds - int(time.time())

    def _url_since(self, key: str) -> int:
        """Since when `url` gives the same URL. All URLs of a photo change at once, but not those of all photos, or all that
        is cached would be made anew in the same moment.
        """
        step = self._settings.media_url_seconds
        late = zlib.crc32(key.rpartition("/")[0].encode()) % _URL_PHASES * step // _URL_PHASES
        return (int(time.time()) - late) // step * step + late

    async def put(self, key: str, body: AsyncIterator[bytes], *, size: int, content_type: str) -> None:
        """Stream the first `size` bytes of `body` into an object, in one request. If it raises, there is no object."""
        await self._put(key, body, size, content_type=content_type)

    async def put_file(self, key: str, path: Path, *, content_type: str) -> None:
        """Store a file that never changes under this key."""

        async def call() -> str:
            with path.open("rb") as file:
                return await self._put(
                    key, _pieces_of_file(file), path.stat().st_size, content_type=content_type, cache_control=_FOR_EVER
                )

        async with _reaching(_FILE_SECONDS):
            await _again(call)

    async def put_unsized(self, key: str, body: AsyncIterator[bytes], *, content_type: str) -> None:
        """Stream bytes of unknown number into an object: in one request if they are few, else in parts.

        If it fails or `body` raises, there is no object, but maybe an upload for `abort_uploads`.

        Raises:
            Unavailable: also when there is no room for a part.
        """
        upload_id = ""
        etags: list[str] = []
        size = 0
        last = False
        while not last:
            async with self._room_for_part() as part:
                last = await part.fill(body)
                size += part.size
                if last and not etags:
                    await self._put_held(key, part, content_type=content_type)
                    return
                upload_id = upload_id or await self.begin_upload(key, content_type=content_type)
                if part.size:
                    query = _part_query(upload_id, len(etags) + 1)
                    etags.append(await self._put_held(key, part, query=query))
        with suppress(NotFound):  # the size tells
            await self.complete_upload(key, upload_id, etags)
        if await self.size(key) != size:
            raise Unavailable("The photo store has not kept what it was sent.", retry_after=2)

    @asynccontextmanager
    async def _room_for_part(self) -> AsyncIterator[_Part]:
        """There are no parts but these: that bounds the memory of all uploads together."""
        try:
            async with asyncio.timeout(_ROOM_SECONDS):
                await self._room.acquire()
        except TimeoutError:
            raise Unavailable("Too many uploads without a length at once.", retry_after=_ROOM_SECONDS) from None
        part = _Part()
        try:
            yield part
        finally:
            part.free()
            self._room.release()

    async def begin_upload(self, key: str, *, content_type: str = "application/octet-stream") -> str:
        """Begin an upload in parts; returns its id. If it fails, there may be one for `abort_uploads`."""
        tried = False

        async def call() -> str:
            nonlocal tried
            if tried:
                await self._abort_uploads(key)  # one may have begun all the same, and nobody would know its id
            tried = True
            async with _reaching():
                answer = await self._s3.create_multipart_upload(**self._name(key), ContentType=content_type)
            upload_id: str = _field(answer, "UploadId")
            return upload_id

        return await _again(call)

    async def put_part(self, key: str, upload_id: str, number: int, body: AsyncIterator[bytes], *, size: int) -> None:
        """Stream a part of `size` bytes, in one request. If it raises, a part that was there before is there still.

        Raises:
            NotFound: there is no such upload (any more).
        """
        await self._put(key, body, size, query=_part_query(upload_id, number))

    def part_url(self, key: str, upload_id: str, number: int, size: int) -> str:
        """A URL for phones, valid for an hour, to which a part of exactly `size` bytes can be sent."""
        return self._outside.url(
            "PUT",
            self._prefix + key,
            at=time.time(),
            seconds=_PART_URL_SECONDS,
            query=_part_query(upload_id, number),
            length=size,
        )

    async def parts(self, key: str, upload_id: str) -> dict[int, StoredPart]:
        """The parts that have arrived, by number.

        Raises:
            NotFound: there is no such upload (any more).
        """

        async def call() -> dict[int, StoredPart]:
            found: dict[int, StoredPart] = {}
            pages = self._s3.get_paginator("list_parts").paginate(**self._name(key), UploadId=upload_id)
            async with _reaching():
                async for page in pages:
                    _field(page, "UploadId")
                    for part in page.get("Parts", []):
                        found[part["PartNumber"]] = StoredPart(part["Size"], part["ETag"])
            return found

        return await _again(call)

    async def complete_upload(self, key: str, upload_id: str, etags: Iterable[str]) -> None:
        """Make an object of all parts, which have these ETags.

        Raises:
            NotFound: there is no such upload any more: it was aborted, or completed, perhaps just now with the answer lost.
        """
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]

        async def call() -> None:
            async with _reaching():
                answer = await self._s3.complete_multipart_upload(
                    **self._name(key), UploadId=upload_id, MultipartUpload={"Parts": parts}
                )
            _field(answer, "ETag")

        await _again(call)

    async def abort_uploads(self, key: str) -> None:
        """Abort what was left open of uploads in parts to `key`."""
        await _again(lambda: self._abort_uploads(key))

    async def _abort_uploads(self, key: str) -> None:
        async with _reaching():
            answer = await self._s3.list_multipart_uploads(Bucket=self._bucket, Prefix=self._prefix + key)
        _field(answer, "IsTruncated")
        for upload in answer.get("Uploads", []):
            with suppress(NotFound):
                async with _reaching():
                    await self._s3.abort_multipart_upload(**self._name(key), UploadId=upload["UploadId"])

    async def _put(
        self,
        key: str,
        body: AsyncIterator[bytes],
        size: int,
        *,
        content_type: str | None = None,
        cache_control: str | None = None,
        query: str = "",
    ) -> str:
        headers = {}
        if content_type is not None:
            headers["Content-Type"] = content_type
        if cache_control is not None:
            headers["Cache-Control"] = cache_control
        target = self._sign("PUT", key, query).removeprefix(self._inside.origin)
        with _in_our_words():
            answer = await self._putter.put(target, headers, body, size=size)
        if answer.status == 404 and query:
            raise NotFound
        # A 200 with a body is an error in disguise: a PUT that went well answers nothing but what it stored.
        etag = answer.headers.get(b"etag")
        if answer.status != 200 or answer.body.strip() or not etag:
            raise Unavailable(f"The photo store answered {answer.status}.", retry_after=2)
        return etag.decode("latin-1")

    async def _put_held(self, key: str, part: _Part, *, content_type: str | None = None, query: str = "") -> str:
        async def call() -> str:
            return await self._put(key, part.pieces(), part.size, content_type=content_type, query=query)

        try:
            return await _again(call)
        except NotFound as error:
            raise Unavailable("The upload was given up while it came.", retry_after=1) from error

    async def copy(self, source: str, key: str) -> None:
        """Copy an object within the bucket.

        Raises:
            NotFound: there is no such object.
        """

        async def call() -> None:
            async with _reaching():
                await self._s3.copy_object(**self._name(key), CopySource=self._name(source))

        await _again(call)

    async def size(self, key: str) -> int | None:
        """An object's size; None if there is no such object."""
        url = self._inside_url("HEAD", key)

        async def call() -> int | None:
            async with _reaching(), self._http.head(url) as answer:
                if answer.status == 404:
                    return None
                if answer.status != 200:
                    raise Unavailable(f"The photo store answered {answer.status}.", retry_after=2)
                return answer.content_length

        return await _again(call)

    async def read(self, key: str, *, head_bytes: int) -> Content:
        """Read an object through, of which `head_bytes` and a few buffers are held.

        Raises:
            NotFound: there is no such object.
        """

        async def call() -> Content:
            head, size, digest = b"", 0, hashlib.sha256()
            async with _reaching() as deadline, self._http.get(self._inside_url("GET", key)) as answer:
                if answer.status == 404:
                    raise NotFound
                if answer.status != 200:
                    raise Unavailable(f"The photo store answered {answer.status}.", retry_after=2)
                async for piece in answer.content.iter_any():
                    deadline.reschedule(asyncio.get_running_loop().time() + s3_put.ANSWER_SECONDS)
                    head += piece[: head_bytes - len(head)]
                    size += len(piece)
                    digest.update(piece)
            return Content(head, size, digest.digest())

        return await _again(call)

    async def fetch(self, key: str, path: Path) -> bytes | None:
        """Write an object into a file; returns the SHA-256 of what came, None if there is no such object."""
        digest = hashlib.sha256()
        async with _reaching(_FILE_SECONDS), self._http.get(self._inside_url("GET", key)) as answer:
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise Unavailable(f"The photo store answered {answer.status}.", retry_after=2)
            with path.open("wb") as file:
                async for piece in answer.content.iter_chunked(_PIECE_BYTES):
                    file.write(piece)
                    digest.update(piece)
        return digest.digest()

    async def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there do not matter."""
        names = [{"Key": self._prefix + key} for key in keys]

        async def call(batch: list[dict[str, str]]) -> None:
            async with _reaching():
                answer = await self._s3.delete_objects(Bucket=self._bucket, Delete={"Objects": batch})
            if {item["Key"] for item in answer.get("Deleted", [])} != {item["Key"] for item in batch}:
                raise Unavailable("The photo store did not delete everything.", retry_after=2)

        for at in range(0, len(names), _DELETE_BATCH):
            await _again(partial(call, names[at : at + _DELETE_BATCH]))

    async def keys(self, prefix: str) -> list[str]:
        """The keys that begin with `prefix`."""

        async def call() -> list[str]:
            found: list[str] = []
            where = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
            async with _reaching():
                async for page in self._s3.get_paginator("list_objects_v2").paginate(**where):
                    _field(page, "IsTruncated")
                    found += [entry["Key"].removeprefix(self._prefix) for entry in page.get("Contents", [])]
            return found

        return await _again(call)

    async def page(self, prefix: str, *, after: str, limit: int) -> tuple[list[Listed], bool]:
        """Up to `limit` objects whose keys begin with `prefix` and come after `after`, in order; and whether there are more."""
        async with _reaching():
            answer = await self._s3.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix + prefix, StartAfter=self._prefix + after, MaxKeys=limit
            )
        found = [
            Listed(entry["Key"].removeprefix(self._prefix), entry["LastModified"].timestamp())
            for entry in answer.get("Contents", [])
        ]
        return found, _field(answer, "IsTruncated")

    async def page_of_uploads(self, prefix: str, *, after: str, limit: int) -> tuple[list[Listed], str | None]:
        """Up to `limit` open uploads in parts to keys that begin with `prefix`, and after what the next ones come, None at
        the end: in an order of the store's own.
        """
        names = ("KeyMarker", "UploadIdMarker")
        markers = {name: marker for name, marker in zip(names, after.split("\n"), strict=False) if marker}
        async with _reaching():
            answer = await self._s3.list_multipart_uploads(
                Bucket=self._bucket, Prefix=self._prefix + prefix, MaxUploads=limit, **markers
            )
        found = [
            Listed(entry["Key"].removeprefix(self._prefix), entry["Initiated"].timestamp())
            for entry in answer.get("Uploads", [])
        ]
        following = "\n".join(answer.get(f"Next{name}", "") for name in names)
        return found, following if _field(answer, "IsTruncated") else None

    async def delete_photo(self, object_key: str) -> None:
        """Delete everything that is stored of a photo."""
        await self.delete([original_key(object_key), *await self.keys(rendition_prefix(object_key))])

    async def ping(self) -> None:
        """See that the bucket is there."""
        async with _reaching():
            await self._s3.head_bucket(Bucket=self._bucket)

    def _inside_url(self, method: str, key: str) -> URL:
        return URL(self._sign(method, key), encoded=True)

    def _sign(self, method: str, key: str, query: str = "") -> str:
        now = int(time.time())
        # What is signed of a time costs more than the rest, and is kept.
        at = now - now % _SIGNED_STEP_SECONDS
        return self._inside.url(method, self._prefix + key, at=at, seconds=_SIGNED_SECONDS, query=query)

    def _name(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}
