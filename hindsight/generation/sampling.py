"""How tokens are drawn from what a model predicts. Shapes: V token ids."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Args:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: sample from this many likeliest tokens; None for all.
    """

    temperature: float
    top_k: int | None

    def draw(self, logits_V: Tensor, generator: torch.Generator) -> int:
        """Draw a token.

        Args:
            logits_V: what the model predicts.
            generator: source of the randomness, on the CPU.
        """
        if self.temperature == 0:
            return int(logits_V.argmax())
        logits_V = logits_V.float().cpu() / self.temperature
        if self.top_k is not None and self.top_k < len(logits_V):
            logits_V[logits_V < logits_V.topk(self.top_k).values[-1]] = -torch.inf
        return int(torch.multinomial(logits_V.softmax(-1), 1, generator=generator))
