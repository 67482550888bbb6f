"""Whether the learning rate of a run follows another plan than its config says, because its length was changed."""

from itertools import pairwise
from typing import Any

NEVER = "never"
"""What `lr_changes` says of a run at one go, and of all that have its rates."""


def lr_changes(config: dict[str, Any], records: Any, last_step: int) -> str:
    """Say where the length of a run was changed, if that changed its learning rate.

    Args:
        config: config.yaml by full keys.
        records: `runs.LR_PLAN` of metadata.json; None if the run has none.
        last_step: step of its last evaluation; what came later is not compared.
    """
    try:
        stretches = [(record["after"], record["until"], record["how"], record["lr"]) for record in records or ()]
        changes = [(old, new) for old, new in pairwise(stretches) if new[0] < last_step]
        if all(_keeps_rates(config, how, lr) for _, (_, _, how, lr) in changes):
            return NEVER
        said: list[str] = []
        for (_, before, _, _), (after, until, how, _) in changes:
            made = "longer" if until > before else "shorter"
            said.append(f"made {made} at step {after} ({how}, {before} to {until} steps)")
        return " and ".join(said)
    except (LookupError, TypeError):
        return "unknown"


def _keeps_rates(config: dict[str, Any], how: str, lr: float) -> bool:
    """Whether the steps after a change of length have the rates that they would have had in a run of any length."""
    schedule = config["optim.schedule"]
    if schedule == "constant":
        # Below optim.lr, in the warm-up, `constant` stays there and `rewarm` warms up anew.
        return config["optim.cooldown_share"] == 0 and (how == "continue" or lr == config["optim.lr"])
    return schedule in ("inverse_sqrt", "cosine_restarts") and how == "continue"
