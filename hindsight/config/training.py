"""Typed configuration of every script: dataclasses and their checks. Nothing here imports torch."""

import errno
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, cast

from omegaconf import MISSING

MAX_WORKERS = 1024
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
CONF_DIR = Path(__file__).resolve().parents[2] / "conf"


class InputError(ValueError):
    """What the user gave cannot work: the message names the key or file, the rule and the way out. Exit status 2."""


class Direction(Enum):
    """The end of the text from which a model reads: its first token (forward) or its last (backward)."""

    forward = "forward"
    backward = "backward"


class CorpusFormat(Enum):
    """What separates documents in a text file: a blank line (as in CC-100), the end of the file, or of the line.

    jsonl: a JSON object a line. Names in .jsonl and .parquet say for themselves what they are.
    """

    cc100 = "cc100"
    file = "file"
    line = "line"
    jsonl = "jsonl"


class LineSeparators(Enum):
    """What becomes of U+2028 and U+2029: they stay, or each becomes a line feed."""

    keep = "keep"
    newline = "newline"


class OnError(Enum):
    """What to do about text that cannot be used: stop, or leave it out and say so in the manifest."""

    stop = "stop"
    skip = "skip"


class EncoderName(Enum):
    """The library that turns text into token ids; auto is tiktoken wherever its ids are those of tokenizers."""

    auto = "auto"
    tiktoken = "tiktoken"
    tokenizers = "tokenizers"


class Engine(Enum):
    """What makes tokens: processes forked here, or workers of Dask, here, in jobs of a scheduler, or elsewhere."""

    local = "local"
    dask = "dask"
    slurm = "slurm"
    sge = "sge"


class TrainerName(Enum):
    """The library that learns a vocabulary; auto is ffbpe wherever its merges are those of tokenizers."""

    auto = "auto"
    ffbpe = "ffbpe"
    tokenizers = "tokenizers"


class Block(Enum):
    """The transformer block: GPT-2's, or Llama's (RMSNorm, rotary positions, SwiGLU, grouped-query attention)."""

    gpt2 = "gpt2"
    llama = "llama"


class Cell(Enum):
    """The recurrent cell."""

    gru = "gru"
    lstm = "lstm"


class Schedule(Enum):
    """The shape of the learning rate after its warm-up."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"
    cosine_restarts = "cosine_restarts"


class Precision(Enum):
    """The number format of the training step; bf16 and fp16 are mixed precision and need a GPU."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Variant(Enum):
    """A way to make training steps, for benchmarks.throughput."""

    bare = "bare"
    metrics = "metrics"
    trainer = "trainer"
    huggingface = "huggingface"


class WandbMode(Enum):
    """Where Weights & Biases keeps a run: on this disk, on its server, or nowhere."""

    offline = "offline"
    online = "online"
    disabled = "disabled"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


def _require_positive(prefix: str, config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(
            value is None or (value > 0 and math.isfinite(value)), f"{prefix}{name}={value} must be greater than 0."
        )


def _require_text(prefix: str, config: object, *names: str) -> None:
    for name in names:
        _require(getattr(config, name) != "", f"{prefix}{name}= is empty; give a value, or leave the key out.")


def _require_local(prefix: str, config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require("://" not in (value or ""), f"{prefix}{name}={value} is not on this machine; give a local path.")


def _require_no_keys(prefix: str, config: object, *names: str) -> None:
    for name in names:
        place = str(getattr(config, name) or "").partition("://")[2].partition("/")[0]
        _require(
            "@" not in place,
            f"{prefix}{name}: an address must not hold keys, which would be written into the run's config; give them "
            "in the environment or in the provider's usual file.",
        )


def _require_seed(seed: int) -> None:
    _require(0 <= seed < 2**32 - 1, f"seed={seed} must be at least 0 and less than 2**32 - 1.")


def _require_name(key: str, name: str) -> None:
    _require(
        re.fullmatch(r"[\w.+=-]{1,128}", name) is not None and name.strip(".") != "",
        f"{key}={name} names a folder; use letters, digits and . _ - + = only, at most 128.",
    )


def _require_share(prefix: str, config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(0 <= value < 1, f"{prefix}{name}={value} must be at least 0 and less than 1.")


# --------------------------------------------------------------------------------------------------------- tokenizer


@dataclass
class DemoCorpusConfig:
    """Write the demo's corpus, an English text in the public domain that a Python package ships."""

    out: str = MISSING
    """File to write; chapters are separated by a blank line, as corpus_format=cc100 expects."""


@dataclass
class CorpusConfig:
    """Where documents come from."""

    corpus: str = MISSING
    """Text: a file, a folder (its files in sorted order) or a glob, of .txt and .jsonl (also .xz, .gz, .bz2, .zst) and
    .parquet; the same at s3://BUCKET/...; hf:NAME, a dataset of Hugging Face's Hub or in a folder; - for standard
    input."""
    corpus_format: CorpusFormat = CorpusFormat.cc100
    """What separates documents in a text file: cc100 (a blank line), file, line, or jsonl (a JSON object a line)."""
    text_key: str = "text"
    """Key of the text in the objects of .jsonl files."""
    text_column: str = "text"
    """Column of the text in .parquet files and in datasets of Hugging Face."""
    hf_config: str | None = None
    """Configuration of the dataset (corpus=hf:NAME), e.g. a language; null for its only one."""
    hf_split: str = "train"
    """Split of the dataset (corpus=hf:NAME) that is the corpus."""
    line_separators: LineSeparators = LineSeparators.keep
    """keep: text stays as it is; newline: U+2028 and U+2029 each become a line feed."""
    on_error: OnError = OnError.stop
    """stop at a file or document that cannot be used, or skip it."""
    max_document_bytes: int = 1 << 24
    """Longest document, in bytes; a longer one cannot be used. Workers need some ten times as much memory each."""

    def __post_init__(self) -> None:
        _require_text("", self, "corpus", "text_key", "text_column", "hf_config", "hf_split")
        _require_positive("", self, "max_document_bytes")

    def reading(self) -> dict[str, str | int | None]:
        """All settings on which the documents of a given corpus depend; on_error aside, which only leaves some out."""
        return {
            "corpus_format": self.corpus_format.value,
            "text_key": self.text_key,
            "text_column": self.text_column,
            "hf_config": self.hf_config,
            "hf_split": self.hf_split,
            "line_separators": self.line_separators.value,
            "max_document_bytes": self.max_document_bytes,
        }


@dataclass
class TokenizerConfig(CorpusConfig):
    """Train a byte-level BPE tokenizer on a corpus and save it as a Hugging Face tokenizer folder."""

    out: str = MISSING
    """Folder for the tokenizer; it must not hold anything else."""
    vocab_size: int = 50257
    """Number of token ids, special tokens included."""
    reference: str | None = None
    """Tokenizer folder or Hub name whose normalizer, pre-tokenizer, decoder and special tokens are taken over."""
    sample_bytes: int | None = None
    """Learn from about this many bytes, drawn over the whole corpus by the seed; null for all of it."""
    seed: int = 0
    """Seed of the sample."""
    trainer: TrainerName = TrainerName.auto
    """Library that learns: auto, ffbpe or tokenizers; the result is the same, ffbpe is several times faster; auto and
    ffbpe try it on a little of the text, and take tokenizers, the reference, where it cannot be used or differs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_text("", self, "out", "reference")
        _require_positive("", self, "vocab_size", "sample_bytes")
        _require_seed(self.seed)


# -------------------------------------------------------------------------------------------------------- conversion


@dataclass
class ConvertConfig(CorpusConfig):
    """Tokenize a corpus, or take over tokens, split it by documents, and write it for training.

    corpus= may also be a .h5 file with a `tokens` dataset, or a folder that was converted before. Start an interrupted
    conversion again with the same arguments, and it goes on where it was.
    """

    tokenizer: str = MISSING
    """Folder of the tokenizer; for tokens converted before, the one that made them."""
    out: str = MISSING
    """Folder for the result, which must not hold anything else; convert_to_mds.py also takes s3://BUCKET/..."""
    block_length: int = 2048
    """Tokens in a stored block; training can use every context length that divides it."""
    val_share: float = 0.01
    """Share of the documents that are held out for validation; at least one always is."""
    seed: int = 0
    """Seed of the draw that sends a document to training or validation, by its text: equal ones stay together."""
    shard_bytes: int = 1 << 26
    """Size of a shard before compression, in bytes, at most (a shard holds at least one block)."""
    compression: str | None = None
    """Compression of MDS shards, e.g. zstd or zstd:7; null for none."""
    hashes: list[str] = field(default_factory=lambda: ["xxh64"])
    """Hashes of every MDS shard that the index records, e.g. [xxh64] or [sha256]; [] for none."""
    workers: int | None = None
    """Processes that tokenize; null for one a core. With engine=slurm and sge, jobs. Any number gives the same."""
    encoder: EncoderName = EncoderName.auto
    """Library that tokenizes: auto and tiktoken take tiktoken if its ids equal those of tokenizers."""
    engine: Engine = Engine.local
    """What makes tokens: processes of this machine (local), or Dask, for many machines: docs/clusters.md."""
    dask_scheduler: str | None = None
    """For engine=dask: address of a scheduler that runs already, e.g. tcp://node1:8786; null for workers here."""
    work_dir: str | None = None
    """For an out= on S3: folder in which what is in progress is kept, in a hidden one; null for the current folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_text("", self, "tokenizer", "out", "work_dir", "dask_scheduler")
        _require_local("", self, "work_dir")
        _require_positive("", self, "block_length", "shard_bytes", "workers")
        _require((self.workers or 1) <= MAX_WORKERS, f"workers={self.workers} must be at most {MAX_WORKERS}.")
        _require(
            self.dask_scheduler is None or self.engine is Engine.dask, "dask_scheduler= is for engine=dask; give both."
        )
        _require(
            self.workers is not None or self.engine not in (Engine.slurm, Engine.sge),
            f"engine={self.engine.name} needs workers=, the number of jobs.",
        )
        _require(0 < self.val_share < 1, f"val_share={self.val_share} must be greater than 0 and less than 1.")
        _require_seed(self.seed)


@dataclass
class InspectConfig:
    """Look at a converted corpus: statistics, decoded windows, and whether every file is what it was when written.

    Exit status 0 if it is whole, 1 if it is damaged.
    """

    path: str = MISSING
    """Folder made by convert_to_mds.py or convert_to_h5.py; `python inspect_mds.py FOLDER` means the same."""
    split: str = "train"
    """Split whose windows are shown: train or val."""
    windows: int = 3
    """Windows that are shown, drawn by the seed; 0 for none."""
    context_length: int = 64
    """Tokens in a window that is shown."""
    direction: Direction = Direction.forward
    """forward: windows in reading order; backward: as a backward model sees them, last token first."""
    seed: int = 0
    """Seed of the draw."""
    verify: bool = True
    """Whether to read everything and check sizes, hashes and token ids."""

    def __post_init__(self) -> None:
        _require_text("", self, "path")
        _require_positive("", self, "context_length")
        _require(self.windows >= 0, f"windows={self.windows} must be at least 0.")
        _require(self.split in ("train", "val"), f"split={self.split} must be train or val.")
        _require_seed(self.seed)


# ------------------------------------------------------------------------------------------------------------ models


@dataclass
class ModelConfig:
    """What all models have; model=NAME picks a named one from conf/model/."""

    name: str = MISSING
    """Name of the model in run names and tables."""
    n_layers: int = MISSING
    """Number of layers."""
    d_model: int = MISSING
    """Width of the residual stream (GPT) or of the hidden state (RNN)."""
    context_length: int = 256
    """Tokens in a window; GPT's longest with learned positions, and the default of data.context_length."""
    vocab_size: int | None = None
    """Number of token ids; null takes it from the tokenizer of the data."""
    tied_head: bool = False
    """Whether the output projection is the embedding's weight."""
    dropout: float = 0.0
    """Dropout inside the layers during training."""
    embedding_dropout: float = 0.0
    """Dropout on the embedded input during training."""

    def __post_init__(self) -> None:
        _require_name("model.name", self.name)
        _require_positive("model.", self, "n_layers", "d_model", "context_length", "vocab_size")
        _require_share("model.", self, "dropout", "embedding_dropout")


@dataclass
class GPTConfig(ModelConfig):
    """A decoder-only transformer."""

    n_heads: int = MISSING
    """Number of attention heads; divides d_model."""
    n_kv_heads: int | None = None
    """Number of key and value heads (block=llama); divides n_heads; null for n_heads."""
    block: Block = Block.gpt2
    """gpt2 (LayerNorm, learned positions, GELU) or llama (RMSNorm, rotary positions, SwiGLU)."""
    mlp_ratio: float = 4.0
    """Width of the MLP's hidden layer over d_model."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies (block=llama)."""
    norm_eps: float = 1e-5
    """Added to the variance in LayerNorm and RMSNorm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_positive("model.", self, "n_heads", "n_kv_heads", "mlp_ratio", "rope_theta", "norm_eps")
        _require(
            self.mlp_ratio * self.d_model >= 1,
            f"model.mlp_ratio={self.mlp_ratio} leaves the MLP no width with model.d_model={self.d_model}; raise it.",
        )
        _require(
            self.d_model % self.n_heads == 0,
            f"model.n_heads={self.n_heads} does not divide model.d_model={self.d_model}; choose a divisor.",
        )
        if self.n_kv_heads is not None:
            _require(
                self.block is Block.llama,
                f"model.n_kv_heads={self.n_kv_heads} needs model.block=llama; leave it null for model.block=gpt2.",
            )
            _require(
                self.n_heads % self.n_kv_heads == 0,
                f"model.n_kv_heads={self.n_kv_heads} does not divide model.n_heads={self.n_heads}; choose a divisor.",
            )
        if self.block is Block.llama:
            _require(
                (self.d_model // self.n_heads) % 2 == 0,
                f"model.d_model/model.n_heads={self.d_model // self.n_heads} is odd; rotary positions turn pairs of "
                "numbers, so choose sizes with an even quotient.",
            )


@dataclass
class RNNConfig(ModelConfig):
    """A stack of recurrent layers."""

    cell: Cell = MISSING
    """gru or lstm."""


# ---------------------------------------------------------------------------------------------------------- training


@dataclass
class DataConfig:
    """What to train and evaluate on."""

    path: str = MISSING
    """Folder made by convert_to_mds.py or convert_to_h5.py; its train split is trained on. Shards may lie on object
    storage: s3://BUCKET/FOLDER (S3_ENDPOINT_URL names another server), gs://, oci://, azure:// or hf://."""
    val_path: str | None = None
    """Another such folder whose val split is evaluated; null for that of data.path."""
    cache_dir: str | None = None
    """Folder in which each run keeps, in one of its own, the shards that it fetched from object storage; null for one
    in the folder for temporary files ($TMPDIR)."""
    cache_limit: str | None = None
    """Most bytes of fetched shards that stay for each split, such as 20gb; at least four shards; null for no limit."""
    download_retry: int = 6
    """Times that a shard is asked for, with waits that double from one second on."""
    download_timeout_s: float = 60.0
    """Seconds without an answer after which the server is asked again."""
    tokenizer: str | None = None
    """Folder of the tokenizer; null for the copy inside data.path. It must be the one that made the tokens."""
    context_length: int | None = None
    """Tokens in a window; divides the block length of the data; null for model.context_length."""
    num_workers: int = 0
    """Processes that read ahead for each device; 0 reads in the training process."""
    shuffle: bool = True
    """Whether windows are seen in an order drawn by the seed, anew in every epoch."""

    def __post_init__(self) -> None:
        _require_text("data.", self, "path", "val_path", "tokenizer", "cache_dir", "cache_limit")
        _require_local("data.", self, "tokenizer", "cache_dir")
        _require_no_keys("data.", self, "path", "val_path")
        _require_positive("data.", self, "context_length", "download_retry", "download_timeout_s")
        _require(
            self.cache_limit is None or re.fullmatch(r"[0-9.]+(b|kb|mb|gb|tb)", self.cache_limit.lower()) is not None,
            f"data.cache_limit={self.cache_limit} is no size; write it as 500mb or 20gb.",
        )
        _require(self.num_workers >= 0, f"data.num_workers={self.num_workers} must be at least 0.")


@dataclass
class OptimConfig:
    """AdamW (arXiv:1711.05101) and its learning rate."""

    lr: float = 6e-4
    """Peak learning rate, reached after warmup_steps."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """Decay rates of the running mean of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the denominator of the update."""
    weight_decay: float = 0.1
    """Decoupled weight decay of the matrices; norms, biases and embeddings have none."""
    grad_clip: float | None = 1.0
    """Largest norm of the gradient, which is scaled down to it; null for no limit."""
    schedule: Schedule = Schedule.cosine
    """constant (with a cool-down), linear, cosine or cosine_restarts."""
    warmup_steps: int = 100
    """Optimizer steps of linear warm-up from lr_init; 0 for none."""
    lr_init: float = 0.0
    """Learning rate at the start of the warm-up."""
    lr_min: float = 0.0
    """Learning rate at the end of the schedule, and of each period of cosine_restarts."""
    cooldown_share: float = 0.2
    """Share of all steps, at the end, over which schedule=constant falls linearly to lr_min; 0 for none."""
    period_steps: int = 1000
    """Optimizer steps from one restart to the next (cosine_restarts)."""
    shrink: float = 1.0
    """Each peak of cosine_restarts over the one before."""

    def __post_init__(self) -> None:
        _require_positive("optim.", self, "lr", "eps", "grad_clip", "period_steps", "shrink")
        _require(self.warmup_steps >= 0, f"optim.warmup_steps={self.warmup_steps} must be at least 0.")
        _require(
            0 <= self.weight_decay < math.inf,
            f"optim.weight_decay={self.weight_decay} must be at least 0, and finite.",
        )
        _require_share("optim.", self, "cooldown_share")
        _require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            f"optim.betas={self.betas} must be two numbers, each at least 0 and less than 1.",
        )
        for name in ("lr_init", "lr_min"):
            value = getattr(self, name)
            _require(0 <= value <= self.lr, f"optim.{name}={value} must lie between 0 and optim.lr={self.lr}.")


@dataclass
class CheckpointConfig:
    """What is kept to resume from."""

    interval: str = "100ba"
    """Steps (ba), tokens (tok) or epochs (ep) between two checkpoints."""
    keep: int = 2
    """Number of newest checkpoints that stay; -1 for all."""
    backup_interval: str | None = None
    """Steps, tokens or epochs between two backups, which stay for ever; null for none."""
    folder: str | None = None
    """Folder of the checkpoints; null for runs_dir/run_name/checkpoints. With s3://BUCKET/FOLDER the newest are kept
    here too, and a run goes on from there where its folder is missing here."""

    def __post_init__(self) -> None:
        _require_text("checkpoint.", self, "folder")
        _require_no_keys("checkpoint.", self, "folder")
        _require(
            "://" not in (self.folder or "") or re.fullmatch(r"s3://[^/]+/.+", self.folder or "") is not None,
            f"checkpoint.folder={self.folder} must be a local folder, or s3://BUCKET/FOLDER.",
        )
        _require_duration("checkpoint.interval", self.interval)
        if self.backup_interval is not None:
            _require_duration("checkpoint.backup_interval", self.backup_interval)
        _require(
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
        if self.interval is not None:
            _require_duration("samples.interval", self.interval)
        _require_positive("samples.", self, "length", "temperature", "top_k")


@dataclass
class MoreConfig:
    """How far this start goes."""

    more: str | None = None
    """Steps, tokens or epochs to train beyond where the run stands; null to train up to max_duration. The same value
    again, after an interruption, goes on to the same end."""

    def __post_init__(self) -> None:
        if self.more is not None:
            _require_duration("train.more", self.more)


@dataclass
class TrainConfig:
    """Train a language model in one direction; a second call with the same run_name goes on where the first stopped."""

    direction: Direction = MISSING
    """forward predicts the next token, backward the previous one."""
    model: ModelConfig = MISSING
    """Named model of conf/model/; its fields are model.KEY."""
    data: DataConfig = field(default_factory=DataConfig)
    """The data."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and learning rate."""
    max_duration: str = "1ep"
    """How long the run is, all resumes together: steps (1000ba), tokens (20_000_000tok) or epochs (5ep)."""
    batch_size: int = 32
    """Windows in an optimizer step, over all devices."""
    microbatch_size: int | None = None
    """Windows that one device takes at once, the rest by gradient accumulation; null for batch_size over devices."""
    seed: int = 0
    """Seed of the initial weights, the order of the data, dropout and samples."""
    run_name: str | None = None
    """Name of the run and of its folder; null for <model>-<data>-<direction>-seed<seed>."""
    runs_dir: str = "runs"
    """Folder of all runs."""
    eval_interval: str = "100ba"
    """Steps, tokens or epochs between two evaluations; one is always made at the end."""
    eval_batches: int | None = None
    """Batches of an evaluation; null for the whole validation set."""
    log_interval: int = 1
    """Optimizer steps between two lines of training metrics."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """Checkpoints."""
    precision: Precision = Precision.fp32
    """fp32, bf16 or fp16; the last two need a GPU."""
    compile: bool = False
    """Whether to compile the model with torch.compile."""
    activation_checkpointing: bool = False
    """Whether to compute each layer's activations again in the backward pass, to save memory."""
    metrics: bool = True
    """Whether accuracy and bits per byte are measured in training too (in evaluation they always are)."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases."""
    tensorboard: bool = False
    """Whether to write TensorBoard files under runs_dir/run_name/tensorboard."""
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    """Sampled texts."""
    progress_bar: bool = True
    """Whether to show progress bars."""
    train: MoreConfig = field(default_factory=MoreConfig)
    """How far this start goes."""
    sanity_check: bool = False
    """Only try the whole path: three steps, an evaluation, a save and a resume on a scrap of the data."""

    def __post_init__(self) -> None:
        _require_positive("", self, "batch_size", "microbatch_size", "eval_batches", "log_interval")
        _require_seed(self.seed)
        _require_duration("max_duration", self.max_duration)
        _require_duration("eval_interval", self.eval_interval)
        _require_text("", self, "runs_dir")
        _require_local("", self, "runs_dir")
        if self.run_name is not None:
            _require_name("run_name", self.run_name)

    def name_of_run(self) -> str:
        """Give run_name, or what it is by default."""
        path = self.data.path
        data_name = path.rstrip("/").split("/")[-1] if "://" in path else Path(path).resolve().name
        return self.run_name or f"{self.model.name}-{data_name}-{self.direction.name}-seed{self.seed}"


# -------------------------------------------------------------------------------------------------------- comparison


@dataclass
class CompareConfig:
    """Pair runs that differ only in direction; print and write how much harder backward is than forward."""

    runs: list[str] = MISSING
    """Folders of runs, e.g. [runs/a,runs/b]; each forward run needs its backward twin."""
    out: str = "comparison"
    """Folder for comparison.csv, comparison.json and comparison.png; files of an earlier comparison are replaced."""

    def __post_init__(self) -> None:
        _require(len(self.runs) >= 2, f"runs={self.runs} must name at least a forward run and its backward twin.")


# --------------------------------------------------------------------------------------------------------- benchmark


def _model_by_device() -> ModelConfig:
    """Stand for the model that benchmarks.throughput takes by itself; no model is of this type."""
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
        _require(len(self.variants) > 0, "variants=[] leaves nothing to measure; name at least one.")
        _require(
            type(self.model) is not ModelConfig or self.model == _model_by_device(),
            "model.KEY= changes a named model: give model= too, or drop it.",
        )
        _require_positive("", self, "vocab_size", "context_length", "batch_size", "microbatch_size")
        _require_positive("", self, "threads", "rounds", "steps")
        _require_seed(self.seed)


# --------------------------------------------------------------------------------------------------------- durations

_DURATION = re.compile(r"([0-9][0-9_]*)(ba|ep|tok)")


def parse_duration(text: str) -> tuple[int, str]:
    """Split a duration such as 1000ba or 20_000_000tok into its number and its unit (ba, ep or tok)."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is no duration; write steps as 1000ba, tokens as 20_000_000tok, epochs as 5ep.")
    return int(match[1].replace("_", "")), match[2]


def plain_duration(text: str) -> str:
    """Write a duration as Composer reads it, without underscores."""
    number, unit = parse_duration(text)
    return f"{number}{unit}"


def _require_duration(key: str, text: str) -> None:
    try:
        number, _ = parse_duration(text)
    except InputError as error:
        raise InputError(f"{key}={text}: {error}") from None
    _require(number > 0, f"{key}={text} must be greater than 0.")


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """All values of nested mappings by their full key, such as optim.lr; an enum by its name, as YAML holds it."""
    values: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            values |= flatten(cast("Mapping[Any, Any]", value), f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value.name if isinstance(value, Enum) else value
    return values
