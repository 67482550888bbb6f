"""Keys of train_tokenizer.py."""

from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from hindsight.config.checks import RULE, require, require_positive, require_seed, require_text, require_utf8, rule_of
from hindsight.config.corpus import CorpusConfig

BYTES = "bytes"
"""The value of vocab_size= for a tokenizer without merges."""


class TrainerName(Enum):
    """The library that trains a vocabulary; auto is ffbpe wherever its merges are those of tokenizers."""

    auto = "auto"
    ffbpe = "ffbpe"
    tokenizers = "tokenizers"


@dataclass
class TokenizerConfig(CorpusConfig):
    """Train a byte-level BPE tokenizer on a corpus and save it as a Hugging Face tokenizer folder.

    With vocab_size=bytes, every byte is a token, and nothing is trained: out= is enough.
    """

    corpus: str | None = None  # pyright: ignore[reportIncompatibleVariableOverride] - needed unless vocab_size=bytes
    """Text to train on; only vocab_size=bytes needs none. A file, a folder (its files in sorted order) or a glob, of
    .txt, JSON lines (.jsonl, .ndjson, .json; all also .xz, .gz, .bz2, .zst) and .parquet; the same at s3://BUCKET/...;
    hf:NAME, a dataset of Hugging Face's Hub or in a folder; - for standard input; a pipe such as <(zcat a.gz)."""
    out: str = MISSING
    """Folder for the tokenizer; it must not hold anything else."""
    vocab_size: int | str = field(default=50257, metadata={RULE: f"must be a number of token ids, or {BYTES}"})
    """Number of token ids, special tokens included; or bytes: the 256 bytes and the special tokens, without merges."""
    reference: str | None = None
    """Tokenizer folder or Hub name whose normalizer, pre-tokenizer, decoder and special tokens are taken over."""
    add_bos: bool = False
    """Whether transformers puts BOS before every text; conversions here do not, because every window begins with it."""
    sample_bytes: int | None = None
    """Train on about this many bytes, drawn over the whole corpus by the seed; null for all of it."""
    seed: int = 0
    """Seed of the sample."""
    trainer: TrainerName = TrainerName.auto
    """Library that trains: auto, ffbpe or tokenizers; the result is the same, ffbpe is several times faster; auto and
    ffbpe try it on a little of the text, and take tokenizers, the reference, where it cannot be used or differs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_utf8("", self, "out")
        require_text("", self, "out", "reference")
        require(
            self.vocab_size == BYTES or not isinstance(self.vocab_size, str),
            f"vocab_size={self.vocab_size} {rule_of(TokenizerConfig, 'vocab_size')}.",
        )
        require(
            self.corpus is not None or self.vocab_size == BYTES,
            f"corpus= is required: the text to train on. Only vocab_size={BYTES} needs none.",
        )
        require_positive("", self, *([] if self.vocab_size == BYTES else ["vocab_size"]), "sample_bytes")
        require_seed(self.seed)
