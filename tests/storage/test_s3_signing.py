"""Presigned URLs: the same as botocore's, and believed by S3."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.auth
import botocore.session
import httpx
import pytest
from botocore.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from instafeed.settings import Settings
from instafeed.storage.s3_signing import Signer

BUCKET = "photos"
CREDENTIALS = {"region": "eu-central-1", "access_key": "AKIDEXAMPLE", "secret_key": "a secret/+="}
AT = 1_790_000_000.7
ODD_KEYS = ["a b", "a+b", "~tilde", "a/b//c", "/a", "ü ☃ 🌊", "a%2Fb", "100%", "a?b#c&d=e", "'\"\\<>", "(*)!;:@$,", "."]


def _by_botocore(endpoint: str) -> Callable[..., str]:
    client = botocore.session.get_session().create_client(
        "s3",
        region_name=CREDENTIALS["region"],
        endpoint_url=endpoint,
        aws_access_key_id=CREDENTIALS["access_key"],
        aws_secret_access_key=CREDENTIALS["secret_key"],
        config=Config(
            signature_version="s3v4", s3={"addressing_style": "path"}, request_checksum_calculation="when_required"
        ),
    )

    def sign(call: str, *, at: float, seconds: int, **parameters: Any) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(botocore.auth, "get_current_datetime", lambda: datetime.fromtimestamp(at, UTC))
            url: str = client.generate_presigned_url(call, {"Bucket": BUCKET, **parameters}, seconds)
            return url

    return sign


@pytest.fixture(scope="module")
def by_botocore() -> Callable[..., str]:
    """Signs as botocore does."""
    return _by_botocore("http://s3.test:9000")


def ours(endpoint: str = "http://s3.test:9000") -> Signer:
    return Signer(endpoint=endpoint, bucket=BUCKET, **CREDENTIALS)


def said(url: str) -> tuple[str, str, str, dict[str, list[str]]]:
    """What a URL says, whatever the order of its parameters."""
    found = urlsplit(url)
    return found.scheme, found.netloc, found.path, parse_qs(found.query, strict_parsing=True)


@pytest.mark.parametrize("key", ["originals/abc", *ODD_KEYS])
@pytest.mark.parametrize(("method", "call"), [("GET", "get_object"), ("PUT", "put_object")])
def test_urls_are_botocores(by_botocore: Callable[..., str], method: str, call: str, key: str) -> None:
    mine = ours().url(method, key, at=AT, seconds=900)
    assert said(mine) == said(by_botocore(call, at=AT, seconds=900, Key=key))


@settings(max_examples=100)
@given(
    key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    at=st.integers(0, 4_000_000_000),
    seconds=st.integers(1, 604_800),
)
def test_urls_of_any_keys_and_times_are_botocores(
    by_botocore: Callable[..., str], key: str, at: int, seconds: int
) -> None:
    mine = ours().url("GET", key, at=at, seconds=seconds)
    assert said(mine) == said(by_botocore("get_object", at=at, seconds=seconds, Key=key))


@pytest.mark.parametrize("upload_id", ["abc", "a.b_c-d~e"])
def test_urls_of_parts_are_botocores(by_botocore: Callable[..., str], upload_id: str) -> None:
    mine = ours().url("PUT", "a b", at=AT, seconds=900, query=f"partNumber=12&uploadId={upload_id}")
    theirs = by_botocore("upload_part", at=AT, seconds=900, Key="a b", PartNumber=12, UploadId=upload_id)
    assert said(mine) == said(theirs)


@pytest.mark.parametrize(
    "endpoint",
    ["https://s3.test", "https://s3.test:443", "http://s3.test:80", "http://S3.Test:9000", "http://[::1]:9000"],
)
def test_urls_of_any_endpoint_have_botocores_signature(endpoint: str) -> None:
    mine, theirs = ours(endpoint).url("GET", "a", at=AT, seconds=60), _by_botocore(endpoint)
    expected = said(theirs("get_object", at=AT, seconds=60, Key="a"))
    assert said(mine)[2:] == expected[2:]


def test_a_new_day_has_a_new_key(by_botocore: Callable[..., str]) -> None:
    signer = ours()
    for at in (AT, AT + 86_400, AT):
        assert said(signer.url("GET", "a", at=at, seconds=60)) == said(
            by_botocore("get_object", at=at, seconds=60, Key="a")
        )


@pytest.fixture(scope="module")
def real(settings: Settings) -> Signer:
    """Signs for the S3 of the tests."""
    assert settings.s3_endpoint
    return Signer(
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        bucket=settings.s3_bucket,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key=settings.s3_secret_key.get_secret_value(),
    )


@pytest.mark.parametrize("key", ["a b", "a+b", "~tilde", "a/b/c", "ü ☃ 🌊", "a%2Fb", "(*)!;:@$,"])
def test_s3_takes_and_gives_objects_with_odd_keys(settings: Settings, real: Signer, key: str) -> None:
    key = settings.s3_prefix + key
    with httpx.Client(timeout=30) as phone:
        put = phone.put(real.url("PUT", key, at=time.time(), seconds=60), content=key.encode())
        assert put.status_code == 200, put.text
        got = phone.get(real.url("GET", key, at=time.time(), seconds=60))
        assert (got.status_code, got.content) == (200, key.encode())


def test_s3_refuses_urls_that_are_changed_expired_or_of_another_secret(settings: Settings, real: Signer) -> None:
    key, now = f"{settings.s3_prefix}object", time.time()
    other = Signer(
        endpoint=settings.s3_endpoint or "",
        region=settings.s3_region,
        bucket=settings.s3_bucket,
        access_key=settings.s3_access_key.get_secret_value(),
        secret_key="guessed",
    )
    good = real.url("GET", key, at=now, seconds=60)
    with httpx.Client(timeout=30) as phone:
        assert phone.put(real.url("PUT", key, at=now, seconds=60), content=b"bytes").status_code == 200
        assert phone.get(good).status_code == 200
        assert phone.put(good, content=b"mine").status_code == 403
        assert phone.get(good.replace("Expires=60", "Expires=6000")).status_code == 403
        assert phone.get(good.replace("/object?", "/objects?")).status_code == 403
        assert phone.get(good[:-1] + ("0" if good[-1] != "0" else "1")).status_code == 403
        assert phone.get(real.url("GET", key, at=now - 100, seconds=60)).status_code == 403
        assert phone.get(other.url("GET", key, at=now, seconds=60)).status_code == 403
        assert phone.get(good).content == b"bytes"
