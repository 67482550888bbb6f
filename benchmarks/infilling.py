"""Is the true middle found better by two directions? `python -m benchmarks.infilling FORWARD_RUN BACKWARD_RUN`.

Sentences are taken out of the validation data of the runs. The true one is put among others of as many tokens, and all
are ranked: by the forward model as it writes, which does not see the ending; by the forward model with the ending; by
the backward model; and by both. The rank of the true one is 1 where nothing is preferred to it. The others are

- other sentences of the same data,
- what the forward model writes into the gap, and
- what both models write into it, with the joins of these.

Ratios have 95% intervals over sentences (bootstrap); the seeds are those of the draws. One pair of runs says nothing of
others.
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import HEAD, Row
from evaluate_tokens import open_split
from hindsight import output
from hindsight.command_line import one_line
from hindsight.config.evaluation import NEWEST, EvaluateConfig
from hindsight.errors import InputError
from hindsight.evaluation.evaluated_data import open_data
from hindsight.evaluation.opened_pair import opened_with
from hindsight.evaluation.opened_run import OpenedRun, opened_run
from hindsight.evaluation.trained_run import read_run
from hindsight.generation.infilling import Pair, Sides, Tokens, best_joins, written
from hindsight.generation.sampling import Sampling
from hindsight.generation.scores import readers_of, token_nats
from language_model import load_trained

N_SENTENCES = 60
SEEDS = (0, 1, 2)
N_TEXTS = 8
"""Texts that each model writes for a gap."""
LENGTHS = range(6, 17)
"""Tokens of a sentence."""
BATCH_SIZE = 16
N_OTHERS = 31
"""Other sentences that the true one is put among."""
N_RESAMPLES = 10_000
WRITING, FORWARD, BACKWARD, BOTH = "forward as it writes", "forward with the ending", "backward", "both"
JUDGES = (WRITING, FORWARD, BACKWARD, BOTH)
SENTENCES, WRITTEN, JOINED = "other sentences", "written forward", "written by both, and joins"
Ranks = dict[str, NDArray[np.float64]]
"""By judge, the rank of each true middle among the others."""


@dataclass(frozen=True)
class Sentence:
    """A sentence that was taken out.

    Args:
        middle: its tokens.
        sides: what is around it.
    """

    middle: Tokens
    sides: Sides


def sentences(run: OpenedRun) -> list[Sentence]:
    """Find the sentences of the validation data, in an order that is drawn; none is at the edge of a document."""
    data = open_data(run.run, EvaluateConfig(run=run.run.given), "benchmark", 1)
    assert data.setup is not None
    stream = open_split(data.setup)
    tokens, T = stream.read(0, stream.n_tokens).tolist(), run.run.context_length
    contents = [run.tokenizer.bytes_of(token) for token in range(run.tokenizer.vocab_size)]
    ends = [
        place + 1
        for place, token in enumerate(tokens[:-1])
        if contents[token].endswith((b".", b"!", b"?")) and contents[tokens[place + 1]][:1].isspace()
    ]
    found = []
    side = (T - LENGTHS[-1]) // 2
    for start, stop in itertools.pairwise(ends):
        around = tokens[start - side : stop + side]
        if stop - start in LENGTHS and start >= side and run.tokenizer.eos_id not in around:
            middle = tokens[start:stop]
            found.append(Sentence(middle, Sides(tokens[start - side : start], tokens[stop : stop + side], len(middle))))
    return [found[number] for number in np.random.default_rng(0).permutation(len(found))]


def candidates(pair: Pair, sentence: Sentence, all_sentences: list[Sentence], seed: int) -> dict[str, list[Tokens]]:
    """Give middles of the sentence's length, by their kind."""
    sides, seeds = sentence.sides, range(seed * N_TEXTS, (seed + 1) * N_TEXTS)
    alike = [each.middle for each in all_sentences if len(each.middle) == sides.length and each is not sentence]
    drawn = np.random.default_rng([seed, *sentence.middle]).permutation(len(alike))[:N_OTHERS]
    forward, backward = (
        [
            text
            for text in written(reader, side, sides.length, pair, Sampling(1.0), seeds, BATCH_SIZE)
            if len(text) == sides.length
        ]
        for reader, side in ((pair.forward, sides.before), (pair.backward, sides.after))
    )
    joins = best_joins(pair, sides, forward, backward, range(sides.length, sides.length + 1), BATCH_SIZE)
    joined = [[*join.middle] for join in joins if 0 < join.n_forward < sides.length]
    return {SENTENCES: [alike[number] for number in drawn], WRITTEN: forward, JOINED: [*backward, *joined]}


def judged(pair: Pair, sides: Sides, middles: list[Tokens]) -> dict[str, NDArray[np.float64]]:
    """Say what each middle costs, by judge."""
    texts = [[*sides.before, *middle, *sides.after] for middle in middles]
    start, stop = len(sides.before), len(sides.before) + sides.length
    forward, backward = (np.stack(token_nats(reader, texts, BATCH_SIZE)) for reader in (pair.forward, pair.backward))
    costs = {
        WRITING: forward[:, start:stop].sum(axis=1),
        FORWARD: forward[:, start:].sum(axis=1),
        BACKWARD: backward[:, :stop].sum(axis=1),
    }
    return {**costs, BOTH: (costs[FORWARD] + costs[BACKWARD]) / 2}


def ranked(pair: Pair, all_sentences: list[Sentence], seed: int) -> tuple[dict[str, Ranks], dict[str, float]]:
    """Rank the true middles among others of each kind, and count these."""
    ranks: dict[str, list[list[int]]] = {kind: [] for kind in (SENTENCES, WRITTEN, JOINED)}
    counts: dict[str, list[int]] = {kind: [] for kind in ranks}
    for sentence in all_sentences[:N_SENTENCES]:
        others = candidates(pair, sentence, all_sentences, seed)
        others[JOINED] += others[WRITTEN]
        for kind, middles in others.items():
            unlike = [middle for middle in middles if middle != sentence.middle]
            costs = judged(pair, sentence.sides, [sentence.middle, *unlike])
            ranks[kind].append([1 + int((costs[name] < costs[name][0]).sum()) for name in JUDGES])
            counts[kind].append(len(unlike))
    return (
        {kind: dict(zip(JUDGES, np.array(found, np.float64).T, strict=True)) for kind, found in ranks.items()},
        {kind: float(np.mean(found)) for kind, found in counts.items()},
    )


def rows_of(what: str, seeds: list[Ranks]) -> Iterator[Row]:
    """Tell how the true middles rank by each judge, and how both compare with the others; SEEDS by sentence."""
    mean = {name: np.mean([ranks[name] for ranks in seeds], axis=0) for name in seeds[0]}
    for name, values in mean.items():
        first = np.mean([ranks[name] == 1 for ranks in seeds])
        spread = ", ".join(f"{ranks[name].mean():.2f}" for ranks in seeds)
        yield Row(f"{what}: mean rank, {name}", f"{values.mean():.2f} (seeds {spread}); first {first:.0%}")
    resampled = np.random.default_rng(0).integers(0, len(mean[BOTH]), (N_RESAMPLES, len(mean[BOTH])))
    for name in (WRITING, FORWARD, BACKWARD):
        ratios = mean[BOTH][resampled].mean(axis=1) / mean[name][resampled].mean(axis=1)
        low, high = np.quantile(ratios, [0.025, 0.975])
        ratio = mean[BOTH].mean() / mean[name].mean()
        value = f"{ratio:.2f} ({low:.2f} to {high:.2f})"
        yield Row(f"{what}: mean rank, both over {name}", value, "< 1", bool(high < 1))


def measure(forward: str, backward: str) -> None:
    """Print the table.

    Raises:
        InputError: the runs are no pair, or their data has no such sentence.
    """
    with ExitStack() as stack:
        first = stack.enter_context(opened_run(read_run(forward), NEWEST))
        runs = stack.enter_context(opened_with(first, backward, NEWEST, None))
        ahead, back = (
            reader
            for run in runs
            for reader in readers_of(load_trained(run), run.order, run.tokenizer.bos_id, run.run.context_length)
        )
        pair, found = Pair(ahead, back, first.tokenizer.eos_id), sentences(runs[0])
        if not found:
            raise InputError(
                f"run={forward}: its validation data has no sentence of {LENGTHS[0]} to {LENGTHS[-1]} tokens with half "
                "a context on either side; give runs on more text, or with a shorter context."
            )
        output.say(f"{min(N_SENTENCES, len(found))} of {len(found)} sentences, {len(SEEDS)} seeds\n\n{HEAD}")
        by_seed = [ranked(pair, found, seed) for seed in SEEDS]
        for kind in by_seed[0][0]:
            n_others = np.mean([counts[kind] for _, counts in by_seed])
            for row in rows_of(f"{n_others:.0f} {kind}", [ranks[kind] for ranks, _ in by_seed]):
                output.say(str(row))


def main(arguments: Sequence[str]) -> None:
    """Measure two runs; SystemExit with a line on standard error for what cannot be measured."""
    if len(arguments) != 2:
        output.say_error("usage: python -m benchmarks.infilling FORWARD_RUN BACKWARD_RUN")
        sys.exit(2)
    try:
        measure(*arguments)
    except InputError as error:
        output.say_error(f"benchmarks.infilling: {one_line(str(error))}")
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
