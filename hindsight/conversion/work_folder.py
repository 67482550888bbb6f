"""The folder in which a conversion is made, so that what is done survives the process.

    parts/NUMBER.npz         tokens of parts that were made, and wait until all parts before them are taken
    .SPLIT.SHARDS.tokens     tokens of a split behind its first SHARDS shards, which do not fill another one yet
    parts.log                signature and digest of every part that was taken, a line each
    hashes                   64 bits of every document's hash
    state.npz                Progress, which says how much of the files above is valid; replaced atomically
    result/                  becomes the output when it is complete

A process that is killed leaves more in the files than its last state says; the next one truncates them. Work folders of
earlier versions of this code must go on: names and layout of these files must not change.
"""

import json
import os
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.conversion.corpus_statistics import LengthCounts
from hindsight.conversion.token_part import DAMAGED
from hindsight.errors import InputError
from hindsight.shards.manifest import SPLITS, Manifest
from hindsight.text.digest import Digest

STATE_NAME = "state.npz"
RESULT_NAME = "result"
HASH_BYTES = 8
"""Bytes per document in the file of hashes."""


@dataclass
class SplitProgress:
    """Counts of a split so far, and its shards."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    waiting: int = 0
    """Tokens behind the last shard."""
    shards: list[dict[str, Any]] = field(default_factory=list)
    """Entries of the index, one for each shard."""


@dataclass
class Progress:
    """The state of a conversion.

    Args:
        token_counts: for each split, (vocab_size,) how often each id occurs.
        val_below: documents with a smaller draw go to val; None until both splits are known to get some.
    """

    token_counts: dict[str, NDArray[np.int64]]
    val_below: float | None
    taken: int = 0
    """Number of parts that were taken."""
    digest: Digest = field(default_factory=Digest)
    """Digest of the documents in them."""
    splits: dict[str, SplitProgress] = field(default_factory=lambda: {split: SplitProgress() for split in SPLITS})
    lengths: LengthCounts = field(default_factory=LengthCounts)
    problems: list[str] = field(default_factory=list)
    """Messages about text that was left out; only the first ones are kept."""
    n_problems: int = 0
    empty: int = 0
    """Documents without text."""
    marks: Counter[str] = field(default_factory=Counter)
    """Lines that are text, but by which others separate documents."""


class WorkFolder:
    """Reads and writes the files of a conversion in progress.

    Args:
        folder: the folder.
        keep_hashes: whether documents are known, and their hashes are kept to count duplicates.
    """

    def __init__(self, folder: Path, keep_hashes: bool) -> None:
        self.folder = folder
        self.keep_hashes = keep_hashes
        self.parts = folder / "parts"
        self.result = folder / RESULT_NAME
        self.hashes = folder / "hashes"
        self._state = folder / STATE_NAME
        self._log = folder / "parts.log"
        self._logged: list[tuple[str, Digest]] = []
        self._n_written = 0
        self._outdated: list[Path] = []

    def part_path(self, number: int) -> Path:
        """Give the file of a part that waits."""
        return self.parts / f"{number:08}.npz"

    def waiting_path(self, split: str, n_shards: int) -> Path:
        """Give the file of a split's tokens behind its first `n_shards` shards."""
        return self.folder / f".{split}.{n_shards:05}.tokens"

    def add_hashes(self, hashes: NDArray[np.uint64]) -> None:
        """Append the hashes of documents."""
        with self.hashes.open("ab") as file:
            file.write(hashes.astype("<u8").tobytes())

    def log(self, signature: str, digest: Digest) -> None:
        """Log that the next part was taken."""
        self._logged.append((signature, digest))

    def logged(self, number: int) -> tuple[str, Digest]:
        """Give signature and digest of a part that was taken."""
        return self._logged[number]

    def remove_later(self, path: Path) -> None:
        """Remove a file after the next save: until then, a process that resumes from the last one needs it."""
        self._outdated.append(path)

    def is_begun(self) -> bool:
        """Whether an earlier process saved its state."""
        return self._state.is_file()

    def clear(self) -> None:
        """Remove the files of a process that was killed before its first save, or while it removed the folder."""
        for rest in (self.parts, self.result):
            shutil.rmtree(rest, ignore_errors=True)
        for file in (*self.folder.glob(".*.tokens"), self._log, self.hashes):
            file.unlink(missing_ok=True)
        self.parts.mkdir(parents=True)

    def load(self) -> tuple[Manifest, str, Progress]:
        """Read the state: the manifest of the conversion, the name of its output, and its progress."""
        try:
            with np.load(self._state) as stored:
                state = json.loads(stored["state"].tobytes())
                progress = Progress(
                    token_counts={split: stored[f"counts_{split}"] for split in SPLITS},
                    val_below=state["val_below"],
                    taken=state["taken"],
                    digest=Digest(*state["digest"]),
                    splits={split: SplitProgress(**state["splits"][split]) for split in SPLITS},
                    lengths=LengthCounts(stored["lengths"], stored["length_counts"]),
                    problems=state["problems"],
                    n_problems=state["n_problems"],
                    empty=state["empty"],
                    marks=Counter(state.get("marks", {})),  # earlier versions stored none
                )
                return Manifest(**state["plan"]), state["out"], progress
        except DAMAGED as error:
            raise InputError(f"{self._state} is damaged; remove {self.folder} and start again.") from error

    def truncate(self, progress: Progress, dtype: str) -> None:
        """Truncate every file to what was valid at the last save, and remove files that were not."""
        lines = self._log.read_text(encoding="utf-8").splitlines()[: progress.taken] if progress.taken else []
        self._logged = [(line.split()[0], Digest(*map(int, line.split()[1:]))) for line in lines]
        self._n_written = len(lines)
        _truncate(self._log, sum(len(line) + 1 for line in lines))
        if self.keep_hashes:
            _truncate(self.hashes, progress.digest.documents * HASH_BYTES)
        for split, state in progress.splits.items():
            waiting = self.waiting_path(split, len(state.shards))
            for file in self.folder.glob(f".{split}.*.tokens"):
                if file != waiting:
                    file.unlink()
            _truncate(waiting, state.waiting * np.dtype(dtype).itemsize)
        for file in self.parts.iterdir():
            if not file.stem.isdigit() or int(file.stem) < progress.taken:
                file.unlink()

    def remove_partial_files(self) -> None:
        """Remove files that were being written when a process was killed."""
        for rest in self.folder.rglob(".*.partial"):
            rest.unlink(missing_ok=True)

    def save(self, manifest: Manifest, out: str, progress: Progress) -> None:
        """Write the state, and remove files that are no longer needed."""
        with self._log.open("a", encoding="utf-8") as file:
            for signature, digest in self._logged[self._n_written :]:
                file.write(f"{signature} {digest.documents} {digest.value}\n")
        self._n_written = len(self._logged)
        state = {
            "plan": asdict(manifest),
            "out": out,
            "taken": progress.taken,
            "digest": progress.digest,
            "val_below": progress.val_below,
            "splits": {split: vars(state) for split, state in progress.splits.items()},
            "problems": progress.problems,
            "n_problems": progress.n_problems,
            "empty": progress.empty,
            "marks": progress.marks,
        }
        counts: dict[str, Any] = {f"counts_{split}": array for split, array in progress.token_counts.items()}
        partial = self._state.with_name(f".{STATE_NAME}")
        with partial.open("wb") as file:
            np.savez(
                file,
                state=np.frombuffer(json.dumps(state).encode(), np.uint8),
                lengths=progress.lengths.values,
                length_counts=progress.lengths.counts,
                **counts,
            )
        os.replace(partial, self._state)
        for path in self._outdated:
            path.unlink(missing_ok=True)
        self._outdated = []


def _truncate(path: Path, n_bytes: int) -> None:
    """Truncate a file; InputError if it is shorter already."""
    with path.open("ab") as file:
        if file.tell() < n_bytes:
            raise InputError(f"{path} is damaged: it lacks what was done; remove {path.parent} and start again.")
        file.truncate(n_bytes)
