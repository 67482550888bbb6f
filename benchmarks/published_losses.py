"""Our inference on published losses: `python -m benchmarks.published_losses FILE.npz`, from the repository's root.

The file holds mean losses (nats per token) of consecutive chunks of a validation text, an array for each model, with
keys <size>_<order>_seed<n>: 27 GPT-2 models of arXiv:2505.08739. Chunks have no documents; neighbours depend on each
other, so that STRETCH of them stand for one in the bootstrap.
"""

import itertools
import re
import sys
from pathlib import Path

import numpy as np

from hindsight import output
from hindsight.analysis import bootstrap, inference, power
from hindsight.analysis.bootstrap import Blocks
from hindsight.analysis.inference import Floats, TTest

STRETCH = 100
"""Neighbouring chunks that count as one document."""
REFERENCE = "forward"

Losses = dict[str, dict[int, Floats]]
"""By order and seed, the losses of the chunks."""


def read(path: Path) -> dict[str, Losses]:
    """Read the losses of each size."""
    sizes: dict[str, Losses] = {}
    with np.load(path) as file:
        for key in sorted(file):
            found = re.fullmatch(r"(\w+?)_(\w+)_seed(\d+)", key)
            if found is not None:
                size, order, seed = found.groups()
                sizes.setdefault(size, {}).setdefault(order, {})[int(seed)] = file[key].astype(np.float64)
    return sizes


def compared(losses: Losses, order: str) -> list[str]:
    """Say all that is computed of an order against forward."""
    seeds = [seed for seed in losses[REFERENCE] if seed in losses[order]]
    reference, other = (np.array([losses[each][seed].mean() for seed in seeds]) for each in (REFERENCE, order))
    paired, welch = inference.paired_t(other - reference), inference.welch_t(reference, other)
    relative, (flips, smallest) = inference.relative_gap(reference, other), inference.sign_flip_p(other - reference)
    nulls, mean = inference.null_of(
        {each: np.array([x.mean() for x in losses[each].values()]) for each in (REFERENCE, order)}
    )
    d = inference.cohens_d(other - reference)
    lines = [
        f"gap by seed         {', '.join(f'{gap:+.4f}' for gap in other - reference)} nats/token",
        f"mean, paired t      {_interval(paired)}: {'significant' if paired.is_significant else 'nothing found'}",
        f"mean, Welch's t     {_interval(welch)}",
        f"ratio - 1           {_interval(relative, 100)} %",
        f"sign flips          p = {flips:.4g}, {smallest:.4g} at least; Cohen's d {d:.2f}",
    ]
    if mean:
        each = ", ".join(f"{name} {null.mean_absolute:.4f}" for name, null in nulls.items())
        lines.append(
            f"null                {mean:.4f} nats ({each}); the gap is {abs(paired.mean) / mean:.1f} times that"
        )
    lines.append(
        f"over chunks         t = {', '.join(f'{t:.1f}' for t in _over_chunks(losses, order, seeds))} (seed by seed)"
    )
    if paired.std:
        resolved = ", ".join(f"{n}: {power.margin_for(n, paired.std):.4f}" for n in (3, 5, 10))
        lines.append(f"seeds resolve       {resolved} (seeds: nats)")
    return [*lines, *_over_text(losses, order, seeds)]


def _over_chunks(losses: Losses, order: str, seeds: list[int]) -> list[float]:
    found = (inference.units_t(losses[order][seed] - losses[REFERENCE][seed])[0] for seed in seeds)
    return [t for t in found if t is not None]


def _over_text(losses: Losses, order: str, seeds: list[int]) -> list[str]:
    """The bootstrap over seeds, stretches and chunks, and the components of variance."""
    gaps = np.stack([losses[order][seed] - losses[REFERENCE][seed] for seed in seeds])
    n = gaps.shape[1]
    blocks = Blocks(np.arange(n) // STRETCH, np.ones(n), gaps)
    parts = bootstrap.components_of(blocks)
    if parts is None:
        return []
    low, high = bootstrap.bootstrap_interval(blocks)
    covered = [bootstrap.coverage_of(parts, n_seeds, blocks.n_effective_documents) for n_seeds in (3, 5, 10)]
    shares = ", ".join(f"{100 * share:.1f}%" for share in covered)
    return [
        f"bootstrap           {low:+.4f} to {high:+.4f}; covers {shares} with 3, 5, 10 seeds rather than 95%",
        f"deviation from      seed {parts.seed:.4f}, stretch {parts.document:.4f}, residual {parts.residual:.4f} nats",
    ]


def same_order(losses: Losses) -> list[str]:
    """T tests over chunks between seeds of the same order, which no one should believe."""
    lines: list[str] = []
    for order, seeds in losses.items():
        found = [
            f"{a} and {b}: {inference.units_t(seeds[b] - seeds[a])[0]:.1f}" for a, b in itertools.combinations(seeds, 2)
        ]
        lines.append(f"t over chunks, two seeds of {order}: {', '.join(found)}")
    return lines


def _interval(found: TTest, scale: float = 1) -> str:
    assert found.interval is not None
    half = scale * (found.interval[1] - found.interval[0]) / 2
    p = "" if found.p is None else f" (t = {found.t:.2f}, p = {found.p:.2g})"
    return f"{scale * found.mean:+.4f} ± {half:.4f}{p}"


def main(path: Path) -> None:
    """Print everything."""
    sizes = read(path)
    n_chunks = len(next(iter(next(iter(next(iter(sizes.values())).values())).values())))
    output.say(f"{path.name}: {n_chunks} chunks; sizes {', '.join(sizes)}")
    for size, losses in sizes.items():
        for order in losses:
            if order != REFERENCE:
                output.say(
                    "\n".join([f"\n{size}, {order} against {REFERENCE}", *(f"  {x}" for x in compared(losses, order))])
                )
        output.say("\n".join(f"  {line}" for line in same_order(losses)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
