"""Let a model write text: after a prompt (forward), or before it (backward).

Shapes: B sequences, T tokens, V token ids.
"""

import torch
from torch import Tensor, nn

from hindsight.config.direction import Direction
from hindsight.orders.direction import turn


@torch.no_grad()
def generate(
    module: nn.Module,
    prompt_1T: Tensor,
    direction: Direction,
    bos_id: int,
    eos_id: int,
    length: int,
    context_length: int,
    temperature: float,
    top_k: int | None,
    generator: torch.Generator,
) -> Tensor:
    """Write on from a prompt: after it (forward) or before it (backward).

    Args:
        module: inputs_BT -> logits_BTV.
        prompt_1T: the prompt's tokens in reading order, (1, T) int64; T may be 0.
        direction: the direction that the module was trained in.
        bos_id: id that starts every input.
        eos_id: id between documents; writing stops there.
        length: tokens to write at most.
        context_length: tokens that the module sees at most, BOS included.
        temperature: divides the logits.
        top_k: sample from this many likeliest tokens; None for all.
        generator: source of the randomness, on the CPU.

    Returns:
        Prompt and continuation in reading order, (1, T + up to length) int64.
    """
    device = next(module.parameters()).device
    was_training = module.training
    module.eval()
    read_1T = torch.cat([torch.full((1, 1), bos_id), turn(prompt_1T, direction)], dim=1).to(device)
    for _ in range(length):
        logits_V = module(read_1T[:, -context_length:])[0, -1].float().cpu() / temperature
        if top_k is not None and top_k < len(logits_V):
            logits_V[logits_V < logits_V.topk(top_k).values[-1]] = -torch.inf
        token_1 = torch.multinomial(logits_V.softmax(-1), 1, generator=generator)
        if token_1.item() == eos_id:
            break
        read_1T = torch.cat([read_1T, token_1[None].to(device)], dim=1)
    module.train(was_training)
    return turn(read_1T[:, 1:].cpu(), direction)
