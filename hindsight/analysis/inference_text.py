"""The inference about groups as text for the screen."""

from typing import Any

from hindsight.analysis.across_tokenizers import gap_name
from hindsight.analysis.inference import MOST_FLIPPED
from hindsight.analysis.layout import aligned, counted, labelled, wrapped
from hindsight.analysis.verdict import ONE_PAIR, digits_of, text_note

NOTICED = 0.02
"""How far below its nominal coverage an interval is called too narrow."""

NO_GROUP = "There is no group of runs that differ in nothing but order and seed."


def verdict_text(report: dict[str, Any]) -> str:
    """Write the verdict of every group, and what is said of them together.

    Args:
        report: the content of comparison.json.
    """
    groups, table = report["groups"], report["table"]
    if not groups:
        return wrapped(NO_GROUP)
    if len(groups) == 1:
        return wrapped(groups[0]["verdict"])
    lines = [wrapped(f"{group['name']}: {group['verdict']}") for group in groups]
    if len(table["holm"]) > 1:
        rows = "; ".join(f"{row['name']} {_p(row['p_holm'])}" for row in table["holm"])
        lines.append(wrapped(f"All together (Holm): {rows}."))
    for mean in table["random_effects"]:
        interval = mean["interval_percent"]
        within = (
            "no interval" if interval is None else "95% interval {:+.2f} to {:+.2f} (t over groups)".format(*interval)
        )
        said = f"{mean['mean_percent']:+.2f}%, {within}, I² {100 * mean['i2']:.0f}%"
        orders = f"{mean['order']} against {mean['reference']}{' of both' if mean['is_both'] else ''}"
        lines.append(wrapped(f"Mean of {len(mean['groups'])} groups, {mean['model']}, {orders}: {said}."))
    return "\n".join(lines)


def inference_text(group: dict[str, Any]) -> str:
    """Write all that was computed about a group: a line for each statistic.

    Args:
        group: an entry of `groups` in comparison.json.
    """
    gap = group["gap"]
    n, m = (len(group["runs"][order]) for order in (group["reference"], group["order"]))
    how = counted(len(group["seeds"]), "pair") if group["is_paired"] else "not paired"
    lines = [
        wrapped(f"{group['name']}: {group['order']} ({counted(m, 'seed')}) against {group['reference']} ({n}), {how}")
    ]
    if gap["per_seed_nats"]:
        listed = ", ".join(
            f"{value:+.4f} (seed {seed})" for seed, value in zip(group["seeds"], gap["per_seed_nats"], strict=True)
        )
        lines.append(labelled("gap, nats/token", listed))
    lines += _mean_lines(group) + _null_lines(group) + _text_lines(group) + _power_lines(group)
    lines += [labelled("not done", note) for note in group["notes"]]
    return "\n".join(lines)


def across_text(text: dict[str, Any]) -> str:
    """Write the table of runs with the same documents and several tokenizers.

    Args:
        text: an entry of `across_tokenizers` in comparison.json.
    """
    rows = [["", "seeds", "nats/token", "nats/document", "bits/byte"]]
    for row in text["rows"]:
        reversed_text = ", text reversed" if row["text_order"] == "reversed" else ""
        rows.append([wrapped(f"{row['data']} {row['model']}, {row['vocab_size']} ids{reversed_text}")])
        cells = [f"{row['nats_per_token']:.4f}", _spread(row, "nats_per_document", 1), _spread(row, "bits_per_byte", 4)]
        rows.append([f"  {row['order']}{' (of both)' if row['is_both'] else ''}", str(len(row["seeds"])), *cells])
    what = f"the same {text['documents']:,} documents, {text['bytes']:,} bytes"
    title = wrapped(f"Across tokenizers: {what}; nats per token cannot be compared, the others can.")
    return "\n".join([title, aligned(rows), *_gap_lines(text["gaps"])])


def _gap_lines(gaps: list[dict[str, Any]]) -> list[str]:
    """Write what tokens of other kinds change in a gap; without an interval where there are too few seeds."""
    rows = [["gap, ± 95%", "seeds", "nats/document", "bits/byte"]]
    for gap in gaps:
        rows.append([wrapped(gap_name(gap))])
        ends = [(gap[unit], gap[f"{unit}_interval"]) for unit in ("nats_per_document", "bits_per_byte")]
        cells = [_interval(mean, interval, least) for (mean, interval), least in zip(ends, (1, 4), strict=True)]
        rows.append(["", str(len(gap["seeds"])) if gap["seeds"] else "not paired", *cells])
    few = any(gap["nats_per_document_interval"] is None for gap in gaps)
    return [aligned(rows), *([wrapped(f"Where no interval is: {ONE_PAIR}.")] if few else [])] if gaps else []


def _mean_lines(group: dict[str, Any]) -> list[str]:
    gap = group["gap"]
    if gap["relative_interval_percent"] is None:
        return [labelled("mean", f"{gap['mean_nats']:+.4f}; no interval: {ONE_PAIR}")]
    lines: list[str] = []
    t = f"t = {gap['t']:.2f}, {gap['degrees_of_freedom']:.3g} degrees of freedom, " if gap["t"] is not None else ""
    if group["is_paired"]:
        lines.append(
            labelled(
                "mean, paired t", f"{_interval(gap['mean_nats'], gap['paired_interval_nats'])} ({t}{_p(gap['p'])})"
            )
        )
    if (welch := gap["welch_interval_nats"]) is not None:
        said = f"({_p(gap['p_welch'])})" if group["is_paired"] else f"({t}{_p(gap['p'])})"
        lines.append(labelled("mean, Welch's t", f"{_interval(sum(welch) / 2, welch)} {said}"))
    low, high = gap["relative_interval_percent"]
    digits = digits_of((high - low) / 2)
    lines.append(labelled("ratio - 1", f"{gap['relative_percent']:+.{digits}f}% ± {(high - low) / 2:.{digits}f}"))
    if gap["sign_flip_p"] is not None:
        n = len(group["seeds"])
        how = "exact" if n <= MOST_FLIPPED else "drawn at random"
        least = f"with {n} seeds it is {gap['sign_flip_smallest_p']:.3g} at least"
        lines.append(labelled("sign flips", f"{how}: {_p(gap['sign_flip_p'])}; {least}"))
    if gap["cohens_d"] is not None:
        lines.append(labelled("Cohen's d", f"{gap['cohens_d']:.2f} standard deviations over seeds"))
    if (equal := gap["equivalence"]) is not None:
        shown = "equivalent" if equal["is_equivalent"] else "not shown to be equivalent"
        lines.append(labelled("margin (TOST)", f"{equal['margin_nats']:g} nats: {shown}, {_p(equal['p'])}"))
    return lines


def _null_lines(group: dict[str, Any]) -> list[str]:
    null = group["null"]
    if null is None:
        return [labelled("null", "not known; it takes two seeds of one order")]
    pairs = sum(null[order]["n_pairs"] for order in group["runs"] if order in null)
    each = ", ".join(
        f"{order} {null[order]['mean_absolute_nats']:.4f}{_plus_minus(null[order]['std_nats'])}"
        for order in group["runs"]
        if order in null
    )
    ratio = "" if null["ratio"] is None else f"; the gap is {null['ratio']:.1f} times that"
    of = f"{each}; {counted(pairs, 'pair')} of seeds"
    said = f"{null['mean_absolute_nats']:.4f} nats, {null['mean_absolute_percent']:.2f}% ({of}){ratio}"
    return [labelled("null, other seeds", said)]


def _text_lines(group: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    if (note := text_note(group)) is not None:
        lines.append(labelled("by token", f"{note}; so are bootstrap, deviations and cuts"))
    if (boot := group["bootstrap"]) is not None:
        low, high = boot["interval_nats"]
        covers = f"covers {100 * boot['coverage']:.0f}% rather than {100 * boot['nominal']:.0f}%"
        width = "is too narrow: it " if boot["coverage"] < boot["nominal"] - NOTICED else ""
        seeds = f"with {len(group['seeds'])} seeds it"
        by_seeds = ", ".join(f"{n}: {100 * share:.0f}%" for n, share in boot["coverage_by_seeds"].items())
        said = f"{low:+.4f} to {high:+.4f} nats; {seeds} {width}{covers} ({by_seeds} by seeds)"
        lines.append(labelled("bootstrap, 95%", said))
    if (parts := group["components"]) is not None:
        listed = ", ".join(f"{name} {parts[f'{name}_nats']:.4f}" for name in ("seed", "document", "residual"))
        lines.append(labelled("deviation from", f"{listed} nats"))
    if (test := group["documents_test"]) is not None:
        seeds = f"seeds {test['seeds'][0]} and {test['seeds'][1]} of {test['order']}"
        lines.append(
            labelled("over documents", f"not used: t = {test['t']:.1f} between {seeds}; {test['why_not_used']}")
        )
    return lines


def _power_lines(group: dict[str, Any]) -> list[str]:
    power = group["power"]
    if power is None:
        return []
    seeds = ", ".join(f"{margin}: {n or 'over a million'}" for margin, n in power["seeds_for_margin"].items())
    margins = ", ".join(f"{n}: {margin:.2g}" for n, margin in power["margin_for_seeds_nats"].items())
    return [
        labelled("seeds for a gap", f"{seeds} (nats: seeds)"),
        labelled("gap for seeds", f"{margins} (seeds: nats)"),
    ]


def _interval(mean: float, interval: list[float] | None, least: int = 4) -> str:
    if interval is None:
        return f"{mean:+,.{least}f}"
    half = (interval[1] - interval[0]) / 2
    digits = digits_of(half, least)
    return f"{mean:+,.{digits}f} ± {half:,.{digits}f}"


def _spread(row: dict[str, Any], key: str, digits: int) -> str:
    std = row[f"{key}_std"]
    return f"{row[key]:,.{digits}f}" + ("" if std is None else f" ± {std:.{digits}f}")


def _plus_minus(std: float | None) -> str:
    return "" if std is None else f" ± {std:.4f}"


def _p(p: float | None) -> str:
    if p is None:
        return "no spread over seeds"
    return f"p = {p:.3g}" if p >= 0.0001 else "p < 0.0001"
