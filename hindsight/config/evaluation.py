"""Keys of evaluate_tokens.py."""

import re
from dataclasses import dataclass

from omegaconf import MISSING

from hindsight.config.checks import (
    require,
    require_local,
    require_no_credentials,
    require_positive,
    require_text,
    require_utf8,
)
from hindsight.config.corpus import CorpusConfig
from hindsight.config.training import Precision
from hindsight.errors import InputError

WINDOWS, SLIDING = "windows", "sliding"
NEWEST, BACKUP = "newest", "backup"


def require_checkpoint(checkpoint: str) -> None:
    """Raise InputError unless checkpoint= means one."""
    require(
        checkpoint in (NEWEST, BACKUP) or re.fullmatch(r"\d{1,12}", checkpoint) is not None,
        f"checkpoint={checkpoint} must be newest, backup, or a step such as 2000.",
    )


def require_place(key: str, value: str, what: str) -> None:
    """Raise InputError for an address of another kind than s3://BUCKET/FOLDER, or FILE, as `what` says."""
    require(
        "://" not in value or re.fullmatch(r"s3://[^/]+/.*[^/]/?", value) is not None,
        f"{key}={value} must be here, or s3://BUCKET/{what}.",
    )


@dataclass
class EvaluationKeys:
    """Which model scores which tokens, and how."""

    run: str = MISSING
    """The run: its folder, or s3://BUCKET/FOLDER, the checkpoint.folder of one whose folder is not here;
    `python evaluate_tokens.py runs/NAME` means the same."""
    checkpoint: str = NEWEST
    """Checkpoint: newest, a step such as 2000, or backup, the newest of those that are kept for ever."""
    data: str | None = None
    """Folder of converted data, here or on object storage, with the tokenizer of the run; null for the run's own."""
    split: str = "val"
    """Split of the data: val or train."""
    context: str = WINDOWS
    """windows, as the run evaluates; or sliding:STRIDE: windows begin STRIDE tokens apart, and each token is scored
    once, with at least data.context_length - STRIDE tokens of context, as far as there are any."""
    out: str | None = None
    """Parquet file for the losses, here or s3://BUCKET/FILE; null for token_losses.parquet in the run's folder, with
    more in its name for anything but the newest checkpoint on the run's own validation set."""
    batch_size: int | None = None
    """Windows that one device takes at once; null for those of the run's evaluation."""
    precision: Precision | None = None
    """fp32, bf16 or fp16; null for that of the run, or fp32 where this machine does not support it."""
    tokenizer: str | None = None
    """Folder of the run's tokenizer, for corpus=; null for where the run found it."""
    work_dir: str | None = None
    """For an out= on S3: folder in which what is in progress is kept, in a hidden one; null for the current folder."""


@dataclass
class EvaluateConfig(CorpusConfig, EvaluationKeys):
    """Score every token of a text with the model of a run, and write the losses, a row a token, as a parquet file.

    Start an interrupted evaluation again with the same arguments, and it goes on where it was.
    """

    corpus: str | None = None  # pyright: ignore[reportIncompatibleVariableOverride] - here it is not required
    """Text to score instead of shards, as a whole, with the run's own tokenizer: files, folders, globs, s3:// and hf:
    as convert_to_mds.py takes them, read by the keys below."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_no_credentials("", self)
        require_text("", self, "run", "data", "out", "tokenizer", "work_dir")
        require_local("", self, "tokenizer", "work_dir")
        require_utf8("", self, "out", "work_dir")
        require_positive("", self, "batch_size")
        require(self.split in ("train", "val"), f"split={self.split} must be train or val.")
        require(
            self.corpus is None or (self.data is None and self.split == "val"),
            "corpus= is scored as a whole, in place of shards; leave out data= and split=.",
        )
        require(
            self.corpus is not None or self.tokenizer is None,
            f"tokenizer={self.tokenizer} is for corpus=; shards have theirs beside them; leave it out.",
        )
        require_checkpoint(self.checkpoint)
        require_place("run", self.run, "FOLDER")
        require_place("out", self.out or "", "FILE")
        require(
            self.work_dir is None or "://" in (self.out or self.run),
            "work_dir= is for an out= on S3; elsewhere it is beside out; leave it out.",
        )
        _ = self.stride

    @property
    def stride(self) -> int | None:
        """Tokens from the start of a sliding window to that of the next; None for context=windows."""
        if self.context == WINDOWS:
            return None
        kind, _, number = self.context.partition(":")
        if kind != SLIDING or not number.isascii() or not number.isdecimal() or int(number[:12]) == 0:
            raise InputError(
                f"context={self.context} must be windows, or sliding:STRIDE with a number of tokens greater than 0."
            )
        return int(number)
