"""How many seeds a comparison takes, and the hours of all its runs."""

from pathlib import Path
from typing import Any

from hindsight.config.plan import PlanConfig
from hindsight.errors import InputError
from hindsight.files import read_json
from hindsight.runs import is_number

RUNS_OF_A_SEED = 2
"""Forward and backward."""
COMPARISON = "comparison.json"
MAX_BYTES = 1 << 28


def seeds_of(config: PlanConfig, hours: float | None) -> dict[str, Any] | None:
    """Say which gaps seeds find with probability 0.8, and how many find margin_nats; None if the plan is not asked.

    Args:
        config: the settings.
        hours: of one run; None if not known.
    """
    if config.std_nats is None and config.comparison is None:
        return None
    from hindsight.analysis.power import margin_for, seeds_for  # here: SciPy takes a while

    std, by = (config.std_nats, "std_nats=") if config.std_nats is not None else _std_of(str(config.comparison))
    n_seeds = None if config.margin_nats is None else seeds_for(config.margin_nats, std)
    runs = None if n_seeds is None else RUNS_OF_A_SEED * n_seeds
    return {
        "margin_nats": config.margin_nats,
        "std_nats": std,
        "by": by,
        "seeds": n_seeds,
        "runs": runs,
        "hours": None if hours is None or runs is None else hours * runs,
        "margin_for_seeds_nats": {str(n): margin_for(n, std) for n in (3, 5, 10)},
    }


def _std_of(given: str) -> tuple[float, str]:
    """Largest standard deviation over seeds of the paired gaps in a comparison, and which group's it is."""
    path = Path(given)
    path = path / COMPARISON if path.is_dir() else path
    try:
        groups = read_json(path, MAX_BYTES)["groups"]
        found = [
            (float(group["gap"]["std_nats"]), str(group["name"]), len(group["seeds"]))
            for group in groups
            if group["is_paired"] and is_number(group["gap"]["std_nats"]) and group["gap"]["std_nats"] > 0
        ]
    except OSError as error:
        raise InputError(f"comparison={given}: {path} cannot be read ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"comparison={given}: {path} is no {COMPARISON} of compare_directions.py.") from None
    if not found:
        raise InputError(f"comparison={given} has no group of paired runs with several seeds; give std_nats= instead.")
    std, name, seeds = max(found)
    return std, f"{name}, {seeds} seeds"
