"""Text files -> documents.

A corpus is a file, a folder or a glob. Bytes stay as they are. What separates documents is not part of them:

- cc100: blank lines, that is lines of nothing but their line ending. A document keeps the ends of its lines, the last
  one's too.
- file: nothing; a file is a document.
- line: the line feed. An empty line is no document.

The end of a file ends a document in any format. Memory: one document at a time.
"""

import bz2
import glob
import gzip
import hashlib
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard
from tqdm import tqdm

from config import CorpusFormat, InputError

_BLANK = (b"\n", b"\r\n")
_CHUNK_BYTES = 1 << 17


@dataclass(frozen=True)
class Scan:
    """What a corpus holds.

    Args:
        documents: number of documents.
        bytes: their UTF-8 bytes.
        fingerprint: hash of the documents in order, however files group and compress them.
    """

    documents: int
    bytes: int
    fingerprint: str


class Corpus:
    """The documents of text files.

    Args:
        path: a file, a folder or a glob.
        corpus_format: what separates documents.
    """

    def __init__(self, path: str, corpus_format: CorpusFormat) -> None:
        self.path = path
        self.corpus_format = corpus_format
        self.files = find_files(path)
        """The files, in order."""

    def scan(self, visit: Callable[[int, bytes], None] | None = None) -> Scan:
        """Read the corpus once, with a progress bar; InputError if it holds no document.

        Args:
            visit: called with the number and the bytes of every document.
        """
        digest, n_documents, n_bytes = hashlib.sha256(), 0, 0
        stored = sum(path.stat().st_size for path in self.files)
        with tqdm(total=stored, desc="reading", unit="B", unit_scale=True, disable=None) as bar:
            for document in self.documents(bar.update):
                digest.update(len(document).to_bytes(8, "little"))
                digest.update(document)
                if visit is not None:
                    visit(n_documents, document)
                n_documents += 1
                n_bytes += len(document)
        if n_documents == 0:
            raise InputError(f"corpus={self.path} is empty: it holds no document; give one with text.")
        return Scan(n_documents, n_bytes, digest.hexdigest())

    def documents(self, advance: Callable[[int], object] | None = None) -> Iterator[bytes]:
        """Yield the documents in order, each valid UTF-8; InputError if one is not, or if a file is damaged.

        Args:
            advance: called with the number of stored (compressed) bytes read since the last call.
        """
        for path in self.files:
            with path.open("rb") as stored:
                position = 0
                for document in self._documents_of(path, stored):
                    yield document
                    if advance is not None:
                        advance(stored.tell() - position)
                        position = stored.tell()

    def _documents_of(self, path: Path, stored: BinaryIO) -> Iterator[bytes]:
        offset = 0
        try:
            for document, separator_bytes in _SEPARATE[self.corpus_format](decompressed(path, stored)):
                if document:
                    document.decode()
                    yield document
                offset += len(document) + separator_bytes
        except UnicodeDecodeError as error:
            unpacked = " of its decompressed text" if path.suffix in _DECOMPRESS else ""
            raise InputError(
                f"corpus: {path} is not UTF-8 at byte {offset + error.start}{unpacked}; convert it, e.g. with iconv, "
                "or leave it out."
            ) from error
        except EOFError as error:
            raise InputError(f"corpus: {path} is cut off: its compressed data has no end; fetch it again.") from error
        except (OSError, lzma.LZMAError, zlib.error) as error:
            raise InputError(f"corpus: {path} cannot be read ({error}); fetch it again, or leave it out.") from error


def document_hash(seed: int, number: int, purpose: bytes = b"") -> float:
    """Hash of a document's number, uniform in [0, 1): a draw that stays when documents are added behind.

    Draws for different purposes, such as the split and a sample, are independent even with the same seed.
    """
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8, person=purpose).digest()
    return (int.from_bytes(digest, "little") >> 11) / (1 << 53)


def find_files(path: str) -> list[Path]:
    """List the text files of a corpus in order; InputError if there is none.

    A folder stands for the .txt files below it, compressed or not, sorted by their path in it, without hidden ones. A
    file that is named, or matched by a glob, is text whatever its name, compressed if its suffix says so.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        inside = (file.relative_to(place) for file in place.rglob("*"))
        names = [name for name in inside if _is_text(name) and not any(part.startswith(".") for part in name.parts)]
        if not names:
            raise InputError(f"corpus={path} has no text: put .txt files (also .xz, .gz, .bz2, .zst) into the folder.")
        return [place / name for name in sorted(names, key=lambda name: name.parts)]
    files = sorted(Path(name) for name in glob.glob(str(place), recursive=True) if os.path.isfile(name))
    if not files:
        raise InputError(f"corpus={path} does not exist: give a text file, a folder, or a glob that matches files.")
    return files


def _is_text(name: Path) -> bool:
    return name.suffix == ".txt" or (name.suffix in _DECOMPRESS and Path(name.stem).suffix == ".txt")


def decompressed(path: Path, stored: BinaryIO) -> BinaryIO:
    """Give what an open file holds, decompressed while it is read, if its suffix says that it is compressed."""
    return _DECOMPRESS[path.suffix](stored) if path.suffix in _DECOMPRESS else stored


def _open_zst(stored: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_ZstdReader(stored)))


class _ZstdReader(io.RawIOBase):
    """Decompressed zstd frames; EOFError if the last one is cut off, which zstandard's own reader passes over."""

    def __init__(self, stored: BinaryIO) -> None:
        self._stored = stored
        self._frame: Any = None
        self._unread = b""
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            self._unread = self._unread or self._stored.read(_CHUNK_BYTES)
            if not self._unread:
                if self._frame is not None:
                    raise EOFError
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                self._ready = self._frame.decompress(self._unread)
            except zstandard.ZstdError as error:
                raise OSError(str(error)) from error
            self._unread = self._frame.unused_data
            if self._frame.eof:
                self._frame = None
        n_bytes = min(len(buffer), len(self._ready))
        buffer[:n_bytes], self._ready = self._ready[:n_bytes], self._ready[n_bytes:]
        return n_bytes


_DECOMPRESS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zst,
}


def _by_blank_line(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    lines: list[bytes] = []
    for line in stream:
        if line in _BLANK:
            yield b"".join(lines), len(line)
            lines = []
        else:
            lines.append(line)
    yield b"".join(lines), 0


def _by_file(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    yield stream.read(), 0


def _by_line(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    for line in stream:
        document = line.removesuffix(b"\n")
        yield document, len(line) - len(document)


# Each yields documents, some of them empty, with the length of the separator behind.
_SEPARATE: dict[CorpusFormat, Callable[[BinaryIO], Iterator[tuple[bytes, int]]]] = {
    CorpusFormat.cc100: _by_blank_line,
    CorpusFormat.file: _by_file,
    CorpusFormat.line: _by_line,
}
