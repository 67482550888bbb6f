"""Compare runs that differ only in order and seed: how much harder is it to predict text backward than forward?

FW and BW are the validation losses (nats/token) of a pair of runs at their last evaluation. The gap between them is

    BW/FW - 1                    the percentage difference of arXiv:2401.17505
    (BW - FW) / ((FW + BW)/2)    the same over the mean of the two, so that neither direction is the reference

in %, and greater than 0 where backward is harder. What can be said of it rests on the seeds, and stands beside its
null: runs of the same order, with other seeds. docs/comparing.md says what is computed, and by which formulas; pairs.py
and groups.py in hindsight/analysis/ say which runs belong together. A run without a twin counts in its group, for the
null and where runs are compared without pairing; one that is in no group is left out, and the difference to the closest
run named. But runs of the same documents by several tokenizers are compared in any case, in nats a document and bits a
byte.

    python compare_directions.py runs/a runs/b
    python compare_directions.py 'runs=runs/*' out=comparison margin_nats=0.005
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import json
import logging
from pathlib import Path

from hindsight.analysis.across_tokenizers import across_tokenizers, runs_in
from hindsight.analysis.cuts import cuts_of_groups
from hindsight.analysis.given_runs import find_runs
from hindsight.analysis.groups import groups_of, name_together
from hindsight.analysis.html_report import remove_report, write_report
from hindsight.analysis.pairs import pair_runs
from hindsight.analysis.plots import draw_comparison
from hindsight.analysis.recorded import read_runs
from hindsight.analysis.report import csv_text, make_report
from hindsight.analysis.screen import screen_text
from hindsight.command_line import run_script
from hindsight.config.comparison import CompareConfig
from hindsight.errors import InputError
from hindsight.files import write_atomically

log = logging.getLogger("hindsight")


def main(config: CompareConfig) -> None:
    """Read and group the runs, write the report as a page, csv, json and png, and show it."""
    given, unread = read_runs(find_runs(config.runs))
    if config.reference is not None and config.reference not in {run.order for run in given}:
        raise InputError(f"reference={config.reference}: none of runs= has that order; leave it out, or name another.")
    across = across_tokenizers(given)
    groups = groups_of(given, config.reference)
    alone = [run for group in groups for of in group.runs.values() for run in of.values()]
    alone += [run for run, _ in runs_in(across, given)]
    pairs, unpaired = pair_runs(given, config.reference, alone)
    name_together(pairs, groups)
    left_out = [*unread, *unpaired]
    if not pairs and not groups and not across:
        raise InputError(left_out[0])
    report = make_report(given, pairs, groups, across, left_out, config.margin_nats)
    cuts = cuts_of_groups(report) if config.report else None
    out = Path(config.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={out} cannot be made a folder ({error.strerror}); choose another.") from None
    write_atomically(out / "comparison.csv", csv_text(report))
    write_atomically(out / "comparison.json", json.dumps(report, indent=2))
    write_atomically(out / "comparison.png", draw_comparison(report))
    pages = write_report(out, report, cuts)[:1] if config.report else []
    if not config.report:
        remove_report(out)
    log.info("%s\n", screen_text(report))
    for page in pages:
        log.info("Report:  %s", page)
    log.info("Plot:    %s", out / "comparison.png")
    log.info("Numbers: %s\n         %s", out / "comparison.csv", out / "comparison.json")
    log.info("Runs:    %s", "\n         ".join(dict.fromkeys(run["folder"] for run in report["runs"])))


if __name__ == "__main__":
    run_script("compare_directions", main, alone="runs")
