"""CPU time and peak memory of head and cross-entropy, forward and backward: `python -m benchmarks.loss [V ...]`.

Each way of `loss=` that runs on a CPU, eager and compiled, is a process of its own with one thread. They take turns;
ratios are turn by turn. Memory is what the process holds at most beyond what it held before, with the gradients
that it returns. Without vocabulary sizes these are GPT-2's and that of the demo.
"""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing.connection import Connection

from benchmarks.arguments import parse_loss

if __name__ == "__main__":
    parse_loss(sys.argv[1:])  # before the imports below, which take seconds

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.table import HEAD, Row
from benchmarks.worker import Worker
from hindsight import output
from hindsight.config.training import Loss
from hindsight.fused_cross_entropy import linear_cross_entropy
from loss_utils import correct_predictions, target_nats

N, D = 8192, 128
VOCAB_SIZES = (50257, 4096)
ROUNDS = 3
"""Turns that count; one more warms up, and compiles."""
WAYS = [(Loss.plain, False), (Loss.plain, True), (Loss.chunked, False), (Loss.chunked, True)]
MOST_MEMORY = 0.25
"""Of that of plain."""
Case = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Turn:
    """CPU time of a step, and the most memory so far."""

    cpu_seconds: float
    peak_mib: float


def plain(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean loss and correct predictions from all logits at once."""
    logits_NV = F.linear(hidden_ND, weight_VD)
    correct = correct_predictions(logits_NV.detach(), targets_N).sum()
    return target_nats(logits_NV, targets_N).mean(), correct


def chunked(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Return the same from chunks of rows."""
    scores = linear_cross_entropy(hidden_ND, weight_VD, targets_N)
    return scores.total / len(targets_N), scores.correct.sum()


def make_case(vocab_size: int) -> Case:
    """Draw hidden states, the head's weight, and targets."""
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(N, D, generator=generator).requires_grad_()
    weight_VD = (0.02 * torch.randn(vocab_size, D, generator=generator)).requires_grad_()
    return hidden_ND, weight_VD, torch.randint(vocab_size, (N,), generator=generator)


def held_mib() -> float:
    """Most memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def serve(way: Loss, is_compiled: bool, vocab_size: int, pipe: Connection) -> None:
    """Make a step for each request, until the other end is closed."""
    torch.set_num_threads(1)
    case = make_case(vocab_size)
    score: Callable[..., tuple[Tensor, Tensor]] = {Loss.plain: plain, Loss.chunked: chunked}[way]
    score = torch.compile(score, dynamic=False) if is_compiled else score
    if is_compiled:  # of a few rows first: the compiler's own memory is none of the step's
        few = [tensor[:8].detach().requires_grad_(tensor.is_floating_point()) for tensor in (case[0], case[2])]
        score(few[0], case[1], few[1])[0].backward()
    case[1].grad, before = None, held_mib()
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        began = time.process_time()
        loss, _ = score(*case)
        loss.backward()
        seconds = time.process_time() - began
        case[0].grad = case[1].grad = None
        pipe.send(Turn(seconds, held_mib() - before))


def measure(vocab_size: int) -> list[list[Turn]]:
    """Let the ways take turns; the turns of each that count."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(closing(Worker(f"way {name_of(*way)}", serve, *way, vocab_size))) for way in WAYS
        ]
        rounds = [[worker.ask() for worker in workers] for _ in range(ROUNDS + 1)]
    return [[*turns] for turns in zip(*rounds[1:], strict=True)]


def name_of(way: Loss, is_compiled: bool) -> str:
    """Name a way, such as "plain, compiled"."""
    return f"{way.name}{', compiled' * is_compiled}"


def rows(vocab_size: int) -> list[Row]:
    """Measure the ways with a vocabulary; ratios are to plain, which is not compiled."""
    turns = measure(vocab_size)
    made = []
    for (way, is_compiled), of_way in zip(WAYS, turns, strict=True):
        name = f"V={vocab_size}, {name_of(way, is_compiled)}"
        seconds = statistics.median(turn.cpu_seconds for turn in of_way)
        ratio = statistics.median(a.cpu_seconds / b.cpu_seconds for a, b in zip(of_way, turns[0], strict=True))
        peak, peak_of_plain = of_way[-1].peak_mib, turns[0][-1].peak_mib
        made.append(Row(f"{name}: CPU time", f"{seconds:.2f} s, {ratio:.2f} of plain"))
        share = peak / peak_of_plain
        target = ("", None) if way is Loss.plain else (f"≤ {MOST_MEMORY}", share <= MOST_MEMORY)
        made.append(Row(f"{name}: memory", f"{peak:,.0f} MiB, {share:.2f} of plain", *target))
    return made


def main(vocab_sizes: Sequence[int]) -> None:
    """Print the table."""
    output.say(HEAD)
    for vocab_size in vocab_sizes or VOCAB_SIZES:
        output.say("\n".join(str(row) for row in rows(vocab_size)))


if __name__ == "__main__":
    main(parse_loss(sys.argv[1:]))
