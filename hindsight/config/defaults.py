"""What a recorded config leaves out: the defaults of keys that did not exist when the run began."""

from functools import cache
from typing import Any

from hindsight.config.direction import Direction
from hindsight.config.keys import defaults_of
from hindsight.config.model import Cell, GPTConfig, RNNConfig
from hindsight.config.training import Loss, TrainConfig

BEFORE = {"loss": Loss.plain.name}
"""What was done before a key existed, where that is not the key's default."""


def with_defaults(recorded: dict[str, Any]) -> dict[str, Any]:
    """Give a config that was recorded, by full keys, with the default of each key that it lacks.

    A key that is younger than the run has the value that stands for what was done before.
    """
    return _defaults("model.cell" in recorded) | BEFORE | recorded


@cache
def _defaults(is_rnn: bool) -> dict[str, Any]:
    rnn = RNNConfig(name="any", n_layers=1, d_model=1, cell=Cell.gru)
    gpt = GPTConfig(name="any", n_layers=1, d_model=1, n_heads=1)
    return defaults_of(TrainConfig(direction=Direction.forward, model=rnn if is_rnn else gpt))
