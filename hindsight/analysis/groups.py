"""Runs that differ in nothing but order and seed: what the inference about an order rests on.

A group compares one order with the reference. Seeds that were trained in both orders give pairs; where the seeds of the
two differ, runs are compared without pairing, if each order has two at least. Runs without a partner count among the
others of their order: for the null, and for Welch's interval.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hindsight.analysis.inference import FEWEST_SEEDS, Floats
from hindsight.analysis.names import names_of
from hindsight.analysis.pairs import Pair, family_of, reference_of
from hindsight.analysis.recorded import RecordedRun
from hindsight.config.direction import Direction
from hindsight.shards.manifest import FEW_DOCUMENTS


@dataclass
class Group:
    """Runs of two orders that differ in nothing but order and seed."""

    reference: str
    order: str
    """What is compared with the reference."""
    runs: dict[str, dict[int, RecordedRun]]
    """Of each of the two orders, the runs by their seeds, ascending."""
    data: str = ""
    """Name of the data that tells it from that of other groups."""
    model: str = ""
    """Name of the model, and what else tells this group from others of the same data."""
    warnings: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Data and model; the orders too, if they are not forward and backward."""
        usual = (Direction.forward.name, Direction.backward.name)
        orders = "" if (self.reference, self.order) == usual else f", {self.order} against {self.reference}"
        return f"{self.data} {self.model}{orders}"

    @property
    def is_both(self) -> bool:
        """Whether both orders were measured in one model each time."""
        return self.first.is_both

    @property
    def first(self) -> RecordedRun:
        """A run of the reference, for what all runs agree in."""
        return next(iter(self.runs[self.reference].values()))

    @property
    def seeds(self) -> list[int]:
        """Seeds that both orders have a run of."""
        return [seed for seed in self.runs[self.reference] if seed in self.runs[self.order]]

    @property
    def is_paired(self) -> bool:
        """Whether the inference is that of pairs: where there are enough, or where there is not enough without them."""
        n_pairs = len(self.seeds)
        return n_pairs >= FEWEST_SEEDS or (n_pairs > 0 and min(map(len, self.runs.values())) < FEWEST_SEEDS)

    def paired_losses(self, order: str) -> Floats:
        """Losses of an order in nats per token, of the seeds that both orders have."""
        return np.array([self.runs[order][seed].loss_nats for seed in self.seeds])

    def all_losses(self, order: str) -> Floats:
        """Losses of all runs of an order, nats per token."""
        return np.array([run.loss_nats for run in self.runs[order].values()])

    def metadata(self, key: str) -> Any:
        """A value of metadata.json that all runs have because their data is the same; None if they are older."""
        return self.first.metadata.get(key)


def groups_of(given: Sequence[RecordedRun], reference: str | None = None) -> list[Group]:
    """Group runs; the groups have no names yet.

    Args:
        given: all runs; of those that are the same run, the first counts.
        reference: the order that the others are compared with, where there are runs of it; None for forward.
    """
    families: dict[str, dict[str, dict[int, RecordedRun]]] = {}
    for run in given:
        families.setdefault(family_of(run), {}).setdefault(run.order, {}).setdefault(run.config["seed"], run)
    groups: list[Group] = []
    for family in families.values():
        first = reference_of(family, reference)
        for order in family:
            if order != first and (group := _group(first, order, family)) is not None:
                groups.append(group)
    return groups


def name_together(pairs: Sequence[Pair], groups: Sequence[Group]) -> None:
    """Name pairs and groups by what tells them apart from each other."""
    named = names_of(
        [(run.settings, run.config) for run in [*(pair.runs[0] for pair in pairs), *(g.first for g in groups)]]
    )
    for each, (data, model) in zip([*pairs, *groups], named, strict=True):
        each.data, each.model = data, model


def _group(reference: str, order: str, family: dict[str, dict[int, RecordedRun]]) -> Group | None:
    """Group the runs of two orders that were last evaluated at the same step; None if there are too few."""
    both = {each: dict(sorted(family[each].items())) for each in (reference, order)}
    steps = Counter(run.step for runs in both.values() for run in runs.values())
    step = max(steps, key=lambda step: (steps[step], step))
    kept = {each: {seed: run for seed, run in runs.items() if run.step == step} for each, runs in both.items()}
    group = Group(reference, order, kept)
    group.warnings = [
        f"{run.folder} was last evaluated at step {run.step}, others at step {step}: it does not count among the seeds"
        for runs in both.values()
        for run in runs.values()
        if run.step != step
    ]
    return group if group.seeds or min(map(len, kept.values())) > 1 else None


def few_documents(n_documents: int | None) -> str | None:
    """Warn of a small validation set; None for one that is large enough, or of unknown size."""
    if n_documents is None or n_documents >= FEW_DOCUMENTS:
        return None
    documents = "1 document" if n_documents == 1 else f"{n_documents} documents"
    return (
        f"the validation set has {documents}, and what is special about one of them moves the gap; hold out at least "
        f"{FEW_DOCUMENTS}, by a larger val_share= of convert_to_mds.py"
    )
