"""Parts -> stored tokens.

An assembly consumes finished parts in corpus order, assigns documents to train or val, gives tokens to the sink.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.conversion.corpus_statistics import add_counts, count_duplicates
from hindsight.conversion.sinks import ShardSink, Sink
from hindsight.conversion.token_part import TokenPart
from hindsight.conversion.work_folder import Progress, WorkFolder
from hindsight.errors import InputError
from hindsight.shards.manifest import SPLITS, Manifest, SplitCounts, entropy_nats
from hindsight.text.formats import add_marks
from hindsight.text.problems import LISTED_PROBLEMS

SEEN_WITHIN_S = 120.0
"""Seconds that a shared file system may take to show a file; NFS caches a folder for up to a minute."""


class Assembly:
    """Takes the parts of a conversion, in order.

    Args:
        files: the work folder.
        manifest: the conversion; its counts are still empty.
        sink: stores the tokens.
        out: name of the output.
        val_below: documents with a smaller draw go to val. None until both splits have a document: only then is the
            threshold val_share safe.
        may_skip: whether text may be left out.
    """

    def __init__(
        self, files: WorkFolder, manifest: Manifest, sink: Sink, out: str, val_below: float | None, may_skip: bool
    ) -> None:
        self.files = files
        self.manifest = manifest
        self.sink = sink
        self.out = out
        self.may_skip = may_skip
        self.progress = Progress({split: np.zeros(manifest.vocab_size, np.int64) for split in SPLITS}, val_below)
        self._n_inspected = 0
        self._extremes = np.empty(0)
        self._in_memory: dict[int, TokenPart] = {}
        self._expected: dict[int, str] = {}

    @property
    def taken(self) -> int:
        """Number of parts that are taken."""
        return self.progress.taken

    def resume(self) -> None:
        """Continue what an earlier process saved, if there was one; InputError if that was another conversion."""
        self.files.remove_partial_files()
        if not self.files.is_begun():
            self.files.clear()
            self.save()
            return
        manifest, out, progress = self.files.load()
        difference = f"out={out} (now {self.out})" if out != self.out else manifest.difference(self.manifest)
        if difference is not None:
            raise InputError(
                f"out= was begun with {difference}; start again with what it was, choose another out, or remove "
                f"{self.files.folder}."
            )
        self.progress, self._n_inspected = progress, progress.taken
        self._refuse_skipped(progress.problems)
        self.files.truncate(progress, self.manifest.dtype)

    def save(self) -> None:
        """Save the state: after a kill, the next process continues from here."""
        self.files.save(self.manifest, self.out, self.progress)

    # --------------------------------------------------------------------------------------------- parts that were made

    def is_waiting(self, number: int, signature: str) -> bool:
        """Whether the file of this part is there, intact; a file of another part in its place is removed."""
        self._expected[number] = signature
        path = self.files.part_path(number)
        if not path.is_file():
            return False
        part = TokenPart.load(path)
        if part is None or part.signature != signature:
            path.unlink()
            return False
        return True

    def add(self, number: int, part: TokenPart) -> None:
        """Keep a part in memory that is made so fast that it need not survive the process."""
        self._in_memory[number] = part

    def _load(self, number: int) -> TokenPart | None:
        if number in self._in_memory:
            return self._in_memory[number]
        path = self.files.part_path(number)
        if not path.is_file():
            return None
        part = TokenPart.load(path)
        if part is None:
            raise InputError(f"{path}, which was just made, is damaged; see to the disk, and start again.")
        if part.signature != self._expected[number]:  # a worker that was lost may still write
            path.unlink()
            raise InputError(f"{path} was written by a worker of an earlier conversion; end it, and start again.")
        return part

    def wait_for_files(self, end: int) -> None:
        """Wait until the files of all parts are visible here: a shared file system may show them late.

        Args:
            end: number behind the last part.

        Raises:
            InputError: one does not appear.
        """
        deadline = time.monotonic() + SEEN_WITHIN_S
        for number in range(self.taken, end):
            path = self.files.part_path(number)
            while number not in self._in_memory and not path.is_file():
                if time.monotonic() > deadline:
                    raise InputError(f"{path} was made, but is not seen here; see to the file system.")
                os.scandir(self.files.parts).close()
                time.sleep(0.2)

    # --------------------------------------------------------------------------------------- the threshold of the split

    def _inspect(self, part: TokenPart) -> None:
        """Set val_below, the threshold of the split, to val_share once both splits have a document by that."""
        self._extremes = np.sort(np.concatenate([self._extremes, part.draws]))[
            [0, -1] if len(part.draws) else slice(None)
        ]
        share = self.manifest.val_share
        if len(self._extremes) and self._extremes[0] < share <= self._extremes[-1]:
            self.progress.val_below = share

    def settle_split(self, where: str) -> None:
        """Set val_below, the threshold of the split, when all parts are inspected, unless it is set.

        No draw at all is below val_share then: val_below is the next number above the smallest draw, whose document
        goes to val. InputError if a split would be empty.
        """
        if self.progress.val_below is not None:
            return
        draws = np.unique(self._extremes)
        if len(draws) == 0:
            raise InputError(f"{where.split(',')[0]} is empty: it holds no document; give one with text.")
        if len(draws) == 1:
            raise InputError(
                f"{where} is a single document, or many that say the same, of which none is left to validate on; "
                "give two or more."
            )
        if draws[-1] < self.manifest.val_share:
            raise InputError(
                f"val_share={self.manifest.val_share} leaves nothing to train on: all documents fall to val; choose "
                "less."
            )
        self.progress.val_below = float(np.nextafter(draws[0], 1))

    # ------------------------------------------------------------------------------------------------ taking parts

    def take(self, end: int) -> int:
        """Take the parts that are next in order, if the threshold of the split is known; give their number.

        Args:
            end: number behind the last part that was handed out; files of later parts were not checked yet.
        """
        progress, before = self.progress, self.taken
        while (
            progress.val_below is None
            and self._n_inspected < end
            and (part := self._load(self._n_inspected)) is not None
        ):
            self._inspect(part)
            self._n_inspected += 1
        while progress.val_below is not None and self.taken < end and (part := self._load(self.taken)) is not None:
            self._take(part, progress.val_below)
        return self.taken - before

    def _take(self, part: TokenPart, val_below: float) -> None:
        self._refuse_skipped(part.problems)
        progress, in_val = self.progress, part.draws < val_below
        for split, chosen in (("train", ~in_val), ("val", in_val)):
            state = progress.splits[split]
            tokens = part.tokens if chosen.all() else part.tokens[np.repeat(chosen, part.lengths)]
            state.documents += int(part.documents[chosen].sum())
            state.bytes += int(part.bytes[chosen].sum())
            state.tokens += len(tokens)
            add_counts(progress.token_counts[split], tokens)
            self._append(split, tokens)
        if self.files.keep_hashes:
            progress.lengths.add(part.lengths)
            self.files.add_hashes(part.hashes)
        progress.problems = (progress.problems + part.problems)[:LISTED_PROBLEMS]
        progress.n_problems += part.n_problems
        progress.empty += part.empty
        add_marks(progress.marks, part.marks)
        progress.digest = progress.digest.then(part.digest)
        self.files.log(part.signature, part.digest)
        self.files.remove_later(self.files.part_path(self.taken))
        self._in_memory.pop(self.taken, None)
        self._expected.pop(self.taken, None)
        progress.taken += 1

    def _refuse_skipped(self, problems: list[str]) -> None:
        if problems and not self.may_skip:
            raise InputError(f"{problems[0]} It was left out when the conversion began; on_error=stop forbids that.")

    def _append(self, split: str, tokens: NDArray) -> None:
        """Append tokens to those that wait, and write the shards that they fill."""
        state, path = self.progress.splits[split], self._waiting_path(split)
        with path.open("ab") as file:
            file.write(tokens.astype(self.manifest.dtype, copy=False).tobytes())
        state.waiting += len(tokens)
        shard_tokens = self.manifest.blocks_per_shard * self.manifest.block_length
        if not isinstance(self.sink, ShardSink) or state.waiting < shard_tokens:
            return
        waiting = np.memmap(path, self.manifest.dtype, "r")
        for start in range(0, len(waiting) - shard_tokens + 1, shard_tokens):
            blocks = waiting[start : start + shard_tokens].reshape(-1, self.manifest.block_length)
            state.shards.append(self.sink.write_shard(split, len(state.shards), blocks))
        rest = waiting[len(waiting) // shard_tokens * shard_tokens :]
        self.files.remove_later(path)
        rest.tofile(self._waiting_path(split))
        state.waiting = len(rest)

    def _waiting_path(self, split: str) -> Path:
        return self.files.waiting_path(split, len(self.progress.splits[split].shards))

    # ------------------------------------------------------------------------------------------------------ the end

    def finish(self) -> tuple[dict[str, SplitCounts], dict[str, Any]]:
        """Complete the result; give the counts, and the entries of the sink for the summary."""
        progress = self.progress
        shards = {split: list(state.shards) for split, state in progress.splits.items()}
        added = self.sink.finish(shards, {split: self._waiting_path(split) for split in SPLITS})
        counts = {}
        for split, state in progress.splits.items():
            blocks = -(-state.tokens // self.manifest.block_length)
            entropy = entropy_nats(progress.token_counts[split])
            counts[split] = SplitCounts(state.documents, state.tokens, state.bytes, blocks, entropy)
        return counts, added

    def duplicates(self) -> int | None:
        """Count documents that repeat an earlier one; None if documents are unknown."""
        return count_duplicates(self.files.hashes) if self.files.keep_hashes else None
