"""Run a study: many runs that answer a question, from their corpora to a report, as far as they are missing.

    python run_study.py study=demo scale=tiny
    python run_study.py study=paper_main scale=cpu corpus_dir=texts
    python run_study.py -m study=paper_main scale=gpu 'task=range(0,12)'

What a study is stands in conf/study/NAME.yaml; docs/studies.md explains it. It prints its table of runs first, and may
be interrupted or killed at any moment: the same command goes on.
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import sys

from hindsight import interrupts
from hindsight.command_line import is_sweep, run_script
from hindsight.config.study import StudyConfig
from hindsight.errors import InputError
from hindsight.studies.run import GOES_ON, StudyWork


def main(config: StudyConfig) -> None:
    """Run the study, and end with its status: 1 if a run has failed, 75 if it was interrupted.

    Raises:
        InputError: a run has failed that is one of several tasks (-m), the others of which go on.
    """
    interrupts.handle_signals()
    try:
        with interrupts.giving_up_after(0):
            work = StudyWork(config)
        interrupts.finish_steps()  # from here on the commands that run are waited for
        status = work.run()
    except interrupts.GaveUp as reason:
        interrupts.leave_at_once(reason)
    if status and status != interrupts.EXIT_INTERRUPTED and is_sweep():
        raise InputError(f"task={config.task} has failed, as its lines above say; the same command tries it again.")
    if status:
        sys.exit(status)


if __name__ == "__main__":
    interrupts.handle_signals()
    interrupts.leave_while_starting(f": {GOES_ON}")
    run_script("run_study", main, alone="study")
