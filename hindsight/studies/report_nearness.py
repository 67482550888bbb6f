"""How soon the runs of a synthetic language came near its floor, order against order, seed by seed.

A run that never came near took more tokens than it was trained on: it is censored there, and still says which of two is
sooner wherever the other came near by then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hindsight.studies.report_groups import FORWARD
from hindsight.studies.report_parts import mean
from hindsight.studies.results import RunResult

NEAR = (0.05, 0.25)
"""Shares of the floor above it that are called near."""


@dataclass(frozen=True)
class Arrivals:
    """When the runs of one language and order came near the floor, by seed; of runs that were evaluated."""

    order: str
    tokens: Mapping[int, float | None]
    """Training tokens at the first evaluation that near; None where no evaluation was."""
    seen: Mapping[int, float]
    """Training tokens at the last evaluation."""

    @property
    def near(self) -> list[float]:
        """Tokens of the runs that came near."""
        return [tokens for tokens in self.tokens.values() if tokens is not None]

    @property
    def mean(self) -> float | None:
        """Mean over seeds; None unless all runs came near."""
        return mean(self.near) if len(self.near) == len(self.tokens) else None


@dataclass(frozen=True)
class Race:
    """Of so many pairs of runs with one seed, which order came near first."""

    one: str
    other: str
    sooner: int = 0
    later: int = 0
    same: int = 0
    """At the same evaluation."""
    neither: int = 0
    is_open: int = 0
    """One came near after more tokens than the other, which did not, has been trained on so far."""
    without_other: int = 0
    """Of `sooner`: the other never came near."""
    without_one: int = 0
    """Of `later`: the one never came near."""

    @property
    def n(self) -> int:
        """Pairs."""
        return self.sooner + self.later + self.same + self.neither + self.is_open

    @property
    def short(self) -> str:
        """Name who was sooner in how many pairs, as a cell of a table says it."""
        counts = {self.one: self.sooner, self.other: self.later, "level": self.same, "neither": self.neither}
        return ", ".join(f"{who} in {n}" for who, n in (counts | {"not known yet": self.is_open}).items() if n)

    def said(self, what: str = "seeds") -> str:
        """Say it, beginning with the order.

        Args:
            what: the pairs, in the plural.
        """
        n = f"{self.n} {what if self.n != 1 else what.replace('seeds', 'seed').replace('pairs', 'pair')}"
        if self.neither == self.n:
            return f"neither {self.one} nor {self.other} came near in {n}"
        said = f"{self.one} is sooner than {self.other} in {self.sooner} of {n}{_never(self.other, self.without_other)}"
        said += f", later in {self.later}{_never(self.one, self.without_one)}" if self.later else ""
        said += f", at the same evaluation in {self.same}" if self.same else ""
        said += f", neither came near in {self.neither}" if self.neither else ""
        return said + (f", not known yet in {self.is_open}" if self.is_open else "")


def _never(order: str, n: int) -> str:
    return f" ({order} never came near in {n})" if n else ""


def arrivals_of(order: str, given: Mapping[int, RunResult], loss_nats: float) -> Arrivals:
    """Find when runs of an order first had a loss no larger.

    Args:
        order: of the runs.
        given: by seed; each was evaluated.
        loss_nats: nats per token.
    """
    tokens = {
        seed: next((line["tokens"] for line in run.evaluations if line["loss_nats"] <= loss_nats), None)
        for seed, run in given.items()
    }
    return Arrivals(order, tokens, {seed: run.evaluations[-1]["tokens"] for seed, run in given.items()})


def race(pairs: Sequence[tuple[Arrivals, Arrivals]]) -> Race:
    """Compare two orders seed by seed, over one language or several.

    Args:
        pairs: both orders, in each language; in all of these the same two.
    """
    counts: dict[str, int] = {}
    for one, other in pairs:
        for seed in (seed for seed in one.tokens if seed in other.tokens):
            for name in _told(one, other, seed):
                counts[name] = counts.get(name, 0) + 1
    return Race(pairs[0][0].order, pairs[0][1].order, **counts)


def _told(one: Arrivals, other: Arrivals, seed: int) -> list[str]:
    """Fields of Race that a pair counts in."""
    first, second = one.tokens[seed], other.tokens[seed]
    if first is None and second is None:
        return ["neither"]
    if first is None:
        return ["later", "without_one"] if one.seen[seed] >= (second or 0) else ["is_open"]
    if second is None:
        return ["sooner", "without_other"] if other.seen[seed] >= first else ["is_open"]
    return ["same" if first == second else "sooner" if first < second else "later"]


def races(found: Sequence[Sequence[Arrivals]]) -> list[Race]:
    """Compare forward with every other order, over languages.

    Args:
        found: of each language, that of all its orders.
    """
    pairs: dict[str, list[tuple[Arrivals, Arrivals]]] = {}
    for of in found:
        first = next((each for each in of if each.order == FORWARD), None)
        for other in of:
            if first is not None and other is not first and {*first.tokens} & {*other.tokens}:
                pairs.setdefault(other.order, []).append((first, other))
    return [race(of) for of in pairs.values()]
