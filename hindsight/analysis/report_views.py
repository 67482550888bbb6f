"""What report.html says of a group, in words and in rows: how it was measured, what was equal, where the gap is."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from hindsight.analysis.figures import Runs, runs_of
from hindsight.analysis.inference import MOST_FLIPPED
from hindsight.analysis.report_tables import BIN_COLUMNS, TOKEN_LISTS
from hindsight.analysis.tables import shown
from hindsight.analysis.verdict import ONE_PAIR, text_note
from hindsight.shown_text import visible

Json = Mapping[str, Any]
SHADES_NATS = (0.1, 0.5, 1.0, 2.0)
"""From which |gap| of a token on it has the next darker shade."""
SHOWN_ROWS = 12
"""Rows of a table in the page; the files have all."""
SHOWN_PASSAGES = 3
"""Passages in the page, each way; the files have all that were kept."""
CUTS = {
    "context": "tokens of context that the model had",
    "window_place": "position in the window",
    "document_place": "position in the document",
    "class": "kind of token",
    "frequency": "frequency of the token, in tenths of all tokens",
    "document": "document",
}
NOT_SETTINGS = ("direction", "order", "seed", "run_name", "runs_dir")
"""Keys of config.yaml in which the runs of a group differ, or which name the run."""
COMMON_METADATA = ("n_parameters", "data_fingerprint", "tokenizer_fingerprint", "git_commit")


def facts(group: Json, row: Json) -> list[dict[str, str]]:
    """Give the numbers that stand first.

    Args:
        group: of comparison.json.
        row: the same as a row of its table.
    """
    found = [_fact("gap (nats/token)", shown(row["gap_nats"], "+"), _interval(row, "interval", "nats"))]
    found.append(_fact("gap (%)", shown(row["relative_percent"], "+"), _interval(row, "relative", "percent")))
    if row["null_nats"] is not None:
        ratio = f"the gap is {shown(row['gap_over_null'])} times that" if row["gap_over_null"] is not None else ""
        found.append(_fact("null (nats/token)", shown(row["null_nats"]), ratio))
    found.append(_runs(group))
    if row["nats_per_document"] is not None:
        found.append(
            _fact("gap (nats/document)", shown(row["nats_per_document"], "+"), _interval(row, "nats_per_document"))
        )
    if row["bits_per_byte"] is not None:
        found.append(_fact("gap (bits/byte)", shown(row["bits_per_byte"], "+"), _interval(row, "bits_per_byte")))
    return found


def _runs(group: Json) -> dict[str, str]:
    """Count what the gap is the mean of: pairs, or the runs of either order."""
    if not group["is_paired"]:
        orders = group["order"], group["reference"]
        return _fact("runs, not paired", " and ".join(str(len(group["runs"][o])) for o in orders), " and ".join(orders))
    seeds = ", ".join(map(str, group["seeds"]))
    return _fact("pairs of runs", str(len(group["seeds"])), f"seeds {seeds}" if 0 < len(seeds) < 24 else "")


def _fact(name: str, value: str, detail: str) -> dict[str, str]:
    return {"name": name, "value": value, "detail": detail}


def _interval(row: Json, name: str, unit: str = "") -> str:
    low, high = (row[f"{name}_{end}{unit and '_'}{unit}"] for end in ("low", "high"))
    return f"no interval: {ONE_PAIR}" if low is None else f"95%: {shown(low, '+')} to {shown(high, '+')}"


def method(group: Json) -> list[str]:
    """Say how the gap was measured, what it is compared with, and what is not used, in whole sentences."""
    return [_trained(group), *_tests(group), *_beside(group)]


def _trained(group: Json) -> str:
    order, reference = group["order"], group["reference"]
    evaluated = f"evaluated on the same tokens, each once. The gap is {order} minus {reference}."
    if group["is_both"]:
        return f"Every model was trained in both orders, and in each by itself {evaluated}"
    same = (
        f"They differ in the order in which they read, and in nothing else that may change a loss. All are {evaluated}"
    )
    if not group["is_paired"]:
        n, m = (len(group["runs"][each]) for each in (order, reference))
        return (
            f"Models were trained in two orders, {order} ({n}) and {reference} ({m}), with seeds of their own. {same}"
        )
    alike = "Runs of one seed begin with the same weights and see the same windows in the same batches."
    n_seeds = len(group["seeds"])
    seeds = "1 seed" if n_seeds == 1 else f"the same {n_seeds} seeds"
    return f"Models were trained in two orders, {order} and {reference}, with {seeds}. {alike} {same}"


def _tests(group: Json) -> list[str]:
    """Say what the tests over seeds find."""
    gap, n_seeds = group["gap"], len(group["seeds"])
    paired, welch = gap["paired_interval_nats"], gap["welch_interval_nats"]
    lines: list[str] = []
    if paired:
        line = f"The unit of inference is the trained run. Paired t over seeds: t = {shown(gap['t'])}, "
        line += f"p = {shown(gap['p'])}, 95% interval {_range(paired)} nats/token."
        lines.append(line + (f" Welch, which does not pair the seeds: {_range(welch)}." if welch else ""))
    elif welch and not group["is_paired"]:
        line = "The unit of inference is the trained run. Welch's t test, because the orders share too few seeds: "
        lines.append(f"{line}t = {shown(gap['t'])}, p = {shown(gap['p'])}, 95% interval {_range(welch)} nats/token.")
    else:
        lines.append(
            "The unit of inference is the trained run: with fewer than 3 seeds there is no interval, because "
            f"{ONE_PAIR}."
        )
    if gap["cohens_d"] is not None:
        lines[-1] += f" Mean over standard deviation (Cohen's d): {shown(gap['cohens_d'])}."
    if gap["sign_flip_p"] is not None:
        least = f"with {n_seeds} seeds it can be no smaller than {shown(gap['sign_flip_smallest_p'])}"
        which = "Exact sign-flip test" if n_seeds <= MOST_FLIPPED else "Sign-flip test with flips drawn at random"
        lines.append(f"{which}: p = {shown(gap['sign_flip_p'])}; {least}.")
    if equivalence := gap["equivalence"]:
        shows = "the orders are alike" if equivalence["is_equivalent"] else "that the orders are alike is not shown"
        margin = f"{equivalence['margin_nats']:g}"
        lines.append(f"Equivalence within \u00b1{margin} nats/token (TOST): p = {shown(equivalence['p'])}; {shows}.")
    return lines


def _beside(group: Json) -> list[str]:
    """Say what stands beside the gap: the null, the bootstrap, the components of its variance, the test not used."""
    lines: list[str] = []
    if null := group["null"]:
        n_pairs = sum(null[order]["n_pairs"] for order in (group["order"], group["reference"]) if null.get(order))
        lines.append(
            f"The null: runs of one order that differ in the seed alone lie {shown(null['mean_absolute_nats'])} "
            f"nats/token apart ({shown(null['mean_absolute_percent'])}%; mean over {n_pairs} pairs)."
        )
    if (note := text_note(group)) is not None:
        lines.append(f"Bootstrap, standard deviations by document and cuts are {note} nats/token.")
    if bootstrap := group["bootstrap"]:
        nominal = f"{100 * bootstrap['nominal']:.0f}%"
        lines.append(
            "Bootstrap of seeds and, drawn once for all of them, documents and blocks of text in these: "
            f"{_range(bootstrap['interval_nats'])} nats/token. In simulations with {len(group['seeds'])} seeds and the "
            f"spread found here, such an interval held the true gap in {100 * bootstrap['coverage']:.1f}% of cases, "
            f"where {nominal} is asked for; {_coverages(bootstrap['coverage_by_seeds'])}."
        )
    if components := group["components"]:
        lines.append(
            f"Standard deviations of a document's gap: over seeds {shown(components['seed_nats'])}, over documents "
            f"{shown(components['document_nats'])}, the rest {shown(components['residual_nats'])} nats/token."
        )
    if test := group["documents_test"]:
        seeds = " and ".join(map(str, test["seeds"]))
        lines.append(
            f"No test over documents is used. Between the {test['order']} runs of seeds {seeds}, a t test over "
            f"{shown(test['n_documents'])} documents gives t = {shown(test['t'])}, p = {shown(test['p'])}, and "
            f"{test['why_not_used']}."
        )
    return lines


def _coverages(by_seeds: Mapping[str, float]) -> str:
    return ", ".join(f"with {n} seeds in {100 * share:.1f}%" for n, share in by_seeds.items())


def _range(interval: Sequence[float]) -> str:
    return f"{shown(interval[0], '+')} to {shown(interval[1], '+')}"


def commands(group: Json) -> list[str]:
    """Give the commands that make the files of losses by token."""
    folders = [folder for order in group["runs"].values() for folder in order.values()]
    return [visible(shlex.join(["python", "evaluate_tokens.py", f"run={folder}"])) for folder in folders]


def power_rows(group: Json) -> list[dict[str, str]]:
    """Say how many seeds resolve a margin, and which margin so many seeds resolve."""
    power = group.get("power") or {}
    rows = [
        {
            "what": f"seeds that resolve a gap of {margin} nats/token",
            "answer": "over a million" if n is None else shown(n),
        }
        for margin, n in (power.get("seeds_for_margin") or {}).items()
    ]
    return rows + [
        {"what": f"gap that {n} seeds resolve (nats/token)", "answer": shown(margin)}
        for n, margin in (power.get("margin_for_seeds_nats") or {}).items()
    ]


def settings(runs: Sequence[Json]) -> list[dict[str, str]]:
    """List what the runs of a group have in common, and where they differ all that they have."""
    rows: list[dict[str, str]] = []
    of_runs = [{**run["config"], **{key: run["metadata"].get(key) for key in COMMON_METADATA}} for run in runs]
    for run, values in zip(runs, of_runs, strict=True):
        values |= {"training tokens": run["tokens"], "steps": run["step"]}
    for key in dict.fromkeys(key for values in of_runs for key in values if key not in NOT_SETTINGS):
        found = dict.fromkeys(shown(values.get(key)) for values in of_runs)
        rows.append({"key": key, "value": "; ".join(found)})
    return rows


def cut_tables(cuts: Json) -> list[dict[str, Any]]:
    """Give the tables of the cuts, each with as many rows as a page has room for."""
    columns = BIN_COLUMNS | {"reference_nats": f"{cuts['reference']} (nats/token)"}
    columns |= {"order_nats": f"{cuts['order']} (nats/token)", "gap_std_nats": "± over seeds"}
    tables = [_cut_table(name, title, cuts["cuts"][name], columns) for name, title in CUTS.items()]
    left_out = [{**split["rest"], "label": split["label"]} for split in cuts["left_out"]]
    more = {name: columns[name] for name in ("label", "n_tokens", "gap_nats", "gap_std_nats")}
    more |= {"label": "left out", "n_tokens": "tokens of the rest", "gap_nats": "gap of the rest (nats/token)"}
    tables.append(_cut_table("left_out", "what is left where tokens are left out", left_out, more, most=99))
    of_tokens = {"spaced": "token", **{name: columns[name] for name in columns if name != "label"}}
    for key, said in TOKEN_LISTS.items():
        rows = [{**row, "spaced": spaced(row["label"])} for row in cuts["tokens"][key]]
        least = f", of those that occur {cuts['tokens']['min_count']} times or more" if key.startswith("mean") else ""
        tables.append(_cut_table("tokens", f"tokens {said}{least}".replace("ORDER", cuts["order"]), rows, of_tokens))
    return [table for table in tables if table["rows"]]


def _cut_table(name: str, title: str, rows: Sequence[Json], columns: Json, most: int = SHOWN_ROWS) -> dict[str, Any]:
    if name == "document":
        title = "document, the largest contributions first"
        rows = sorted(rows, key=lambda row: -abs(row["contribution_nats"]))
    most = most if name in ("document", "tokens") else len(rows)
    return {
        "name": f"cut_{name}",
        "title": title,
        "columns": columns,
        "rows": rows[:most],
        "more": len(rows) - len(rows[:most]),
    }


def tokens(rows: Sequence[Json], cuts: Json) -> list[dict[str, str]]:
    """Give each token of a passage its text, its shade, and what is said of it."""
    return [
        {"text": visible(row["text"]), "shade": _shade(row["nats"][1] - row["nats"][0]), "tip": _tip(row, cuts)}
        for row in rows
    ]


def _shade(gap_nats: float) -> str:
    level = sum(abs(gap_nats) >= least for least in SHADES_NATS)
    return f"{'o' if gap_nats > 0 else 'r'}{level}" if level else "s"


def _tip(row: Json, cuts: Json) -> str:
    lines = [f"\u201c{spaced(row['text'])}\u201d"]
    for name, nats, ranks, context in zip(
        (cuts["reference"], cuts["order"]), row["nats"], row["ranks"], row["context"], strict=True
    ):
        ranked = f"rank{'s' * (len(ranks) > 1)} {', '.join(map(shown, ranks))}"
        lines.append(f"{name}: {shown(nats)} nats; {ranked}; context {shown(context)}")
    lines.append(f"{cuts['order']} \u2212 {cuts['reference']}: {shown(row['nats'][1] - row['nats'][0], '+')} nats")
    return "\n".join(map(visible, lines))


def spaced(text: str) -> str:
    """Show the spaces and line feeds of a token."""
    return visible(text.replace(" ", "\u2423").replace("\n", "\u21b5").replace("\t", "\u21e5"))


def passages(cuts: Json) -> list[tuple[str, list[dict[str, Any]]]]:
    """Give the passages with the largest gaps, each way."""
    n = cuts["passages"]["tokens_each"]
    return [
        (
            f"Where {cuts['order']} is {said} by most, in passages of {n} tokens",
            [
                {**each, "tokens": tokens(each["tokens"], cuts)}
                | {"before": visible(each["before"].lstrip()), "after": visible(each["after"].rstrip())}
                for each in cuts["passages"][key][:SHOWN_PASSAGES]
            ],
        )
        for key, said in (("order_harder", "harder"), ("order_easier", "easier"))
    ]


def warnings(group: Json, report: Json) -> list[str]:
    """Give what the comparison warns of, for the group and for its pairs, each once."""
    folders = {folder for order in group["runs"].values() for folder in order.values()}
    alike = [p for p in report["pairs"] if {p[p["reference"]], p[p["order"]]} <= folders]
    return [*dict.fromkeys([*group["warnings"], *(warning for pair in alike for warning in pair["warnings"])])]


def samples(group: Json, runs: Runs) -> list[dict[str, str]]:
    """Give what the first run of each order wrote last."""
    found: list[dict[str, str]] = []
    for order in (group["reference"], group["order"]):
        sample = runs_of(group, order, runs)[0]["sample"]
        if sample:
            given = {key: visible(str(sample.get(key))) for key in ("step", "prompt", "text")}
            found.append({"order": order, **given})
    return found
