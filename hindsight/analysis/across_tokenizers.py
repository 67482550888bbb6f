"""Runs that share their documents and not their tokenizer: is it the tokenizer?

A token of one tokenizer is not a token of another, so that nats per token cannot be compared. Nats per document and
bits per byte can: they are of the same text. Text that was reversed before it was tokenized has other tokens too, even
if the tokenizer is the same, as one of bytes is.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from hindsight import runs
from hindsight.analysis.names import names_of
from hindsight.analysis.pairs import family_of
from hindsight.analysis.recorded import RecordedRun
from hindsight.config.corpus import TextOrder

DOCUMENTS = ("corpus_fingerprint", "val_documents", "val_bytes")
"""Keys of metadata.json that are the same for runs whose validation text is the same."""
TOKENIZER = runs.FINGERPRINTS[1]


def across_tokenizers(given: Sequence[RecordedRun]) -> list[dict[str, Any]]:
    """Summarize runs by tokenizer, model and order, in units that do not depend on the tokenizer.

    Args:
        given: all runs. Those are left out that do not record their documents, because they are older, or whose
            evaluations cover a part of them (eval_batches=).

    Returns:
        For each validation text that is there in tokens of more than one kind: its documents and bytes, and rows.
    """
    texts: dict[tuple[Any, ...], list[RecordedRun]] = {}
    for run in given:
        known = tuple(run.metadata.get(key) for key in DOCUMENTS)
        if all(known) and run.metadata.get("val_tokens") and run.config.get("eval_batches") is None:
            texts.setdefault(known, []).append(run)
    return [
        {"documents": documents, "bytes": size, "rows": _rows(found)}
        for (_, documents, size), found in texts.items()
        if len({(run.metadata[TOKENIZER], text_order_of(run)) for run in found}) > 1
    ]


def text_order_of(run: RecordedRun) -> str:
    """The order in which the text of a run's data was tokenized; runs from before that key read it as it is."""
    return run.metadata.get("text_order") or TextOrder.reading.value


def runs_in(
    across: Sequence[Mapping[str, Any]], given: Sequence[RecordedRun]
) -> list[tuple[RecordedRun, Mapping[str, Any]]]:
    """Give the runs that are in a row of such a table, and the row."""
    rows = {(folder, row["order"]): row for text in across for row in text["rows"] for folder in row["runs"].values()}
    found = [(run, rows.get((str(run.folder), run.order))) for run in given]
    return [(run, row) for run, row in found if row is not None]


def _rows(given: Sequence[RecordedRun]) -> list[dict[str, Any]]:
    alike: dict[tuple[str, str, int], dict[int, RecordedRun]] = {}
    for run in given:
        alike.setdefault((family_of(run), run.order, run.step), {}).setdefault(run.config["seed"], run)
    firsts = [next(iter(each.values())) for each in alike.values()]
    names = names_of([(run.settings, run.config) for run in firsts])
    rows: list[dict[str, Any]] = []
    for (data, model), first, each in zip(names, firsts, alike.values(), strict=True):
        nats = [run.loss_nats * run.metadata["val_tokens"] / run.metadata["val_documents"] for run in each.values()]
        bits = [run.evaluations[-1]["eval/bits_per_byte"] for run in each.values()]
        row = {"data": data, "model": model, "order": first.order, "is_both": first.is_both}
        row |= {"text_order": text_order_of(first), "vocab_size": first.metadata.get("vocab_size")}
        row |= {"runs": {str(seed): str(run.folder) for seed, run in each.items()}}
        row |= {"tokenizer_fingerprint": first.metadata[TOKENIZER], "seeds": [*each]}
        row |= {"nats_per_token": statistics.mean(run.loss_nats for run in each.values())}
        row |= {"nats_per_document": statistics.mean(nats), "nats_per_document_std": _std(nats)}
        rows.append(row | {"bits_per_byte": statistics.mean(bits), "bits_per_byte_std": _std(bits)})
    return rows


def _std(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
