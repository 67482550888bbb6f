"""Where the file of token losses goes: a file here, or an object on S3; its name, and what is there already."""

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.analysis.token_losses import TokenLosses
from hindsight.config.evaluation import NEWEST, WINDOWS, EvaluateConfig
from hindsight.errors import InputError
from hindsight.evaluation.trained_run import TrainedRun
from hindsight.files import partial_of
from hindsight.s3 import S3Folder

OF_THE_STEP = ("step", "checkpoint")
"""What differs when a run was trained further: the file is then replaced."""
UNCOMPARED = ("version", "git_commit", "folder", "rows", "sums", "documents", "batch_size")
"""What may differ between two files of one evaluation."""


@dataclass(frozen=True)
class Output:
    """The place of a file of token losses, or of one for each pass.

    Args:
        name: its path, or s3://BUCKET/FILE.
        work: the work folder, beside it.
    """

    name: str
    work: Path

    @classmethod
    def of(cls, run: TrainedRun, config: EvaluateConfig, step: int) -> "Output":
        """Take out=, or name the file after what is scored; InputError for a folder."""
        name = config.out
        if name is None:
            stem, ending = os.path.splitext(runs.TOKEN_LOSSES)
            folder = str(run.folder) if run.folder is not None else run.given.rstrip("/")
            name = f"{folder}/{'-'.join([stem, *_choices(config, step)])}{ending}"
        if "://" in name:
            short = hashlib.blake2b(name.encode(), digest_size=4).hexdigest()
            place = Path(os.path.abspath(os.path.expanduser(config.work_dir or ".")))
            return cls(name, place / f".{name.rpartition('/')[2]}-{short}.partial")
        path = Path(os.path.abspath(os.path.expanduser(name)))
        if path.is_dir():
            raise InputError(f"out={name} is a folder; give the name of a file.")
        return cls(str(path), partial_of(path))

    def of_pass(self, name: str) -> "Output":
        """Give the place of one of several passes: its name stands at the end of the file's, or of the usual one's."""
        if not name:
            return self
        stem, ending = os.path.splitext(self.name)
        return Output(f"{stem}-{name}{ending}", self.work)

    @property
    def is_remote(self) -> bool:
        """Whether it is on S3."""
        return "://" in self.name

    def done(self, metadata: dict[str, Any]) -> dict[str, Any] | None:
        """Look for a complete file of this evaluation.

        Args:
            metadata: what it says of itself, without counts and sums. Of a text that was not read yet it has no
                fingerprint, but a stamp.

        Returns:
            What the file says of itself; None if none is there, or it is of another checkpoint of the run.

        Raises:
            InputError: something else is there.
        """
        there = self._there()
        if there is None:
            return None
        is_read = "data_fingerprint" in metadata
        compared = [key for key in metadata if key not in UNCOMPARED and not (is_read and key == "stamp")]
        differing = [key for key in compared if there.get(key) != metadata[key]]
        others = [key for key in differing if key not in OF_THE_STEP]
        if not is_read and (others or metadata["stamp"] is None):
            return None
        if others:
            key = others[0]
            raise InputError(
                f"out={self.name} holds other losses, with {key}={str(there.get(key))[:80]} (now {metadata[key]}); "
                "choose another out, or remove it."
            )
        return None if differing else there

    def put(self, path: Path) -> None:
        """Move a complete file to its place."""
        if self.is_remote:
            folder, _, name = self.name.rpartition("/")
            try:
                S3Folder(folder, "out").upload(path, name)
            except Exception as error:  # those of botocore, boto3 and urllib3 have no common ancestor
                raise InputError(f"out={self.name} cannot be uploaded ({error}); the same command goes on.") from error
        else:
            path.replace(self.name)

    def _there(self) -> dict[str, Any] | None:
        try:
            if not self.is_remote:
                return TokenLosses.open(Path(self.name), "out").metadata if os.path.lexists(self.name) else None
            folder, _, name = self.name.rpartition("/")
            place = S3Folder(folder, "out")
            if name not in place.sizes():
                return None
            with tempfile.TemporaryDirectory() as fetched:
                place.download(name, Path(fetched, name))
                return TokenLosses.open(Path(fetched, name), "out").metadata
        except InputError as error:
            raise InputError(f"{error} Choose another out, or remove it.") from None


def _choices(config: EvaluateConfig, step: int) -> list[str]:
    """What a name says of an evaluation that is not that of the newest checkpoint on the run's validation set."""
    parts = [] if config.split == "val" else [config.split]
    for path in (config.data, config.corpus):
        if path is not None:
            parts.append(re.sub(r"[^\w.+=-]+", "_", path.rstrip("/").rpartition("/")[2]).strip("_") or "text")
    if config.checkpoint != NEWEST:
        parts.append(f"step{step}")
    if config.context != WINDOWS:
        parts.append(config.context.replace(":", ""))
    return parts
