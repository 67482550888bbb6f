"""The report of a comparison as data: comparison.json, comparison.csv."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hindsight.analysis.across_tokenizers import runs_in
from hindsight.analysis.findings import find, table_of
from hindsight.analysis.groups import Group
from hindsight.analysis.pairs import Pair, family_of
from hindsight.analysis.recorded import RecordedRun
from hindsight.analysis.statistics import over_seeds
from hindsight.analysis.tables import cell
from hindsight.analysis.text_blocks import read_texts
from hindsight.runs import EVAL, METRIC_NAMES

ABOUT = ("val_unigram_entropy_nats", "n_parameters", "data_fingerprint", "tokenizer_fingerprint", "git_commit")
"""Keys of metadata.json that comparison.csv repeats for each run."""


def make_report(
    given: Sequence[RecordedRun],
    pairs: Sequence[Pair],
    groups: Sequence[Group],
    across: Sequence[dict[str, Any]] = (),
    left_out: Sequence[str] = (),
    margin_nats: float | None = None,
) -> dict[str, Any]:
    """Collect everything that is known about runs: the content of comparison.json.

    Args:
        given: all runs.
        pairs: those of them that are compared run by run.
        groups: those that are compared over seeds.
        across: what `across_tokenizers` says of them.
        left_out: why other runs are not.
        margin_nats: largest gap that counts as none; None for no test of that.

    Raises:
        InputError: a file of token losses is damaged, or of other data.
    """
    found: list[dict[str, Any]] = []
    for group in groups:
        texts, note = read_texts(group)
        found.append(find(group, texts, margin_nats) | {"notes": [note] if note else []})
    return {
        "groups": found,
        "table": table_of(found),
        "across_tokenizers": [*across],
        "runs": [
            row | {name: getattr(run, name) for name in ("config", "metadata", "evaluations", "sample")}
            for row, run in _rows(pairs, groups, runs_in(across, given))
        ],
        "pairs": [
            {"pair": pair.label, "data": pair.data, "model": pair.model, "seed": pair.seed}
            | {"reference": pair.orders[0], "order": pair.orders[1]}
            | {run.order: str(run.folder) for run in pair.runs}
            | pair.gaps()
            | {"warnings": pair.warnings()}
            for pair in pairs
        ],
        "over_seeds": over_seeds(pairs),
        "left_out": [*left_out],
    }


def _rows(
    pairs: Sequence[Pair], groups: Sequence[Group], across: Sequence[tuple[RecordedRun, Mapping[str, Any]]]
) -> Iterator[tuple[dict[str, Any], RecordedRun]]:
    """Every run that is compared once, those of a pair together, with its line of comparison.csv."""
    twins: dict[tuple[str, int], dict[str, tuple[dict[str, Any], RecordedRun]]] = {}
    named = [(run, each.data, each.model) for each in pairs for run in each.runs]
    named += [(run, each.data, each.model) for each in groups for of in each.runs.values() for run in of.values()]
    named += [(run, row["data"], row["model"]) for run, row in across]
    for run, data, model in named:
        alike = twins.setdefault((family_of(run), run.config["seed"]), {})
        if run.order not in alike:
            alike[run.order] = (_row(run, f"{data} {model} seed {run.config['seed']}", data), run)
    for alike in twins.values():
        yield from alike.values()


def _row(run: RecordedRun, label: str, data: str) -> dict[str, Any]:
    last = run.evaluations[-1]
    row = {"pair": label, "data": data, "direction": run.order, "order": run.order}
    row |= {"model": run.config["model.name"], "seed": run.config["seed"], "folder": str(run.folder)}
    row |= {"step": last["step"], "tokens": last["tokens"]} | {name: last[EVAL + name] for name in METRIC_NAMES}
    return row | {"tokens_per_second": run.tokens_per_second} | {key: run.metadata.get(key) for key in ABOUT}


def csv_text(report: dict[str, Any]) -> str:
    """Write comparison.csv: a line for each run, numbers with all their digits.

    Args:
        report: the content of comparison.json.
    """
    long = ("config", "metadata", "evaluations", "sample")
    rows, table = [{key: run[key] for key in run if key not in long} for run in report["runs"]], io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: cell(value) for key, value in row.items()} for row in rows)
    return table.getvalue()
