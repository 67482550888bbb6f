"""Steps and seconds to a loss: `python -m benchmarks.steps_to_loss COMPARISON DATA OUT.jsonl`, from the repository.

A comparison has two variants of a small model, given by keys of train_composer.py, such as AdamW and Muon. The
learning rate of each is swept, by factors of 2 around that of the demo, until its best has a worse one on either side.
With it, the first is trained for STEPS steps from each of SEEDS, and the second for shares of them, each run with a
schedule of its own length. Where the second reaches the loss that the first ends with, over the whole validation split
and from the same seed, is interpolated between two lengths, along the logarithm of the steps.

DATA is a folder of convert_to_mds.py, such as demo/bible of `make demo`. Runs that OUT.jsonl has are not made again.
Seconds are those of the processor, in one thread, of training steps alone.
"""

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, pairwise
from pathlib import Path

from benchmarks.arguments import StepsToLoss, parse_steps_to_loss

if __name__ == "__main__":
    parse_steps_to_loss(sys.argv[1:])  # before the imports below, which take seconds

import torch
from torch.nn.utils import clip_grad_norm_

from benchmarks.table import HEAD, Row
from hindsight.command_line import configuration_of
from hindsight.config.training import TrainConfig
from hindsight.training.optim import build_optimizer, build_scheduler, learning_rate
from hindsight.training.setup import RunSetup, check_setup, locate_data
from language_model import LanguageModel, build_model
from load_text_streaming import build_loaders
from loss_utils import metric_values

COMPARISONS = {
    "optimizers": {"AdamW": ["model=gpt_demo", "optim.name=adamw"], "Muon": ["model=gpt_demo", "optim.name=muon"]},
    "models": {"gpt_demo": ["model=gpt_demo"], "modern_demo": ["model=modern_demo"]},
}
"""By name, the keys of two variants."""
KEYS = ["direction=forward", "model.context_length=128", "batch_size=8", "optim.warmup_steps=50"]
STEPS = 400
SHARES = (0.4, 0.5, 0.6, 0.75, 1.0)
"""Of STEPS, the lengths for which the second variant is trained."""
SEEDS = (0, 1, 2)
FIRST_LR = 4e-3
TARGET = 0.75
"""Steps of the second over those of the first, at most."""


@dataclass(frozen=True)
class Run:
    """A run that was made, or is to be made."""

    variant: str
    lr: float
    seed: int
    steps: int


@dataclass(frozen=True)
class Result:
    """What a run has given: the loss of the validation split at its end, and the processor's seconds of its steps."""

    loss_nats: float
    seconds: float


def setup_of(keys: Sequence[str], run: Run, data: Path) -> RunSetup:
    """Open what a run needs, as train_composer.py does."""
    given = [*KEYS, *keys, f"optim.lr={run.lr}", f"seed={run.seed}", f"data.path={data}", "run_name=benchmark"]
    config: TrainConfig = configuration_of("train_composer", given)
    return check_setup(config, locate_data(config))


def train(setup: RunSetup, steps: int) -> Result:
    """Train a model in a plain loop, and evaluate it."""
    config, loaders = setup.config, build_loaders(setup)
    model = LanguageModel(
        build_model(config.model, setup.vocab_size, config.seed), setup.tokenizer.bytes_per_token, train_metrics=False
    )
    optimizer = build_optimizer(model.module, config.optim)
    scheduler = build_scheduler(optimizer, lambda step: learning_rate(step, steps, config.optim), config.optim)
    seconds = 0.0
    for batch in islice(loaders["train"].dataloader, steps):
        began = time.process_time()
        model.loss(model(batch), batch).backward()
        clip_grad_norm_(model.parameters(), config.optim.grad_clip or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        seconds += time.process_time() - began
    model.eval()
    with torch.no_grad():
        sums = [model.eval_forward(batch) for batch in loaders["val"].dataloader]
    return Result(metric_values(torch.stack(sums).sum(dim=0))["loss_nats"], seconds)


def best_lr(loss_at: Callable[[float], float]) -> float:
    """Find the best learning rate among those that are a power of 2 away from FIRST_LR."""
    losses = {lr: loss_at(lr) for lr in (FIRST_LR / 2, FIRST_LR, FIRST_LR * 2)}
    while True:
        best = min(losses, key=lambda lr: losses[lr])
        missing = [lr for lr in (best / 2, best * 2) if lr not in losses]
        if not missing:
            return best
        losses |= {lr: loss_at(lr) for lr in missing}


def steps_to(loss_nats: float, losses: dict[int, float]) -> float | None:
    """Steps with which a loss is reached, interpolated between the lengths of two runs; None if none reaches it.

    Args:
        loss_nats: what is to be reached.
        losses: the last loss by the length of a run.
    """
    lengths = sorted(losses)
    if losses[lengths[0]] <= loss_nats:
        return float(lengths[0])
    for before, after in pairwise(lengths):
        if losses[after] <= loss_nats:
            share = (losses[before] - loss_nats) / (losses[before] - losses[after])
            return before * (after / before) ** share
    return None


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def compare(variants: Sequence[str], result_of: Callable[[Run], Result]) -> list[Row]:
    """Make all runs of a comparison, and say what they give."""
    first, second = variants
    rates, rows = {}, []
    for variant in variants:
        plain = Run(variant, FIRST_LR, SEEDS[0], STEPS)
        rates[variant] = best_lr(lambda lr, plain=plain: result_of(replace(plain, lr=lr)).loss_nats)
        rows.append(Row(f"best learning rate of {variant}, by factors of 2", f"{rates[variant]:g}"))
    ratios, by_seconds, ends = [], [], {first: [], second: []}
    for seed in SEEDS:
        reference = result_of(Run(first, rates[first], seed, STEPS))
        results = {steps: result_of(Run(second, rates[second], seed, steps)) for steps in lengths_of_second()}
        losses = {steps: result.loss_nats for steps, result in results.items()}
        reached = steps_to(reference.loss_nats, losses)
        ends[first].append(reference.loss_nats)
        ends[second].append(losses[STEPS])
        ratio = math.inf if reached is None else reached / STEPS
        ratios.append(ratio)
        a_step = sum(result.seconds for result in results.values()) / sum(results)
        by_seconds.append(ratio * STEPS * a_step / reference.seconds)
    rows += [
        Row(f"loss of {name} after {STEPS} steps, nats, {len(SEEDS)} seeds", spread(of)) for name, of in ends.items()
    ]
    name = f"{second} over {first}, each at its best rate, to the loss of {first} after {STEPS} steps"
    each, met = ", ".join(f"{ratio:.3f}" for ratio in ratios), statistics.mean(ratios) <= TARGET
    return [
        *rows,
        Row(f"steps: {name}", f"{spread(ratios)} ({each})", f"≤ {TARGET}", met),
        Row(f"processor seconds: {name}", spread(by_seconds)),
    ]


def lengths_of_second() -> list[int]:
    """Steps of the runs of the second variant."""
    return [round(share * STEPS) for share in SHARES]


def main(given: StepsToLoss) -> None:
    """Make what is not made yet, and print the table."""
    comparison, data, out = given.comparison, given.data, given.out
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    made = {Run(**line["run"]): Result(**line["result"]) for line in lines}

    def result_of(run: Run) -> Result:
        if run not in made:
            made[run] = train(setup_of(COMPARISONS[comparison][run.variant], run, data), run.steps)
            with out.open("a") as file:
                file.write(json.dumps({"run": asdict(run), "result": asdict(made[run])}) + "\n")
        return made[run]

    rows = compare([*COMPARISONS[comparison]], result_of)
    sys.stdout.write("\n".join([HEAD, *map(str, rows)]) + "\n")


if __name__ == "__main__":
    main(parse_steps_to_loss(sys.argv[1:]))
