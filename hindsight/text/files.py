"""A file or S3 object of a corpus: what its name says, and its bytes from any offset."""

import io
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from hindsight.errors import InputError
from hindsight.s3 import s3_client, split_url

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
PLAIN, JSON_LINES, PARQUET = ".txt", ".jsonl", ".parquet"
"""The kinds of files."""
JSON = ".json"
ENDINGS = {PLAIN: PLAIN, **dict.fromkeys((JSON_LINES, ".jsonlines", ".ndjson", JSON), JSON_LINES), PARQUET: PARQUET}
"""The kind that an ending stands for, in lower case."""
MAGIC = {
    ".gz": re.compile(rb"\x1f\x8b"),
    ".bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    ".xz": re.compile(rb"\xfd7zXZ\x00"),
    ".zst": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # a frame, or one that is skipped
    PARQUET: re.compile(rb"PAR1"),
}
"""The first bytes of a file of each kind."""
OTHER_MAGIC = {
    "a zip archive": (re.compile(rb"PK\x03\x04"), "unpack it"),
    "a 7z archive": (re.compile(rb"7z\xbc\xaf\x27\x1c"), "unpack it"),
    "a rar archive": (re.compile(rb"Rar!\x1a\x07"), "unpack it"),
    "a PDF": (re.compile(rb"%PDF-\d"), "give its text"),
    "an h5 file": (re.compile(rb"\x89HDF\r\n\x1a\n"), "name it .h5"),
}
"""What is no text though somebody may name it so, and the way out."""
HEAD_BYTES = 10
_UNPACK = {".gz": "zcat", ".bz2": "bzcat", ".xz": "xzcat", ".zst": "zstdcat"}
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
        is_stream: whether it can be read once only, from its beginning: standard input, a pipe, a device.
    """

    path: str
    size: int
    version: str
    is_stream: bool = field(default=False, repr=False)

    @property
    def dataset(self) -> str | None:
        """Name or folder of the dataset; None for anything else."""
        return self.path.removeprefix(DATASET_PREFIX) if self.path.startswith(DATASET_PREFIX) else None

    @property
    def compression(self) -> str | None:
        """Ending of the compression, in lower case; None if the file is not compressed."""
        return compression_of(PurePosixPath(self.path))

    @property
    def kind(self) -> str:
        """JSON_LINES, PARQUET, or PLAIN for everything else."""
        return ENDINGS.get(ending_of(PurePosixPath(self.path)), PLAIN)

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
            head = stored.read(HEAD_BYTES)
        suffix = self.compression or (PARQUET if self.kind == PARQUET else None)
        if suffix is not None and not MAGIC[suffix].match(head):
            raise WrongContentError(
                f"corpus: {self.path} does not begin as a {suffix} file does; fetch or name it again."
            )
        if self.compression is not None and self.kind == PARQUET:
            raise WrongContentError(f"corpus: {self.path} is a compressed .parquet file; unpack it.")
        if suffix is not None:
            return
        if (other := ending_by_content(head)) is not None:
            what = f"a {other} file by its content"
            archive = PurePosixPath(self.path).suffix.lower() in (".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".tar")
            raise WrongContentError(
                f"corpus: {self.path} is {what}; {'unpack it' if archive else f'name it {self.path}{other}'}."
            )
        for what, (magic, advice) in OTHER_MAGIC.items():
            if magic.match(head):
                raise WrongContentError(f"corpus: {self.path} is {what} by its content; {advice}.")


def compression_of(name: PurePosixPath) -> str | None:
    """Give the ending of the compression, in lower case; None if the name has none."""
    suffix = name.suffix.lower()
    return suffix if suffix in COMPRESSED else None


def ending_of(name: PurePosixPath) -> str:
    """Give the ending before that of the compression, in lower case; empty if there is none."""
    return PurePosixPath(name.stem if compression_of(name) else name.name).suffix.lower()


def ending_by_content(head: bytes) -> str | None:
    """Give the ending that fits the first bytes of a compressed file or of a parquet file; None for any other."""
    return next((ending for ending, magic in MAGIC.items() if magic.match(head)), None)


def open_stream(file: StoredFile) -> BinaryIO:
    """Open standard input, a pipe or a device; InputError if it is closed, or compressed though its name is not."""
    if file.path == STDIN and sys.stdin is None:
        raise InputError("corpus=-: standard input is closed; pipe text into it, or name a file.")
    # Opening a pipe waits for whoever writes into it.
    stream: Any = sys.stdin.buffer if file.path == STDIN else Path(file.path).open("rb")  # noqa: SIM115
    try:
        _check_stream(file, stream.peek(HEAD_BYTES)[:HEAD_BYTES] if hasattr(stream, "peek") else b"")
    except InputError:
        stream.close()
        raise
    return stream


def _check_stream(file: StoredFile, head: bytes) -> None:
    ending = ending_by_content(head)
    if ending == PARQUET:
        raise InputError(f"corpus: {file.path} is a {PARQUET} file by its content, which no pipe can give; name it.")
    if ending != file.compression:
        way = f"decompress it on the way, as {_UNPACK[ending]} does" if ending else "fetch or name it again"
        what = f"is compressed, as {ending} files are" if ending else f"is no {file.compression} file"
        raise InputError(f"corpus: {file.path} {what}; {way}.")


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
