"""Train a language model forward or backward: `composer -n 2 train_composer.py direction=backward`, or with python.

Everything of a run is under runs/<run_name>/; a second call with the same run_name goes on where the first stopped.
"""

import json
import logging
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from config import (
    GPTConfig,
    InputError,
    Precision,
    SamplesConfig,
    TrainConfig,
    WandbConfig,
    WandbMode,
    check_arguments,
    parse_duration,
    plain_duration,
    run_script,
)

if __name__ == "__main__":
    check_arguments("train_composer")  # before the imports below, which take seconds

from composer import Evaluator, Trainer
from composer.utils import dist, get_device
from omegaconf import OmegaConf

from checkpoint_composer import RestoreRandomState, RunLock, build_savers, check_resume
from language_model import LanguageModel, build_model
from load_text_h5 import H5Stream
from load_text_streaming import Split, TextStreamingDataset, WindowStream, build_loader
from logging_composer import Samples, TrainMetrics, build_loggers, git_commit, read_steps, versions
from manifest import Manifest
from optim import build_optimizer, build_scheduler
from output_files import write_atomically
from tokenizer import Tokenizer

log = logging.getLogger("hindsight")


@dataclass(frozen=True)
class Plan:
    """A run after all checks: complete settings, and the data it needs."""

    config: TrainConfig
    run_name: str
    folder: Path
    tokenizer: Tokenizer
    manifests: dict[str, Manifest]
    splits: dict[str, Split]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.splits["train"].n_filled // self.config.batch_size

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the run."""
        number, unit = parse_duration(self.config.max_duration)
        if unit == "ba":
            return number
        if unit == "ep":
            return number * self.steps_per_epoch
        train = self.splits["train"]
        epochs, rest = divmod(number, train.n_tokens)
        return epochs * self.steps_per_epoch + -(-rest // (train.batch_size * train.context_length))


def make_plan(config: TrainConfig) -> Plan:
    """Check the settings against each other, the data and the machine, before anything is written."""
    world_size = dist.get_world_size()
    if config.batch_size % world_size:
        raise InputError(
            f"batch_size={config.batch_size} does not divide among {world_size} devices; choose a multiple of it."
        )
    if config.precision is not Precision.fp32 and get_device(None).name != "gpu":
        raise InputError(f"precision={config.precision.name} needs a GPU; use precision=fp32 here.")
    context_length = config.data.context_length or config.model.context_length
    if isinstance(config.model, GPTConfig) and context_length > config.model.context_length:
        raise InputError(
            f"data.context_length={context_length} exceeds model.context_length={config.model.context_length}; "
            "lower the first or raise the second."
        )
    paths = {"train": config.data.path, "val": config.data.val_path or config.data.path}
    manifests = {
        name: Manifest.load(path, f"data.{'path' if path == config.data.path else 'val_path'}")
        for name, path in paths.items()
    }
    tokenizer_path = config.data.tokenizer or os.path.join(config.data.path, "tokenizer")
    tokenizer = Tokenizer.load(tokenizer_path, "data.tokenizer")
    for name, manifest in manifests.items():
        if manifest.tokenizer_fingerprint != tokenizer.fingerprint:
            raise InputError(
                f"data.tokenizer={tokenizer_path} is not the tokenizer that made the tokens in {paths[name]} "
                f"(fingerprint {tokenizer.fingerprint[:12]}, not {manifest.tokenizer_fingerprint[:12]}); "
                "give the one that did, or convert the corpus again."
            )
    splits = {
        name: Split.of(paths[name], name, manifest, context_length, config.batch_size)
        for name, manifest in manifests.items()
    }
    data_name = Path(config.data.path).resolve().name
    run_name = config.run_name or f"{config.model.name}-{data_name}-{config.direction.name}-seed{config.seed}"
    folder = Path(config.runs_dir, run_name).resolve()
    complete = replace(
        config,
        run_name=run_name,
        data=replace(config.data, context_length=context_length),
        checkpoint=replace(config.checkpoint, folder=config.checkpoint.folder or str(folder / "checkpoints")),
    )
    return Plan(complete, run_name, folder, tokenizer, manifests, splits)


def metadata_of(plan: Plan, n_parameters: int) -> dict[str, Any]:
    """What metadata.json and the loggers keep of a run beside its config."""
    train, val = plan.manifests["train"], plan.manifests["val"]
    return {
        "git_commit": git_commit(),
        "data_fingerprint": train.fingerprint if train == val else f"{train.fingerprint}+{val.fingerprint}",
        "tokenizer_fingerprint": plan.tokenizer.fingerprint,
        "val_unigram_entropy_nats": val.splits["val"].unigram_entropy_nats,
        "n_parameters": n_parameters,
        "total_steps": plan.total_steps,
        "world_size": dist.get_world_size(),
        "versions": versions(),
    }


def open_run_folder(plan: Plan, metadata: dict[str, Any]) -> RunLock:
    """Make the run's folder, or check that the run in it is the one asked for; lock it; write config and metadata."""
    folder, records = plan.folder, {"config.yaml", "metadata.json"}
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()
    if records <= names:
        check_resume(plan.config, metadata, folder)
    elif names - records:  # one record without the other is all that a start left that was killed at once
        raise InputError(f"run_name={plan.run_name}: {folder} holds something that is no run; choose another name.")
    dist.barrier()  # all have looked before the first writes
    if dist.get_global_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    lock = RunLock(folder, plan.run_name)
    if dist.get_global_rank() == 0:
        write_atomically(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(plan.config)))
        write_atomically(folder / "metadata.json", json.dumps(metadata, indent=2) + "\n")
    dist.barrier()
    return lock


def build_dataset(plan: Plan, name: str, shuffle: bool) -> TextStreamingDataset:
    """Open a split for this device, from MDS or h5, whichever the data is in."""
    split, manifest = plan.splits[name], plan.manifests[name]
    if manifest.format == "h5":
        stream = H5Stream(split, split_start=manifest.splits["train"].tokens if name == "val" else 0)
    else:
        stream = WindowStream(split)
    device_batch_size = plan.config.batch_size // dist.get_world_size()
    return TextStreamingDataset(stream, split, device_batch_size, shuffle, plan.config.seed)


def build_trainer(plan: Plan) -> Trainer:
    """Put model, data, optimizer, callbacks and loggers together; loads the newest checkpoint, if there is one."""
    config = plan.config
    module = build_model(config.model, plan.tokenizer.vocab_size, config.seed, config.activation_checkpointing)
    model = LanguageModel(module, plan.tokenizer.bytes_per_token, config.metrics)
    metadata = metadata_of(plan, sum(p.numel() for p in module.parameters()))
    lock = open_run_folder(plan, metadata)

    loaders = {
        name: build_loader(
            build_dataset(plan, name, shuffle=config.data.shuffle and name == "train"),
            config.direction,
            plan.tokenizer.bos_id,
            config.data.num_workers,
            config.seed,
        )
        for name in ("train", "val")
    }

    optimizer = build_optimizer(module, config.optim)
    context_length = plan.splits["train"].context_length
    restore = RestoreRandomState()
    callbacks = [
        lock,
        *build_savers(config.checkpoint),
        restore,
        TrainMetrics(config.optim.grad_clip, config.log_interval),
        Samples(
            plan.folder / "samples.jsonl",
            config.samples,
            model,
            plan.tokenizer,
            config.direction,
            context_length,
            config.seed,
        ),
    ]
    hyperparameters = {"config": OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True), **metadata}
    trainer = Trainer(
        model=model,
        train_dataloader=loaders["train"],
        eval_dataloader=Evaluator(
            label="eval",
            dataloader=loaders["val"],
            subset_num_batches=config.eval_batches or -1,
            eval_interval=plain_duration(config.eval_interval),
            device_eval_microbatch_size=config.microbatch_size,
        ),
        optimizers=optimizer,
        schedulers=build_scheduler(optimizer, plan.total_steps, config.optim),
        step_schedulers_every_batch=True,
        max_duration=plain_duration(config.max_duration),
        precision={"fp32": "fp32", "bf16": "amp_bf16", "fp16": "amp_fp16"}[config.precision.name],
        device_train_microbatch_size=config.microbatch_size,
        accumulate_train_batch_on_tokens=True,
        seed=config.seed,
        run_name=plan.run_name,
        save_folder=config.checkpoint.folder,
        autoresume=True,
        spin_dataloaders=False,  # the dataset resumes by itself
        callbacks=callbacks,
        loggers=build_loggers(config, plan.folder, plan.run_name, hyperparameters),
        progress_bar=config.progress_bar,
        compile_config={} if config.compile else None,
        auto_log_hparams=False,
    )
    restore.trainer = trainer
    return trainer


def train(config: TrainConfig) -> int:
    """Train until max_duration, from the newest checkpoint of the run if there is one.

    Returns:
        The step from which the run went on; 0 for a new run.
    """
    plan = make_plan(config)
    trainer = build_trainer(plan)
    start = int(trainer.state.timestamp.batch)
    max_duration = trainer.state.max_duration
    if max_duration is not None and trainer.state.timestamp >= max_duration:
        log.info("%s: nothing to do, it is at step %d of %s.", plan.run_name, start, config.max_duration)
        if not evaluated_at(plan.folder, start):
            trainer.eval()
    else:
        if start:
            log.info("%s: goes on from step %d.", plan.run_name, start)
        trainer.fit()
    trainer.close()
    log.info("Run folder: %s", plan.folder)
    return start


def evaluated_at(folder: Path, step: int) -> bool:
    """Tell whether a step was evaluated; a kill may have come between the last checkpoint and the last evaluation."""
    found = [any(r["step"] == step and "eval/loss_nats" in r for r in read_steps(folder / "metrics.jsonl"))]
    dist.broadcast_object_list(found)  # as rank 0 sees it
    return found[0]


def sanity_check(config: TrainConfig) -> None:
    """Try the whole path on a scrap: three steps, an evaluation, a save, a resume; in a folder deleted at the end."""
    began = time.monotonic()
    runs_dir = os.path.join(config.runs_dir, f".sanity_check-{os.environ.get('MASTER_PORT', os.getpid())}")
    scrap = replace(
        config,
        runs_dir=runs_dir,
        run_name="sanity_check",
        max_duration="3ba",
        batch_size=dist.get_world_size() * min(2, config.microbatch_size or 2),
        eval_interval="3ba",
        eval_batches=1,
        checkpoint=replace(config.checkpoint, interval="3ba", backup_interval=None, folder=None),
        wandb=WandbConfig(mode=WandbMode.disabled),
        tensorboard=False,
        samples=SamplesConfig(interval="3ba", prompts=[""], length=4),
    )
    try:
        train(scrap)
        resumed_from = train(replace(scrap, max_duration="4ba"))
    finally:
        dist.barrier()
        if dist.get_global_rank() == 0:
            shutil.rmtree(runs_dir, ignore_errors=True)
    if resumed_from != 3:
        raise RuntimeError(f"The sanity check's run went on from step {resumed_from}, not from its checkpoint at 3.")
    seconds = time.monotonic() - began
    log.info("Sanity check passed in %.0f s: 3 steps, an evaluation, a checkpoint, a resume, one more step.", seconds)


def main(config: TrainConfig) -> None:
    """Train, or only try to."""
    dist.initialize_dist(get_device(None))
    if config.sanity_check:
        sanity_check(config)
    else:
        train(config)


if __name__ == "__main__":
    run_script("train_composer", main)
