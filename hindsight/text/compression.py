"""Compressed files -> their bytes, of which few are held at a time, however far they expand.

A file may have several members (gzip), streams (xz, bzip2) or frames (zstd) in a row, and zeros behind each.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, cast

import zstandard

READ_BYTES = 1 << 18
PIECE_BYTES = 1 << 12
"""Bytes that bzip2 and xz get at a time: what they expand to is compared to what they were given."""
ZSTD_BYTES = 1 << 10
"""Bytes that zstd gets at a time: it cannot be told how much to give back, and 4 bytes may stand for 128 KiB."""
WINDOW_BYTES = 1 << 31
"""The largest window or dictionary of a compressed file: that of `zstd --long=31`."""
MOST_EXPANSION, EXPANDED_BYTES = 1000, 1 << 24
"""What was read of a file may not expand to more than so many times its size, and so many bytes: no text does."""


class ExpandsTooMuchError(OSError):
    """Far more comes out of a file than out of any text."""


def check_expansion(stored_bytes: int, n_bytes: int) -> None:
    """Raise ExpandsTooMuchError if so many bytes cannot be a text of so many stored ones."""
    if n_bytes > max(EXPANDED_BYTES, MOST_EXPANSION * stored_bytes):
        raise ExpandsTooMuchError(f"expands to more than {MOST_EXPANSION} times its size")


class _Step(NamedTuple):
    """What a decompressor gave for some bytes: output, whether there is more, and the bytes that it left."""

    output: bytes
    more: bool
    left: bytes


class _Gzip:
    def __init__(self) -> None:
        self._member = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._member.eof

    def step(self, data: bytes, most: int) -> _Step:
        output = self._member.decompress(data, most)
        left = self._member.unused_data if self.eof else self._member.unconsumed_tail
        return _Step(output, len(output) == most and not self.eof, left)


class _Stream:
    """A stream of bzip2 or xz: their decompressors keep what they have not used."""

    def __init__(self, decompressor: Any) -> None:
        self._stream = decompressor

    @property
    def eof(self) -> bool:
        return self._stream.eof

    def step(self, data: bytes, most: int) -> _Step:
        output = self._stream.decompress(data, most)
        return _Step(output, not self.eof and not self._stream.needs_input, self._stream.unused_data)


class _ZstdFrame:
    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES).decompressobj()

    @property
    def eof(self) -> bool:
        return self._frame.eof

    def step(self, data: bytes, most: int) -> _Step:
        try:
            output = self._frame.decompress(data)
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from error
        return _Step(output, False, self._frame.unused_data if self.eof else b"")


class _MembersReader(io.RawIOBase):
    """Decompresses the members of a file; EOFError if the last one is cut off."""

    def __init__(self, stored: BinaryIO, new_member: Callable[[], Any], piece_bytes: int) -> None:
        self._stored = stored
        self._new_member = new_member
        self._piece_bytes = piece_bytes
        self._member: Any = None
        self._unread, self._position = b"", 0
        self._more = False
        self._ready = memoryview(b"")
        self._n_read = self._n_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if self._position >= len(self._unread) and not self._more and not self._fill():
                return 0
            member = self._member or self._begin()
            if member is None:
                continue
            piece = self._unread[self._position : self._position + self._piece_bytes]
            self._position += len(piece)
            output, self._more, left = member.step(piece, READ_BYTES)
            self._position -= len(left)
            self._n_read += len(piece) - len(left)
            if member.eof:
                self._member, self._more = None, False
            self._ready = memoryview(output)
            self._n_bytes += len(output)
            check_expansion(self._n_read, self._n_bytes)
        n_bytes = min(len(buffer), len(self._ready))
        buffer[:n_bytes], self._ready = self._ready[:n_bytes], self._ready[n_bytes:]
        return n_bytes

    def _fill(self) -> bool:
        """Read more of the file; False at its end."""
        self._unread, self._position = self._stored.read(READ_BYTES), 0
        if not self._unread and self._member is not None:
            raise EOFError
        return bool(self._unread)

    def _begin(self) -> Any:
        """Begin the next member, behind the zeros before it; None if more must be read for that."""
        self._unread, self._position = self._unread[self._position :].lstrip(b"\0"), 0
        if self._unread:
            self._member = self._new_member()
        return self._member


def _xz_stream() -> _Stream:
    return _Stream(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_BYTES + (1 << 24)))


_MEMBERS: dict[str, tuple[Callable[[], Any], int]] = {
    ".gz": (_Gzip, READ_BYTES),
    ".bz2": (lambda: _Stream(bz2.BZ2Decompressor()), PIECE_BYTES),
    ".xz": (_xz_stream, PIECE_BYTES),
    ".zst": (_ZstdFrame, ZSTD_BYTES),
}


def decompressed(stored: BinaryIO, compression: str | None) -> BinaryIO:
    """Wrap an open file so that reading decompresses it, if it is compressed."""
    if compression is None:
        return stored
    return cast(BinaryIO, io.BufferedReader(_MembersReader(stored, *_MEMBERS[compression]), READ_BYTES))
