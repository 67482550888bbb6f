"""Many prompts, one after the other: to JSON lines in a file, or to plain lines as they come."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hindsight import output
from hindsight.config.generation import GenerateConfig
from hindsight.generation.records import hash_of, records_in_work
from hindsight.generation.writer import Writer, Written
from hindsight.shown_text import one_line

log = logging.getLogger("hindsight")


@dataclass(frozen=True)
class Source:
    """What wrote a text, for its record.

    Args:
        run: the run, as it was given.
        order: the order in which its model reads; of order=both, the direction.
        step: that of the checkpoint.
        fingerprint: hash of the checkpoint.
    """

    run: str
    order: str
    step: int
    fingerprint: str


def write_file(writer: Writer, prompts: list[str], config: GenerateConfig, source: Source, out: Path) -> None:
    """Write a record for each sample of each prompt into a new file; go on with one that was begun so."""
    tokens = [writer.tokens_of(prompt, f"prompt {number}") for number, prompt in enumerate(prompts, start=1)]
    n_cut = sum(writer.n_unread(len(each)) > 0 for each in tokens)
    if n_cut:
        log.warning("%d of %d prompts are longer than the context: %s", n_cut, len(prompts), writer.context_rule)
    settings = config.drawing | {"order": source.order, "checkpoint": source.fingerprint, "prompts": hash_of(prompts)}
    with records_in_work(out, settings, len(prompts) * config.samples, "texts") as records:
        place = 0
        for prompt, prompt_tokens in zip(prompts, tokens, strict=True):
            for seeds in seeds_of(config):
                if place + len(seeds) > records.n_done:
                    texts = writer.texts(prompt_tokens, config, seeds)
                    for seed, text in [*zip(seeds, texts, strict=True)][records.n_done - place :]:
                        records.add(_record(prompt, text, seed, source))
                place += len(seeds)
    log.info("out=%s: %d texts for %d prompts.", config.out, place, len(prompts))


def write_lines(writer: Writer, prompts: Iterable[str], config: GenerateConfig) -> None:
    r"""Print the samples of each prompt, a line each: line feeds inside are shown as \n, tabs as \t."""
    for number, prompt in enumerate(prompts, start=1):
        for text in texts_of(writer, prompt, config, f"prompt {number}"):
            output.say(one_line(text.text))


def write_once(writer: Writer, prompt: str, config: GenerateConfig) -> None:
    """Print the samples of one prompt as they are, with an empty line between them."""
    for number, text in enumerate(texts_of(writer, prompt, config, "prompt=")):
        output.say(f"\n{text.text}" if number else text.text)


def texts_of(writer: Writer, prompt: str, config: GenerateConfig, where: str) -> Iterator[Written]:
    """Yield the samples of a prompt; say on standard error if a part of the prompt is not read."""
    tokens = writer.tokens_of(prompt, where)
    if (note := writer.unread_note(len(tokens), where)) is not None:
        output.say_error(note)
    for seeds in seeds_of(config):
        yield from writer.texts(tokens, config, seeds)


def seeds_of(config: GenerateConfig) -> Iterator[range]:
    """Yield the seeds of a prompt's samples, as many as are written at once."""
    seeds = range(config.seed, config.seed + config.samples)
    for first in range(0, len(seeds), config.batch_size):
        yield seeds[first : first + config.batch_size]


def _record(prompt: str, text: Written, seed: int, source: Source) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "text": text.text,
        "tokens": text.n_tokens,
        "seed": seed,
        "ended": text.is_ended,
        "run": source.run,
        "order": source.order,
        "step": source.step,
    }
