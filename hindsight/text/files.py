"""The files and S3 objects of a corpus: finding them, and reading their bytes from any offset."""

import fnmatch
import glob
import io
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from hindsight.errors import InputError
from hindsight.s3 import s3_client, split_url

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
TEXT = (".txt", ".jsonl")
PARQUET = ".parquet"
MAGIC = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\x00", ".zst": b"\x28\xb5\x2f\xfd", PARQUET: b"PAR1"}
"""The first bytes of a file of each kind."""
STDIN = "standard input"
DATASET_PREFIX = "hf:"
S3_ATTEMPTS = 5
"""Attempts to read from S3 before the error is raised; each opens a new connection."""


class WrongContentError(InputError):
    """The content of a file contradicts its name."""


@dataclass(frozen=True)
class StoredFile:
    """A file, an S3 object, standard input, or a dataset of Hugging Face.

    The names of the class and of its fields enter the signatures of parts, which work folders keep.

    Args:
        path: absolute path or s3:// address; STDIN, or hf:NAME.
        size: bytes as stored; 0 if unknown.
        version: changes with the content: the time of modification, or S3's ETag.
    """

    path: str
    size: int
    version: str

    @property
    def dataset(self) -> str | None:
        """Name or folder of the dataset; None for anything else."""
        return self.path.removeprefix(DATASET_PREFIX) if self.path.startswith(DATASET_PREFIX) else None

    @property
    def compression(self) -> str | None:
        """Suffix of the compression; None if the file is not compressed."""
        suffix = PurePosixPath(self.path).suffix
        return suffix if suffix in COMPRESSED else None

    @property
    def kind(self) -> str:
        """.jsonl, .parquet, or .txt for everything else."""
        name = PurePosixPath(self.path)
        suffix = PurePosixPath(name.stem).suffix if self.compression else name.suffix
        return suffix if suffix in (*TEXT, PARQUET) else ".txt"

    def open(self, start: int = 0) -> BinaryIO:
        """Open the stored bytes from an offset on."""
        if self.path.startswith("s3://"):
            return cast(BinaryIO, io.BufferedReader(_S3Reader(self, start), 1 << 20))
        file = Path(self.path).open("rb")  # noqa: SIM115 - the caller closes it
        file.seek(start)
        return file

    def check(self) -> None:
        """Raise WrongContentError unless the first bytes fit the name."""
        if self.size == 0 and self.compression is None and self.kind != PARQUET:
            return
        with self.open() as stored:
            head = stored.read(8)
        suffix = PARQUET if self.kind == PARQUET else self.compression
        if suffix is not None and not head.startswith(MAGIC[suffix]):
            raise WrongContentError(
                f"corpus: {self.path} does not begin as a {suffix} file does; fetch or name it again."
            )
        other = next((name for name, magic in MAGIC.items() if head.startswith(magic)), None)
        if suffix is None and other is not None and other != ".bz2":  # BZh may begin a text
            raise WrongContentError(
                f"corpus: {self.path} is a {other} file by its content; name it {self.path}{other}."
            )


def open_stdin() -> BinaryIO:
    """Open standard input; InputError if it is closed, or compressed."""
    if sys.stdin is None:
        raise InputError("corpus=-: standard input is closed; pipe text into it, or name a file.")
    stream: Any = sys.stdin.buffer
    head = stream.peek(8)[:8] if hasattr(stream, "peek") else b""
    suffix = next((suffix for suffix in COMPRESSED if head.startswith(MAGIC[suffix]) and suffix != ".bz2"), None)
    if suffix is not None:
        raise InputError(f"corpus=- is compressed, as {suffix} files are; decompress it on the way, as xzcat does.")
    return stream


def find_files(path: str) -> list[StoredFile]:
    """List the files of a corpus in order; InputError if there is none.

    A folder stands for the .txt, .jsonl and .parquet files below it, compressed or not, sorted by their relative path,
    without hidden ones. A file that the user names, or that matches a glob, belongs to the corpus whatever its name.
    """
    if path.startswith("s3://"):
        return _find_objects(path)
    place = Path(path).expanduser()
    if place.is_file():
        return [_local(place)]
    if place.is_dir():
        inside = (file.relative_to(place) for file in place.rglob("*") if not file.is_dir())
        names = sorted((name for name in inside if is_text(name)), key=lambda name: name.parts)
        if not names:
            raise InputError(
                f"corpus={path} has no text: put .txt, .jsonl (also .xz, .gz, .bz2, .zst) or .parquet files into the "
                "folder."
            )
        return [_local(place / name) for name in names]
    files = sorted(Path(name) for name in glob.glob(str(place), recursive=True) if os.path.isfile(name))
    if not files:
        raise InputError(f"corpus={path} does not exist: give a text file, a folder, or a glob that matches files.")
    return [_local(file) for file in files]


def is_text(name: Path | PurePosixPath) -> bool:
    """Whether a file in a folder, given by its relative path, belongs to the corpus."""
    stem = PurePosixPath(name.stem) if name.suffix in COMPRESSED else name
    return not any(component.startswith(".") for component in name.parts) and (
        stem.suffix in TEXT or (stem is name and name.suffix == PARQUET)
    )


def _local(path: Path) -> StoredFile:
    try:
        status = path.stat()
    except OSError:  # reported when the file is read: it may be one of thousands
        return StoredFile(os.path.abspath(path), 0, "")
    return StoredFile(os.path.abspath(path), status.st_size, str(status.st_mtime_ns))


# ------------------------------------------------------------------------------------------------------------------ S3


def _find_objects(url: str) -> list[StoredFile]:
    bucket, key = split_url(url)
    prefix = key[: min((key.find(c) for c in "*?[" if c in key), default=len(key))]
    try:
        found = list(_list_objects(bucket, prefix))
    except Exception as error:  # errors of botocore, boto3 and urllib3 have no common ancestor
        raise InputError(
            f"corpus={url} cannot be listed ({error}); check the bucket, S3_ENDPOINT_URL and keys."
        ) from error
    if not url.endswith("/") and any(file.path == url for file in found):
        found = [file for file in found if file.path == url]
    elif prefix != key:
        found = [file for file in found if fnmatch.fnmatchcase(split_url(file.path)[1], key)]
    else:
        folder = key.rstrip("/") + "/" if key else ""
        inside = ((file, split_url(file.path)[1]) for file in found)
        found = [f for f, name in inside if name.startswith(folder) and is_text(PurePosixPath(name[len(folder) :]))]
    if not found:
        raise InputError(f"corpus={url} has no text: give an object, a folder of .txt, .jsonl or .parquet, or a glob.")
    return sorted(found, key=lambda file: PurePosixPath(file.path).parts)


def _list_objects(bucket: str, prefix: str) -> Iterator[StoredFile]:
    for page in s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            yield StoredFile(f"s3://{bucket}/{item['Key']}", item["Size"], item["ETag"])


class _S3Reader(io.RawIOBase):
    """Reads the bytes of an object; after a broken connection, a new one continues at the same offset."""

    def __init__(self, file: StoredFile, start: int) -> None:
        self._file = file
        self._position = start
        self._body: Any = None

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        if self._position >= self._file.size:
            return 0
        for attempt in range(S3_ATTEMPTS):
            try:
                self._body = self._body or self._get()
                if data := self._body.read(len(buffer)):
                    break
            except Exception as error:  # botocore's and urllib3's errors have no common ancestor
                if attempt == S3_ATTEMPTS - 1:
                    raise OSError(str(error)) from error
            self._body = None
        else:
            raise OSError("the connection ended too early")
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _get(self) -> Any:
        bucket, key = split_url(self._file.path)
        byte_range = f"bytes={self._position}-"
        return s3_client().get_object(Bucket=bucket, Key=key, Range=byte_range, IfMatch=self._file.version)["Body"]
