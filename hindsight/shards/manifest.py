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

from hindsight.config.corpus import TextOrder
from hindsight.config.keys import flatten
from hindsight.errors import InputError
from hindsight.files import read_json, write_atomically
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
MAX_BYTES = 1 << 26
"""Size of a manifest, at most: problems with text make up most of it."""
MAX_BLOCK_LENGTH = 1 << 31
MAX_TOKENS = 1 << 50
"""A petabyte of them; more are a mistake, or meant to keep a program busy."""
SPLITS = ("train", "val")
FEW_DOCUMENTS = 20
"""With fewer documents to validate on, what is special about one of them moves a gap."""


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
            raw = read_json(path, MAX_BYTES)
            splits = {name: SplitCounts(**raw["splits"][name]) for name in SPLITS}
            manifest = cls(**{**raw, "splits": splits})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{key}={folder}: {MANIFEST_NAME} cannot be read ({error}); convert the corpus again."
            ) from error
        fault = _find_fault(manifest)
        if fault is not None:
            raise InputError(f"{key}={folder}: {MANIFEST_NAME} is damaged: {fault}; convert or copy the corpus again.")
        if manifest.version != VERSION:
            raise InputError(
                f"{key}={folder}: {MANIFEST_NAME} has version {manifest.version}, this program reads {VERSION}; "
                "convert the corpus again."
            )
        return manifest

    @property
    def is_reversed(self) -> bool:
        """Whether the text of each document was reversed before it was tokenized."""
        return self.settings.get("text_order") == TextOrder.reversed.value

    @property
    def fingerprint(self) -> str:
        """Hash of what training sees: tokens, split, blocks and their order, but not the format."""
        counts = [(split.documents, split.tokens) for _, split in sorted(self.splits.items())]
        seen = [self.tokenizer_fingerprint, self.corpus_fingerprint, self.seed, self.val_share]
        content = json.dumps(
            [*seen, self.block_length, self.blocks_per_shard, counts, *(["reversed"] if self.is_reversed else [])]
        )
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
        try:
            lines += self._describe_summary()
        except (KeyError, TypeError, ValueError) as error:  # from somebody else
            lines.append(f"its statistics cannot be read ({error!r})")
        return lines

    def _describe_summary(self) -> list[str]:
        """Describe statistics, if there are any."""
        summary, lines = self.summary, []
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


def _find_fault(manifest: Manifest) -> str | None:
    """Name the first entry of a manifest, which may come from somebody else, that cannot be; None if there is none."""
    numbers: list[tuple[str, Any, int, int]] = [
        ("block_length", manifest.block_length, 1, MAX_BLOCK_LENGTH),
        ("blocks_per_shard", manifest.blocks_per_shard, 1, 1 << 32),
        ("vocab_size", manifest.vocab_size, 1, 1 << 32),
    ]
    for name, split in manifest.splits.items():
        numbers += [(f"{name}.{key}", getattr(split, key), 1, MAX_TOKENS) for key in ("tokens", "blocks")]
        numbers.append((f"{name}.bytes", split.bytes, 0, 1 << 62))
        if split.documents is not None:
            numbers.append((f"{name}.documents", split.documents, 0, MAX_TOKENS))
    for key, value, low, high in numbers:
        if type(value) is not int or not low <= value <= high:
            return f"{key}={str(value)[:40]}"
    for name, split in manifest.splits.items():
        if split.blocks != -(-split.tokens // manifest.block_length):
            return f"{name}.blocks={split.blocks}, for {split.tokens} tokens"
        if type(split.unigram_entropy_nats) not in (int, float) or not 0 <= split.unigram_entropy_nats < 100:
            return f"{name}.unigram_entropy_nats={str(split.unigram_entropy_nats)[:40]}"
    for key in ("settings", "corpus", "summary"):
        if not isinstance(getattr(manifest, key), dict):
            return f"{key} is no object"
    if manifest.format not in (MDS, H5) or manifest.dtype not in ("uint16", "uint32"):
        return f"format={str(manifest.format)[:40]}, dtype={str(manifest.dtype)[:40]}"
    texts = (manifest.tokenizer_fingerprint, manifest.corpus_fingerprint)
    if not all(isinstance(text, str) for text in texts) or type(manifest.seed) is not int:
        return "a fingerprint or the seed"
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
