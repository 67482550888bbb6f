"""A run as its folder records it, here or where its checkpoints are on S3. Nothing here imports torch."""

import os
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hindsight import runs
from hindsight.config.defaults import with_defaults
from hindsight.config.model import GPTConfig, RNNConfig
from hindsight.config.training import TrainConfig
from hindsight.errors import InputError
from hindsight.s3 import S3Folder

GROUPS = ("model.", "data.")
NEEDED = (
    "direction",
    "order",
    "document_mask",
    "batch_size",
    "microbatch_size",
    "device_eval_batch_size",
    "eval_batches",
    "seed",
    "run_name",
    "checkpoint.folder",
    "precision",
)
"""Keys of the config on which an evaluation depends, beside all of GROUPS."""


@dataclass(frozen=True)
class TrainedRun:
    """A run that was trained.

    Args:
        given: its folder, or the address of its checkpoints on S3, as the user gave it.
        folder: its folder here; None if only its checkpoints on S3 are known.
        config: its settings, as far as an evaluation depends on them.
        metadata: content of metadata.json.
        remote: where its checkpoints are on S3; None if they are here only.
        key: the key that names it, for messages.
    """

    given: str
    folder: Path | None
    config: TrainConfig
    metadata: dict[str, Any]
    remote: S3Folder | None
    key: str = "run"

    @property
    def where(self) -> str:
        """How a message names it."""
        return f"{self.key}={self.given}"

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.config.name_of_run()

    @property
    def context_length(self) -> int:
        """Tokens in a window of training."""
        return self.config.data.context_length or self.config.model.context_length


def read_run(given: str, key: str = "run") -> TrainedRun:
    """Read config.yaml and metadata.json of a run; InputError if there is none, or they are damaged.

    Args:
        given: its folder, or the address of its checkpoints on S3, where both are kept too.
        key: the key that names it, for messages.
    """
    if "://" in given:
        remote = S3Folder(given.rstrip("/"), key)
        if not set(runs.RECORDS) <= remote.sizes().keys():
            raise InputError(f"{key}={given} holds no run: {' and '.join(runs.RECORDS)} are missing there.")
        with tempfile.TemporaryDirectory() as fetched:
            for name in runs.RECORDS:
                remote.download(name, Path(fetched, name))
            config, metadata = _records(Path(fetched), f"{key}={given}")
        return TrainedRun(given, None, config, metadata, remote, key)
    folder = Path(os.path.abspath(os.path.expanduser(given)))
    missing = [name for name in runs.RECORDS if not (folder / name).is_file()]
    if missing:
        what = f"is no run: it has no {missing[0]}" if folder.exists() else "does not exist"
        raise InputError(f"{key}={given} {what}; give the folder of a run, such as runs/<run_name>.")
    config, metadata = _records(folder, f"{key}={given}")
    address = config.checkpoint.folder
    is_remote = address is not None and "://" in address
    remote = S3Folder(address, "checkpoint.folder") if address and is_remote else None
    return TrainedRun(given, folder, config, metadata, remote, key)


def _records(folder: Path, where: str) -> tuple[TrainConfig, dict[str, Any]]:
    metadata = runs.read_metadata(folder)
    runs.require_keys(metadata, folder / runs.METADATA, *runs.FINGERPRINTS)
    recorded = with_defaults(runs.read_config(folder))
    runs.require_keys(recorded, folder / runs.CONFIG, "model.name", "data.path", "run_name")
    return _config_of(recorded, f"{where}: {runs.CONFIG}"), metadata


def _config_of(recorded: dict[str, Any], where: str) -> TrainConfig:
    """Build the settings from what was recorded, which may come from somebody else: references are not followed."""
    config, known = OmegaConf.structured(TrainConfig), {field.name for field in fields(TrainConfig)}
    try:
        config.model = OmegaConf.structured(RNNConfig if "model.cell" in recorded else GPTConfig)
        for key, value in recorded.items():
            if key.startswith(GROUPS) or (key in NEEDED and key.partition(".")[0] in known):
                if isinstance(value, str) and "${" in value:
                    raise InputError(f"{where} has a reference in {key}, which is not followed; write its value there.")
                OmegaConf.update(config, key, value)
        return OmegaConf.to_object(config)  # pyright: ignore[reportReturnType]
    except (OmegaConfBaseException, InputError) as error:
        if isinstance(error, InputError) and str(error).startswith(where):
            raise
        reason = " ".join(str(error).split("full_key:")[0].split())
        raise InputError(f"{where} is damaged, or of another version ({reason}).") from None
