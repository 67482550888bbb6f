"""An S3 server that runs here, and what tests do with it directly."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest


class Server:
    """A server on a port of its own, whose content goes with its process.

    Args:
        port: None for a free one.
    """

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(300):
            with socket.socket() as connection:
                if connection.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError("the S3 server does not start")

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture
def bucket(server, monkeypatch, request):
    """A new bucket, as s3://NAME."""
    monkeypatch.setenv("S3_ENDPOINT_URL", server.url)
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    from hindsight.s3 import _client_of

    _client_of.cache_clear()
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    client().create_bucket(Bucket=name)
    return f"s3://{name}"


def client():
    import boto3  # here, because conftest.py imports this module also where tests of a GPU run without boto3

    return boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT_URL"])


def split(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def put(url: str, data: bytes) -> None:
    bucket, key = split(url)
    client().put_object(Bucket=bucket, Key=key, Body=data)


def remove(url: str) -> None:
    bucket, key = split(url)
    client().delete_object(Bucket=bucket, Key=key)


def names(url: str) -> list[str]:
    """Objects below an address."""
    bucket, prefix = split(url)
    found = client().list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return sorted(item["Key"].removeprefix(prefix).lstrip("/") for item in found)


def fetch(url: str, folder: Path) -> Path:
    """Copy everything below an address into a folder."""
    bucket, prefix = split(url)
    for name in names(url):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        client().download_file(bucket, f"{prefix}/{name}".lstrip("/"), str(path))
    return folder


def store(folder: Path, url: str) -> None:
    """Copy a folder to an address."""
    for path in folder.rglob("*"):
        if path.is_file():
            put(f"{url}/{path.relative_to(folder)}", path.read_bytes())
