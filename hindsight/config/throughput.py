"""Keys of benchmarks/throughput."""

from dataclasses import dataclass, field
from enum import Enum

from hindsight.config.checks import require, require_no_credentials, require_positive, require_seed, require_utf8
from hindsight.config.model import ModelConfig


class Variant(Enum):
    """A way to make training steps, for benchmarks.throughput."""

    bare = "bare"
    metrics = "metrics"
    trainer = "trainer"
    huggingface = "huggingface"


def _model_by_device() -> ModelConfig:
    """Placeholder for no model= given; make_setup replaces it by the device's."""
    return ModelConfig(name="by_device", n_layers=1, d_model=1)


@dataclass
class BenchmarkConfig:
    """Measure tokens/s, peak memory and model FLOPs utilization of training steps, side by side in one run."""

    variants: list[Variant] = field(default_factory=lambda: list(Variant))
    """Ways to make a step, compared to the first: bare (our model in a plain loop), metrics (the same, with all
    metrics), trainer (in Composer's Trainer with data, metrics, schedule and log), huggingface (its GPT-2, plain)."""
    model: ModelConfig = field(default_factory=_model_by_device)
    """Named model of conf/model/, its fields are model.KEY; if none is given, gpt_demo on a CPU and gpt2 on a GPU."""
    vocab_size: int | None = None
    """Number of token ids; null for model.vocab_size, or 4096 on a CPU and 50257 on a GPU."""
    context_length: int | None = None
    """Tokens in a window; null for model.context_length."""
    batch_size: int | None = None
    """Windows in an optimizer step; null for 8 on a CPU and 32 on a GPU."""
    microbatch_size: int | None = None
    """Windows that are taken at once, the rest by gradient accumulation; divides batch_size; null for all."""
    compile: bool | None = None
    """Whether to compile the models with torch.compile; null for no on a CPU and yes on a GPU."""
    threads: int = 1
    """Threads of PyTorch on the CPU."""
    rounds: int = 7
    """Times that every variant has its turn; one more, to warm up, is not counted."""
    steps: int = 3
    """Optimizer steps in a turn that are timed; one more, before them, is not."""
    seed: int = 0
    """Seed of the initial weights and of the tokens, which are random."""
    out: str | None = None
    """Folder for throughput.json, with every step's time; null for none."""

    def __post_init__(self) -> None:
        require_no_credentials("", self)
        require_utf8("", self, "out")
        require(len(self.variants) > 0, "variants=[] leaves nothing to measure; name at least one.")
        require(
            type(self.model) is not ModelConfig or self.model == _model_by_device(),
            "model.KEY= changes a named model: give model= too, or drop it.",
        )
        require_positive("", self, "vocab_size", "context_length", "batch_size", "microbatch_size")
        require_positive("", self, "threads", "rounds", "steps")
        require_seed(self.seed)
