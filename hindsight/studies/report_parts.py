"""What the sections of a study's report are made of, and the words that they share."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hindsight.analysis import inference, meta
from hindsight.analysis.inference import FEWEST_SEEDS, TTest
from hindsight.analysis.page import Block
from hindsight.analysis.tables import MISSING, shown
from hindsight.analysis.verdict import digits_of

FEW = (
    f"There is no interval for fewer than {FEWEST_SEEDS} seeds: what one or two pairs of runs differ by says nothing "
    "about the order."
)
REVERSED = (
    "On text that was reversed before it was tokenized, order=backward reads the characters forward: where text is "
    "harder backward, the gap of that row is below 0. Groups are counted by how characters are read."
)


@dataclass
class Part:
    """What a section has found."""

    blocks: list[Block]
    headline: str = ""
    """What it answers, in one short sentence."""
    counts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """What the headline is a summary of, in a sentence for each kind that is named first; empty where it says all."""
    answers: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """The same of each thing that is named first, as of each group."""
    tables: list[Block] = field(default_factory=list[Block])
    """What is answered, as tables for the head of the page."""


def estimate(value: float | None, interval: Sequence[float] | None, least: int = 2) -> str:
    """Write a value with its interval, in as many digits as half of the interval needs: +0.97 (+0.28 to +1.66).

    Args:
        value: an estimate; None for none.
        interval: of it; None where there is none.
        least: digits after the point at least.
    """
    if value is None:
        return MISSING
    if interval is None:
        return shown(value, "+")
    digits = digits_of((interval[1] - interval[0]) / 2, least)
    texts = [f"{each:+.{digits}f}".replace("-", "\u2212") for each in (value, *interval)]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


def percent(value: float | None) -> str:
    """Write a share in % as it stands in a sentence."""
    return MISSING if value is None else f"{value:+.2f}%".replace("-", "\u2212")


def capitalized(text: str) -> str:
    """Begin a sentence with a capital letter; names in it stay as they are."""
    return text[:1].upper() + text[1:]


def with_half(value: float, interval: Sequence[float]) -> str:
    """Write percents and half the width of their interval: +0.14% ± 0.88."""
    half = (interval[1] - interval[0]) / 2
    digits = digits_of(half)
    return f"{value:+.{digits}f}% \u00b1 {half:.{digits}f}".replace("-", "\u2212")


def by_characters(
    orders: Sequence[str], signs: Sequence[int | None], is_reversed: Sequence[bool]
) -> tuple[list[str], list[int | None]]:
    """Give orders and signs of gaps by how characters are read, if one of them is of text that was reversed.

    Args:
        orders: that of each gap, which has the sign of the loss of its tokens.
        signs: None with too few seeds.
        is_reversed: whether its tokens are read against the order of its characters.
    """
    if not any(is_reversed):
        return [*orders], [*signs]
    read = [-sign if sign and turned else sign for sign, turned in zip(signs, is_reversed, strict=True)]
    return [f"{order} (in characters)" for order in orders], read


def with_minus(text: str) -> str:
    """Write the hyphens before numbers, as those of a verdict of comparison.json, as minus signs."""
    return re.sub(r"(?<![\w-])-(?=\d)", "\u2212", text)


def compared(reference: Mapping[int, float], other: Mapping[int, float]) -> tuple[TTest, TTest] | None:
    """Test the gap of losses by seed, paired: in nats, and relative to the reference; None where no seed has both."""
    seeds = sorted({*reference} & {*other})
    if not seeds:
        return None
    reference_S, other_S = (np.array([of[seed] for seed in seeds]) for of in (reference, other))
    return inference.paired_t(other_S - reference_S), inference.relative_gap(reference_S, other_S)


def percents(relative: TTest) -> tuple[float, tuple[float, float] | None]:
    """Give a relative gap and its interval in %."""
    interval = relative.interval
    return 100 * relative.mean, None if interval is None else (100 * interval[0], 100 * interval[1])


def mean(values: Sequence[float]) -> float | None:
    """Mean of values; None for none."""
    return float(np.mean(values)) if values else None


def said_of_gap(order: str, reference: str, relative: TTest, n_seeds: int) -> str:
    """Say in a sentence what a relative gap over seeds is, and whether it is one."""
    value, interval = percents(relative)
    seeds = "1 seed" if n_seeds == 1 else f"{n_seeds} seeds"
    if interval is None:
        return f"{order} against {reference} is {percent(value)} ({seeds}: no interval, and so no verdict)."
    if not relative.is_significant:
        return f"no difference was found: {order} against {reference} is {with_half(value, interval)} ({seeds})."
    how = "harder" if value > 0 else "easier"
    return f"{order} is {how} than {reference} by {with_half(abs(value), interval).removeprefix('+')} ({seeds})."


def corrected(p_values: Sequence[float | None], signs: Sequence[int | None]) -> list[float | None]:
    """Correct p values by Holm for as many tests as have an interval.

    Args:
        p_values: of each gap; None where it cannot be told.
        signs: None of a gap without an interval, whose p value counts for nothing.
    """
    tested = [i for i, (p, sign) in enumerate(zip(p_values, signs, strict=True)) if p is not None and sign is not None]
    adjusted = meta.holm([p for i in tested if (p := p_values[i]) is not None])
    found: list[float | None] = [None] * len(p_values)
    for i, p in zip(tested, adjusted, strict=True):
        found[i] = p
    return found
