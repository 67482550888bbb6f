"""Runs that share their documents and not their tokenizer: is it the tokenizer?

A token of one tokenizer is not a token of another, so that nats per token cannot be compared. Nats per document and
bits per byte can: they are of the same text. Text that was reversed before it was tokenized has other tokens too, even
if the tokenizer is the same, as one of bytes is.

The answer is in the gaps: of an order and the reference in tokens of each kind, and, of text that was reversed, of runs
that read its characters in a known direction and those that read text in reading order forward.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hindsight import runs
from hindsight.analysis import inference
from hindsight.analysis.names import names_of
from hindsight.analysis.pairs import family_of, reference_of
from hindsight.analysis.recorded import RecordedRun
from hindsight.config.corpus import TextOrder
from hindsight.config.direction import Direction

DOCUMENTS = ("corpus_fingerprint", "val_documents", "val_bytes")
"""Keys of metadata.json that are the same for runs whose validation text is the same."""
TOKENIZER = runs.FINGERPRINTS[1]
OF_TOKENS = ("seed", *runs.FINGERPRINTS, "val_unigram_entropy_nats", runs.LR_PLAN, "model.vocab_size")
"""Settings in which runs differ because of their tokens, and their seed."""
UNITS = ("nats_per_document", "bits_per_byte")
CHARACTERS = {Direction.forward.name: "characters backward", Direction.backward.name: "characters forward"}
"""How a model reads the characters of reversed text, by its order."""
Row = dict[str, Any]
Alike = Mapping[int, RecordedRun]
"""Runs that differ in nothing but the seed, by their seeds."""


def across_tokenizers(given: Sequence[RecordedRun]) -> list[dict[str, Any]]:
    """Summarize runs by tokenizer, model and order, in units that do not depend on the tokenizer.

    Args:
        given: all runs. Those are left out that do not record their documents, because they are older, or whose
            evaluations cover a part of them (eval_batches=).

    Returns:
        For each validation text that is there in tokens of more than one kind: its documents and bytes, rows, and gaps.
    """
    texts: dict[tuple[Any, ...], list[RecordedRun]] = {}
    for run in given:
        known = tuple(run.metadata.get(key) for key in DOCUMENTS)
        if all(known) and run.metadata.get("val_tokens") and run.config.get("eval_batches") is None:
            texts.setdefault(known, []).append(run)
    return [
        {"documents": documents, "bytes": size} | _compared(found)
        for (_, documents, size), found in texts.items()
        if len({(run.metadata[TOKENIZER], text_order_of(run)) for run in found}) > 1
    ]


def text_order_of(run: RecordedRun) -> str:
    """The order in which the text of a run's data was tokenized; runs from before that key read it as it is."""
    return run.metadata.get("text_order") or TextOrder.reading.value


def gap_name(gap: Mapping[str, Any]) -> str:
    """Say in words what a gap compares: an entry of `gaps` of a text."""
    against = gap["against"]
    both = " (of both)" if gap["is_both"] else ""
    if gap["reads"] is None:
        kind = f"{gap['data']} {gap['model']}, {gap['vocab_size']} ids"
        kind += ", text reversed" if gap["text_order"] != TextOrder.reading.value else ""
        return f"{kind}: {gap['order']} against {against['order']}{both}"
    what = f"{gap['data']} {gap['model']}, {gap['vocab_size']} ids, text reversed: {gap['order']}{both}"
    other = f"{against['order']} in {against['data']}, {against['vocab_size']} ids"
    return f"{what}, which reads {gap['reads']}, against {other}"


def runs_in(
    across: Sequence[Mapping[str, Any]], given: Sequence[RecordedRun]
) -> list[tuple[RecordedRun, Mapping[str, Any]]]:
    """Give the runs that are in a row of such a table, and the row."""
    rows = {(folder, row["order"]): row for text in across for row in text["rows"] for folder in row["runs"].values()}
    found = [(run, rows.get((str(run.folder), run.order))) for run in given]
    return [(run, row) for run, row in found if row is not None]


def _compared(given: Sequence[RecordedRun]) -> dict[str, Any]:
    alike: dict[tuple[str, str, int], dict[int, RecordedRun]] = {}
    for run in given:
        alike.setdefault((family_of(run), run.order, run.step), {}).setdefault(run.config["seed"], run)
    firsts = [next(iter(each.values())) for each in alike.values()]
    names = names_of([(run.settings, run.config) for run in firsts])
    rows: list[Row] = []
    for (data, model), first, each in zip(names, firsts, alike.values(), strict=True):
        nats, bits = (_values(unit, [*each.values()]) for unit in UNITS)
        row = {"data": data, "model": model, "order": first.order, "is_both": first.is_both}
        row |= {"text_order": text_order_of(first), "vocab_size": first.metadata.get("vocab_size")}
        row |= {"runs": {str(seed): str(run.folder) for seed, run in each.items()}}
        row |= {"tokenizer_fingerprint": first.metadata[TOKENIZER], "seeds": [*each]}
        row |= {"nats_per_token": statistics.mean(run.loss_nats for run in each.values())}
        row |= {"nats_per_document": statistics.mean(nats), "nats_per_document_std": _std(nats)}
        rows.append(row | {"bits_per_byte": statistics.mean(bits), "bits_per_byte_std": _std(bits)})
    found = [*zip(rows, alike.values(), strict=True)]
    return {"rows": rows, "gaps": [*_gaps_of_orders(found), *_gaps_of_characters(found)]}


def _gaps_of_orders(found: Sequence[tuple[Row, Alike]]) -> list[Row]:
    """Compare orders in tokens of the same kind."""
    families: dict[tuple[str, int], dict[str, tuple[Row, Alike]]] = {}
    for row, alike in found:
        first = next(iter(alike.values()))
        families.setdefault((family_of(first), first.step), {})[first.order] = row, alike
    gaps: list[Row] = []
    for family in families.values():
        reference = family.pop(reference_of(family))
        gaps += [_gap(reference, other) for other in family.values()]
    return gaps


def _gaps_of_characters(found: Sequence[tuple[Row, Alike]]) -> list[Row]:
    """Compare what reads reversed text with what reads text in reading order forward, with the same settings."""
    gaps: list[Row] = []
    for row, alike in found:
        if row["text_order"] == TextOrder.reading.value or row["order"] not in CHARACTERS:
            continue
        near = [
            other
            for other in found
            if other[0]["text_order"] == TextOrder.reading.value
            and other[0]["order"] == Direction.forward.name
            and _kin(other[1]) == _kin(alike)
        ]
        if near:
            nearest = min(_distance(row, other[0]) for other in near)
            reference = next(other for other in near if _distance(row, other[0]) == nearest)
            gaps.append(_gap(reference, (row, alike), CHARACTERS[row["order"]]))
    return gaps


def _kin(alike: Alike) -> str:
    settings = next(iter(alike.values())).settings
    return json.dumps({key: value for key, value in settings.items() if key not in OF_TOKENS}, sort_keys=True)


def _distance(row: Row, other: Row) -> tuple[bool, bool]:
    """How far tokenizers are apart: the same one comes first, then one of as many ids."""
    return row["tokenizer_fingerprint"] != other["tokenizer_fingerprint"], row["vocab_size"] != other["vocab_size"]


def _gap(reference: tuple[Row, Alike], other: tuple[Row, Alike], reads: str | None = None) -> Row:
    """Compare two rows over the seeds that both have; without pairing where that leaves fewer than an interval takes.

    Args:
        reference: what is subtracted.
        other: from what.
        reads: how the other reads characters, where the two differ in the order of their text.
    """
    (row, of_row), (against, of_against) = other, reference
    gap: Row = {key: row[key] for key in ("data", "model", "order", "is_both", "text_order", "vocab_size")}
    gap["reads"] = reads
    gap["against"] = {key: against[key] for key in ("data", "model", "order", "text_order", "vocab_size")}
    shared = [seed for seed in of_against if seed in of_row]
    is_enough = min(len(of_against), len(of_row)) >= inference.FEWEST_SEEDS
    gap["seeds"] = [] if len(shared) < inference.FEWEST_SEEDS and is_enough else shared
    for unit in UNITS:
        if gap["seeds"]:
            both = [np.array(_values(unit, [of[seed] for seed in gap["seeds"]])) for of in (of_against, of_row)]
            test = inference.paired_t(both[1] - both[0])
        else:
            test = inference.welch_t(*(np.array(_values(unit, [*of.values()])) for of in (of_against, of_row)))
        gap |= {unit: test.mean, f"{unit}_interval": [*test.interval] if test.interval else None, f"{unit}_p": test.p}
    return gap


def _values(unit: str, given: Sequence[RecordedRun]) -> list[float]:
    if unit == "bits_per_byte":
        return [run.evaluations[-1]["eval/bits_per_byte"] for run in given]
    return [run.loss_nats * run.metadata["val_tokens"] / run.metadata["val_documents"] for run in given]


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
