"""What the held-out documents of a synthetic language, a sample of it, add to what a loss says beside its floor.

A floor is the mean code length of the language. That of the documents that are held out is another number, the same one
for all runs of a language, so that no interval over seeds contains it.
"""

import math
from dataclasses import dataclass

from hindsight.analysis.tables import shown
from hindsight.studies.report_groups import Family, Json
from hindsight.synthetic.known import recorded_language

ERRORS = 2
"""So many sample errors below its floor a loss may be."""
ROUNDING_PERCENT = 0.01
"""What a loss may be below the floor where all documents are equally long in code."""
SAMPLE_WORDS = (
    "The documents that are held out are a sample of the language. Sample error: how far their own mean code length "
    "may lie from the floor, one standard error, in % of it. All runs of a language have the same sample: its error is "
    "in no interval over seeds, and a gap compares orders on it."
)


@dataclass(frozen=True)
class Sample:
    """The held-out documents of a language; None is what is not known."""

    documents: int | None
    percent: float | None
    """Standard error of their mean code length, in % of the floor."""


def sample_of(family: Family, floor: Json) -> Sample:
    """Find how exact the floor is for the documents that are held out.

    Args:
        family: runs on them.
        floor: what floor.json says.
    """
    first = family.first
    if first is None or first.settings.get("eval_batches") is not None:  # a part of them
        return Sample(None, None)
    n = first.metadata.get("val_documents")
    language, nats = recorded_language(floor), floor.get("nats_per_document")
    if language is not None and language.nats_std == 0:
        return Sample(n, 0.0)
    return Sample(n, 100 * language.nats_std / math.sqrt(n) / nats if n and language is not None and nats else None)


def warning_below(name: str, highest_percent: float, what: str, sample: Sample) -> str | None:
    """Warn of losses that no model can have in the long run.

    Args:
        name: of the runs.
        highest_percent: end of the interval over seeds, or the highest loss, in % above the floor.
        what: the one or the other.
        sample: the held-out documents.
    """
    if highest_percent >= -(ERRORS * (sample.percent or 0.0) + ROUNDING_PERCENT):
        return None
    said = f"{name}: {what} lies below the floor, by at least {-highest_percent:.2f}%"
    if sample.percent is None:
        n = "those" if sample.documents is None else f"the {shown(sample.documents)} documents"
        said += f"; how far {n} that are held out may lie from it is not known"
    elif sample.percent:
        said += f", and the sample error is {sample.percent:.2g}%"
    return f"{said}. No model can be there but by chance: look for text of validation in that of training."
