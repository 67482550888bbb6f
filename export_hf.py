"""Write the model of a run as a folder that transformers loads without this project.

python export_hf.py runs/NAME out=exported/NAME

docs/export.md says what is in it, and how to prompt a model that reads backward.
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import logging

from hindsight import interrupts
from hindsight.command_line import run_script
from hindsight.config.export import ExportConfig

log = logging.getLogger("hindsight")


def main(config: ExportConfig) -> None:
    """Export, unless the same is there."""
    from hindsight.evaluation.opened_run import opened_run
    from hindsight.export.export import earlier_export, export
    from language_model import load_trained

    interrupts.handle_signals_again()  # importing Composer sets signal handlers
    with opened_run(config.run, config.checkpoint, config.tokenizer) as run:
        if earlier_export(config, run) is not None:
            log.info("%s holds this export already.", config.out)
        else:
            out, record = export(config, run, load_trained(run))
            log.info("logits   as the run's: %.1e of the largest apart", record["logits_difference"])
            log.info("folder   %s", out)


if __name__ == "__main__":
    run_script("export_hf", main, alone="run")
