"""What the inference finds about groups of runs, as comparison.json has it: null where it cannot be told, never NaN."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from hindsight.analysis import bootstrap, inference, meta, power
from hindsight.analysis.groups import Group, few_documents
from hindsight.analysis.inference import FEWEST_SEEDS, TTest
from hindsight.analysis.text_blocks import TextLosses
from hindsight.analysis.verdict import verdict_of

MARGINS_NATS = (0.001, 0.003, 0.01, 0.03)
"""Gaps for which the seeds are told that resolve them."""
N_SEEDS = (3, 5, 10)
"""Numbers of seeds for which the gap is told that they resolve."""
ALIKE = ("reference", "order", "is_both", "model")
"""What groups must agree in that are averaged."""
WHY_NOT = (
    "these two runs differ in the seed alone: a test over documents takes the spread over text for that over trained "
    "runs, and finds a difference where there is none to find"
)


def find(group: Group, texts: TextLosses | None, margin_nats: float | None = None) -> dict[str, Any]:
    """Compute the inference about a group: an entry of `groups` in comparison.json.

    Args:
        group: its runs.
        texts: their losses by document and block of text; None if they were not measured.
        margin_nats: largest gap that counts as none; None if none was given.
    """
    found: dict[str, Any] = {
        "name": group.name,
        "data": group.data,
        "model": group.model,
        "reference": group.reference,
        "order": group.order,
        "is_both": group.is_both,
        "is_paired": group.is_paired,
        "seeds": group.seeds,
        "runs": {o: {str(seed): str(run.folder) for seed, run in runs.items()} for o, runs in group.runs.items()},
        "losses_nats": {o: {str(seed): run.loss_nats for seed, run in runs.items()} for o, runs in group.runs.items()},
    }
    test, relative = _tests(group)
    found["gap"] = _gap(group, test, relative, margin_nats)
    found["null"] = _null(group, test)
    found |= _over_text(group, texts)
    found["power"] = _power(group, test, margin_nats)
    found["verdict"] = verdict_of(found)
    n_documents = texts.n_documents if texts is not None else group.metadata("val_documents")
    few = few_documents(n_documents)
    found["warnings"] = [*group.warnings, *([few] if few else [])]
    return found


def table_of(groups: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compute what is said of several groups together, from their entries: `table` in comparison.json.

    A mean over groups is over data, of the same model and the same two orders.
    """
    tested = [group for group in groups if group["gap"]["p"] is not None and group["gap"]["relative_interval_percent"]]
    adjusted = meta.holm([group["gap"]["p"] for group in tested])
    rows = [
        {"name": group["name"], "p": group["gap"]["p"], "p_holm": p} for group, p in zip(tested, adjusted, strict=True)
    ]
    alike: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for group in tested:
        alike.setdefault(tuple(group[key] for key in ALIKE), []).append(group)
    means = [_mean_over(of) for of in alike.values()]
    return {"holm": rows, "random_effects": [mean for mean in means if mean is not None]}


def _mean_over(groups: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    gaps = [group["gap"] for group in groups]
    effects = meta.random_effects(
        [gap["relative_percent"] for gap in gaps], [gap["relative_standard_error_percent"] for gap in gaps]
    )
    if effects is None:
        return None
    mean = {key: groups[0][key] for key in ALIKE}
    mean |= {"mean_percent": effects.mean, "interval_percent": _listed(effects.interval)}
    return mean | {"tau2": effects.tau2, "i2": effects.i2, "groups": [group["name"] for group in groups]}


def _tests(group: Group) -> tuple[TTest, TTest]:
    """The test of the gap, and that of the relative gap: paired, or Welch's."""
    if group.is_paired:
        reference, other = (group.paired_losses(order) for order in (group.reference, group.order))
        return inference.paired_t(other - reference), inference.relative_gap(reference, other)
    reference, other = (group.all_losses(order) for order in (group.reference, group.order))
    return inference.welch_t(reference, other), inference.relative_gap_unpaired(reference, other)


def _gap(group: Group, test: TTest, relative: TTest, margin_nats: float | None) -> dict[str, Any]:
    reference, other = (group.all_losses(order) for order in (group.reference, group.order))
    per_seed = group.paired_losses(group.order) - group.paired_losses(group.reference)
    welch = inference.welch_t(reference, other)
    flips = inference.sign_flip_p(per_seed) if group.is_paired and len(per_seed) > 1 else (None, None)
    d = inference.cohens_d(per_seed) if group.is_paired else inference.cohens_d_unpaired(reference, other)
    tokens, documents = (group.metadata(f"val_{what}") for what in ("tokens", "documents"))
    if group.first.config.get("eval_batches") is not None:
        tokens = None  # the loss is that of a part of the tokens
    bits = [_mean_bits(group, order) for order in (group.reference, group.order)]
    per_document = tokens / documents if tokens and documents else None
    first = group.first
    per_byte = first.evaluations[-1]["eval/bits_per_byte"] / first.loss_nats if first.loss_nats else None
    return {
        "per_seed_nats": [*map(float, per_seed)],
        "mean_nats": test.mean,
        "std_nats": test.std,
        "standard_error_nats": test.standard_error,
        "paired_interval_nats": _listed(test.interval) if group.is_paired else None,
        "welch_interval_nats": _listed(welch.interval),
        "t": test.t,
        "degrees_of_freedom": test.degrees_of_freedom,
        "p": test.p,
        "is_significant": test.is_significant,
        "p_welch": welch.p,
        "sign_flip_p": flips[0],
        "sign_flip_smallest_p": flips[1],
        "cohens_d": d,
        "equivalence": _equivalence(test, margin_nats),
        "relative_percent": 100 * relative.mean,
        "relative_standard_error_percent": _percent(relative.standard_error),
        "relative_interval_percent": [100 * end for end in relative.interval] if relative.interval else None,
        "nats_per_document": None if per_document is None else test.mean * per_document,
        "nats_per_document_interval": _scaled(test.interval, per_document),
        "bits_per_byte": bits[1] - bits[0],
        "bits_per_byte_interval": _scaled(test.interval, per_byte),
    }


def _mean_bits(group: Group, order: str) -> float:
    runs = group.runs[order]
    seeds = group.seeds if group.is_paired else [*runs]
    return float(np.mean([runs[seed].evaluations[-1]["eval/bits_per_byte"] for seed in seeds]))


def _equivalence(test: TTest, margin_nats: float | None) -> dict[str, Any] | None:
    if margin_nats is None or test.interval is None:
        return None
    p = inference.equivalence_p(test, margin_nats)
    return None if p is None else {"margin_nats": margin_nats, "p": p, "is_equivalent": p < 1 - inference.LEVEL}


def _null(group: Group, test: TTest) -> dict[str, Any] | None:
    losses = {order: group.all_losses(order) for order in group.runs}
    found, mean = inference.null_of(losses)
    if mean is None:
        return None
    nulls: dict[str, Any] = {
        order: {"mean_absolute_nats": null.mean_absolute, "std_nats": null.std, "n_pairs": null.n_pairs}
        for order, null in found.items()
    }
    percent = 100 * mean / float(losses[group.reference].mean())
    ratio = abs(test.mean) / mean if mean > 0 else None
    return nulls | {"mean_absolute_nats": mean, "mean_absolute_percent": percent, "ratio": ratio}


def _over_text(group: Group, texts: TextLosses | None) -> dict[str, Any]:
    """What is known of the gap by document: bootstrap, components of variance, and the test that is not used."""
    if texts is None:
        return {"text": None, "bootstrap": None, "components": None, "documents_test": None}
    blocks = texts.blocks(group.reference, group.order)
    components = bootstrap.components_of(blocks) if blocks is not None else None
    whole = None if blocks is None else float(blocks.gaps.sum(axis=1).mean() / blocks.tokens.sum())
    found: dict[str, Any] = {"text": {"context": texts.context, "seeds": group.seeds, "whole_nats": whole}}
    found |= {"bootstrap": None, "documents_test": _documents_test(group, texts)}
    found["components"] = (
        {f"{name}_nats": value for name, value in asdict(components).items()} if components is not None else None
    )
    if blocks is not None and components is not None and len(group.seeds) >= FEWEST_SEEDS:
        n_documents = blocks.n_effective_documents
        by_seeds = {n: bootstrap.coverage_of(components, n, n_documents) for n in {*N_SEEDS, len(group.seeds)}}
        found["bootstrap"] = {
            "interval_nats": [*bootstrap.bootstrap_interval(blocks)],
            "draws": bootstrap.DRAWS,
            "coverage": by_seeds[len(group.seeds)],
            "coverage_by_seeds": {str(n): share for n, share in sorted(by_seeds.items())},
            "nominal": inference.LEVEL,
        }
    return found


def _documents_test(group: Group, texts: TextLosses) -> dict[str, Any] | None:
    """Test over documents between the first two seeds of an order, the reference if it has two."""
    order = next((order for order in group.runs if len(group.runs[order]) > 1), None)
    if order is None:
        return None
    seeds = [*group.runs[order]][:2]
    t, p = inference.units_t(texts.document_means(order, seeds[1]) - texts.document_means(order, seeds[0]))
    if t is None:
        return None
    return {"t": t, "p": p, "order": order, "seeds": seeds, "n_documents": texts.n_documents, "why_not_used": WHY_NOT}


def _power(group: Group, test: TTest, margin_nats: float | None) -> dict[str, Any] | None:
    if not group.is_paired or test.interval is None or not test.std:
        return None
    margins = sorted({*MARGINS_NATS, *(() if margin_nats is None else (margin_nats,))})
    return {
        "seeds_for_margin": {f"{margin:g}": power.seeds_for(margin, test.std) for margin in margins},
        "margin_for_seeds_nats": {str(n): power.margin_for(n, test.std) for n in N_SEEDS},
    }


def _listed(interval: inference.Interval | None) -> list[float] | None:
    return None if interval is None else [*interval]


def _scaled(interval: inference.Interval | None, factor: float | None) -> list[float] | None:
    """An interval in another unit: the same text has the same number of tokens, documents and bytes in every run."""
    return None if interval is None or factor is None else [end * factor for end in interval]


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value
