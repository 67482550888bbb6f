"""What plan.py says of a model: its parameters, and the memory of a step, beside what the tensors of one take."""

import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.training_runs import compose_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hindsight.config.model import Activation, Block, Cell, GPTConfig, ModelConfig, RNNConfig
from hindsight.config.optim import OptimConfig, OptimizerName
from hindsight.config.schemas import model_names
from hindsight.config.training import Loss
from hindsight.fused_cross_entropy import in_chunks
from hindsight.planning.memory import Memory, memory_of
from hindsight.planning.parameters import (
    n_by_muon,
    n_matrices,
    n_parameters,
    n_tensors,
    n_trained,
    parameters_by_part,
)
from hindsight.training.optim import build_optimizer, freeze
from language_model import LanguageModel, build_model

T = 64
GPT = GPTConfig(name="a", n_layers=3, d_model=64, n_heads=4, context_length=T)
LLAMA = replace(GPT, block=Block.llama, mlp_ratio=2.6667)
MODERN = replace(GPT, block=Block.modern, activation=Activation.relu2, logit_softcap=15.0)
RNN = RNNConfig(name="a", n_layers=3, d_model=64, cell=Cell.gru, context_length=T)
KINDS = {
    "gpt2": GPT,
    "gpt2_tied": replace(GPT, tied_head=True, mlp_ratio=2.3),
    "gpt2_no_bias": replace(GPT, bias=False),
    "llama": LLAMA,
    "llama_bias": replace(LLAMA, bias=True, tied_head=True),
    "llama_grouped": replace(LLAMA, n_kv_heads=2),
    "modern": MODERN,
    "modern_grouped": replace(MODERN, n_kv_heads=2, logit_softcap=None),
    "modern_swiglu": replace(MODERN, activation=Activation.swiglu, bias=True),
    "gru": RNN,
    "lstm_norm": replace(RNN, cell=Cell.lstm, final_norm=True, tied_head=True),
}
PART_OF = {"embedding": "embedding", "positions": "positions", "head": "head", "layers": "recurrent"}
"""Names of the weights that are a part by their first word."""


def built_parts(config: ModelConfig, vocab_size: int) -> dict[str, int]:
    """Parameters of a model that is built, by the parts of a plan."""
    with torch.device("meta"):
        module = build_model(config, vocab_size, seed=0)
    found: dict[str, int] = {}
    for name, weight in module.named_parameters():
        words = name.split(".")
        inner = {"attention": "attention", "mlp": "mlp"}.get(words[2] if len(words) > 2 else "", "norms")
        part = PART_OF.get(words[0], inner)
        found[part] = found.get(part, 0) + weight.numel()
    return found


@pytest.mark.parametrize("name", model_names())
def test_parameters_are_those_of_the_built_model_for_every_named_model(name: str):
    config = compose_config("train_composer", "direction=forward", f"model={name}").model
    planned = {part: count for part, count in parameters_by_part(config, 300).items() if count}
    assert planned == built_parts(config, 300)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_and_tensors_are_those_of_the_built_model_with_any_keys(kind: str):
    config = KINDS[kind]
    planned = {part: count for part, count in parameters_by_part(config, 111).items() if count}
    assert planned == built_parts(config, 111)
    assert n_tensors(config, config.parts) == len([*build_model(config, 111, seed=0).parameters()])
    assert parameters_by_part(replace(config, vocab_size=200), 111)["embedding"] == 200 * 64


FREEZES = {
    "gpt2": ["embedding", "blocks.0-1", "positions"],
    "gpt2_tied": ["embedding"],
    "llama_bias": ["blocks.0-2.attention", "blocks.2.mlp_norm", "norm"],
    "llama": ["blocks.0-1.mlp", "head"],
    "modern": ["blocks.0-1.mlp", "blocks.2.attention", "embedding"],
    "lstm_norm": ["layers.0-1"],
    "gru": ["layers.2", "head"],
}


@pytest.mark.parametrize("kind", FREEZES)
def test_what_is_trained_of_a_model_with_frozen_parts_is_what_its_optimizer_has(kind: str):
    config = replace(KINDS[kind], freeze=FREEZES[kind])
    module = build_model(config, 111, seed=0)
    freeze(module, config.frozen)
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    assert n_trained(config, 111) == sum(weight.numel() for weight in trained) < n_parameters(config, 111)
    assert n_tensors(config, config.parts) - n_tensors(config, config.frozen) == len(trained)
    memory = memory_of(config, 111, 2, T, n_devices=2)
    assert memory.gradients == memory.buckets == memory.optimizer // 2 == 4 * n_trained(config, 111)
    assert measured_peak(config, 111, 4, False, False, 1) <= 1.01 * memory_of(config, 111, 4, T).peak
    matrices = build_optimizer(module, OptimConfig(name=OptimizerName.muon)).param_groups[0]["params"]
    by_muon = sum(weight.numel() for weight in matrices)
    assert (n_by_muon(config, 111), n_matrices(config)) == (by_muon, len(matrices))
    assert memory_of(config, 111, 2, T, is_muon=True).optimizer == memory.optimizer - 4 * by_muon


class Peak(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside, and the most that are there at once."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()
        self.living = {weakref.ref(tensor.untyped_storage()) for tensor in known}
        self.now = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() == "hindsight::score_chunks":  # an operator, which hides what is in it
            with self:
                result = in_chunks(*args)
        else:
            result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        self.most = max(self.most, self.now)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        n_bytes = storage.nbytes()

        def freed(reference: Any) -> None:
            self.now -= n_bytes
            self.living.discard(reference)

        if weakref.ref(storage) not in self.living:
            self.living.add(weakref.ref(storage, freed))
            self.now += n_bytes


def measured_peak(
    config: ModelConfig,
    vocab_size: int,
    windows: int,
    is_mixed: bool,
    is_checkpointed: bool,
    n_microbatches: int,
    name: OptimizerName = OptimizerName.adamw,
    loss: Loss = Loss.auto,
) -> int:
    """Most bytes of tensors in a training step, weights and optimizer included."""
    module = build_model(config, vocab_size, 0, is_checkpointed)
    freeze(module, config.frozen)
    model = LanguageModel(module, np.ones(vocab_size, np.int64), loss=loss).train()
    optimizer = build_optimizer(module, OptimConfig(name=name))
    batch = dict.fromkeys(("input_ids", "targets"), torch.zeros(windows, T, dtype=torch.int64))

    def step() -> None:
        for _ in range(n_microbatches):
            with torch.autocast("cpu", torch.bfloat16, enabled=is_mixed):
                loss = model.loss(model(batch), batch)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # the optimizer makes its state
    state = [value for of in optimizer.state.values() for value in of.values()]
    known = [*module.parameters(), *state, *batch.values(), model.bytes_V]
    before = sum(tensor.untyped_storage().nbytes() for tensor in {*module.parameters(), *state})
    with Peak(known) as peak:
        step()
    return before + peak.most


STEPS = [(1500, 4, 1), (300, 8, 2)]
"""Token ids, windows of a microbatch, and microbatches."""
LARGE_STEP = (5000, 16, 1)


@pytest.mark.parametrize("is_checkpointed", [False, True], ids=["stored", "checkpointed"])
@pytest.mark.parametrize("is_mixed", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("loss", [Loss.plain, Loss.chunked])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "llama_grouped", "modern", "modern_grouped", "modern_swiglu", "gru"])
def test_the_memory_of_a_step_is_what_its_tensors_take(kind: str, loss: Loss, is_mixed: bool, is_checkpointed: bool):
    for vocab_size, windows, n_microbatches in [*STEPS, *([LARGE_STEP] if kind in ("gpt2", "modern") else [])]:
        found = measured_peak(KINDS[kind], vocab_size, windows, is_mixed, is_checkpointed, n_microbatches, loss=loss)
        how = {"is_mixed": is_mixed, "is_checkpointed": is_checkpointed, "accumulates": n_microbatches > 1}
        planned = memory_of(KINDS[kind], vocab_size, windows, T, loss=loss, **how).peak
        exact = 0.01 if loss is Loss.plain else 0.03
        assert planned == pytest.approx(found, rel=0.15 if is_checkpointed else 0.05 if is_mixed else exact)


@pytest.mark.parametrize("kind", ["gpt2", "llama_grouped", "gru"])
def test_the_memory_of_a_step_by_muon_is_what_its_tensors_take(kind: str):
    for windows in (1, 4):  # the update takes most, or the loss
        found = measured_peak(KINDS[kind], 300, windows, False, False, 1, OptimizerName.muon, Loss.plain)
        assert memory_of(KINDS[kind], 300, windows, T, is_muon=True, loss=Loss.plain).peak == pytest.approx(
            found, rel=0.02
        )


def test_memory_grows_with_what_it_depends_on():
    def of(windows: int = 4, **how: Any) -> Memory:
        return memory_of(GPT, 300, windows, T, **how)

    assert of(windows=8).activations == 2 * of().activations
    assert of(is_checkpointed=True).activations < of(is_mixed=True).activations < of().activations
    assert of(n_devices=2).peak - of().peak == of().gradients == of().weights
    many, few = (memory_of(GPT, 50257, 64, T, loss=loss).logits for loss in (Loss.plain, Loss.chunked))
    assert few < many / 20
    assert of(accumulates=True).peak - of().peak == of().gradients
