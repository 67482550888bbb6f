"""Runs of train_composer.py with one callback more, such as one that keeps the batches that the model gets."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

import train_composer

FOLDER = "KEPT_BATCHES"
"""Variable of the environment that names the folder for them."""

Seen = dict[int, dict[str, torch.Tensor]]
"""What a device got in each step, its microbatches one after the other."""


class KeepBatches(Callback):
    """Keep every microbatch of training, by its step."""

    def __init__(self) -> None:
        self.seen: dict[int, list[dict[str, torch.Tensor]]] = {}

    def before_forward(self, state: State, logger: Logger) -> None:
        microbatch = {name: values.clone() for name, values in state.batch.items() if torch.is_tensor(values)}
        self.seen.setdefault(int(state.timestamp.batch) + 1, []).append(microbatch)

    def batches(self) -> Seen:
        return {
            step: {name: torch.cat([each[name] for each in parts]) for name in parts[0]}
            for step, parts in self.seen.items()
        }


@contextmanager
def one_more(callback: Callback) -> Iterator[None]:
    """Let runs inside have this callback too, behind their own."""
    build = train_composer.build_trainer

    def build_with_callback(*args: Any) -> Any:
        trainer, saver = build(*args)
        trainer.state.callbacks.append(callback)
        return trainer, saver

    # All of the run is real; train_composer.py has no option for callbacks of others, which is where one is added.
    with patch.object(train_composer, "build_trainer", build_with_callback):
        yield


def train_recorded(config: Any) -> Seen:
    """Train, with the real loader; what the model got."""
    kept = KeepBatches()
    with one_more(kept):
        train_composer.main(config)
    return kept.batches()


def train_and_write(config: Any) -> None:
    """Train, and write what this rank's model got into the folder that the environment names."""
    torch.save(train_recorded(config), Path(os.environ[FOLDER], f"rank{dist.get_global_rank()}.pt"))
