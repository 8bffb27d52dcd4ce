"""Makes the bucket of all photos, if it is not there, for web pages to read too; returns once it keeps an object."""

import os
import sys
import time
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session

_SECONDS = 60.0


def main() -> int:
    """Returns the exit status."""
    bucket = os.environ["INSTAFEED_S3_BUCKET"]
    s3 = get_session().create_client(
        "s3",
        endpoint_url=os.environ["INSTAFEED_S3_ENDPOINT"],
        region_name=os.environ["INSTAFEED_S3_REGION"],
        aws_access_key_id=os.environ["INSTAFEED_S3_ACCESS_KEY"],
        aws_secret_access_key=os.environ["INSTAFEED_S3_SECRET_KEY"],
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=3,
            read_timeout=10,
            retries={"total_max_attempts": 1},
        ),
    )
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            _make(s3, bucket)
        except (BotoCoreError, ClientError) as error:
            # The store answers before it can keep anything.
            if time.monotonic() > deadline:
                sys.stderr.write(f"The bucket {bucket} cannot be used: {error}\n")
                return 1
            time.sleep(0.5)
        else:
            sys.stdout.write(f"The bucket {bucket} is ready.\n")
            return 0


def _make(s3: Any, bucket: str) -> None:
    if bucket not in [found["Name"] for found in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket=bucket)
    # Pages of any origin may read photos whose URLs they were given.
    rule = {"AllowedOrigins": ["*"], "AllowedMethods": ["GET", "HEAD"], "MaxAgeSeconds": 86_400}
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    s3.put_object(Bucket=bucket, Key="probe", Body=b"probe")
    s3.get_object(Bucket=bucket, Key="probe")["Body"].read()
    s3.delete_object(Bucket=bucket, Key="probe")


if __name__ == "__main__":
    sys.exit(main())
