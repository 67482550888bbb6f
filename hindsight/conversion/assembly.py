"""Parts, in order -> stored tokens; what is done survives the process.

The work folder holds the parts that wait (parts/), the tokens of each split that do not fill a shard yet, a log of the
parts that were taken, the hashes of documents, and the state, which is replaced as a whole and says how much of all
this counts: what a killed process wrote behind it is cut off. `result/` becomes the output when it is complete.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hindsight.conversion.corpus_statistics import LengthCounts, add_counts, count_duplicates
from hindsight.conversion.token_part import DAMAGED, TokenPart
from hindsight.errors import InputError
from hindsight.shards.manifest import SPLITS, Manifest, SplitCounts, entropy_nats
from hindsight.text.digest import Digest

LISTED_PROBLEMS = 1000
"""Problems that the manifest lists; more are only counted."""
SEEN_WITHIN_S = 120.0
"""How long a shared file system may take to show a file; NFS keeps what it knows of a folder for up to a minute."""
STATE_NAME = "state.npz"
RESULT_NAME = "result"


class Sink(Protocol):
    """The format that tokens are stored in."""

    @property
    def write(self) -> Callable[[str, int, NDArray], dict[str, Any]] | None:
        """Stores a shard of a split, by its number, for good, and gives its entry in the index; None without shards."""
        ...

    def finish(self, shards: dict[str, list[dict[str, Any]]], waiting: dict[str, Path]) -> dict[str, Any]:
        """Store what waits in files of tokens, complete the result, and give what the summary shall say of it."""
        ...


@dataclass
class SplitState:
    """What a split holds so far."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0
    waiting: int = 0
    """Tokens that do not fill a shard yet."""
    shards: list[dict[str, Any]] = field(default_factory=list)
    """Entries of the index."""


class Assembly:
    """Puts parts together.

    Args:
        folder: the work folder.
        plan: the conversion; its counts are still empty.
        sink: where tokens go.
        keep_hashes: whether units are documents whose hashes tell duplicates.
        out: where the result goes.
        val_below: draws below it go to val; None to find out.
        may_skip: whether parts may have left something out.
    """

    def __init__(
        self,
        folder: Path,
        plan: Manifest,
        sink: Sink,
        keep_hashes: bool,
        out: str,
        val_below: float | None,
        may_skip: bool,
    ) -> None:
        self.folder = folder
        self.out = out
        self.may_skip = may_skip
        self.plan = plan
        self.sink = sink
        self.keep_hashes = keep_hashes
        self.parts_folder = folder / "parts"
        self.taken = 0
        """Parts that are taken."""
        self.digest = Digest()
        self.val_below = val_below
        """Draws below it go to val; None until train and val are known to get something."""
        self.splits = {split: SplitState() for split in SPLITS}
        self.token_counts = {split: np.zeros(plan.vocab_size, np.int64) for split in SPLITS}
        self.lengths = LengthCounts()
        self.problems: list[str] = []
        self.n_problems = 0
        self.empty = 0
        self._log: list[tuple[str, Digest]] = []
        self._unlogged = 0
        self._looked = 0
        self._extremes = np.empty(0)
        self._outdated: list[Path] = []
        self._at_hand: dict[int, TokenPart] = {}
        self._expected: dict[int, str] = {}

    # ---------------------------------------------------------------------------------------------------- going on

    def is_begun(self) -> bool:
        """Whether an earlier process did something."""
        return (self.folder / STATE_NAME).is_file()

    def resume(self) -> None:
        """Take up what an earlier process did, if one did. InputError if it was another conversion."""
        for rest in self.folder.rglob(".*.partial"):
            rest.unlink(missing_ok=True)
        if not self.is_begun():  # what is there is of one that was killed before its first save, or while it cleaned up
            for rest in (self.parts_folder, self.folder / RESULT_NAME):
                shutil.rmtree(rest, ignore_errors=True)
            for file in (*self.folder.glob(".*.tokens"), self._log_path, self._hashes_path):
                file.unlink(missing_ok=True)
            self.parts_folder.mkdir(parents=True)
            self.save()
            return
        try:
            with np.load(self.folder / STATE_NAME) as stored:
                state = json.loads(stored["state"].tobytes())
                plan = Manifest(**state["plan"])
                self.token_counts = {split: stored[f"counts_{split}"] for split in SPLITS}
                self.lengths = LengthCounts(stored["lengths"], stored["length_counts"])
        except DAMAGED as error:
            raise InputError(f"{self.folder / STATE_NAME} is damaged; remove {self.folder} and start again.") from error
        difference = f"out={state['out']} (now {self.out})" if state["out"] != self.out else plan.difference(self.plan)
        if difference is not None:
            raise InputError(
                f"out= was begun with {difference}; start again with what it was, choose another out, or remove "
                f"{self.folder}."
            )
        self.taken = self._looked = state["taken"]
        self.digest = Digest(*state["digest"])
        self.val_below = state["val_below"]
        self.splits = {split: SplitState(**state["splits"][split]) for split in SPLITS}
        self.problems, self.n_problems, self.empty = state["problems"], state["n_problems"], state["empty"]
        self._refuse_skipped(self.problems)
        self._take_up_files()

    def _take_up_files(self) -> None:
        """Cut every file to what counts, and remove what does not."""
        lines = self._log_path.read_text(encoding="utf-8").splitlines()[: self.taken] if self.taken else []
        self._log = [(line.split()[0], Digest(*map(int, line.split()[1:]))) for line in lines]
        _cut(self._log_path, sum(len(line) + 1 for line in lines))
        if self.keep_hashes:
            _cut(self._hashes_path, self.digest.documents * 8)
        for split, state in self.splits.items():
            for file in self.folder.glob(f".{split}.*.tokens"):
                if file != self._waiting_path(split):
                    file.unlink()
            _cut(self._waiting_path(split), state.waiting * np.dtype(self.plan.dtype).itemsize)
        for file in self.parts_folder.iterdir():
            if not file.stem.isdigit() or int(file.stem) < self.taken:
                file.unlink()

    def save(self) -> None:
        """Make what was taken count, and remove what is no longer needed."""
        with self._log_path.open("a", encoding="utf-8") as file:
            for signature, digest in self._log[len(self._log) - self._unlogged :]:
                file.write(f"{signature} {digest.documents} {digest.value}\n")
        self._unlogged = 0
        state = {
            "plan": asdict(self.plan),
            "out": self.out,
            "taken": self.taken,
            "digest": self.digest,
            "val_below": self.val_below,
            "splits": {split: asdict(state) for split, state in self.splits.items()},
            "problems": self.problems,
            "n_problems": self.n_problems,
            "empty": self.empty,
        }
        counts: dict[str, Any] = {f"counts_{split}": array for split, array in self.token_counts.items()}
        partial = self.folder / f".{STATE_NAME}"
        with partial.open("wb") as file:
            np.savez(
                file,
                state=np.frombuffer(json.dumps(state).encode(), np.uint8),
                lengths=self.lengths.values,
                length_counts=self.lengths.counts,
                **counts,
            )
        os.replace(partial, self.folder / STATE_NAME)
        for path in self._outdated:
            path.unlink(missing_ok=True)
        self._outdated = []

    def part_path(self, index: int) -> Path:
        """Where a part waits."""
        return self.parts_folder / f"{index:08}.npz"

    def logged(self, index: int) -> tuple[str, Digest]:
        """Signature and digest of a part that was taken."""
        return self._log[index]

    def waits(self, index: int, signature: str) -> bool:
        """Whether a part is there, whole, to be taken; what is there instead is removed. No other will be taken."""
        self._expected[index] = signature
        path = self.part_path(index)
        if not path.is_file():
            return False
        part = TokenPart.load(path)
        if part is None or part.signature != signature:
            path.unlink()
            return False
        return True

    # ------------------------------------------------------------------------------------------------ taking parts

    def take(self, end: int) -> int:
        """Take the parts that are next in order, as far as the rule of the split is known; give their number.

        Args:
            end: number behind the last part that was handed out; what lies there of later ones is not checked yet.
        """
        before = self.taken
        while self.val_below is None and self._looked < end and (part := self._load(self._looked)) is not None:
            self._look(part)
            self._looked += 1
        while self.val_below is not None and self.taken < end and (part := self._load(self.taken)) is not None:
            self._take(part)
        return self.taken - before

    def put(self, index: int, part: TokenPart) -> None:
        """Have a part at hand that is made so fast that it need not survive the process."""
        self._at_hand[index] = part

    def _load(self, index: int) -> TokenPart | None:
        if index in self._at_hand:
            return self._at_hand[index]
        path = self.part_path(index)
        if not path.is_file():
            return None
        part = TokenPart.load(path)
        if part is None:
            raise InputError(f"{path}, which was just made, is damaged; see to the disk, and start again.")
        if part.signature != self._expected[index]:  # a worker that was lost may still write
            path.unlink()
            raise InputError(f"{path} was written by a worker of an earlier conversion; end it, and start again.")
        return part

    def wait_for_files(self, end: int) -> None:
        """Wait until all parts that were made are seen here: a shared file system may show them late.

        Args:
            end: number behind the last part.

        Raises:
            InputError: one is not seen.
        """
        deadline = time.monotonic() + SEEN_WITHIN_S
        for index in range(self.taken, end):
            while index not in self._at_hand and not self.part_path(index).is_file():
                if time.monotonic() > deadline:
                    raise InputError(f"{self.part_path(index)} was made, but is not seen here; see to the file system.")
                os.scandir(self.parts_folder).close()
                time.sleep(0.2)

    def _look(self, part: TokenPart) -> None:
        """Wait until both sides of the split have a document: if none falls to val, the one with least draw goes."""
        self._extremes = np.sort(np.concatenate([self._extremes, part.draws]))[
            [0, -1] if len(part.draws) else slice(None)
        ]
        share = self.plan.val_share
        if len(self._extremes) and self._extremes[0] < share <= self._extremes[-1]:
            self.val_below = share

    def settle(self, where: str) -> None:
        """Fix the rule of the split when there is no more to read; InputError if a side would be empty."""
        if self.val_below is not None:
            return
        draws = np.unique(self._extremes)
        if len(draws) == 0:
            raise InputError(f"{where.split(',')[0]} is empty: it holds no document; give one with text.")
        if len(draws) == 1:
            raise InputError(
                f"{where} is a single document, or many that say the same, of which none is left to validate on; "
                "give two or more."
            )
        if draws[-1] < self.plan.val_share:
            raise InputError(
                f"val_share={self.plan.val_share} leaves nothing to train on: all documents fall to val; choose less."
            )
        self.val_below = float(np.nextafter(draws[0], 1))

    def _take(self, part: TokenPart) -> None:
        assert self.val_below is not None
        self._refuse_skipped(part.problems)
        in_val = part.draws < self.val_below
        for split, chosen in (("train", ~in_val), ("val", in_val)):
            state = self.splits[split]
            tokens = part.tokens if chosen.all() else part.tokens[np.repeat(chosen, part.lengths)]
            state.documents += int(part.documents[chosen].sum())
            state.bytes += int(part.bytes[chosen].sum())
            state.tokens += len(tokens)
            add_counts(self.token_counts[split], tokens)
            self._append(split, tokens)
        if self.keep_hashes:
            self.lengths.add(part.lengths)
            with self._hashes_path.open("ab") as file:
                file.write(part.hashes.astype("<u8").tobytes())
        self.problems = (self.problems + part.problems)[:LISTED_PROBLEMS]
        self.n_problems += len(part.problems)
        self.empty += part.empty
        self.digest = self.digest.then(part.digest)
        self._log.append((part.signature, part.digest))
        self._unlogged += 1
        self._outdated.append(self.part_path(self.taken))
        self._at_hand.pop(self.taken, None)
        self._expected.pop(self.taken, None)
        self.taken += 1

    def _refuse_skipped(self, problems: list[str]) -> None:
        if problems and not self.may_skip:
            raise InputError(f"{problems[0]} It was left out when the conversion began; on_error=stop forbids that.")

    def _append(self, split: str, tokens: NDArray) -> None:
        state, path = self.splits[split], self._waiting_path(split)
        with path.open("ab") as file:
            file.write(tokens.astype(self.plan.dtype, copy=False).tobytes())
        state.waiting += len(tokens)
        write, shard_tokens = self.sink.write, self.plan.blocks_per_shard * self.plan.block_length
        if write is None or state.waiting < shard_tokens:
            return
        waiting = np.memmap(path, self.plan.dtype, "r")
        for start in range(0, len(waiting) - shard_tokens + 1, shard_tokens):
            blocks = waiting[start : start + shard_tokens].reshape(-1, self.plan.block_length)
            state.shards.append(write(split, len(state.shards), blocks))
        rest = waiting[len(waiting) // shard_tokens * shard_tokens :]
        self._outdated.append(path)
        rest.tofile(self._waiting_path(split))
        state.waiting = len(rest)

    # ------------------------------------------------------------------------------------------------------ the end

    def finish(self) -> tuple[dict[str, SplitCounts], dict[str, Any]]:
        """Store what waits, and give the counts, and what the sink says."""
        shards = {split: list(state.shards) for split, state in self.splits.items()}
        said = self.sink.finish(shards, {split: self._waiting_path(split) for split in SPLITS})
        counts = {}
        for split, state in self.splits.items():
            blocks = -(-state.tokens // self.plan.block_length)
            entropy = entropy_nats(self.token_counts[split])
            counts[split] = SplitCounts(state.documents, state.tokens, state.bytes, blocks, entropy)
        return counts, said

    def duplicates(self) -> int | None:
        """Count documents that say what an earlier one says."""
        return count_duplicates(self._hashes_path) if self.keep_hashes else None

    def _waiting_path(self, split: str) -> Path:
        return self.folder / f".{split}.{len(self.splits[split].shards):05}.tokens"

    @property
    def _log_path(self) -> Path:
        return self.folder / "parts.log"

    @property
    def _hashes_path(self) -> Path:
        return self.folder / "hashes"


def _cut(path: Path, n_bytes: int) -> None:
    """Cut a file to what counts of it."""
    with path.open("ab") as file:
        if file.tell() < n_bytes:
            raise InputError(f"{path} is damaged: it lacks what was done; remove {path.parent} and start again.")
        file.truncate(n_bytes)
