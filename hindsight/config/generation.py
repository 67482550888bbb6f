"""Keys of generate_text.py."""

import math
from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from hindsight.config.checks import (
    require,
    require_local,
    require_no_credentials,
    require_positive,
    require_seed,
    require_text,
    require_utf8,
)
from hindsight.config.evaluation import NEWEST, require_checkpoint, require_place
from hindsight.config.typed_text import PROSE


class Mode(Enum):
    """What a model is used for."""

    write = "write"
    score = "score"
    infill = "infill"


ONLY_FOR = {
    "prompt": (Mode.write, Mode.infill),
    "prompts": (Mode.write, Mode.score, Mode.infill),
    "ending": (Mode.infill,),
    "text": (Mode.score,),
    "other": (Mode.score, Mode.infill),
}
"""Keys that some modes have no use for."""
DRAWING = ("length", "samples", "temperature", "top_k", "top_p", "min_p", "seed", "batch_size")
"""Keys on which the draws depend; on batch_size by the last bits of the numbers."""


@dataclass
class GenerateConfig:
    """Use the model of a run: let it write, score texts, or fill in what is between a beginning and an ending.

    Without a prompt, and in a terminal, it is a conversation.
    """

    run: str = MISSING
    """The run: its folder, or s3://BUCKET/FOLDER, the checkpoint.folder of one whose folder is not here;
    `python generate_text.py runs/NAME` means the same."""
    other: str | None = None
    """A run of the other direction with the same tokenizer, for mode=score and mode=infill, which take both together;
    a run of order=both needs none."""
    mode: Mode = Mode.write
    """write: continue a prompt, or, by a backward model, write what came before it. score: log-probabilities of texts.
    infill: what could stand between prompt= and ending=."""
    checkpoint: str = NEWEST
    """Checkpoint: newest, a step such as 2000, or backup, the newest of those that are kept for ever."""
    tokenizer: str | None = None
    """Folder of the run's tokenizer; null for where the run found it."""
    direction: str | None = None
    """For a run of order=both: forward or backward; null for forward."""
    prompt: str | None = field(default=None, metadata=PROSE)
    """Text to write on from (with a backward model: the ending that it writes towards), or the beginning for
    mode=infill; null asks for it in a terminal, and reads a prompt a line from standard input elsewhere."""
    ending: str | None = field(default=None, metadata=PROSE)
    """Text behind the gap, for mode=infill."""
    text: str | None = field(default=None, metadata=PROSE)
    """Text to score, for mode=score."""
    whole: bool = False
    """mode=score: whether each text is a whole document, whose end is scored too, as evaluate_tokens.py does."""
    prompts: str | None = None
    """File with many prompts (mode=score: texts): .txt with one a line, or .jsonl with `prompt` (and `ending`, or
    `text`) in each line."""
    out: str | None = None
    """JSON lines file for what is written; null for the terminal, or standard output."""
    length: int = 100
    """Tokens to write at most."""
    samples: int = 1
    """Texts for each prompt; candidates of each direction for mode=infill."""
    temperature: float = 0.8
    """Divides the logits before sampling; 0, as all below 0.0001, takes the likeliest token."""
    top_k: int | None = None
    """Sample from this many likeliest tokens; null for all."""
    top_p: float | None = None
    """Sample from the likeliest tokens that together have this probability; null for all."""
    min_p: float | None = None
    """Sample from tokens with at least this share of the likeliest one's probability; null for all."""
    seed: int = 0
    """Seed of the draws."""
    batch_size: int = 8
    """Samples of a prompt that are written at once; texts that are scored at once."""

    def __post_init__(self) -> None:
        require_no_credentials("", self)
        require_text("", self, "run", "other", "tokenizer", "prompts", "out")
        require_local("", self, "tokenizer", "prompts", "out")
        require_utf8("", self, "out")
        require_positive("", self, "length", "samples", "top_k", "batch_size")
        require_seed(self.seed)
        require_checkpoint(self.checkpoint)
        for key, value in (("run", self.run), ("other", self.other or "")):
            require_place(key, value, "FOLDER")
        require(
            self.temperature >= 0 and math.isfinite(self.temperature),
            f"temperature={self.temperature} must be at least 0.",
        )
        for key, value in (("top_p", self.top_p), ("min_p", self.min_p)):
            require(value is None or 0 < value <= 1, f"{key}={value} must be greater than 0 and at most 1.")
        require(
            self.direction in (None, "forward", "backward"),
            f"direction={self.direction} must be forward or backward, and is for a run of order=both.",
        )
        require(
            not self.whole or self.mode is Mode.score, f"whole=true is for mode=score, not for mode={self.mode.name}."
        )
        for key, modes in ONLY_FOR.items():
            require(
                getattr(self, key) is None or self.mode in modes,
                f"{key}= is for mode={' and mode='.join(mode.name for mode in modes)}, not for mode={self.mode.name}; "
                "give another mode=, or leave it out.",
            )
            require(
                key in ("prompts", "other") or getattr(self, key) is None or self.prompts is None,
                f"{key}= and prompts={self.prompts}: give one of the two.",
            )

    @property
    def drawing(self) -> dict[str, float | None]:
        """The keys on which the draws depend."""
        return {name: getattr(self, name) for name in DRAWING}
