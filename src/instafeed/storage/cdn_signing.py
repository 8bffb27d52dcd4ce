"""Signed URLs of a CloudFront distribution in front of the bucket.

Source: AWS, "Create a signed URL using a custom policy". The policy names all of a photo's renditions at once, so that one
signature serves for all of their URLs; a test holds them against botocore's.
"""

import base64
import json

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_QUERIES_KEPT = 4096
_SAFE = bytes.maketrans(b"+=/", b"-_~")


class CdnSigner:
    """Signs URLs of one distribution."""

    def __init__(self, *, url: str, key_pair_id: str, private_key: str) -> None:
        self._url = url.rstrip("/")
        self._key_pair_id = key_pair_id
        key = load_pem_private_key(private_key.encode(), password=None)
        assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)  # the settings see to it
        self._key = key
        self._queries: dict[tuple[str, int], str] = {}

    def url(self, key: str, *, until: int) -> str:
        """A URL of the object `key`, which needs no escaping, that is valid `until` a Unix time."""
        folder = key.rpartition("/")[0]
        query = self._queries.get((folder, until))
        if query is None:
            if len(self._queries) >= _QUERIES_KEPT:
                self._queries.clear()
            query = self._queries[folder, until] = self._sign(f"{self._url}/{folder}/*", until)
        return f"{self._url}/{key}?{query}"

    def _sign(self, resource: str, until: int) -> str:
        statement = {"Resource": resource, "Condition": {"DateLessThan": {"AWS:EpochTime": until}}}
        policy = json.dumps({"Statement": [statement]}, separators=(",", ":")).encode()
        if isinstance(self._key, rsa.RSAPrivateKey):
            signature = self._key.sign(policy, padding.PKCS1v15(), SHA256())
        else:
            signature = self._key.sign(policy, ec.ECDSA(SHA256()))
        return (
            f"Policy={_encode(policy)}&Signature={_encode(signature)}&Key-Pair-Id={self._key_pair_id}"
            "&Hash-Algorithm=SHA256"
        )


def _encode(data: bytes) -> str:
    return base64.b64encode(data).translate(_SAFE).decode()
