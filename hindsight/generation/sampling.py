"""How tokens are drawn from what a model predicts. Shapes: B texts, V token ids.

Definitions: top-k is from arXiv:1805.04833, top-p (nucleus) from arXiv:1904.09751, min-p from arXiv:2407.01082. They
follow one another as in Hugging Face's `generate`: temperature, top_k, top_p, min_p, each among the tokens that those
before it left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hindsight.config.generation import GenerateConfig
from hindsight.errors import InputError

LEAST_TEMPERATURE = 1e-4
"""A smaller one takes the likeliest token, as 0 does: float32 has no place for the quotients."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Args:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: sample from this many likeliest tokens, and from those as likely as the last of them; None for all.
        top_p: sample from the fewest likeliest tokens whose probabilities add up to this; None for all.
        min_p: sample from tokens with at least this share of the likeliest one's probability; None for all.
    """

    temperature: float
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def draw(self, logits_BV: Tensor, generators: Sequence[torch.Generator]) -> list[int]:
        """Draw a token for each text.

        Args:
            logits_BV: what the model predicts.
            generators: source of each text's randomness, on the CPU.

        Raises:
            InputError: the model predicts NaN or infinity.
        """
        if not logits_BV.isfinite().all():
            raise InputError(
                "the model predicts NaN or infinity, as after a training that diverged; choose another checkpoint=."
            )
        if self.temperature < LEAST_TEMPERATURE:
            return logits_BV.argmax(-1).tolist()
        logits_BV = logits_BV.float()
        probabilities_BV = self.filtered(logits_BV - logits_BV.amax(-1, keepdim=True)).softmax(-1).cpu()
        pairs = zip(probabilities_BV, generators, strict=True)
        return [int(torch.multinomial(probability_V, 1, generator=generator)) for probability_V, generator in pairs]

    def filtered(self, logits_BV: Tensor) -> Tensor:
        """Return the logits over the temperature, (B, V) in float32; -inf for tokens that are not drawn."""
        logits_BV = logits_BV.float() / self.temperature
        if self.top_k is not None and self.top_k < logits_BV.shape[-1]:
            least_B1 = logits_BV.topk(self.top_k).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
        if self.top_p is not None:
            rising_BV, ids_BV = logits_BV.sort(-1)
            rest_BV = rising_BV.softmax(-1).cumsum(-1)  # of a token and of those less likely
            is_left_out_BV = rest_BV <= 1 - self.top_p
            is_left_out_BV[:, -1] = False
            logits_BV = logits_BV.masked_fill(is_left_out_BV.scatter(-1, ids_BV, is_left_out_BV), -torch.inf)
        if self.min_p is not None:
            probabilities_BV = logits_BV.softmax(-1)
            least_B1 = self.min_p * probabilities_BV.amax(-1, keepdim=True)
            logits_BV = logits_BV.masked_fill(probabilities_BV < least_B1, -torch.inf)
        return logits_BV


def sampling_of(config: GenerateConfig) -> Sampling:
    """Take what the keys of a call say."""
    return Sampling(config.temperature, config.top_k, config.top_p, config.min_p)
