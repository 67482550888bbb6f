"""Train a language model forward or backward: `composer -n 2 train_composer.py direction=backward`, or with python.

Everything of a run is under runs/<run_name>/; a second call with the same run_name goes on where the first stopped.
"""

import logging
import multiprocessing
import os
import shutil
import socket
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hindsight import interrupts
from hindsight.command_line import check_arguments, run_script
from hindsight.config.model import GPTConfig
from hindsight.config.training import Precision, SamplesConfig, TrainConfig, WandbConfig, WandbMode
from hindsight.durations import parse_duration, plain_duration
from hindsight.errors import InputError
from hindsight.studies import sweep

if __name__ == "__main__":
    if check_arguments("train_composer") is None:  # before the imports below, which take seconds
        sweep.announce(sys.argv[1:])
    interrupts.listen()

from composer import Evaluator, Trainer
from composer.utils import dist, get_device
from omegaconf import OmegaConf

from hindsight.loading import streaming_shared_memory
from hindsight.loading.h5_reader import H5Stream
from hindsight.loading.mds_reader import WindowStream
from hindsight.loading.remote import Remote, cache_folder, fetch_description
from hindsight.loading.windows import Split
from hindsight.ranks import meet, on_rank_0, tell_rank_0, told_to_rank_0
from hindsight.shards.manifest import Manifest
from hindsight.tokenization.tokenizer import Tokenizer
from hindsight.training.checkpoint_files import choose_checkpoint, fetch_metrics
from hindsight.training.checkpoints import RestoreRandomState, ResumeSaver, StopOnRequest, build_savers
from hindsight.training.optim import build_optimizer, build_scheduler
from hindsight.training.run_folder import check_resume, guarded, note_end, open_run_folder, with_more, write_records
from language_model import LanguageModel, build_model, save_weights
from load_text_streaming import TextStreamingDataset, build_loader
from logging_composer import Samples, TrainMetrics, build_loggers, git_commit, read_steps, versions

if __name__ == "__main__":
    interrupts.listen()  # again: composer's import, too, sets what signals do

log = logging.getLogger("hindsight")

WAIT_FOR_RANK_0_S = 1800.0
"""Seconds that processes wait for each other: the first one may check, or fetch, a large checkpoint meanwhile."""


@dataclass(frozen=True)
class Plan:
    """A run after all checks: complete settings, and the data it needs."""

    config: TrainConfig
    run_name: str
    folder: Path
    tokenizer: Tokenizer
    manifests: dict[str, Manifest]
    splits: dict[str, Split]
    remotes: dict[str, Remote | None]

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
    run_name = config.name_of_run()
    folder = Path(config.runs_dir, run_name).resolve()
    paths = {"train": config.data.path, "val": config.data.val_path or config.data.path}
    keys = {name: "data.path" if path == config.data.path else "data.val_path" for name, path in paths.items()}
    remotes = {name: Remote.of(path, config.data) for name, path in paths.items()}
    for name, remote in remotes.items():
        if remote is not None:
            paths[name] = str(cache_folder(remote, config.data, folder))
            if name == "train" or remotes["train"] != remote:
                fetch_description(remote, Path(paths[name]), keys[name])
    manifests = {name: Manifest.load(path, keys[name]) for name, path in paths.items()}
    for name, remote in remotes.items():
        if remote is not None and manifests[name].format != "mds":
            raise InputError(
                f"{keys[name]}={remote.url} is h5, which is read here only; copy it, or convert it to MDS."
            )
    tokenizer_path = config.data.tokenizer or os.path.join(paths["train"], "tokenizer")
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
    complete = replace(
        config,
        run_name=run_name,
        data=replace(config.data, context_length=context_length),
    )
    return Plan(complete, run_name, folder, tokenizer, manifests, splits, remotes)


def fingerprints_of(plan: Plan) -> dict[str, str]:
    """What must not change of data and tokenizer, wherever they are."""
    train, val = plan.manifests["train"], plan.manifests["val"]
    return {
        "data_fingerprint": train.fingerprint if train == val else f"{train.fingerprint}+{val.fingerprint}",
        "tokenizer_fingerprint": plan.tokenizer.fingerprint,
    }


def metadata_of(plan: Plan, n_parameters: int) -> dict[str, Any]:
    """What metadata.json and the loggers keep of a run beside its config."""
    val = plan.manifests["val"]
    return {
        "git_commit": git_commit(),
        **fingerprints_of(plan),
        "val_unigram_entropy_nats": val.splits["val"].unigram_entropy_nats,
        "n_parameters": n_parameters,
        "total_steps": plan.total_steps,
        "world_size": dist.get_world_size(),
        "versions": versions(),
    }


def build_dataset(plan: Plan, name: str, shuffle: bool) -> TextStreamingDataset:
    """Open a split for this device, from MDS or h5, whichever the data is in."""
    split, manifest = plan.splits[name], plan.manifests[name]
    limit = plan.config.data.cache_limit if plan.remotes[name] is not None else None
    if manifest.format == "h5":
        stream = H5Stream(split, split_start=manifest.splits["train"].tokens if name == "val" else 0)
    else:
        stream = WindowStream(split, plan.remotes[name], is_bounded=limit is not None)
    device_batch_size = plan.config.batch_size // dist.get_world_size()
    try:
        return TextStreamingDataset(stream, split, device_batch_size, shuffle, plan.config.seed, limit)
    except ValueError as error:
        if limit is None:
            raise
        raise InputError(f"data.cache_limit={limit}: {error}") from error


def build_datasets(plan: Plan) -> dict[str, TextStreamingDataset]:
    """Open both splits, while no other run on this machine opens its own."""
    hosts = dist.all_gather_object(socket.gethostname())
    with ExitStack() as held:
        # Node by node, in one order for all runs: two that start on the same nodes must not wait for each other.
        for host in sorted(set(hosts)):
            if dist.get_global_rank() == hosts.index(host):
                held.enter_context(streaming_shared_memory.one_process_at_a_time())
                streaming_shared_memory.remove_unused()
            dist.barrier()
        datasets = {
            "train": build_dataset(plan, "train", plan.config.data.shuffle),
            "val": build_dataset(plan, "val", shuffle=False),
        }
        dist.barrier()
    return datasets


def build_trainer(plan: Plan) -> Trainer:
    """Put model, data, optimizer, callbacks and loggers together; loads the newest checkpoint, if there is one."""
    module = build_model(
        plan.config.model, plan.tokenizer.vocab_size, plan.config.seed, plan.config.activation_checkpointing
    )
    model = LanguageModel(module, plan.tokenizer.bytes_per_token, plan.config.metrics)
    settings = guarded(asdict(plan.config), fingerprints_of(plan))
    lock = open_run_folder(plan.config, plan.folder, settings)
    found = choose_checkpoint(plan.config, plan.folder)
    if found is not None:
        if found.settings is not None:
            check_resume(plan.run_name, settings, found.settings, str(found.path))
        if found.was_fetched:
            on_rank_0(lambda: fetch_metrics(plan.config, plan.folder))
    plan = replace(plan, config=with_more(plan.config, plan.folder, found.timestamp if found is not None else None))
    config, metadata = plan.config, metadata_of(plan, sum(p.numel() for p in module.parameters()))
    write_records(config, metadata, plan.folder)

    loaders = {
        name: build_loader(dataset, config.direction, plan.tokenizer.bos_id, config.data.num_workers, config.seed)
        for name, dataset in build_datasets(plan).items()
    }

    optimizer = build_optimizer(module, config.optim)
    context_length = plan.splits["train"].context_length
    restore, stop = RestoreRandomState(), StopOnRequest(plan.folder)
    backups, saver = build_savers(config, plan.folder, stop, settings, found.path if found is not None else None)
    samples = Samples(
        plan.folder / "samples.jsonl",
        config.samples,
        model,
        plan.tokenizer,
        config.direction,
        context_length,
        config.seed,
    )
    metrics = TrainMetrics(config.optim.grad_clip, config.log_interval)
    # What belongs to a step is done before the step is saved, and the run left only then.
    callbacks = [lock, restore, metrics, samples, *backups, saver, stop]
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
        load_path=str(found.path) if found is not None else None,
        load_progress_bar=False,
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

    Raises:
        Interrupted: the run has saved its last step, because it was asked to leave.
    """
    plan = make_plan(config)
    trainer = build_trainer(plan)
    (saver,) = [callback for callback in trainer.state.callbacks if isinstance(callback, ResumeSaver)]
    start = int(trainer.state.timestamp.batch)
    try:
        fit(trainer, plan, saver)
    except interrupts.Interrupted:  # all processes together
        trainer.close()
        raise
    except BaseException as error:
        tell_rank_0(plan.folder, error)
        if isinstance(error, KeyboardInterrupt) and saver.uploads is not None:
            saver.uploads.is_abandoned = True
        trainer.engine.close()  # alone: trainer.close() would wait for the other processes
        if (told := told_to_rank_0(plan.folder, error)) is not None:
            raise told from error
        raise
    trainer.close()
    if saver.uploads is not None:
        saver.uploads.check()
    log.info("Run folder: %s", plan.folder)
    return start


def fit(trainer: Trainer, plan: Plan, saver: ResumeSaver) -> None:
    """Train, after making up for an evaluation that a kill prevented; then export the weights."""
    step, max_duration = int(trainer.state.timestamp.batch), trainer.state.max_duration
    assert max_duration is not None
    finished = trainer.state.timestamp >= max_duration
    if finished:
        log.info("%s: nothing to do, it is at step %d of %s.", plan.run_name, step, max_duration.to_timestring())
    elif step:
        log.info("%s: goes on from step %d.", plan.run_name, step)
    if (finished or saver.evaluation_is_owed) and not evaluated_at(plan.folder, step):
        trainer.eval()
    if not finished:
        trainer.fit()
    if dist.get_global_rank() == 0:
        model = trainer.state.model
        model = model if isinstance(model, LanguageModel) else model.module  # DDP's wrapper
        assert isinstance(model, LanguageModel)
        save_weights(model.module, plan.folder / "model.safetensors")
    note_end(plan.folder)


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
        data=replace(config.data, cache_dir=os.path.join(runs_dir, "cache")),
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
    meet(WAIT_FOR_RANK_0_S)
    try:
        if config.sanity_check:
            sanity_check(config)
        else:
            train(config)
    except interrupts.Interrupted as reason:
        log.info("Interrupted by %s: the last step is saved, and the same command goes on.", reason)
        interrupts.ignore()
        sys.exit(interrupts.STATUS)
    finally:
        for reader in multiprocessing.active_children():  # the interpreter would wait for one that hangs
            reader.kill()


if __name__ == "__main__":
    run_script("train_composer", main)
