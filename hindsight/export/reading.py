"""How the model of a run reads, as far as its exported folder must say it: where texts begin, and what is turned."""

from dataclasses import dataclass
from typing import Any

from hindsight.config.corpus import TextOrder
from hindsight.config.order import BOTH
from hindsight.evaluation.opened_run import OpenedRun
from hindsight.orders.order import readings_of

FORWARD, BACKWARD = "forward", "backward"


@dataclass(frozen=True)
class HowItReads:
    """The order of a run.

    Args:
        order: its name.
        is_reversed_text: whether texts were reversed before they were tokenized.
        context_length: tokens in a window, the one at the start included.
        start_ids: the id that begins the inputs, by the direction in which the model then reads; of another order, by
            the name of that.
    """

    order: str
    is_reversed_text: bool
    context_length: int
    start_ids: dict[str, int]

    @property
    def first_id(self) -> int:
        """The id that the tokenizer puts before every text: for order=both, that of forward."""
        return next(iter(self.start_ids.values()))

    @property
    def writes(self) -> bool:
        """Whether it can write on from a text, forward or backward: other orders fill windows."""
        return self.order in (FORWARD, BACKWARD, BOTH)

    @property
    def writes_as_given(self) -> bool:
        """Whether it can write on from a text as that is."""
        return self.writes and not self.is_reversed_text and FORWARD in self.start_ids

    @property
    def writes_turned(self) -> bool:
        """Whether it can write on from a text, or its tokens, that were turned."""
        return self.writes and (self.is_reversed_text or BACKWARD in self.start_ids)

    def as_json(self) -> dict[str, Any]:
        """What config.json says of it, under the key `hindsight`."""
        return {
            "order": self.order,
            "reversed_text": self.is_reversed_text,
            "context_length": self.context_length,
            "start_ids": self.start_ids,
        }


def how_it_reads(run: OpenedRun) -> HowItReads:
    """Tell how the model of a run reads."""
    readings = readings_of(run.order, run.tokenizer.bos_id)
    return HowItReads(
        run.order.name,
        run.text_order is TextOrder.reversed,
        run.run.context_length,
        {name or run.order.name: reading.start_id for name, reading in readings.items()},
    )
