"""`manifest.json`, the description of a converted corpus: its documents, tokenizer, format, and counts."""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.config.keys import flatten
from hindsight.errors import InputError
from hindsight.files import write_atomically
from hindsight.text.finding import describe_not_taken
from hindsight.text.formats import describe_marks

MANIFEST_NAME = "manifest.json"
DEMO = "demo/bible"
"""What `make demo` converts, and train_composer.py trains on by default."""
TOKENIZER_FOLDER = "tokenizer"
"""Folder beside the manifest with a copy of the tokenizer."""
MDS, H5 = "mds", "h5"
"""The formats."""
LOSSY = "lossy_tokenizer"
"""Setting of a conversion whose tokens do not stand for the whole text; bytes are then those of the tokens."""
VERSION = 1
SPLITS = ("train", "val")


@dataclass
class SplitCounts:
    """How much a split holds."""

    documents: int | None
    """Documents; null if the corpus was tokens in which they cannot be told apart."""
    tokens: int
    """Tokens, without padding."""
    bytes: int
    """UTF-8 bytes of the text; with lossy_tokenizer=true, those that its tokens stand for."""
    blocks: int
    """Blocks; the last one may be shorter (MDS: padded)."""
    unigram_entropy_nats: float
    """Entropy of the split's tokens: the loss of a model that knows the frequency of each, and nothing else."""


@dataclass
class Manifest:
    """What a converted corpus holds and how it came about."""

    format: str
    """mds or h5."""
    tokenizer_fingerprint: str
    """Fingerprint of the tokenizer, a copy of which lies in tokenizer/."""
    vocab_size: int
    """Number of the tokenizer's ids."""
    corpus_fingerprint: str
    """Hash of the documents, or of the tokens if the corpus was tokens without documents."""
    block_length: int
    """Tokens in a stored block."""
    blocks_per_shard: int
    """Blocks in every shard but the last of a split."""
    dtype: str
    """Number format of a token: uint16 or uint32."""
    seed: int
    """Seed of the split."""
    val_share: float
    """Share of the documents that was to be held out."""
    settings: dict[str, Any]
    """Everything else that the result depends on."""
    splits: dict[str, SplitCounts] = field(default_factory=dict)
    """Counts of train and val; empty until the conversion is complete."""
    corpus: dict[str, Any] = field(default_factory=dict)
    """Where the corpus was: path, number of files, how many others were not taken, by kind, size as stored (bytes or
    tokens), and the stamp of its files."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Statistics: lengths of documents, duplicates, use of the vocabulary, and text that was left out."""
    version: int = VERSION
    """Version of the manifest's own layout."""

    @classmethod
    def load(cls, folder: str | Path, key: str = "data.path") -> "Manifest":
        """Read a folder's manifest; InputError, naming the configuration key, if it is missing or damaged."""
        path = Path(folder, MANIFEST_NAME)
        if not path.is_file():
            if str(folder) == DEMO:
                raise InputError(f"no data at {folder}: run `make demo` first, or give the folder of yours, {key}=...")
            raise InputError(f"{key}={folder} has no {MANIFEST_NAME}: convert a corpus with convert_to_mds.py first.")
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            splits = {name: SplitCounts(**raw["splits"][name]) for name in SPLITS}
            manifest = cls(**{**raw, "splits": splits})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{key}={folder}: {MANIFEST_NAME} cannot be read ({error}); convert the corpus again."
            ) from error
        sizes = (manifest.block_length, manifest.blocks_per_shard, manifest.vocab_size)
        counts = [count for split in splits.values() for count in (split.tokens, split.bytes)]
        if not all(isinstance(n, int) and n > 0 for n in (*sizes, *counts)) or manifest.format not in (MDS, H5):
            raise InputError(f"{key}={folder}: {MANIFEST_NAME} is damaged; convert or copy the corpus again.")
        if manifest.version != VERSION:
            raise InputError(
                f"{key}={folder}: {MANIFEST_NAME} has version {manifest.version}, this program reads {VERSION}; "
                "convert the corpus again."
            )
        return manifest

    @property
    def fingerprint(self) -> str:
        """Hash of what training sees: tokens, split, blocks and their order, but not the format."""
        counts = [(split.documents, split.tokens) for _, split in sorted(self.splits.items())]
        seen = [self.tokenizer_fingerprint, self.corpus_fingerprint, self.seed, self.val_share]
        content = json.dumps([*seen, self.block_length, self.blocks_per_shard, counts])
        return hashlib.sha256(content.encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the manifest into a folder."""
        write_atomically(folder / MANIFEST_NAME, json.dumps(asdict(self), indent=2) + "\n")

    def describe(self) -> list[str]:
        """Describe counts and statistics in a few lines."""
        lines = []
        for name, counts in self.splits.items():
            documents = "" if counts.documents is None else f"{counts.documents:,} documents, "
            lines.append(
                f"{name}: {documents}{counts.tokens:,} tokens in {counts.blocks:,} blocks, {counts.bytes:,} bytes, "
                f"{counts.bytes / counts.tokens:.2f} bytes/token, unigram entropy "
                f"{counts.unigram_entropy_nats:.3f} nats."
            )
        summary = self.summary
        if lengths := summary.get("tokens_per_document"):
            lines.append("tokens per document: " + ", ".join(f"{share} {n:,}" for share, n in lengths.items()))
        if summary:
            frequent = ", ".join(f"{name} {times:,}" for name, times in summary["most_frequent"])
            longest = ", ".join(f"{name} ({length} bytes)" for name, length in summary["longest"])
            duplicates = summary["duplicate_documents"]
            known = "" if duplicates is None else f"{duplicates:,} documents repeat an earlier one; "
            lines += [
                f"most frequent tokens: {frequent}",
                f"longest tokens: {longest}",
                f"{summary['fragment_share']:.2%} of the tokens are incomplete characters; {summary['unused']:,} of "
                f"{self.vocab_size:,} ids are never used.",
                f"{known}{summary['empty_documents']:,} empty documents were left out, {summary['skipped']:,} things "
                "that cannot be used were skipped.",
            ]
            if marks := summary.get("marks"):
                lines.append(f"the documents have {describe_marks(marks, self.settings.get('separator'))}")
            lines += summary["skipped_list"]
        if not_taken := self.corpus.get("not_taken"):
            lines.append(f"files of the corpus that were not taken: {describe_not_taken(not_taken)}.")
        return lines

    def difference(self, other: "Manifest", ignored: tuple[str, ...] = ()) -> str | None:
        """Name the first setting in which two conversions differ, as `key=value (now value)`; None if there is none."""
        mine, others = flatten(asdict(self)), flatten(asdict(other))
        for key in sorted(mine.keys() | others.keys()):
            if key.split(".")[0] not in ("splits", "corpus", "summary", *ignored) and mine.get(key) != others.get(key):
                return f"{key.removeprefix('settings.')}={mine.get(key)} (now {others.get(key)})"
        return None


def check_names(names: Iterable[str]) -> None:
    """Raise ValueError if an index, which may come from somebody else, names a file outside its folder."""
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise ValueError(f"{name!r} is no plain name of a file")


def token_dtype(vocab_size: int) -> str:
    """Give the narrowest number format for all token ids: uint16, or uint32 for more than 65536 of them."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def entropy_nats(counts: NDArray[np.int64]) -> float:
    """Entropy of a distribution, given as counts, in nats."""
    shares = counts[counts > 0] / counts.sum()
    return -float((shares * np.log(shares)).sum())
