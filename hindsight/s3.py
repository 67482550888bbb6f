"""S3, or a compatible server (S3_ENDPOINT_URL); keys come from the environment or the usual files."""

import os
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from hindsight.errors import InputError

ATTEMPTS = 8
"""Attempts for a request, with waits that double up to 20 s: a server may be away for half a minute."""


@dataclass(frozen=True)
class S3Folder:
    """A prefix s3://BUCKET/FOLDER and its objects.

    Args:
        url: s3://BUCKET/FOLDER.
        key: the configuration key that gave it, for messages.
    """

    url: str
    key: str

    def sizes(self) -> dict[str, int]:
        """List the objects: size in bytes by the name below the folder; InputError if the address cannot be reached."""
        bucket, prefix = self._place("")
        try:
            pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            objects = [item for page in pages for item in page.get("Contents", [])]
        except Exception as error:  # those of botocore, boto3 and urllib3 have no common ancestor
            raise InputError(
                f"{self.key}={self.url} cannot be reached ({error}); check the address, S3_ENDPOINT_URL and the keys."
            ) from error
        return {item["Key"].removeprefix(prefix): item["Size"] for item in objects}

    def upload(self, path: Path, name: str) -> None:
        """Store a file under a name, atomically; the file must not change meanwhile."""
        bucket, key = self._place(name)
        s3_client().upload_file(str(path), bucket, key)

    def store(self, data: bytes, name: str) -> None:
        """Store bytes under a name, atomically."""
        bucket, key = self._place(name)
        s3_client().upload_fileobj(BytesIO(data), bucket, key)

    def download(self, name: str, path: Path) -> None:
        """Download an object to a path; InputError if that fails."""
        bucket, key = self._place(name)
        try:
            s3_client().download_file(bucket, key, str(path))
        except Exception as error:  # those of botocore, boto3 and urllib3 have no common ancestor
            raise InputError(f"{self.key}={self.url}: {name} cannot be fetched ({error}).") from error

    def delete(self, name: str) -> None:
        """Delete an object."""
        bucket, key = self._place(name)
        s3_client().delete_object(Bucket=bucket, Key=key)

    def _place(self, name: str) -> tuple[str, str]:
        return split_url(f"{self.url.rstrip('/')}/{name}")


@lru_cache(maxsize=1)
def _client_of(process: int) -> Any:
    import boto3  # imported late: it takes half a second, and only S3 needs it
    from botocore.config import Config

    attempts = int(os.environ.get("AWS_MAX_ATTEMPTS", ATTEMPTS))  # boto3's own variable, which a config would overrule
    config = Config(connect_timeout=10, read_timeout=60, retries={"mode": "standard", "max_attempts": attempts})
    return boto3.Session().client("s3", endpoint_url=os.environ.get("S3_ENDPOINT_URL"), config=config)


def s3_client() -> Any:
    """Give this process's client; a client does not survive a fork."""
    return _client_of(os.getpid())


def split_url(url: str) -> tuple[str, str]:
    """Split s3://BUCKET/KEY into bucket and key."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key
