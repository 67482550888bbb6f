"""Keys of export_hf.py."""

import re
from dataclasses import dataclass

from omegaconf import MISSING

from hindsight.config.checks import require, require_local, require_no_credentials, require_text, require_utf8
from hindsight.config.evaluation import NEWEST, require_checkpoint, require_place


@dataclass
class ExportConfig:
    """Write the model of a run as a folder that transformers loads without this project, and publish it on demand.

    It has the weights (safetensors), the tokenizer, and a model card. The logits are compared before it is there.
    """

    run: str = MISSING
    """The run: its folder, or s3://BUCKET/FOLDER, the checkpoint.folder of one whose folder is not here;
    `python export_hf.py runs/NAME out=FOLDER` means the same."""
    out: str = MISSING
    """Folder for the model; it must not hold anything else. One that holds this export already is left as it is."""
    checkpoint: str = NEWEST
    """Checkpoint: newest, a step such as 2000, or backup, the newest of those that are kept for ever."""
    tokenizer: str | None = None
    """Folder of the run's tokenizer; null for where the run found it."""
    push: str | None = None
    """USER/NAME: upload the folder to this repository of the Hub, which is made if it is not there, with the token of
    `hf auth login`, or of HF_TOKEN in the environment."""
    private: bool = True
    """Whether a repository that push= makes is private; one that is there stays as it is."""

    def __post_init__(self) -> None:
        require_no_credentials("", self)
        require_text("", self, "run", "out", "tokenizer", "push")
        require_local("", self, "out", "tokenizer")
        require_utf8("", self, "out")
        require_checkpoint(self.checkpoint)
        require_place("run", self.run, "FOLDER")
        require(
            self.push is None or re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", self.push, re.ASCII) is not None,
            f"push={self.push} must be USER/NAME, with letters, digits and . _ - only.",
        )
        require(self.push is not None or self.private, "private=false is for push=USER/NAME; give it, or leave it out.")
