"""Let a model write text: after a prompt (forward), before it (backward, units), or all over a window (other orders).

Shapes: B sequences, T tokens, V token ids.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hindsight.orders.order import Order
from hindsight.orders.units import UnitOrder


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Args:
        temperature: divides the logits.
        top_k: sample from this many likeliest tokens; None for all.
        generator: source of the randomness, on the CPU.
    """

    temperature: float
    top_k: int | None
    generator: torch.Generator

    def draw(self, logits_V: Tensor) -> int:
        """Draw a token."""
        logits_V = logits_V.float().cpu() / self.temperature
        if self.top_k is not None and self.top_k < len(logits_V):
            logits_V[logits_V < logits_V.topk(self.top_k).values[-1]] = -torch.inf
        return int(torch.multinomial(logits_V.softmax(-1), 1, generator=self.generator))


@torch.no_grad()
def generate(
    module: nn.Module,
    prompt_1T: Tensor,
    order: Order,
    bos_id: int,
    eos_id: int,
    length: int,
    context_length: int,
    sampling: Sampling,
) -> Tensor:
    """Write on from a prompt: after it, or before it (backward, and orders of units).

    A model of words writes one word behind the other: what it wrote is split into words again, and these are put into
    reading order before the prompt; so are sentences. Segments cannot be told apart, and stay as they were written.

    In any other order, the model fills a window that begins with the prompt, and the tokens of the prompt stand where
    they are; what is behind the first end of a document is left out.

    Args:
        module: inputs_BT -> logits_BTV.
        prompt_1T: the prompt's tokens in reading order, (1, T) int64; T may be 0.
        order: the order that the module was trained in.
        bos_id: id that starts every input.
        eos_id: id between documents; writing stops there.
        length: tokens to write at most.
        context_length: tokens that the module sees at most, BOS included.
        sampling: how tokens are drawn.

    Returns:
        Prompt and continuation in reading order, (1, T + up to length) int64.
    """
    was_training = module.training
    module.eval()
    prompt = prompt_1T[0].tolist()
    if order.name in ("forward", "backward"):
        step = 1 if order.name == "forward" else -1
        written = _write_on(module, prompt[::step], bos_id, eos_id, length, context_length, sampling)[::step]
    elif isinstance(order, UnitOrder):
        read = [prompt[position] for position in order.permutation(prompt_1T[0].numpy())]
        added = _write_on(module, read, bos_id, eos_id, length, context_length, sampling)[len(read) :]
        written = [added[position] for position in order.reading_order(np.array(added, np.int64))] + prompt
    else:
        n_tokens = min(len(prompt) + length, context_length)
        written = _fill(module, prompt[:n_tokens], order, bos_id, n_tokens, sampling)
        end = written.index(eos_id, len(prompt)) if eos_id in written[len(prompt) :] else n_tokens
        written = written[:end]
    module.train(was_training)
    return torch.tensor([written], dtype=torch.int64)


def _write_on(
    module: nn.Module, read: list[int], bos_id: int, eos_id: int, length: int, context_length: int, sampling: Sampling
) -> list[int]:
    """Write on to an end of the text, beyond the context if need be; tokens in the order of the model."""
    for _ in range(length):
        token = sampling.draw(_logits(module, [bos_id, *read][-context_length:]))
        if token == eos_id:
            break
        read = [*read, token]
    return read


def _fill(
    module: nn.Module, prompt: list[int], order: Order, bos_id: int, n_tokens: int, sampling: Sampling
) -> list[int]:
    """Write a window of n tokens, of which the prompt is known; tokens in reading order."""
    window = np.full(n_tokens, bos_id)
    window[: len(prompt)] = prompt
    read = [bos_id]
    for position in order.permutation(window):
        if position >= len(prompt):
            window[position] = sampling.draw(_logits(module, read))
        read.append(int(window[position]))
    return window.tolist()


def _logits(module: nn.Module, read: list[int]) -> Tensor:
    device = next(module.parameters()).device
    return module(torch.tensor([read], device=device))[0, -1]
