"""Keys of plan.py: those of training, and what a plan asks beyond them."""

from dataclasses import dataclass

from hindsight.config.checks import require, require_local, require_positive, require_text
from hindsight.config.direction import Direction
from hindsight.config.training import TrainConfig


@dataclass
class PlanConfig(TrainConfig):
    """Say what a run would take, before it is trained: parameters, FLOPs, tokens, memory, hours, disk, seeds.

    Takes the keys of train_composer.py, of which direction= may be left out; nothing is written.
    """

    data_tokens: int | None = None
    """Tokens of the training split, where there is no data yet: data.path is then not read, model.vocab_size is needed,
    and evaluations are not counted."""
    devices: int = 1
    """GPUs that the run is trained on, together."""
    gpu: str | None = None
    """Which GPU: H100, H200, A100 and so on; null for none in particular, so that nothing is said of its memory."""
    peak_tflops: float | None = None
    """TFLOP/s of a device at best, to which mfu= refers; null for those of gpu=, dense bfloat16."""
    mfu: float | None = None
    """Model FLOPs utilization, such as 0.4: the share of peak_tflops that training reaches. benchmarks.throughput
    measures it."""
    tokens_per_second: float | None = None
    """Tokens/s of all devices together, if that was measured, in place of mfu."""
    run: str | None = None
    """Folder of a run, whose measured speed counts: as it is, or, for another model or batch, in FLOP/s."""
    margin_nats: float | None = None
    """Gap, in nats per token, that the comparison is to find: how many seeds that takes; needs a spread."""
    std_nats: float | None = None
    """Standard deviation of the gap over seeds, in nats per token: which gaps 3, 5 and 10 seeds find."""
    comparison: str | None = None
    """comparison.json of compare_directions.py, or its folder, which says std_nats: the largest of a group counts."""
    json: bool = False
    """Whether to print the plan as JSON, with all digits, and not as a table."""

    def __post_init__(self) -> None:
        if self.direction is None and self.order is None:
            self.direction = Direction.forward
        super().__post_init__()
        require_positive("", self, "data_tokens", "devices", "peak_tflops", "mfu", "tokens_per_second")
        require_positive("", self, "margin_nats", "std_nats")
        require_text("", self, "gpu", "run", "comparison")
        require_local("", self, "run", "comparison")
        require(self.mfu is None or self.mfu <= 1, f"mfu={self.mfu} is a share of peak_tflops; give at most 1.")
        speeds = [name for name in ("mfu", "tokens_per_second", "run") if getattr(self, name) is not None]
        require(len(speeds) < 2, f"{' and '.join(f'{name}=' for name in speeds)} both say a speed; give one of them.")
        require(
            self.data_tokens is None or self.model.vocab_size is not None,
            f"data_tokens={self.data_tokens} has no tokenizer to say how many ids there are; give model.vocab_size=.",
        )
        require(
            self.batch_size % self.devices == 0,
            f"batch_size={self.batch_size} does not divide among devices={self.devices}; choose a multiple of it.",
        )
        spreads = [name for name in ("std_nats", "comparison") if getattr(self, name) is not None]
        require(len(spreads) < 2, "std_nats= and comparison= both say a spread over seeds; give one of them.")
        require(
            self.margin_nats is None or len(spreads) == 1,
            f"margin_nats={self.margin_nats} needs std_nats=, the spread over seeds, or comparison=, which has it; "
            "give one of them.",
        )
