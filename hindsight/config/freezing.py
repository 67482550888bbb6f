"""Which parts of a model stay as they are: the names in model.freeze, such as blocks.0-3."""

import re
from collections.abc import Sequence

from hindsight.errors import InputError

RANGE = re.compile(r"(\d+)-(\d+)")


def frozen_parts(names: Sequence[str], parts: Sequence[str]) -> list[str]:
    """List the parts that names mean: blocks.0-3 is all of four blocks, blocks.0-3.mlp their MLPs.

    Args:
        names: the value of model.freeze.
        parts: all parts of the model, such as embedding and blocks.0.mlp.

    Raises:
        InputError: a name means nothing in this model, or nothing is left to be trained.
    """
    frozen: set[str] = set()
    for name in names:
        ends = [name, *(RANGE.sub(rf"\{end}", name) for end in (1, 2))]
        if not all(any(_holds(end, part) for part in parts) for end in ends):
            known = dict.fromkeys(re.sub(r"\.\d+", "", part) for part in parts)
            numbers = [int(number) for part in parts for number in re.findall(r"\.(\d+)", part)]
            raise InputError(
                f"model.freeze={name} is no part of this model; its parts are {', '.join(known)}, with numbers from 0 "
                f"to {max(numbers)} behind the word, such as {_example(parts)}."
            )
        frozen |= {part for part in parts if _holds(name, part)}
    if len(frozen) == len(parts):
        raise InputError(f"model.freeze=[{','.join(names)}] leaves nothing to train; name fewer parts.")
    return [part for part in parts if part in frozen]


def _holds(name: str, part: str) -> bool:
    """Whether a name means a part, or something that the part belongs to."""
    asked, there = name.split("."), part.split(".")
    return len(asked) <= len(there) and all(_is(*pair) for pair in zip(asked, there, strict=False))


def _is(asked: str, there: str) -> bool:
    if (numbers := RANGE.fullmatch(asked)) is not None and there.isdecimal():
        return int(numbers[1]) <= int(there) <= int(numbers[2])
    return asked == there


def _example(parts: Sequence[str]) -> str:
    return f"{next(part for part in parts if '.' in part).partition('.')[0]}.0"
