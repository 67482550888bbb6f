"""Keys of train_composer.py."""

import re
from dataclasses import dataclass, field
from enum import Enum

from omegaconf import MISSING

from hindsight.config.checks import (
    RULE,
    require,
    require_duration,
    require_local,
    require_name,
    require_no_credentials,
    require_positive,
    require_seed,
    require_text,
    require_time,
    require_utf8,
    rule_of,
)
from hindsight.config.data import DataConfig
from hindsight.config.direction import Direction
from hindsight.config.model import ModelConfig
from hindsight.config.optim import OptimConfig, OptimizerName
from hindsight.config.order import order_of, settle_order
from hindsight.config.run_names import default_run_name

AUTO = "auto"
"""The value of microbatch_size= for the largest that a GPU has room for."""


class Precision(Enum):
    """The number format of the training step; bf16 and fp16 are mixed precision."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Parallelism(Enum):
    """How the devices of a run share its work; each takes its own windows of a batch."""

    ddp = "ddp"
    fsdp = "fsdp"


class Loss(Enum):
    """How head and cross-entropy are computed."""

    auto = "auto"
    plain = "plain"
    chunked = "chunked"
    liger = "liger"


class WandbMode(Enum):
    """Where Weights & Biases keeps a run: on this disk, on its server, or nowhere."""

    offline = "offline"
    online = "online"
    disabled = "disabled"


@dataclass
class CheckpointConfig:
    """What is kept to resume from."""

    interval: str = "100ba"
    """Steps (ba), tokens (tok) or epochs (ep) between two checkpoints."""
    minutes: float | None = None
    """Minutes after the newest checkpoint when one more is saved, whatever interval says; null for none."""
    keep: int = 2
    """Number of newest checkpoints that stay; -1 for all."""
    backup_interval: str | None = None
    """Steps, tokens or epochs between two backups, which stay for ever; null for none."""
    folder: str | None = None
    """Folder of the checkpoints; null for runs_dir/run_name/checkpoints. With s3://BUCKET/FOLDER the newest are kept
    here too, and a run goes on from there where its folder is missing here."""

    def __post_init__(self) -> None:
        require_no_credentials("checkpoint.", self)
        require_utf8("checkpoint.", self, "folder")
        require_text("checkpoint.", self, "folder")
        require(
            "://" not in (self.folder or "") or re.fullmatch(r"s3://[^/]+/.+", self.folder or "") is not None,
            f"checkpoint.folder={self.folder} must be a local folder, or s3://BUCKET/FOLDER.",
        )
        require_duration("checkpoint.interval", self.interval)
        require_positive("checkpoint.", self, "minutes")
        if self.backup_interval is not None:
            require_duration("checkpoint.backup_interval", self.backup_interval)
        require(
            self.keep == -1 or self.keep > 0,
            f"checkpoint.keep={self.keep} must be greater than 0, or -1 to keep all.",
        )


@dataclass
class WandbConfig:
    """Weights & Biases."""

    mode: WandbMode = WandbMode.offline
    """offline (under runs_dir/run_name), online or disabled."""
    project: str = "hindsight"
    """Project of the run."""
    entity: str | None = None
    """Team or user of the run; null for the default of the login."""

    def __post_init__(self) -> None:
        require_no_credentials("wandb.", self)


@dataclass
class SamplesConfig:
    """Texts that the model writes while it is trained, to samples.jsonl and the loggers."""

    interval: str | None = "500ba"
    """Steps, tokens or epochs between two rounds of samples (one is always written at the end); null for none."""
    prompts: list[str] = field(default_factory=lambda: [""])
    """Texts to write on from, after them (forward) or before them (backward); "" starts from nothing."""
    length: int = 48
    """Tokens to write after each prompt."""
    temperature: float = 0.8
    """Divides the logits before sampling."""
    top_k: int | None = 50
    """Sample from this many likeliest tokens; null for all."""

    def __post_init__(self) -> None:
        require_no_credentials("samples.", self)
        if self.interval is not None:
            require_duration("samples.interval", self.interval)
        require_positive("samples.", self, "length", "temperature", "top_k")


MoreLR = Enum("MoreLR", ["continue", "constant", "rewarm"])
"""What becomes of the learning rate where a run is made longer or shorter; `continue` is a word of Python's."""


@dataclass
class MoreConfig:
    """How far this start goes."""

    more: str | None = None
    """Steps, tokens or epochs to train beyond where the run stands; null to train up to max_duration. The same value
    again, after an interruption, goes on to the same end."""
    more_lr: MoreLR = MoreLR["continue"]
    """Learning rate where train.more, or another max_duration, changes the length of a run. continue: the schedule of
    the new length as if it had been planned, to which the rate jumps; constant: that of the last step stays; rewarm:
    from there up to optim.lr again in optim.warmup_steps, and the schedule anew over the added steps."""

    def __post_init__(self) -> None:
        if self.more is not None:
            require_duration("train.more", self.more)


@dataclass
class TrainConfig:
    """Train a language model in one order; a second call with the same run_name goes on where the first stopped."""

    direction: Direction | None = None
    """forward predicts the next token, backward the previous one; required, if order is not given."""
    order: str | None = None
    """Another order in which a window is read: even_odd, odd_even, middle_out, end_in, half_back_forward,
    half_forward_back, quarter_middle_out_interleave, quarter_middle_out_concat, quarter_end_in_interleave,
    quarter_end_in_concat, random_chunk:SEED, uniform_random:SEED, blocks:K, words, sentences, segments:SEED; forward
    and backward are the same as direction; both: one model, every window once in each direction. docs/training.md says
    what they are."""
    document_mask: bool = False
    """Whether each document's part of a window is a window of its own: no attention to others, positions from 0, and
    the state of a GRU or LSTM from zero. A control: by default a model reads across the ends of documents."""
    model: ModelConfig = MISSING
    """Named model of conf/model/; its fields are model.KEY."""
    data: DataConfig = field(default_factory=DataConfig)
    """The data."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and learning rate."""
    max_duration: str = "1ep"
    """How long the run is, all resumes together: steps (1000ba), tokens (20_000_000tok) or epochs (5ep)."""
    max_time: str | None = None
    """Time, such as 11h30min, after which this start stops as it does on a signal: the step is saved, the status is 75,
    and the same command goes on; null for none."""
    batch_size: int = 32
    """Windows in an optimizer step, over all devices."""
    microbatch_size: int | str | None = field(default=None, metadata={RULE: f"must be a number of windows, or {AUTO}"})
    """Windows that one device takes at once, the rest by gradient accumulation; null for batch_size over devices; auto,
    on a GPU: half as many each time its memory runs out."""
    seed: int = 0
    """Seed of the initial weights, the order of the data, dropout and samples."""
    run_name: str | None = None
    """Name of the run and of its folder; null for <model>-<data>-<order>-seed<seed>, where
    <model> is the named model and what differs from it: gpt_nano-l2-t128."""
    runs_dir: str = "runs"
    """Folder of all runs."""
    eval_interval: str = "100ba"
    """Steps, tokens or epochs between two evaluations; one is always made at the end."""
    eval_batches: int | None = None
    """Batches of an evaluation (order=both: in each direction); null for the whole validation set."""
    device_eval_batch_size: int | None = None
    """Windows that one device takes at once in an evaluation; null for those of training.
    No more than there are."""
    log_interval: int = 1
    """Optimizer steps between two lines of training metrics."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    precision: Precision = Precision.fp32
    """fp32, which is not TF32 on a GPU either; bf16, on a GPU or a processor with avx512_bf16 or amx_bf16; fp16, on a
    GPU. Weights, gradients and the optimizer stay float32."""
    compile: bool = False
    """Whether to compile the model with torch.compile, block by block, and head and loss."""
    loss: Loss = Loss.auto
    """How head and cross-entropy are computed, equal to rounding: plain, of all logits at once; chunked, of a few rows
    at a time, with less memory; liger, by Liger Kernel on a GPU, if it is installed; auto, chunked, which was the
    fastest on a CPU (not measured on a GPU)."""
    parallelism: Parallelism = Parallelism.ddp
    """ddp: every device has the whole model; fsdp: each keeps a part of all weights, gradients and running means, and
    gathers the weights of a layer when it is computed: for a model that one device has no room for."""
    activation_checkpointing: bool = False
    """Whether to compute each layer's activations again in the backward pass, to save memory."""
    metrics: bool = True
    """Whether accuracy and bits per byte are measured in training too (in evaluation they always are)."""
    layer_norms: bool = False
    """Whether the norm of every weight, and of its gradient after clipping, is logged too, each log_interval."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases."""
    tensorboard: bool = False
    """Whether to write TensorBoard files under runs_dir/run_name/tensorboard."""
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    """Sampled texts."""
    energy: bool = False
    """Whether to measure the energy of training with codecarbon, offline, and log kWh and CO2e of the run so far."""
    energy_country: str | None = None
    """Country whose mix of electricity counts, by its code of ISO 3166-1 with three letters, such as CHE; energy=true
    needs it."""
    progress_bar: bool = True
    """Whether to show one bar in a terminal; false: plain lines, as in a log."""
    train: MoreConfig = field(default_factory=MoreConfig)
    """How far this start goes."""
    evaluate: bool = False
    """Train nothing: evaluate the newest checkpoint of the run, and write the result to the line of its step."""
    sanity_check: bool = False
    """Only try the whole path: three steps, an evaluation, a save and a resume on a scrap of the data."""

    def __post_init__(self) -> None:
        settle_order(self)
        require_no_credentials("", self)
        require(
            self.microbatch_size == AUTO or not isinstance(self.microbatch_size, str),
            f"microbatch_size={self.microbatch_size} {rule_of(TrainConfig, 'microbatch_size')}.",
        )
        numbers = ["batch_size", *([] if self.microbatch_size == AUTO else ["microbatch_size"])]
        require_positive("", self, *numbers, "eval_batches", "log_interval")
        require_positive("", self, "device_eval_batch_size")
        require_seed(self.seed)
        require(
            self.parallelism is Parallelism.ddp or self.optim.name is OptimizerName.adamw,
            f"optim.name={self.optim.name.name} updates whole matrices, of which a device has a part with "
            "parallelism=fsdp; give parallelism=ddp, or optim.name=adamw.",
        )
        require(
            self.parallelism is Parallelism.ddp or self.microbatch_size != AUTO,
            f"microbatch_size={AUTO}: where memory runs out, layers of parallelism=fsdp stay gathered, and the step "
            "cannot be made again; give a number of windows.",
        )
        twice = [
            *([f"optim.name={OptimizerName.muon.name}"] if self.optim.name is OptimizerName.muon else []),
            *(["optim.skip_spikes"] if self.optim.skip_spikes is not None else []),
        ]
        require(
            not twice or self.microbatch_size != AUTO,
            f"microbatch_size={AUTO} makes a step again where memory runs out, in its update too, of which "
            f"{' and '.join(twice)} would do a part twice; give a number of windows.",
        )
        require_duration("max_duration", self.max_duration)
        require_duration("eval_interval", self.eval_interval)
        require_time("max_time", self.max_time)
        require(
            self.eval_batches is None or self.device_eval_batch_size is None,
            f"eval_batches={self.eval_batches} counts batches of batch_size windows; leave it null with "
            "device_eval_batch_size.",
        )
        require(
            not (self.evaluate and (self.sanity_check or self.train.more is not None)),
            "evaluate=true trains nothing; leave out train.more and sanity_check.",
        )
        require(
            not self.energy or re.fullmatch(r"[A-Z]{3}", self.energy_country or "") is not None,
            f"energy=true needs energy_country=, the three capital letters of a country's ISO code, such as CHE; it is "
            f"{self.energy_country}.",
        )
        require_text("", self, "runs_dir")
        require_utf8("", self, "runs_dir")
        require_local("", self, "runs_dir")
        if self.run_name is not None:
            require_name("run_name", self.run_name)

    @property
    def windows_at_once(self) -> int | None:
        """microbatch_size where it is a number."""
        return self.microbatch_size if isinstance(self.microbatch_size, int) else None

    def name_of_run(self) -> str:
        """Give run_name, or what it is by default."""
        if self.run_name is not None:
            return self.run_name
        mask = "-docmask" if self.document_mask else ""
        return default_run_name(self.model, self.data, order_of(self) + mask, self.seed, self.runs_dir)
