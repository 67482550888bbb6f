"""Gaps in texts and what could stand in them: as lines, or as JSON lines in a file."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hindsight import output
from hindsight.config.generation import GenerateConfig
from hindsight.generation.given import Gap
from hindsight.generation.infilling import Filled, Pair, Sides, fill
from hindsight.generation.judges import Judges
from hindsight.generation.records import check_out, hash_of, records_in_work
from hindsight.generation.sampling import sampling_of
from hindsight.shown_text import one_line

log = logging.getLogger("hindsight")


def fill_gaps(judges: Judges, gaps: Sequence[Gap], config: GenerateConfig) -> None:
    """Fill the gaps of a call: as lines, or into a file."""
    forward, backward = judges.readers
    pair = Pair(forward, backward, judges.tokenizer.eos_id)
    if config.out is None and config.prompt is not None and sys.stdout.isatty():
        show_gap(judges, pair, gaps[0], config)
    elif config.out is None:
        say_gaps(judges, pair, gaps, config)
    else:
        write_gaps(judges, pair, gaps, config, check_out(config.out))


def sides_of(judges: Judges, pair: Pair, gap: Gap, config: GenerateConfig) -> Sides:
    """Tokenize what is around a gap, in the order of the training text; say what of it the models do not see."""
    before, after = judges.tokens_of([gap.beginning, gap.ending])
    if judges.is_reversed:
        before, after = after, before
    sides = Sides.of(before, after, config.length, pair.context_length)
    n_unread = len(before) + len(after) - len(sides.before) - len(sides.after)
    if n_unread or sides.length < config.length:
        log.warning(
            "%sthe models see %d tokens: at most %d for the middle, %d before and %d behind it, those next to the gap.",
            *(gap.where, pair.context_length, sides.length, len(sides.before), len(sides.after)),
        )
    return sides


def filled(judges: Judges, pair: Pair, gap: Gap, config: GenerateConfig) -> list[Filled]:
    """Fill a gap; the best middles, as many as samples= says, or fewer where there are no more."""
    sides = sides_of(judges, pair, gap, config)
    seeds = range(config.seed, config.seed + config.samples)
    found = fill(pair, sides, sampling_of(config), seeds, config.batch_size)
    if len(found) < config.samples:
        log.warning(
            "%s%d middles, fewer than samples=%d: the written texts give no more different ones.",
            *(gap.where, len(found), config.samples),
        )
    return found[: config.samples]


def show_gap(judges: Judges, pair: Pair, gap: Gap, config: GenerateConfig) -> None:
    """Show a person each text as a whole, the middle in brackets, best first, with its score."""
    for each in filled(judges, pair, gap, config):
        text = f"{gap.beginning}[{_text_of(judges, each)}]{gap.ending}"
        output.say(f"{each.score:9.4f}  {one_line(text)}")


def say_gaps(judges: Judges, pair: Pair, gaps: Sequence[Gap], config: GenerateConfig) -> None:
    r"""Print a line for each middle, best first: its score, its nats by each model, and itself; line feeds as \n."""
    output.say("\t".join(["score_nats", "forward_nats", "backward_nats", "middle"]))
    for number, gap in enumerate(gaps):
        if number:
            output.say("")
        for each in filled(judges, pair, gap, config):
            nats = each.score, each.forward_nats, each.backward_nats
            output.say("\t".join([*(f"{value:.4f}" for value in nats), one_line(_text_of(judges, each))]))


def write_gaps(judges: Judges, pair: Pair, gaps: Sequence[Gap], config: GenerateConfig, out: Path) -> None:
    """Write a record for each gap into a new file; go on with one that was begun so."""
    texts = [[gap.beginning, gap.ending] for gap in gaps]
    settings = config.drawing | {"models": judges.fingerprints, "gaps": hash_of(texts)}
    with records_in_work(out, settings, len(gaps), "gaps") as records:
        for gap in gaps[records.n_done :]:
            middles = [_record(judges, each) for each in filled(judges, pair, gap, config)]
            records.add({"prompt": gap.beginning, "ending": gap.ending, "middles": middles, "models": judges.models})
    log.info("out=%s: %d gaps.", out, len(gaps))


def _text_of(judges: Judges, found: Filled) -> str:
    return judges.turned(judges.tokenizer.detokenize(found.join.middle))


def _record(judges: Judges, found: Filled) -> dict[str, Any]:
    return {
        "middle": _text_of(judges, found),
        "score_nats": found.score,
        "forward_nats": found.forward_nats,
        "backward_nats": found.backward_nats,
        "tokens": len(found.join.middle),
        "tokens_forward": found.join.n_forward,
    }
