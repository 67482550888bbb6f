"""Use the model of a run: let it write, score texts, or fill in what is between a beginning and an ending.

    python generate_text.py runs/NAME prompt="In the beginning"
    python generate_text.py runs/NAME
    python generate_text.py runs/NAME prompts=prompts.txt out=texts.jsonl

A model that was trained backward writes what came before the prompt. docs/generation.md says the rest. What is shared
is hindsight/generation; here a run is opened, and its model is built, which the package does not import.
"""

import hindsight.installed  # noqa: F401 - says `make setup` before an import below fails

# isort: split
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from hindsight import interrupts, output
from hindsight.command_line import run_script
from hindsight.config.generation import GenerateConfig, Mode
from hindsight.errors import InputError
from hindsight.evaluation.trained_run import read_run
from hindsight.generation.given import gaps_to_fill, texts_to_score
from hindsight.generation.prompts import is_typed, lines_of_input, read_prompts
from hindsight.generation.records import check_out
from hindsight.quick_imports import quick_imports

if TYPE_CHECKING:
    from hindsight.evaluation.opened_run import OpenedRun
    from hindsight.generation.judges import Judges

    Use = Callable[[OpenedRun], None]

LAST_WORDS = "; with out=, what is done stays, and the same command goes on."


def main(config: GenerateConfig) -> None:
    """Write, score or fill in; what is wrong with the input is said before PyTorch is imported, if it can be."""
    if config.out is None:
        output.log_to_error()  # standard output is for texts
    else:
        check_out(config.out)
    use, trained = MODES[config.mode](config), read_run(config.run)
    if config.other is not None:
        read_run(config.other, "other")

    with quick_imports():
        from hindsight.evaluation.opened_run import opened_run

    interrupts.handle_signals_again()  # importing Composer sets signal handlers
    try:
        with interrupts.giving_up_after(0), opened_run(trained, config.checkpoint, config.tokenizer) as run:
            use(run)
    except interrupts.GaveUp as reason:
        output.say_error(f"Interrupted by {reason}{LAST_WORDS}")
        interrupts.ignore_signals()
        sys.exit(interrupts.EXIT_INTERRUPTED)


def writing(config: GenerateConfig) -> "Use":
    """Find the prompts: those of a file, one, or what comes in by standard input, from a person or a program."""
    is_terminal = is_typed() and sys.stdout.isatty() and config.out is None
    has_prompt = config.prompt is not None or config.prompts is not None
    if is_typed() and not has_prompt and not is_terminal:
        raise InputError("prompt= is required where texts do not go to the terminal; give it, or prompts=FILE.")
    prompts: Iterable[str] = lines_of_input()
    if config.prompt is not None:
        prompts = [config.prompt]
    elif config.prompts is not None:
        prompts = [row["prompt"] for row in read_prompts(config.prompts, ["prompt"])]
    elif config.out is not None:
        prompts = [*prompts]

    def use(run: "OpenedRun") -> None:
        from hindsight.generation import batch
        from hindsight.generation.writer import Writer, readings_for
        from language_model import load_trained

        readings = readings_for(run.order, run.tokenizer.bos_id, config.direction)
        module, length = load_trained(run), run.run.context_length
        writers = {name: Writer(module, run.tokenizer, each, length, run.text_order) for name, each in readings.items()}
        writer = next(iter(writers.values()))
        if config.out is not None:
            source = batch.Source(config.run, writer.reading.order.name, run.weights.step, run.weights.fingerprint)
            batch.write_file(writer, [*prompts], config, source, check_out(config.out))
        elif is_terminal and config.prompts is None:
            from hindsight.generation import terminal

            terminal.write(writers, config, f"{run.run.name} · step {run.weights.step}")
        elif config.prompt is not None:
            batch.write_once(writer, config.prompt, config)
        else:
            batch.write_lines(writer, prompts, config)

    return use


def scoring(config: GenerateConfig) -> "Use":
    """Find the texts to score."""
    texts = texts_to_score(config)

    def work(judges: "Judges") -> None:
        from hindsight.generation.scored_texts import score

        score(judges, texts, config)

    return judging(config, work)


def infilling(config: GenerateConfig) -> "Use":
    """Find the gaps to fill."""
    gaps = gaps_to_fill(config)

    def work(judges: "Judges") -> None:
        from hindsight.generation.filled_gaps import fill_gaps

        fill_gaps(judges, gaps, config)

    return judging(config, work)


def judging(config: GenerateConfig, work: "Callable[[Judges], None]") -> "Use":
    """Say how a run is used whose model judges texts, alone or with the run of the other direction."""

    def use(run: "OpenedRun") -> None:
        from hindsight.evaluation.opened_pair import opened_judges
        from language_model import load_trained

        with opened_judges(run, config, load_trained) as judges:
            work(judges)

    return use


MODES: "dict[Mode, Callable[[GenerateConfig], Use]]" = {
    Mode.write: writing,
    Mode.score: scoring,
    Mode.infill: infilling,
}
"""For each mode, what checks its keys and reads its files; it gives what is done with the run."""


if __name__ == "__main__":
    interrupts.handle_signals()
    interrupts.leave_while_starting(LAST_WORDS)
    run_script("generate_text", main, alone="run")
