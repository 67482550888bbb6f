"""Keys of benchmarks/throughput."""

from dataclasses import dataclass, field
from enum import Enum

from hindsight.config.checks import (
    require,
    require_local,
    require_no_credentials,
    require_positive,
    require_seed,
    require_text,
    require_utf8,
)
from hindsight.config.model import ModelConfig
from hindsight.config.training import Loss, Precision


class Variant(Enum):
    """A way to make training steps, for benchmarks.throughput."""

    bare = "bare"
    metrics = "metrics"
    trainer = "trainer"
    plain = "plain"
    huggingface = "huggingface"


PEERS = (Variant.plain, Variant.huggingface)
"""Variants whose model is not ours."""


def _model_by_device() -> ModelConfig:
    """Placeholder for no model= given; make_contenders replaces it by the device's."""
    return ModelConfig(name="by_device", n_layers=1, d_model=1)


@dataclass
class PeersConfig:
    """What is different for plain and huggingface."""

    compile: bool | None = None
    """Whether to compile them; null for what compile= says."""
    precision: Precision | None = None
    """fp32 or bf16; null for what precision= says."""

    def __post_init__(self) -> None:
        _require_no_scaler("peers.precision", self.precision)


@dataclass
class BenchmarkConfig:
    """Measure training steps side by side in one run: tokens/s, CPU time, MFU, peak memory, start, waits for data."""

    variants: list[Variant] | None = None
    """Ways to make a step, compared to the first: bare (our model in a plain loop), metrics (the same, with all
    metrics), trainer (train_composer.py's own, with data, metrics, clipping, schedule, log, callbacks), plain (a GPT-2
    in plain PyTorch, or one nn.LSTM or nn.GRU, with head and loss), huggingface (its GPT-2); null for all that have a
    model of this shape."""
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
    precision: Precision | None = None
    """fp32 or bf16 (by autocast); null for fp32 on a CPU and bf16 on a GPU."""
    loss: Loss = Loss.auto
    """How our head and cross-entropy are computed: auto, plain, chunked or liger, as in train_composer.py; the loss of
    peers is plain."""
    compile: bool | None = None
    """Whether to compile the models with torch.compile; null for no on a CPU and yes on a GPU."""
    peers: PeersConfig = field(default_factory=PeersConfig)
    """What is different for plain and huggingface."""
    threads: int = 1
    """Threads of PyTorch on the CPU."""
    rounds: int = 7
    """Times that every variant has its turn; one more, to warm up, is not counted."""
    steps: int = 3
    """Optimizer steps in a turn that are timed; one more, before them, is not."""
    seed: int = 0
    """Seed of the initial weights and of the tokens, which are random."""
    json: bool = False
    """Whether to print the numbers as JSON, with every step's time, and not as a table."""
    out: str | None = None
    """Folder for throughput.json, the same numbers; null for none."""
    trace: str | None = None
    """Folder for VARIANT.json.gz, one more turn under torch.profiler, for chrome://tracing or Perfetto; null for no
    trace."""
    recorded: str = "benchmarks/recorded.json"
    """File of ratios that were recorded earlier; what is over 10% slower than there, on the same kind of machine, is
    told."""
    record: bool = False
    """Whether to record the ratios of this run, in place of earlier ones of the same measure and kind of machine."""

    def __post_init__(self) -> None:
        require_no_credentials("", self)
        require_utf8("", self, "out", "trace", "recorded")
        require_text("", self, "out", "trace", "recorded")
        require_local("", self, "out", "trace", "recorded")
        require(self.variants != [], "variants=[] leaves nothing to measure; name at least one.")
        require(
            type(self.model) is not ModelConfig or self.model == _model_by_device(),
            "model.KEY= changes a named model: give model= too, or drop it.",
        )
        _require_no_scaler("precision", self.precision)
        require_positive("", self, "vocab_size", "context_length", "batch_size", "microbatch_size")
        require_positive("", self, "threads", "rounds", "steps")
        require_seed(self.seed)


def _require_no_scaler(key: str, precision: Precision | None) -> None:
    """Refuse fp16, in which the loss must be scaled."""
    require(precision is not Precision.fp16, f"{key}=fp16 needs a scaled loss, which a plain loop has not; use bf16.")
