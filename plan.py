"""Say what a run would take, before anything is spent on it; takes the keys of train_composer.py.

    python plan.py model=gpt2 data.path=data/novels max_duration=5ep gpu=H100 mfu=0.4
    python plan.py experiment=gpt2 data_tokens=2_500_000_000 model.vocab_size=50257

Parameters, FLOPs, tokens, memory of a GPU by part, hours, disk, seeds. docs/planning.md says by which formulas.
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import json

from hindsight import output
from hindsight.command_line import run_script
from hindsight.config.plan import PlanConfig
from hindsight.planning.plan import plan_of
from hindsight.planning.table import table


def main(config: PlanConfig) -> None:
    """Print the plan."""
    plan = plan_of(config)
    output.say(json.dumps(plan, indent=2) if config.json else table(plan))


if __name__ == "__main__":
    run_script("plan", main)
