"""Find the pairs among runs: two runs that differ in their order and in nothing else that may change a loss.

The runs of a pair have other orders, and agree in the last evaluation's step, in the fingerprints of data and
tokenizer, in the weights that they began with, in the unigram entropy of the validation tokens, in where a change of
length changed the learning rate, and in all keys of config.yaml for which hindsight/config/key_roles.py asks that.
Every order is compared with one, the reference: forward, or the first by name where no run is forward.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hindsight import runs
from hindsight.analysis.names import names_of, paths_of
from hindsight.analysis.recorded import RecordedRun
from hindsight.config.direction import Direction
from hindsight.config.order import DIRECTIONS

MOST_DIFFERENCES = 6
"""Most differences of two runs that a message names."""


@dataclass
class Pair:
    """A run of the reference, mostly forward, and its twin of another order, mostly backward."""

    data: str
    """Name of the data that tells it from that of other pairs."""
    model: str
    """Name of the model, and what else tells this pair from others of the same data and seed."""
    runs: tuple[RecordedRun, RecordedRun]
    """The reference, the other order."""

    @property
    def seed(self) -> int:
        """Seed of both runs."""
        return self.runs[0].config["seed"]

    @property
    def orders(self) -> tuple[str, str]:
        """The reference, and the order that is compared with it."""
        return self.runs[0].order, self.runs[1].order

    @property
    def label(self) -> str:
        """Data, model and seed."""
        return f"{self.data} {self.model} seed {self.seed}"

    def gaps(self) -> dict[str, float]:
        """Gaps, the order minus the reference; each name gives the unit, or what the percentage is relative to.

        `forward` in a name stands for the reference, which it is wherever a run is forward.
        """
        forward, backward = (run.evaluations[-1] for run in self.runs)
        fw, bw = forward[runs.EVAL_LOSS], backward[runs.EVAL_LOSS]
        return {
            "gap_nats": bw - fw,
            "gap_bits_per_byte": backward["eval/bits_per_byte"] - forward["eval/bits_per_byte"],
            "gap_over_forward_percent": 100 * (bw / fw - 1),
            "gap_over_mean_percent": 100 * (bw - fw) / ((bw + fw) / 2),
        }

    def warnings(self) -> list[str]:
        """Differences that are warned of, runs before their end, and what the runs noted of themselves."""
        forward, backward = self.runs
        found = differences(forward.conditions, backward.conditions)  # none where both are one run
        lines = [f"{forward.folder} and {backward.folder} have {difference}" for difference in found]
        for run in self.folders():
            step, total = run.step, run.metadata.get("total_steps")
            if total is not None and step < total:
                lines.append(f"{run.folder} was last evaluated at step {step} of {total}")
        noted = [(run, note) for run in self.folders() for note in run.metadata.get("notes") or []]
        for note in dict.fromkeys(note for _, note in noted):
            lines.append(f"{' and '.join(str(run.folder) for run, other in noted if other == note)}: {note}")
        return lines

    def folders(self) -> list[RecordedRun]:
        """The runs of the pair; one, if it is a run of both orders."""
        return [*{run.folder: run for run in self.runs}.values()]


def reference_of(orders: Iterable[str], wanted: str | None = None) -> str:
    """The order that the others are compared with: the one that is wanted, or else forward, or the first by name."""
    return min(orders, key=lambda order: (order != wanted, order != Direction.forward.name, order))


def family_of(run: RecordedRun) -> str:
    """What runs have in common that differ in nothing but order and seed."""
    return json.dumps(run.settings | {"seed": None}, sort_keys=True)


def pair_runs(
    given: Sequence[RecordedRun], reference: str | None = None, alone: Iterable[RecordedRun] = ()
) -> tuple[list[Pair], list[str]]:
    """Find the twins of every run of the reference.

    Args:
        given: the runs.
        reference: the order that the others are compared with, where there are runs of it; None for forward.
        alone: those of the runs that are compared without a twin too, so that nobody misses it.

    Returns:
        The pairs, and for each run that is in none, why. Of runs that differ in nothing that
        counts, the first is taken.
    """
    groups: dict[str, dict[str, RecordedRun]] = {}
    orders: dict[str, set[str]] = {}
    kept: list[RecordedRun] = []
    left_out: list[str] = []
    for run in given:
        group = groups.setdefault(json.dumps(run.settings, sort_keys=True), {})
        if run.order in group:
            both = f"{group[run.order].folder} and {run.folder} are the same run twice"
            left_out.append(f"{both}: {run.setting_of_order} and no difference that counts; the first is taken.")
            continue
        group[run.order] = run
        kept.append(run)
        orders.setdefault(family_of(run), set()).add(run.order)
    pairs: list[Pair] = []
    not_missed = {id(run) for run in alone}
    for group in groups.values():
        first = group.get(reference_of(orders[family_of(next(iter(group.values())))], reference))
        others = [run for run in group.values() if run is not first]
        if first is None or not others:
            left_out += [_why_unpaired(run, kept) for run in group.values() if id(run) not in not_missed]
            continue
        for other in others:
            if first.step != other.step:
                steps = f"{first.folder} was last evaluated at step {first.step}, {other.folder} at step"
                left_out.append(f"{steps} {other.step}; train the shorter one further.")
                continue
            pairs.append(Pair("", "", (first, other)))
    for pair, (data, model) in zip(
        pairs, names_of([(p.runs[0].settings, p.runs[0].config) for p in pairs]), strict=True
    ):
        pair.data, pair.model = data, model
    return pairs, left_out


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """List the keys in which two mappings differ, with both values."""
    values = {key: (left.get(key, "absent"), right.get(key, "absent")) for key in left | right}
    return [f"{key}={a} against {b}" for key, (a, b) in values.items() if a != b]


def _why_unpaired(run: RecordedRun, given: Sequence[RecordedRun]) -> str:
    """Name the run that comes closest to being this one's twin, and what they differ in."""
    what, twin = ("direction", "the other direction") if run.order in DIRECTIONS else ("order", "another order")
    unpaired = f"{run.folder} ({run.setting_of_order}) has no twin of {twin} among runs="
    others = [other for other in given if other.settings != run.settings]
    if not others:
        return f"{unpaired}; train one, with the same settings but its {what}."
    closest = min(others, key=lambda o: (o.order == run.order, len(differences(run.settings, o.settings))))
    found = _explained(run, closest)
    if closest.order == run.order:
        found.insert(0, f"{run.setting_of_order} too")
    more = [f"{len(found) - MOST_DIFFERENCES} more"] if len(found) > MOST_DIFFERENCES else []
    shown = ", ".join([*found[:MOST_DIFFERENCES], *more])
    return f"{unpaired}. The closest run is {closest.folder}, with {shown}; a pair differs in {what} only."


def _explained(left: RecordedRun, right: RecordedRun) -> list[str]:
    """What two runs differ in that those of a pair must agree in, by keys that people know: no fingerprints."""
    found: list[str] = []
    hidden = {*runs.FINGERPRINTS}
    places = [(paths_of(run.config), run.config.get("data.tokenizer")) for run in (left, right)]
    is_other_data, is_other_tokenizer = (left.settings[key] != right.settings[key] for key in runs.FINGERPRINTS)
    if is_other_data and places[0][0] != places[1][0]:
        found.append(f"data.path={places[0][0]} against {places[1][0]}")
        hidden.add("val_unigram_entropy_nats")
    elif is_other_data:
        found.append(f"other tokens in data.path={places[0][0]}, which was made anew between them")
    if is_other_tokenizer and (not is_other_data or places[0][1] != places[1][1]):
        tokenizers = [tokenizer or f"{path}/tokenizer" for path, tokenizer in places]
        differ = f"{tokenizers[0]} against {tokenizers[1]}" if tokenizers[0] != tokenizers[1] else tokenizers[0]
        found.append(f"another tokenizer, data.tokenizer={differ}")
    sources = [run.config.get("model.init_from") for run in (left, right)]
    weights = [run.settings.get(runs.INITIAL_WEIGHTS) for run in (left, right)]
    if weights[0] != weights[1] and sources[0] == sources[1]:
        found.append(f"other weights in model.init_from={sources[0]}, which changed between them")
    hidden.add(runs.INITIAL_WEIGHTS)
    settings = [{key: value for key, value in run.settings.items() if key not in hidden} for run in (left, right)]
    return found + differences(settings[0], settings[1])
