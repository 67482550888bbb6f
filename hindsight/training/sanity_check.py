"""Try the whole path of a run on a scrap of its data, before days are spent on it."""

import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace

from composer.utils import dist

from hindsight.config.training import MoreConfig, SamplesConfig, TrainConfig, WandbConfig, WandbMode

log = logging.getLogger("hindsight")


def sanity_check(config: TrainConfig, train: Callable[[TrainConfig], int]) -> None:
    """Make three steps, an evaluation, a checkpoint, a resume and one more step, in a folder deleted at the end.

    Args:
        config: the run's config.
        train: trains a run to its end, and returns the step from which it went on.

    Raises:
        RuntimeError: the run did not resume from its checkpoint.
    """
    began = time.monotonic()
    runs_dir = os.path.join(config.runs_dir, f".sanity_check-{os.environ.get('MASTER_PORT', os.getpid())}")
    scrap = replace(
        config,
        runs_dir=runs_dir,
        run_name="sanity_check",
        max_duration="3ba",
        max_time=None,
        train=MoreConfig(),
        batch_size=dist.get_world_size() * min(2, config.windows_at_once or 2),
        eval_interval="3ba",
        eval_batches=1,
        device_eval_batch_size=None,
        data=replace(config.data, cache_dir=os.path.join(runs_dir, "cache")),
        checkpoint=replace(config.checkpoint, interval="3ba", minutes=None, backup_interval=None, folder=None),
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
