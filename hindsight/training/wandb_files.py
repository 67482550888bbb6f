"""What Weights & Biases has written of a run on this machine, step by step.

wandb 0.31 writes run-<id>.wandb in blocks of 32 KiB, and what it holds back is lost when the process is killed. The
format is LevelDB's log behind a header of 7 bytes (https://github.com/wandb/wandb, core/pkg/leveldb); wandb has no
reader of it for Python. Delete with a wandb that tells what it has.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from hindsight.files import open_regular

HEADER_BYTES, BLOCK_BYTES = 7, 1 << 15
PIECE = struct.Struct("<IHB")
"""Before each piece of a record: checksum of what follows it, length, and whether it begins or ends the record."""
WHOLE, FIRST, LAST = 1, 2, 4


def logged_rows(folder: Path) -> Iterator[tuple[int, frozenset[str]]]:
    """Yield step and names of every row in the files of a run's folder; a file that was cut ends where it was cut.

    Args:
        folder: the run's folder, in which W&B makes its own.
    """
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue] - generated

    for path in sorted(folder.glob("wandb/*run-*/run-*.wandb")):
        for data in _records(path):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield record.history.step.num, frozenset(item.key or item.nested_key[0] for item in items)


def _records(path: Path) -> Iterator[bytes]:
    try:
        with open_regular(path) as file:
            file.seek(HEADER_BYTES)
            place, record = HEADER_BYTES, b""
            while True:
                left = BLOCK_BYTES - place % BLOCK_BYTES
                if left < PIECE.size:
                    file.seek(left, 1)
                    place += left
                head = file.read(PIECE.size)
                if len(head) < PIECE.size:
                    return
                checksum, length, kind = PIECE.unpack(head)
                body = file.read(length)
                if zlib.crc32(head[-1:] + body) != checksum:
                    return
                place += PIECE.size + length
                record = body if kind in (WHOLE, FIRST) else record + body
                if kind in (WHOLE, LAST):
                    yield record
    except OSError:
        return
