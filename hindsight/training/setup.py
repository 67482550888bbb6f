"""A run before it begins: where its data lies, and whether settings, data and tokenizer fit together.

Nothing here imports torch or Composer, so that train_composer.py answers a mistake before the seconds that these take.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hindsight import runs
from hindsight.config.model import GPTConfig
from hindsight.config.optim import Schedule
from hindsight.config.order import order_of
from hindsight.config.training import TrainConfig
from hindsight.errors import InputError
from hindsight.loading.remote import Remote, cache_folder
from hindsight.loading.windows import SplitWindows
from hindsight.orders.both import vocab_size_for
from hindsight.orders.known import open_order
from hindsight.orders.order import Order
from hindsight.provenance import git_commit, versions
from hindsight.shards.manifest import FEW_DOCUMENTS, MDS, TOKENIZER_FOLDER, Manifest
from hindsight.tokenization.tokenizer import Tokenizer
from hindsight.training.course import Course

MOST_PADDED = 2
"""Largest batch in epochs: with more, most of a batch would be padding."""


@dataclass(frozen=True)
class Location:
    """Where the data of a split is.

    Args:
        key: the configuration key that names it, for messages.
        folder: its folder on this machine; for remote data, the run's cache of it.
        remote: where it is downloaded from; None if it is here.
    """

    key: str
    folder: str
    remote: Remote | None


@dataclass(frozen=True)
class RunSetup:
    """A run whose settings, data and tokenizer were checked against each other.

    Args:
        config: complete settings.
        run_name: name of the run.
        folder: the run's folder, absolute.
        tokenizer: the tokenizer that made the tokens.
        locations: where train and val are.
        manifests: what the data of train and val says of itself.
        windows: the windows of train and val.
        order: the order in which the model reads a window.
    """

    config: TrainConfig
    run_name: str
    folder: Path
    tokenizer: Tokenizer
    locations: dict[str, Location]
    manifests: dict[str, Manifest]
    windows: dict[str, SplitWindows]
    order: Order

    @property
    def course(self) -> Course:
        """How long the run is."""
        return Course.of(self.config.max_duration, self.windows["train"])

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the run."""
        return self.course.steps

    @property
    def vocab_size(self) -> int:
        """Number of ids of the model."""
        return vocab_size_for(self.order, self.tokenizer.vocab_size)

    @property
    def notes(self) -> list[str]:
        """What the settings make of this data that their user may not expect, a line each."""
        train, val = self.manifests["train"], self.manifests["val"]
        notes = _notes(self.config, self.windows, self.total_steps, val.splits["val"].documents)
        if train.is_reversed != val.is_reversed:
            notes.append("data.path= and data.val_path= differ in text_order: validation reads text in the other order")
        return notes

    @property
    def fingerprints(self) -> dict[str, str]:
        """What must not change of data and tokenizer, wherever they are."""
        train, val = self.manifests["train"], self.manifests["val"]
        data = train.fingerprint if train == val else f"{train.fingerprint}+{val.fingerprint}"
        return dict(zip(runs.FINGERPRINTS, (data, self.tokenizer.fingerprint), strict=True))

    @property
    def val_unigram_entropy_nats(self) -> float:
        """Loss on the validation split of a model that knows how frequent each of its tokens is, and nothing else."""
        return self.manifests["val"].splits["val"].unigram_entropy_nats


def context_length_of(config: TrainConfig) -> int:
    """Tokens in a window of training."""
    return config.data.context_length or config.model.context_length


def check_context(config: TrainConfig) -> None:
    """Raise InputError for windows of training that are longer than those of the model."""
    context_length = context_length_of(config)
    if isinstance(config.model, GPTConfig) and context_length > config.model.context_length:
        raise InputError(
            f"data.context_length={context_length} exceeds model.context_length={config.model.context_length}; "
            "lower the first or raise the second."
        )


def folder_of(config: TrainConfig) -> Path:
    """Folder of the run, absolute."""
    return Path(config.runs_dir, config.name_of_run()).resolve()


def local_folder(config: TrainConfig, run_folder: Path) -> Path:
    """Folder of the checkpoints on this machine; where they are on S3, of the newest ones."""
    given = config.checkpoint.folder
    return run_folder / runs.CHECKPOINTS if given is None or "://" in given else Path(given)


def locate_data(config: TrainConfig) -> dict[str, Location]:
    """Name where the data of train and val is, without looking."""
    locations = {}
    for split, path in (("train", config.data.path), ("val", config.data.val_path or config.data.path)):
        remote = Remote.of(path, config.data)
        folder = path if remote is None else str(cache_folder(remote, config.data, folder_of(config)))
        locations[split] = Location("data.path" if path == config.data.path else "data.val_path", folder, remote)
    return locations


def check_setup(config: TrainConfig, locations: dict[str, Location]) -> RunSetup:
    """Read manifests and tokenizer, and check all settings against them and each other; nothing is written.

    Raises:
        InputError: something is missing, damaged, or does not fit.
    """
    check_context(config)
    context_length = context_length_of(config)
    manifests = {split: Manifest.load(place.folder, place.key) for split, place in locations.items()}
    for split, place in locations.items():
        if place.remote is not None and manifests[split].format != MDS:
            raise InputError(
                f"{place.key}={place.remote.url} is h5, which is read here only; copy it, or convert it to MDS."
            )
    tokenizer = _load_tokenizer(config, locations, manifests)
    order = open_order(order_of(config), context_length, tokenizer)
    for split, place in locations.items():
        if config.document_mask and manifests[split].splits[split].documents is None:
            raise InputError(
                f"document_mask=true: {place.key}={place.folder} does not say where its documents end; convert their "
                "text, or leave it out."
            )
    batch_sizes = {"train": config.batch_size, "val": config.batch_size}
    if config.device_eval_batch_size is not None:
        devices = int(os.environ.get("WORLD_SIZE", "1"))
        needed = -(-manifests["val"].splits["val"].tokens // (context_length * devices))
        batch_sizes["val"] = devices * min(config.device_eval_batch_size, needed)
    strides = {"train": config.data.stride, "val": None}  # each token is evaluated once
    passes = {"train": order.n_readings, "val": 1}
    windows = {
        split: SplitWindows.of(
            locations[split].folder, split, manifest, context_length, batch_sizes[split], strides[split], passes[split]
        )
        for split, manifest in manifests.items()
    }
    if not (folder_of(config) / runs.CONFIG).exists():  # a run that was begun before this rule goes on
        _check_batch(config, windows["train"])
    run_name = config.name_of_run()
    complete = replace(config, run_name=run_name, data=replace(config.data, context_length=context_length))
    return RunSetup(complete, run_name, folder_of(config), tokenizer, locations, manifests, windows, order)


def _load_tokenizer(config: TrainConfig, locations: dict[str, Location], manifests: dict[str, Manifest]) -> Tokenizer:
    path = config.data.tokenizer or str(Path(locations["train"].folder, TOKENIZER_FOLDER))
    tokenizer = Tokenizer.load(path, "data.tokenizer")
    for split, manifest in manifests.items():
        if manifest.tokenizer_fingerprint != tokenizer.fingerprint:
            raise InputError(
                f"data.tokenizer={path} is not the tokenizer that made the tokens in {locations[split].folder} "
                f"(fingerprint {tokenizer.fingerprint[:12]}, not {manifest.tokenizer_fingerprint[:12]}); "
                "give the one that did, or convert the corpus again."
            )
        if manifest.vocab_size != tokenizer.vocab_size:
            raise InputError(
                f"{locations[split].key}={locations[split].folder}: manifest.json says "
                f"vocab_size={manifest.vocab_size}, its tokenizer has {tokenizer.vocab_size} ids; convert or copy the "
                "data again."
            )
    return tokenizer


def _check_batch(config: TrainConfig, train: SplitWindows) -> None:
    """Refuse a batch of which more than half would be padding, which takes memory and time, and trains nothing."""
    if config.batch_size > MOST_PADDED * train.n_windows:
        devices = int(os.environ.get("WORLD_SIZE", "1"))
        largest = max(train.n_windows // devices, 1) * devices
        raise InputError(
            f"batch_size={config.batch_size} is more than an epoch: data.path={config.data.path} has {train.n_windows} "
            f"windows of {train.context_length} tokens to train on; give at most batch_size={largest}, or a shorter "
            "data.context_length."
        )


def _notes(
    config: TrainConfig, windows: dict[str, SplitWindows], total_steps: int, val_documents: int | None
) -> list[str]:
    train, val, optim = windows["train"], windows["val"], config.optim
    notes: list[str] = []
    if config.batch_size > train.n_windows * train.passes:
        notes.append(
            f"batch_size={config.batch_size} is more than an epoch: each step is made of its {train.n_windows} windows"
        )
    if optim.warmup_steps >= total_steps > 0:
        notes.append(
            f"optim.warmup_steps={optim.warmup_steps} is as long as the {total_steps} steps of the run, or longer: the "
            f"learning rate never reaches optim.lr={optim.lr}"
        )
    if optim.schedule is Schedule.cosine_restarts and optim.warmup_steps + optim.period_steps >= total_steps:
        notes.append(f"optim.period_steps={optim.period_steps} is longer than the run: there is no restart")
    if config.eval_batches is not None and config.eval_batches < val.n_batches:
        notes.append(
            f"eval_batches={config.eval_batches} covers {config.eval_batches * val.batch_size} of the {val.n_windows} "
            "windows of the validation set, the same first ones each time"
        )
    if val_documents is not None and val_documents < FEW_DOCUMENTS:
        documents = "1 document" if val_documents == 1 else f"{val_documents} documents"
        notes.append(
            f"the validation set has {documents}, {val.n_tokens} tokens: its losses say little about others; a "
            f"comparison asks for {FEW_DOCUMENTS} (val_share= of the conversion)"
        )
    return notes


def metadata_of(setup: RunSetup, n_parameters: int, world_size: int) -> dict[str, Any]:
    """What metadata.json and the loggers keep of a run beside its config."""
    val, spent = setup.manifests["val"], runs.read_energy(setup.folder)
    return {
        "git_commit": git_commit(),
        **setup.fingerprints,
        "corpus_fingerprint": val.corpus_fingerprint,
        "text_order": val.settings.get("text_order"),
        "vocab_size": val.vocab_size,
        "val_documents": val.splits["val"].documents,
        "val_tokens": val.splits["val"].tokens,
        "val_bytes": val.splits["val"].bytes,
        "val_unigram_entropy_nats": setup.val_unigram_entropy_nats,
        "n_parameters": n_parameters,
        "total_steps": setup.total_steps,
        "notes": setup.notes,
        "world_size": world_size,
        "versions": versions(),
        **({"energy": runs.energy_of(spent)} if spent else {}),
    }
