"""Names of the orders in which a model reads a window: order=NAME, or NAME:NUMBER."""

import difflib
from typing import Any

from hindsight.config.direction import Direction
from hindsight.errors import InputError

DIRECTIONS = tuple(direction.name for direction in Direction)
PUBLISHED = (
    "even_odd",
    "odd_even",
    "middle_out",
    "end_in",
    "half_back_forward",
    "half_forward_back",
    "quarter_middle_out_interleave",
    "quarter_middle_out_concat",
    "quarter_end_in_interleave",
    "quarter_end_in_concat",
)
"""Orders of the code of arXiv:2401.17505, by its names."""
UNITS = ("words", "sentences")
"""Orders of units of text."""
NUMBERED = {"random_chunk": "SEED", "uniform_random": "SEED", "blocks": "K", "segments": "SEED"}
"""Orders with a number behind a colon, and what it stands for."""
BOTH = "both"
"""Every window in each direction, by one model."""
PLAIN = (*DIRECTIONS, *PUBLISHED, *UNITS, BOTH)
"""Orders without a number."""
SHOWN = ", ".join([*PLAIN, *(f"{name}:{number}" for name, number in NUMBERED.items())])


def split_order(text: str) -> tuple[str, int | None]:
    """Split the name of an order from its number, None if it has none; InputError if there is no such order."""
    name, colon, number = text.partition(":")
    if name in NUMBERED:
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise InputError(f"order={text}: write {name}:{NUMBERED[name]}, such as order={name}:8.")
        if name == "blocks" and int(number) == 0:
            raise InputError(f"order={text}: blocks have at least 1 token, which is order=backward.")
        return name, int(number)
    if name in PLAIN:
        if colon:
            raise InputError(f"order={text}: {name} has no number; write order={name}.")
        return name, None
    near = difflib.get_close_matches(name, [*PLAIN, *NUMBERED], 1)
    number_of = {each: f":{what}" for each, what in NUMBERED.items()}
    hint = f"did you mean order={near[0]}{number_of.get(near[0], '')}? " if near else ""
    raise InputError(f"order={text} is not known; {hint}Choose one of {SHOWN}.")


def settle_order(config: Any) -> None:
    """Give a config with `direction` and `order` its normal form, in which one of the two is set.

    A direction is an order by another name: order=backward becomes direction=backward, as runs had it before order= was
    a key.

    Raises:
        InputError: neither is given, they differ, or there is no such order.
    """
    if config.order is not None:
        split_order(config.order)
        if config.direction is not None and config.direction.name != config.order:
            raise InputError(f"direction={config.direction.name} is not order={config.order}; give one of them.")
        if config.order in Direction.__members__:
            config.direction, config.order = Direction[config.order], None
        else:
            config.direction = None
    elif config.direction is None:
        raise InputError("direction= is required: forward, backward, or another order (order=..., see --help).")


def order_of(config: Any) -> str:
    """Name of the order of a config in its normal form."""
    return config.order or config.direction.name
