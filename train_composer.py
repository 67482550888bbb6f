"""Train a language model forward or backward: `composer -n 2 train_composer.py direction=backward`, or with python.

Everything of a run is under runs/<run_name>/; a second call with the same run_name goes on where the first stopped.
From top to bottom: answer what needs no training, open the data and the run's folder, build the Trainer, train.
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import logging
import multiprocessing
import os
import signal
import sys
import warnings
from pathlib import Path

from hindsight import interrupts, output, runs, temporary
from hindsight.command_line import check_arguments, one_line_errors, run_script
from hindsight.config.training import AUTO, TrainConfig
from hindsight.durations import plain_duration
from hindsight.errors import InputError
from hindsight.machine import require_cpp_compiler
from hindsight.quick_imports import quick_imports
from hindsight.studies import sweep
from hindsight.training import early, published_json
from hindsight.training.init_source import check_early
from hindsight.training.run_settings import is_finished
from hindsight.training.setup import RunSetup, check_setup, locate_data
from hindsight.training.summary import end_lines, nothing_to_do, start_lines

log = logging.getLogger("hindsight")


def answer_early(config: TrainConfig) -> None:
    """End at once where the data does not fit the settings, or the run has come to its end: SystemExit.

    Data on object storage, and a run on several nodes, which must decide together, are looked at later.
    """
    locations = locate_data(config)
    is_one_node = os.environ.get("WORLD_SIZE", "1") == os.environ.get("LOCAL_WORLD_SIZE", "1")
    if any(place.remote is not None for place in locations.values()) or not is_one_node:
        return
    setup = check_setup(config, locations)
    check_early(setup)
    if not (config.sanity_check or config.evaluate) and is_finished(setup):
        if os.environ.get("RANK", "0") == "0":
            lines = [nothing_to_do(setup, runs.finished_step(setup.folder)), *end_lines(setup)]
            output.say("\n".join(lines))
        sys.exit(output.exit_status())


def begin() -> None:
    """Check the arguments and answer what needs no training; signals are handled from here on."""
    if published_json.is_asked(sys.argv[1:]):
        output.prepare_output()
        with one_line_errors("train_composer"):
            output.say(published_json.answer(sys.argv[1:]))
        sys.exit(output.exit_status())
    given = check_arguments("train_composer")
    interrupts.handle_signals()
    interrupts.leave_while_starting()
    interrupts.stop_with_launcher()
    try:
        with interrupts.giving_up_after(0), one_line_errors("train_composer"):
            temporary.use_own_folder()
            if given is None:
                sweep.announce(sys.argv[1:])
            else:
                answer_early(given)
                early.import_wandb(given)
    except interrupts.GaveUp as reason:
        interrupts.leave_at_once(reason)


if __name__ == "__main__":
    begin()

# The imports below take seconds.
with quick_imports():
    from composer import Callback, Evaluator, Trainer
    from composer.utils import dist

from hindsight.device import device_of_process
from hindsight.fused_cross_entropy import require_liger
from hindsight.loading.remote import fetch_description
from hindsight.ranks import init_process_group, leave_error, on_rank_0, read_left_error
from hindsight.training import lr_plan
from hindsight.training.attention_kernel import slow_attention
from hindsight.training.callback_order import check_order
from hindsight.training.checkpoint_files import load_weights_only
from hindsight.training.checkpoints import RestoreRandomState, ResumeSaver, StopOnRequest, build_savers
from hindsight.training.console import Console
from hindsight.training.energy import Energy, require_codecarbon
from hindsight.training.gradient import ClipGradient, StopAtNonFiniteLoss
from hindsight.training.microbatches import AutoMicrobatch, check_microbatch, device_microbatch
from hindsight.training.optim import build_optimizer, build_scheduler, freeze, set_learning_rate
from hindsight.training.precision import check_precision, composer_precision, needs_cpu_autocast
from hindsight.training.run_folder import OpenRun, open_run, remove_finished, write_finished, write_more_reached
from hindsight.training.sanity_check import sanity_check
from hindsight.training.sharding import AverageGradient, is_divided, nothing_to_divide, shard
from hindsight.training.spikes import SkipSpikes
from language_model import LanguageModel, build_model, save_weights
from load_text_streaming import build_loaders, worker_error
from logging_composer import Samples, TrainMetrics, build_loggers

if __name__ == "__main__":
    interrupts.handle_signals()  # again: importing Composer also sets signal handlers
    early.asking_for_processor()

WAIT_FOR_RANK_0_S = 1800.0
"""Seconds that ranks wait for each other: the first one may check, or fetch, a large checkpoint meanwhile."""
UPLOAD_PATIENCE_S = 20.0
"""Seconds after a request to stop at which uploads are given up: composer's launcher ends its processes after 30."""
UNNAMED = (ClipGradient, StopAtNonFiniteLoss, Console, Energy, AutoMicrobatch, AverageGradient)
"""Callbacks that need no state where a checkpoint, older or of a start without them, does not name them."""


def train(config: TrainConfig) -> int:
    """Train until max_duration, from the newest checkpoint of the run if there is one.

    Returns:
        The step from which the run went on; 0 for a new run.

    Raises:
        Interrupted: the run has saved its last step, because it was asked to leave.
    """
    load_weights_only()
    interrupts.leave_while_starting()
    with interrupts.giving_up_after(0):
        setup = prepare(config)
        model = build_language_model(setup)
        run = open_run(setup, model)
        trainer, saver = build_trainer(run, model)
        start = int(trainer.state.timestamp.batch)
    interrupts.finish_steps()
    try:
        fit(trainer, run, saver)
    except interrupts.GaveUp as reason:
        if dist.get_world_size() > 1 or int(trainer.state.timestamp.batch) == start:
            raise
        saver.save_last_step(trainer.state, trainer.logger, str(reason))
        if saver.uploads is not None:
            saver.uploads.is_abandoned = True  # whatever withholds the data may withhold answers to these
        raise interrupts.Interrupted(str(reason)) from None
    except interrupts.Interrupted:  # all ranks together
        close(trainer)
        raise
    except BaseException as error:
        error = worker_error(error, config.data.num_workers) or error
        leave_error(setup.folder, error)
        if isinstance(error, KeyboardInterrupt) and saver.uploads is not None:
            saver.uploads.is_abandoned = True
        trainer.engine.close()  # alone: trainer.close() would wait for the other ranks
        if (left := read_left_error(setup.folder, error)) is not None:
            raise left from error
        raise error
    close(trainer)
    if saver.uploads is not None:
        saver.uploads.check()
    if not config.evaluate:
        write_finished(setup.folder, int(trainer.state.timestamp.batch))
    if dist.get_global_rank() == 0 and not config.sanity_check:
        log.info("%s", "\n".join(end_lines(run.setup)))
    return start


def close(trainer: Trainer) -> None:
    """Close callbacks and loggers, which wait for uploads: not for ever after a request to stop."""
    try:
        with interrupts.giving_up_after(UPLOAD_PATIENCE_S):
            trainer.close()
    except interrupts.GaveUp as reason:
        raise interrupts.GaveUp(str(reason), "while the last checkpoint, which is here, was uploaded") from None


def prepare(config: TrainConfig) -> RunSetup:
    """Check the settings against each other, the machine and the data, before anything is written."""
    world_size = dist.get_world_size()
    if config.batch_size % world_size:
        raise InputError(
            f"batch_size={config.batch_size} does not divide among {world_size} devices; choose a multiple of it."
        )
    check_precision(config.precision)
    has_gpu = device_of_process().name == "gpu"
    check_microbatch(config, has_gpu)
    if config.compile and not has_gpu:
        require_cpp_compiler()
    require_codecarbon(config)
    require_liger(config.loss)
    locations = locate_data(config)
    for place in dict.fromkeys(locations.values()):
        if place.remote is not None:
            fetch_description(place.remote, Path(place.folder), place.key)
    setup = check_setup(config, locations)
    on_rank_0(lambda: check_early(setup, is_fetched=True))
    return setup


def build_language_model(setup: RunSetup) -> LanguageModel:
    """Build the model, with its loss and metrics, from the seed; `open_run` gives it other weights to begin with."""
    config, tokenizer = setup.config, setup.tokenizer
    module = build_model(config.model, setup.vocab_size, config.seed, config.activation_checkpointing)
    freeze(module, config.model.frozen)
    ways = tuple(reading.order.name for reading in setup.order.readings)
    is_bf16_on_cpu = needs_cpu_autocast(config.precision)
    model = LanguageModel(module, tokenizer.bytes_per_token, config.metrics, ways, is_bf16_on_cpu, config.loss)
    if config.compile:
        model.compile_regions()
    return model


def build_trainer(run: OpenRun, model: LanguageModel) -> tuple[Trainer, ResumeSaver]:
    """Put model, data, optimizer, callbacks and loggers together; loads the checkpoint that the run goes on from."""
    setup, config = run.setup, run.setup.config
    loaders = build_loaders(setup)
    if is_divided(config):
        shard(model, model.layers)
    optimizer = build_optimizer(model.module, config.optim)
    scheduler = build_scheduler(optimizer, lambda step: lr_plan.rate(step, run.plan, config.optim), config.optim)
    callbacks, saver = build_callbacks(run, model)
    microbatch_size = device_microbatch(config)
    eval_microbatch_size = microbatch_size if isinstance(microbatch_size, int) else None
    if config.device_eval_batch_size is not None:
        eval_microbatch_size = setup.windows["val"].batch_size // dist.get_world_size()
    early.asking_for_processor().join()
    with warnings.catch_warnings():
        unnamed = "|".join(kind.__name__ for kind in UNNAMED)
        warnings.filterwarnings("ignore", message=f"({unnamed}) is not in the state_dict")
        warnings.filterwarnings("ignore", message="`device_train_microbatch_size='auto'` may potentially fail")
        trainer = Trainer(
            model=model,
            device=device_of_process(),
            train_dataloader=loaders["train"],
            eval_dataloader=Evaluator(
                label="eval",
                dataloader=loaders["val"],
                subset_num_batches=config.eval_batches * setup.order.n_readings if config.eval_batches else -1,
                eval_interval=plain_duration(config.eval_interval),
                device_eval_microbatch_size=eval_microbatch_size,
            ),
            optimizers=optimizer,
            schedulers=scheduler,
            step_schedulers_every_batch=True,
            max_duration=plain_duration(config.max_duration),
            precision=composer_precision(config.precision),
            device_train_microbatch_size=microbatch_size,
            accumulate_train_batch_on_tokens=True,
            seed=config.seed,
            run_name=setup.run_name,
            load_path=str(run.checkpoint.path) if run.checkpoint is not None else None,
            load_progress_bar=False,
            spin_dataloaders=False,  # the dataset resumes by itself
            callbacks=callbacks,
            loggers=build_loggers(run),
            progress_bar=False,  # Console shows one
            auto_log_hparams=False,
        )
    for callback in callbacks:
        if isinstance(callback, RestoreRandomState | AutoMicrobatch):
            callback.trainer = trainer
    if len(run.plan) > 1:  # the rate that was saved for the next step is that of the stretch before
        set_learning_rate(optimizer, scheduler)
    return trainer, saver


def build_callbacks(run: OpenRun, model: LanguageModel) -> tuple[list[Callback], ResumeSaver]:
    """Build the callbacks in the order of their phases, which is a protocol (see callback_order.py); also the saver."""
    setup, config, skip = run.setup, run.setup.config, run.setup.config.optim.skip_spikes
    gradient = ClipGradient(config.optim.grad_clip, config.optim.clip)
    stop = StopOnRequest(setup.folder, config)
    found = run.checkpoint.path if run.checkpoint is not None else None
    backups, saver = build_savers(config, setup.folder, stop, run.settings, run.plan, found)
    callbacks = [
        run.lock,
        RestoreRandomState(),
        *([AutoMicrobatch(config)] if config.microbatch_size == AUTO else []),
        *([AverageGradient()] if is_divided(config) else []),
        gradient,
        *([SkipSpikes(skip, gradient, config.log_interval)] if skip is not None else []),
        StopAtNonFiniteLoss(),
        TrainMetrics(gradient, config.log_interval, config.layer_norms),
        *([Energy(setup.folder, config)] if config.energy else []),
        Samples(setup, model),
        *backups,
        saver,
        stop,
    ]
    check_order(callbacks)
    return callbacks, saver


def fit(trainer: Trainer, run: OpenRun, saver: ResumeSaver) -> None:
    """Train, after making up for an evaluation that a kill prevented; then export the weights. Or only evaluate."""
    setup, state = run.setup, trainer.state
    step, max_duration = int(state.timestamp.batch), state.max_duration
    assert max_duration is not None
    if setup.config.evaluate:
        if dist.get_global_rank() == 0:
            log.info("%s: evaluates step %d, and trains nothing.", setup.run_name, step)
        trainer.eval()
        return
    finished = state.timestamp >= max_duration
    if dist.get_global_rank() == 0 and not setup.config.sanity_check:
        devices = f"{dist.get_world_size()} x {device_of_process().name}"
        started = start_lines(setup, run.metadata, step, devices) + slow_attention(setup.config)
        started += nothing_to_divide(setup.config)
        started += [run.lr_change] if run.lr_change is not None else []
        log.info("%s", nothing_to_do(setup, step) if finished else "\n".join(started))
    if finished or saver.evaluation_is_owed:
        is_evaluated = [runs.is_evaluated(setup.folder, step)]
        dist.broadcast_object_list(is_evaluated)  # as rank 0 sees it
        if not is_evaluated[0]:
            trainer.eval()
    if not finished:
        remove_finished(setup.folder)
        trainer.fit()
    model = state.model if isinstance(state.model, LanguageModel) else state.model.module  # DDP's wrapper
    assert isinstance(model, LanguageModel)
    module = model.whole_module()
    if module is not None and dist.get_global_rank() == 0:
        save_weights(module, setup.folder / runs.WEIGHTS)
    write_more_reached(setup.folder)


def main(config: TrainConfig) -> None:
    """Train, or only try to."""
    try:
        init_process_group(WAIT_FOR_RANK_0_S)
        if config.sanity_check:
            sanity_check(config, train)
        else:
            train(config)
    except interrupts.GaveUp as reason:
        interrupts.leave_at_once(reason)
    except interrupts.Interrupted as reason:
        log.info("Interrupted by %s: the last step is saved, and the same command goes on.", reason)
        interrupts.ignore_signals()
        sys.exit(interrupts.EXIT_INTERRUPTED)
    except RuntimeError:
        if (name := interrupts.received_signal()) is None or dist.get_world_size() == 1:
            raise
        interrupts.leave_at_once(interrupts.GaveUp(name, "while another process of the run left"))
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would complain of the workers that are killed
        for worker in multiprocessing.active_children():  # the interpreter would wait for one that hangs
            worker.kill()


if __name__ == "__main__":
    run_script("train_composer", main)
