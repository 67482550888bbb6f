"""List runs: what each is, how far it is, its last losses, its state, its size on disk and its age.

    python list_runs.py
    python list_runs.py runs/paper_main-cpu sort=-loss
    python list_runs.py state=training watch=5
    python list_runs.py --json

Runs are those below runs/, or another folder, and one level deeper, where studies keep theirs. docs/training.md says
what the states are.
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import sys

from hindsight.command_line import run_script
from hindsight.config.listing import ListConfig
from hindsight.studies.listing import show


def main(config: ListConfig) -> None:
    """Print the table, or JSON."""
    show(config)


if __name__ == "__main__":
    sys.argv[1:] = ["json=true" if argument == "--json" else argument for argument in sys.argv[1:]]
    run_script("list_runs", main, alone="runs_dir")
