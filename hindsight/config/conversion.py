"""Keys of convert_to_mds.py, convert_to_h5.py and inspect_mds.py."""

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
from hindsight.config.corpus import CorpusConfig
from hindsight.config.direction import Direction
from hindsight.config.evaluation import require_place
from hindsight.config.order import BOTH, settle_order
from hindsight.errors import InputError

MAX_WORKERS = 1024


class EncoderName(Enum):
    """The library that turns text into token ids; auto is tiktoken wherever its ids are those of tokenizers."""

    auto = "auto"
    tiktoken = "tiktoken"
    tokenizers = "tokenizers"


class Engine(Enum):
    """Where the tokenizing processes run: forked here, or as workers of Dask, here, in jobs, or elsewhere."""

    local = "local"
    dask = "dask"
    slurm = "slurm"
    sge = "sge"


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
    lossy_tokenizer: bool = False
    """Whether to take a tokenizer that does not give the text back; the bytes of the corpus are then those of its
    tokens."""
    engine: Engine = Engine.local
    """Where the tokenizing processes run: on this machine (local), or on many, by Dask: docs/clusters.md."""
    dask_scheduler: str | None = None
    """For engine=dask: address of a scheduler that runs already, e.g. tcp://node1:8786; null for workers here."""
    work_dir: str | None = None
    """For an out= on S3: folder in which what is in progress is kept, in a hidden one; null for the current folder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_utf8("", self, "out", "work_dir")
        require_text("", self, "tokenizer", "out", "work_dir", "dask_scheduler")
        require_local("", self, "work_dir")
        require_positive("", self, "block_length", "shard_bytes", "workers")
        require((self.workers or 1) <= MAX_WORKERS, f"workers={self.workers} must be at most {MAX_WORKERS}.")
        require(
            self.dask_scheduler is None or self.engine is Engine.dask, "dask_scheduler= is for engine=dask; give both."
        )
        require(
            self.workers is not None or self.engine not in (Engine.slurm, Engine.sge),
            f"engine={self.engine.name} needs workers=, the number of jobs.",
        )
        require(0 < self.val_share < 1, f"val_share={self.val_share} must be greater than 0 and less than 1.")
        require_seed(self.seed)


@dataclass
class InspectConfig:
    """Look at a converted corpus: statistics, decoded windows, and whether every file is what it was when written.

    Exit status 0 if it is whole, 1 if it is damaged.
    """

    path: str | None = None
    """Folder made by convert_to_mds.py or convert_to_h5.py; `python inspect_mds.py FOLDER` means the same. With run=,
    where that run's data is now, also s3://BUCKET/...; null for where the run found it."""
    split: str = "train"
    """Split whose windows are shown: train or val."""
    windows: int | None = None
    """Windows that are shown, drawn by the seed; 0 for none, null for 3. With step=, the first of the batch; null for
    all of it."""
    context_length: int = 64
    """Tokens in a window that is shown."""
    direction: Direction | None = None
    """forward (null): windows in reading order; backward: as a backward model sees them, last token first."""
    order: str | None = None
    """Another order, as a model of it sees them; see train_composer.py --help."""
    seed: int = 0
    """Seed of the draw."""
    verify: bool = True
    """Whether to read everything and check sizes, hashes and token ids. With step=, whether to read the split up to
    the windows of the batch, by which documents are counted."""
    run: str | None = None
    """A run that was trained on this data, with step=: its folder, or s3://BUCKET/FOLDER, its checkpoint.folder."""
    step: int | None = None
    """Show the windows of the batch of this optimizer step of the run, as it saw them; the first is 1."""
    rank: int | None = None
    """With step=, only what this device took of the batch; null for all. Devices are those of the run's last start."""
    nodes: int = 1
    """With rank=, number of machines that the devices were on."""

    def __post_init__(self) -> None:
        if self.step is not None or self.run is not None:
            self._check_step()
        elif self.path is None:
            raise InputError("path= is required: a folder made by convert_to_mds.py or convert_to_h5.py.")
        require(self.rank is None or self.step is not None, f"rank={self.rank} is for step= and run=; leave it out.")
        require(self.rank is not None or self.nodes == 1, f"nodes={self.nodes} is for rank=; leave it out.")
        if self.direction is None and self.order is None:
            self.direction = Direction.forward
        settle_order(self)
        require(self.order != BOTH, "order=both: look at direction=forward and at direction=backward.")
        require_no_credentials("", self)
        require_text("", self, "path")
        require_positive("", self, "context_length")
        require((self.windows or 0) >= 0, f"windows={self.windows} must be at least 0.")
        require(self.split in ("train", "val"), f"split={self.split} must be train or val.")
        require_seed(self.seed)

    def _check_step(self) -> None:
        """Refuse what does not belong to a step of a run, which says everything else itself."""
        require(self.run is not None, f"step={self.step} needs run=, the folder of the run that made it.")
        require(self.step is not None, f"run={self.run} needs step=, one of its optimizer steps.")
        require_text("", self, "run")
        require_place("run", self.run or "", "FOLDER")
        require_positive("", self, "step", "nodes")
        require((self.rank or 0) >= 0, f"rank={self.rank} must be at least 0.")
        require(self.split == "train", f"step={self.step} is one of training; leave out split={self.split}.")
        for key in ("context_length", "seed"):
            value = getattr(self, key)
            require(
                value == getattr(InspectConfig, key), f"run={self.run} says its own {key}; leave out {key}={value}."
            )
        given = self.order or (self.direction.name if self.direction is not None else None)
        require(given is None, f"run={self.run} says in which order it read; leave out direction= and order=.")
