"""What is to be scored, and what is to be filled in, as the keys give it; read before anything that takes seconds."""

from collections.abc import Iterable
from dataclasses import dataclass

from hindsight.config.generation import GenerateConfig
from hindsight.errors import InputError
from hindsight.generation.prompts import is_typed, lines_of_input, read_prompts, require_characters


@dataclass(frozen=True)
class Gap:
    """A gap in a text.

    Args:
        beginning: the text before it.
        ending: the text behind it.
        where: how a message names it.
    """

    beginning: str
    ending: str
    where: str


def texts_to_score(config: GenerateConfig) -> Iterable[str]:
    """Give the texts of mode=score; those of a pipe as they come.

    Raises:
        InputError: there are none, or one is empty, or no text.
    """
    if config.text is not None:
        return [_text(config.text, "text=")]
    if config.prompts is not None:
        rows = read_prompts(config.prompts, ["text"])
        return [_text(row["text"], f"prompts={config.prompts}, text {number}") for number, row in enumerate(rows, 1)]
    if is_typed():
        raise InputError("text= is required; give it, prompts=FILE, or a text a line on standard input.")
    return lines_of_input() if config.out is None else [*lines_of_input()]


def _text(text: str, where: str) -> str:
    require_characters(text, where)
    if not text:
        raise InputError(f"{where} is empty, and there is nothing to score; leave it out.")
    return text


def gaps_to_fill(config: GenerateConfig) -> list[Gap]:
    """Give the gaps of mode=infill.

    Raises:
        InputError: there are none, or one has nothing before or behind it.
    """
    if config.direction is not None:
        raise InputError(f"direction={config.direction} is one of two, and mode=infill needs both; leave it out.")
    if config.prompts is not None:
        rows = read_prompts(config.prompts, ["prompt", "ending"])
        gaps = [
            Gap(row["prompt"], row["ending"], f"prompts={config.prompts}, gap {number}: ")
            for number, row in enumerate(rows, start=1)
        ]
    else:
        for key in ("prompt", "ending"):
            if getattr(config, key) is None:
                raise InputError(f"{key}= is required for mode=infill; give both prompt= and ending=, or prompts=FILE.")
        gaps = [Gap(config.prompt or "", config.ending or "", "")]
    for gap in gaps:
        for key, text in (("prompt", gap.beginning), ("ending", gap.ending)):
            require_characters(text, f"{gap.where}{key}=")
            if not text:
                raise InputError(f"{gap.where}{key}= is empty; with one side only, use mode=write.")
    return gaps
