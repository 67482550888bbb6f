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
from hindsight.evaluation.trained_run import read_run
from hindsight.export.hub import check_login, push
from hindsight.files import local_path
from hindsight.quick_imports import quick_imports

log = logging.getLogger("hindsight")


def main(config: ExportConfig) -> None:
    """Export, unless the same is there."""
    trained = read_run(config.run)
    if config.push is not None:
        check_login(config.push)
    with quick_imports():
        from hindsight.evaluation.opened_run import opened_run
        from hindsight.export.export import earlier_export, export
        from hindsight.export.reading import how_it_reads
        from language_model import load_trained

    interrupts.handle_signals_again()  # importing Composer sets signal handlers
    with opened_run(trained, config.checkpoint, config.tokenizer) as run:
        reading, record = how_it_reads(run), earlier_export(config, run)
        if record is None:
            record = export(config, run, load_trained(run))
            log.info("logits   those of the run, to %.1e of the largest", record["logits_difference"])
        else:
            log.info("%s holds this export already.", config.out)
    if not reading.writes:
        log.warning("order=%s: no text can be given to this model as it is; its card says more.", reading.order)
    log.info("folder   %s, step %d of %s", config.out, record["step"], record["run"])
    if config.push is not None:
        message = f"Step {record['step']} of {record['run']}"
        log.info("pushed   %s", push(local_path("out", config.out), config.push, config.private, message))


if __name__ == "__main__":
    run_script("export_hf", main, alone="run")
