"""Signed URLs of CloudFront: the same as botocore's, one signature a photo, and never beyond it."""

import base64
import json
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.signers import CloudFrontSigner
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from pydantic import ValidationError

from instafeed.settings import Settings
from instafeed.storage import blobs
from instafeed.storage.blobs import Blobs, new_object_key, rendition_prefix
from instafeed.storage.cdn_signing import CdnSigner

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
UNTIL = 1_790_000_000
KEYS: dict[str, Key] = {
    "rsa": rsa.generate_private_key(65_537, 2048),
    "ecdsa": ec.generate_private_key(ec.SECP256R1()),
}


def pem(key: Any, encryption: Any = None) -> str:
    """A private key as text."""
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return text.decode()


def signer(key: Key, key_pair_id: str = "K2JCJMDEHXQW5F") -> CdnSigner:
    """Signs with a key."""
    return CdnSigner(url="https://d1.cloudfront.test", key_pair_id=key_pair_id, private_key=pem(key))


def opened(text: str) -> bytes:
    """What is encoded in a URL."""
    return base64.b64decode(text.replace("-", "+").replace("_", "=").replace("~", "/"), validate=True)


def verify(key: Key, url: str, key_pair_id: str = "K2JCJMDEHXQW5F") -> dict[str, Any]:
    """The policy of a URL, if it is signed with the key."""
    query = parse_qs(urlsplit(url).query, strict_parsing=True)
    assert query.keys() == {"Policy", "Signature", "Key-Pair-Id", "Hash-Algorithm"}
    assert (query["Key-Pair-Id"], query["Hash-Algorithm"]) == ([key_pair_id], ["SHA256"])
    policy, signature = opened(query["Policy"][0]), opened(query["Signature"][0])
    if isinstance(key, rsa.RSAPrivateKey):
        key.public_key().verify(signature, policy, padding.PKCS1v15(), SHA256())
    else:
        key.public_key().verify(signature, policy, ec.ECDSA(SHA256()))
    found: dict[str, Any] = json.loads(policy)
    return found


@pytest.mark.parametrize("kind", KEYS)
def test_a_url_is_signed_for_its_photo_and_no_other_until_it_ends(kind: str) -> None:
    photo = rendition_prefix(new_object_key())
    url = signer(KEYS[kind]).url(photo + "640.webp", until=UNTIL)
    assert url.startswith(f"https://d1.cloudfront.test/{photo}640.webp?")
    assert verify(KEYS[kind], url) == {
        "Statement": [
            {
                "Resource": f"https://d1.cloudfront.test/{photo}*",
                "Condition": {"DateLessThan": {"AWS:EpochTime": UNTIL}},
            }
        ]
    }
    with pytest.raises(InvalidSignature):
        verify(KEYS[kind], signer(_another(kind)).url(photo + "640.webp", until=UNTIL))


def test_a_url_names_the_key_that_it_is_signed_with_so_that_two_hold_while_they_are_changed() -> None:
    photo = rendition_prefix(new_object_key())
    for name, key in {"KOLD": KEYS["rsa"], "KNEW": KEYS["ecdsa"]}.items():
        verify(key, signer(key, name).url(photo + "640.webp", until=UNTIL), name)


def _another(kind: str) -> Key:
    return rsa.generate_private_key(65_537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())


def test_urls_are_botocores_but_for_the_hash_which_it_does_not_know() -> None:
    key = KEYS["rsa"]
    assert isinstance(key, rsa.RSAPrivateKey)
    theirs = CloudFrontSigner("K2JCJMDEHXQW5F", lambda message: key.sign(message, padding.PKCS1v15(), SHA256()))
    for number in range(20):  # with enough of them, all of + = / are in it
        photo = f"renditions/{number:032x}/"
        policy = theirs.build_policy(f"https://d1.cloudfront.test/{photo}*", datetime.fromtimestamp(UNTIL, UTC))
        expected = theirs.generate_presigned_url(f"https://d1.cloudfront.test/{photo}a.jpg", policy=policy)
        assert signer(key).url(photo + "a.jpg", until=UNTIL) == f"{expected}&Hash-Algorithm=SHA256"


def test_a_photos_renditions_share_a_signature_and_nothing_else_does() -> None:
    ours, photo, other = signer(KEYS["ecdsa"]), rendition_prefix(new_object_key()), rendition_prefix(new_object_key())
    # Whatever is signed twice with ECDSA has two signatures.
    urls = [ours.url(photo + name, until=UNTIL) for name in ("1080.jpg", "640.webp", "150.jpg", "1080.jpg")]
    assert len({urlsplit(url).query for url in urls}) == 1
    assert len(set(urls)) == 3
    assert urlsplit(ours.url(other + "640.webp", until=UNTIL)).query != urlsplit(urls[0]).query
    assert urlsplit(ours.url(photo + "640.webp", until=UNTIL + 1)).query != urlsplit(urls[0]).query


def test_what_is_kept_of_signatures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instafeed.storage.cdn_signing._QUERIES_KEPT", 3)
    ours = signer(KEYS["ecdsa"])
    for number in range(10):
        verify(KEYS["ecdsa"], ours.url(f"renditions/{number}/a.jpg", until=UNTIL))
        assert len(ours._queries) <= 3


async def test_with_the_settings_photos_urls_are_the_cdns_and_stay_the_same_for_as_long_as_the_stores(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = KEYS["ecdsa"]
    given = {
        "media_cdn_url": "https://photos.example.org/",
        "media_cdn_key_pair_id": "K2JCJMDEHXQW5F",
        "media_cdn_private_key": pem(key).replace("\n", "\\n"),
    }
    store = Blobs(Settings.model_validate(settings.model_dump(exclude_defaults=True) | given))
    name, step = rendition_prefix(new_object_key()) + "640.webp", settings.media_url_seconds
    today = int(time.time())
    monkeypatch.setattr(blobs, "time", SimpleNamespace(time=lambda: today))
    began = today + store.url_seconds_left(name)
    urls = []
    for now in (began, began + step - 1, began + step):
        monkeypatch.setattr(blobs, "time", SimpleNamespace(time=lambda now=now: now))
        urls.append(store.url(name))
    assert urls[0] == urls[1] != urls[2]
    assert urls[0].startswith(f"https://photos.example.org/{name}?")
    [statement] = verify(key, urls[0])["Statement"]
    assert statement["Condition"]["DateLessThan"]["AWS:EpochTime"] == began + 2 * step


@pytest.mark.parametrize(
    "wrong",
    [
        {"media_cdn_private_key": "hidden-word"},
        {"media_cdn_private_key": pem(ec.generate_private_key(ec.SECP384R1()))},
        {"media_cdn_private_key": pem(rsa.generate_private_key(65_537, 3072))},
        {"media_cdn_private_key": pem(KEYS["ecdsa"], BestAvailableEncryption(b"password"))},
        {"media_cdn_url": "photos.example.org"},
        {"media_cdn_url": "https://photos.example.org/*"},
        {"media_cdn_url": None},
        {"media_cdn_key_pair_id": None},
        {"media_cdn_private_key": None},
    ],
    ids=["no_key", "another_curve", "long", "password", "no_scheme", "wildcard", "no_url", "no_id", "key_missing"],
)
def test_settings_that_cannot_sign_are_refused(settings: Settings, wrong: dict[str, str | None]) -> None:
    given = {
        "media_cdn_url": "https://photos.example.org",
        "media_cdn_key_pair_id": "K2JCJMDEHXQW5F",
        "media_cdn_private_key": pem(KEYS["ecdsa"]),
    }
    base = settings.model_dump(exclude_defaults=True)
    Settings.model_validate(base | given)
    with pytest.raises(ValidationError, match="media_cdn"):
        Settings.model_validate(base | given | wrong)
