"""The logits of an exported folder, as transformers computes them, beside our own."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from hindsight.errors import InputError
from hindsight.export.model_files import CONFIG
from hindsight.export.reading import HowItReads

TOLERANCE = 1e-4
"""Largest difference that is allowed, as a share of the largest logit: both compute in float32, in another order."""
WINDOWS = 2
MOST_TOKENS = 1024
"""Windows that are compared, and tokens of each at most."""


def compare_logits(module: nn.Module, folder: Path, reading: HowItReads, vocab_size: int) -> float:
    """Compute both models' logits of the same random tokens, in float32 on the CPU.

    Args:
        module: our model.
        folder: the exported one.
        reading: how it reads; each window begins with its first id.
        vocab_size: number of the tokenizer's ids, from which the tokens are drawn.

    Returns:
        The largest difference, as a share of the largest logit.

    Raises:
        InputError: it is more than TOLERANCE.
    """
    T = min(reading.context_length, MOST_TOKENS)
    inputs_BT = torch.randint(vocab_size, (WINDOWS, T), generator=torch.Generator().manual_seed(0))
    inputs_BT[:, 0] = torch.tensor([*reading.start_ids.values()] * WINDOWS)[:WINDOWS]
    with torch.no_grad():
        ours_BTV = module.cpu().eval()(inputs_BT)
        theirs_BTV = loaded(folder)(inputs_BT).logits
    difference = _share(ours_BTV, theirs_BTV)
    if not difference <= TOLERANCE:
        raise InputError(
            f"the logits of the exported model differ by {difference:.1e} of the largest, more than {TOLERANCE:.0e}; "
            "nothing was written. This is a mistake of ours: report it with the versions that --version shows."
        )
    return difference


def loaded(folder: Path) -> nn.Module:
    """Load an exported model by what is in its folder; the code that lies there is the project's own."""
    from transformers import AutoModelForCausalLM

    from hindsight.export.in_folder.modeling_hindsight_gpt import HindsightGPTForCausalLM
    from hindsight.export.in_folder.modeling_hindsight_rnn import HindsightRNNForCausalLM

    ours = {known.config_class.model_type: known for known in (HindsightGPTForCausalLM, HindsightRNNForCausalLM)}
    model_type = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_type"]
    known = ours.get(model_type, AutoModelForCausalLM)
    return known.from_pretrained(folder, dtype=torch.float32).eval()


def _share(ours_BTV: Tensor, theirs_BTV: Tensor) -> float:
    if ours_BTV.shape != theirs_BTV.shape:
        return float("inf")
    return ((ours_BTV - theirs_BTV).abs().max() / ours_BTV.abs().max().clamp(min=1e-30)).item()
