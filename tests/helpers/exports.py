"""Exports in this process, of runs and of models that were never trained."""

from pathlib import Path
from typing import Any

import torch

import export_hf
from helpers.training_runs import compose_config
from hindsight.config.corpus import TextOrder
from hindsight.config.model import GPTConfig, ModelConfig
from hindsight.config.training import TrainConfig
from hindsight.evaluation.opened_run import OpenedRun
from hindsight.evaluation.stored_weights import StoredWeights
from hindsight.evaluation.trained_run import TrainedRun
from hindsight.export.export import write_folder
from hindsight.orders.both import vocab_size_for
from hindsight.orders.known import open_order
from hindsight.tokenization.tokenizer import Tokenizer
from language_model import build_model

T = 24
SIZES: dict[str, Any] = {"n_layers": 2, "d_model": 16, "context_length": T}
GPT2 = GPTConfig(name="tiny", n_heads=2, **SIZES)


def export(run: Path, out: Path, *arguments: str) -> None:
    """Write a run as a folder for transformers."""
    export_hf.main(compose_config("export_hf", f"run={run}", f"out={out}", *arguments))


def opened(model: ModelConfig, tokenizer_dir: Path, name: str = "forward", **changes) -> OpenedRun:
    """A run that was never trained: the package takes its module as an argument."""
    tokenizer = Tokenizer.load(tokenizer_dir)
    config = TrainConfig(order=name, model=model, run_name="tiny")
    config.data.context_length = T
    fingerprints = {"data_fingerprint": "d", "tokenizer_fingerprint": tokenizer.fingerprint}
    metadata = {**fingerprints, "n_parameters": 1, "git_commit": "c", "versions": {}, **changes}
    run = TrainedRun("runs/tiny", None, config, metadata, None)
    weights = StoredWeights(Path("ep0-ba3-rank0.pt"), 3, "f")
    order = open_order(name, T, tokenizer)
    return OpenedRun(run, weights, tokenizer, tokenizer_dir, order, TextOrder(changes.get("text_order", "reading")))


def module_of(run: OpenedRun, scale: float = 0.3) -> torch.nn.Module:
    """A model whose every weight shows in the logits."""
    module = build_model(run.config.model, vocab_size_for(run.order, run.tokenizer.vocab_size), seed=0).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            mean = 1.0 if weight.ndim == 1 and name.endswith("norm.weight") else 0.0
            weight.copy_(mean + scale * torch.randn(weight.shape, generator=generator))
    return module


def written(run: OpenedRun, folder: Path, scale: float = 0.3) -> Path:
    folder.mkdir(parents=True)
    write_folder(run, module_of(run, scale), folder)
    return folder
