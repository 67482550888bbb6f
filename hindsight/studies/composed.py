"""Commands of a study, composed before any is started: values that one cannot take are refused at once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from hindsight.command_line import configuration_of, explain
from hindsight.config.evaluation import EvaluateConfig
from hindsight.config.order import DIRECTIONS
from hindsight.config.schemas import SCHEMAS
from hindsight.errors import InputError
from hindsight.studies.commands import arguments_of

ANY = "any"
"""Stands for a run where the keys of its evaluation are checked."""


@cache
def composed(script: str, arguments: tuple[str, ...], part: str) -> Any:
    """Compose the configuration of a command.

    Args:
        script: the command, such as evaluate_tokens.
        arguments: key=value.
        part: the part of the study that its values are from.

    Raises:
        InputError: a value cannot be; names the part and the key.
    """
    try:
        return configuration_of(script, arguments)
    except (HydraException, OmegaConfBaseException, InputError) as error:
        raise InputError(f"{part}: {explain(error, SCHEMAS[script])}") from None


def evaluate_config(run: str, given: Mapping[str, Any]) -> EvaluateConfig:
    """Compose the configuration of an evaluation; InputError if a value cannot be.

    Args:
        run: folder of the run.
        given: keys of evaluate_tokens.py.
    """
    return replace(composed("evaluate_tokens", (f"run={ANY}", *arguments_of(given)), "evaluation"), run=run)


def check_evaluation(given: Mapping[str, Any], runs: Sequence[tuple[str, int]]) -> None:
    """Check keys of evaluate_tokens.py against runs.

    Args:
        given: the keys.
        runs: order and context_length of each run.

    Raises:
        InputError: a value cannot be, or context= has no meaning for one of the runs.
    """
    stride = evaluate_config(ANY, given).stride
    if stride is None:
        return
    for order, context_length in runs:
        if order not in DIRECTIONS:
            raise InputError(
                f"evaluation: context=sliding:{stride} has no meaning for order={order}, in which a text is not read "
                "from one end to the other; take context: windows."
            )
        if stride > context_length:
            raise InputError(
                f"evaluation: context=sliding:{stride} would leave out tokens between windows of {context_length} "
                "tokens; give a smaller stride."
            )
