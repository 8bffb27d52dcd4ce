"""What uploads leave behind: rows, originals, and multipart uploads that are still open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aioboto3
from botocore.config import Config

from instafeed.ids import shard_of
from instafeed.resources import Resources
from instafeed.settings import Settings
from tests.client import Client, eventually


def s3_client(settings: Settings) -> Any:
    """A client of the settings' S3 that is not the project's."""
    return aioboto3.Session().client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@asynccontextmanager
async def tracing(res: Resources) -> AsyncIterator["Traces"]:
    """Traces of what is done with these settings."""
    async with s3_client(res.settings) as s3:
        yield Traces(res, s3)


class Traces:
    """Looks for what uploads left behind under the settings' prefix."""

    def __init__(self, res: Resources, s3: Any) -> None:
        self._res = res
        self._s3 = s3
        self._where = {"Bucket": res.settings.s3_bucket, "Prefix": res.settings.s3_prefix}

    async def objects(self, prefix: str = "") -> dict[str, int]:
        """Keys (without the settings' prefix) and sizes of the stored objects whose keys begin with `prefix`."""
        found = {}
        where = {**self._where, "Prefix": self._where["Prefix"] + prefix}
        async for page in self._s3.get_paginator("list_objects_v2").paginate(**where):
            for item in page.get("Contents", []):
                found[item["Key"].removeprefix(self._where["Prefix"])] = item["Size"]
        return found

    async def content(self, key: str) -> bytes:
        """An object's bytes."""
        answer = await self._s3.get_object(Bucket=self._where["Bucket"], Key=self._where["Prefix"] + key)
        found: bytes = await answer["Body"].read()
        return found

    async def open_uploads(self, prefix: str = "") -> set[str]:
        """Multipart uploads that were neither completed nor aborted."""
        where = {**self._where, "Prefix": self._where["Prefix"] + prefix}
        answer = await self._s3.list_multipart_uploads(**where)
        return {item["UploadId"] for item in answer.get("Uploads", [])}

    async def rows(self, author: Client) -> set[str]:
        """The author's photos in the database, whatever their status."""
        account_id = int(author.id)
        async with self._res.db.acquire() as connection:
            records = await connection.fetch(
                "select id from media where shard = $1 and account_id = $2", shard_of(account_id), account_id
            )
        return {str(record["id"]) for record in records}

    async def of(self, author: Client) -> set[str]:
        """Everything: the author's rows, and originals and open uploads of whomever."""
        return await self.rows(author) | set(await self.objects("originals/")) | await self.open_uploads()

    @asynccontextmanager
    async def none(self, author: Client) -> AsyncIterator[None]:
        """What happens in the block leaves nothing behind, soon after it at the latest."""
        before = await self.of(author)
        yield

        async def gone() -> bool:
            return await self.of(author) <= before

        await eventually(gone)
