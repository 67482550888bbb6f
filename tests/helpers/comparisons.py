"""The content of comparison.json, made up: runs of two orders and several seeds, and what is said of their groups."""

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

CONFIG = {
    "model.name": "gpt_small",
    "model.n_layers": 4,
    "model.d_model": 256,
    "data.path": "data/eltec",
    "data.context_length": 256,
    "batch_size": 32,
    "optim.lr": 1e-3,
    "optim.schedule": "cosine",
    "max_duration": "1ep",
    "precision": "fp32",
}
METADATA = {
    "git_commit": "5d1f0c2ab31e4f6a9d0c7b85e2f41a60c9e8d713",
    "data_fingerprint": "d1a8c3f07b5e",
    "tokenizer_fingerprint": "t1f2e9a46c08",
    "val_unigram_entropy_nats": 6.71,
    "n_parameters": 4_300_000,
    "total_steps": 2000,
    "world_size": 1,
    "versions.torch": "2.7.0",
}


def make_run(folder: str, order: str, seed: int, loss_nats: float, **changes: Any) -> dict[str, Any]:
    """Make a run of comparison.json whose loss falls to `loss_nats`; `changes` are of its config and its metadata."""
    rng = np.random.default_rng([seed, order == "backward"])
    steps = range(100, 2001, 100)
    short = 50 * seed  # targets that windows of the first steps lack; with another seed others
    losses = [loss_nats + 2.6 * (step / 60) ** -0.55 - 2.6 * (2000 / 60) ** -0.55 for step in steps]
    evaluations = [
        {
            "step": step,
            "tokens": 8192 * step - short * (step < 2000),
            "seconds": step / 5,
            "eval/loss_nats": loss + rng.normal(0, 0.002),
        }
        for step, loss in zip(steps, losses, strict=True)
    ]
    evaluations[-1]["eval/loss_nats"] = loss_nats
    config = CONFIG | {"direction": order, "order": order, "seed": seed}
    config |= {key: value for key, value in changes.items() if "." in key or key in CONFIG}
    metadata = METADATA | {key: value for key, value in changes.items() if key in METADATA}
    row: dict[str, Any] = {"pair": f"eltec gpt_small seed {seed}", "data": "eltec", "direction": order}
    row |= {"model": config["model.name"], "seed": seed, "folder": folder, "step": 2000, "tokens": 8192 * 2000}
    row |= {"loss_nats": loss_nats, "perplexity": float(np.exp(loss_nats)), "accuracy": 0.31, "bits_per_byte": 1.62}
    row |= {
        "tokens_per_second": 12345.6,
        "n_parameters": metadata["n_parameters"],
        "git_commit": metadata["git_commit"],
    }
    return row | {"config": config, "metadata": metadata, "evaluations": evaluations, "sample": None}


def make_group(
    name: str, seeds: Sequence[int], losses: dict[str, list[float]], folders: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """Say of losses by order what comparison.json says of a group."""
    reference, order = losses
    gaps = [b - a for a, b in zip(losses[reference], losses[order], strict=True)]
    mean, few = statistics.mean(gaps), len(seeds) < 3
    level = statistics.mean(losses[reference])
    std = statistics.stdev(gaps) if len(seeds) > 1 else None
    error = std / len(seeds) ** 0.5 if std else None
    half = None if few or error is None else float(stats.t.ppf(0.975, len(seeds) - 1)) * error
    null = None
    if len(seeds) > 1:
        by_order = {o: [abs(a - b) for a, b in itertools.combinations(of, 2)] for o, of in losses.items()}
        null = {
            o: {"mean_absolute_nats": statistics.mean(d), "std_nats": None, "n_pairs": len(d)}
            for o, d in by_order.items()
        }
        whole = statistics.mean([d for of in by_order.values() for d in of])
        null |= {"mean_absolute_nats": whole, "mean_absolute_percent": 100 * whole / level, "ratio": mean / whole}
    percent = 100 * mean / level
    verdict = f"{order.capitalize()} is harder by {percent:.2f}%, and one pair says nothing about direction."
    if half is not None and null is not None:
        said = f"{percent:.2f}% ± {100 * half / level:.2f} ({len(seeds)} seeds)"
        verdict = f"{order.capitalize()} is harder by {said}; the null is {null['mean_absolute_percent']:.2f}%."
    return {
        "name": name,
        "data": "eltec",
        "model": "gpt_small",
        "reference": reference,
        "order": order,
        "is_both": False,
        "is_paired": True,
        "seeds": [*seeds],
        "runs": folders,
        "losses_nats": {o: dict(zip(map(str, seeds), of, strict=True)) for o, of in losses.items()},
        "gap": {
            "per_seed_nats": gaps,
            "mean_nats": mean,
            "std_nats": std,
            "standard_error_nats": error,
            "paired_interval_nats": half and [mean - half, mean + half],
            "welch_interval_nats": half and [mean - 1.1 * half, mean + 1.1 * half],
            "t": mean / error if error else None,
            "degrees_of_freedom": len(seeds) - 1,
            "p": None if few else 0.0123,
            "is_significant": bool(half) and abs(mean) > half,
            "p_welch": None if few else 0.0345,
            "sign_flip_p": 2 / 2 ** len(seeds),
            "sign_flip_smallest_p": 2 / 2 ** len(seeds),
            "cohens_d": mean / std if std else None,
            "equivalence": {"margin_nats": 0.01, "p": 0.97, "is_equivalent": False} if half else None,
            "relative_percent": percent,
            "relative_interval_percent": half and [percent - 100 * half / level, percent + 100 * half / level],
            "nats_per_document": mean * 3800,
            "nats_per_document_interval": half and [3800 * (mean - half), 3800 * (mean + half)],
            "bits_per_byte": mean / 3,
            "bits_per_byte_interval": half and [(mean - half) / 3, (mean + half) / 3],
        },
        "null": null,
        "text": {"context": "windows", "seeds": [*seeds], "whole_nats": mean},
        "bootstrap": None
        if few
        else {
            "interval_nats": [mean - 0.01, mean + 0.01],
            "draws": 2000,
            "coverage": 0.81,
            "coverage_by_seeds": {"3": 0.81, "5": 0.88, "10": 0.92},
            "nominal": 0.95,
        },
        "components": None if few else {"seed_nats": 0.006, "document_nats": 0.011, "residual_nats": 1.9},
        "documents_test": {
            "t": 19.4,
            "p": 1e-9,
            "order": reference,
            "seeds": [*seeds[:2]],
            "n_documents": 60,
            "why_not_used": "these two runs differ in the seed alone",
        },
        "power": None
        if few
        else {
            "seeds_for_margin": {"0.001": 61, "0.01": 5},
            "margin_for_seeds_nats": {"3": 0.03, "5": 0.012, "10": 0.006},
        },
        "verdict": verdict,
        "warnings": [],
        "notes": [],
    }


def make_comparison(
    root: str,
    seeds: Sequence[int] = (0, 1, 2),
    models: Sequence[dict[str, Any]] = ({},),
    gap_nats: float = 0.035,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Make the content of comparison.json.

    Args:
        root: folder below which each run's is, as root/ORDER-SEED, or root/GROUP/ORDER-SEED where there are several.
        seeds: of both orders.
        models: for each group, what its runs have other than CONFIG and METADATA.
        gap_nats: of the first group; smaller in those behind it.
        names: of the groups.
    """
    groups, all_runs = [], []
    for number, changes in enumerate(models):
        rng = np.random.default_rng(number)
        level, size = 3.75 - 0.2 * number, gap_nats / (1 + number / 2)
        base = {"forward": level, "backward": level + size}
        losses = {o: [x + float(rng.normal(0, 0.004)) for _ in seeds] for o, x in base.items()}
        inside = f"{root}/{number}" if len(models) > 1 else root
        folders = {o: {str(seed): f"{inside}/{o}-{seed}" for seed in seeds} for o in base}
        for i, seed in enumerate(seeds):
            all_runs += [make_run(folders[o][str(seed)], o, seed, losses[o][i], **changes) for o in base]
        name = names[number] if names else f"eltec {changes.get('model.name', 'gpt_small')}"
        groups.append(make_group(name, seeds, losses, folders))
    holm = [
        {"name": group["name"], "p": 0.01 * k + 0.001, "p_holm": 0.02 * k + 0.002} for k, group in enumerate(groups)
    ]
    table = {"holm": holm, "random_effects": []}
    if len(groups) > 1:
        mean = {"mean_percent": 0.71, "interval_percent": [0.31, 1.11], "tau2": 0.02, "i2": 0.4}
        mean |= {"reference": "forward", "order": "backward", "is_both": False, "model": "gpt_small"}
        table["random_effects"] = [mean | {"groups": [group["name"] for group in groups]}]
    return {
        "runs": all_runs,
        "pairs": [],
        "over_seeds": [],
        "left_out": [],
        "groups": groups,
        "table": table,
        "across_tokenizers": [],
    }
