"""Gaps of orders of which hardly more was learned than how frequent tokens are: they say nothing of the order."""

from collections.abc import Sequence

from hindsight.runs import is_number
from hindsight.studies.report_groups import Gap, StudyGroups
from hindsight.studies.report_parts import capitalized, mean

UNLEARNED = 0.99
"""Share of the unigram entropy from which on a loss says that hardly more than the frequency of tokens was learned."""


def unlearned_gaps(groups: StudyGroups) -> list[Gap]:
    """Find the gaps of which one order ends near the unigram entropy, though its language has more to learn."""
    return [gap for gap in groups.gaps if _is_unlearned(gap, groups)]


def short_of_unlearned(n: int, n_gaps: int) -> str:
    """Say it in a sentence that goes on where a headline ends.

    Args:
        n: such gaps.
        n_gaps: all gaps.
    """
    said = "hardly more was learned than how frequent tokens are."
    return f" {capitalized(said)}" if n_gaps == 1 else f" In {n} of them {said}"


def said_of_unlearned(gaps: Sequence[Gap]) -> str:
    """Say which they are, and what their gaps do not say."""
    entropies = sorted({round(entropy, 4) for gap in gaps if (entropy := _unigram_entropy(gap)) is not None})
    said = ", ".join(f"{entropy:.4f}" for entropy in entropies)
    return (
        f"{', '.join(gap.name for gap in gaps)}: the loss of an order is near the unigram entropy of the validation "
        f"tokens ({said} nats/token) or above it, and so that of a model that knows nothing but how frequent tokens "
        "are. Such a gap says that an order is learned later, not how far it lies behind once it is learned: train "
        "longer."
    )


def _is_unlearned(gap: Gap, groups: StudyGroups) -> bool:
    entropy = _unigram_entropy(gap)
    floor = groups.result.floors.get(str(gap.family.axes.get("corpus")), {}).get("nats_per_token")
    if entropy is None or (floor is not None and floor >= UNLEARNED * entropy):
        return False
    means = [mean([*losses.values()]) for losses in gap.found["losses_nats"].values()]
    return any(loss is not None and loss >= UNLEARNED * entropy for loss in means)


def _unigram_entropy(gap: Gap) -> float | None:
    """Unigram entropy of the tokens that the runs of a gap were validated on, nats per token."""
    first = gap.family.first
    found = first.metadata.get("val_unigram_entropy_nats") if first is not None else None
    return float(found) if is_number(found) else None
