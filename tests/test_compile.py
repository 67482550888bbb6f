"""compile=true: the blocks and the loss are compiled, and all else is as in eager mode.

A C++ compiler takes seconds for each kernel of a CPU. Where the graphs are what is tested, PyTorch's own kernels
(aot_eager) run them.
"""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import CONFIGS, C, V, build
from helpers.training_runs import by_step, losses, train
from helpers.watched_steps import ON_DEVICE
from safetensors.torch import load_file

from hindsight.device import device_of_process
from hindsight.generation.decoding import Decoder
from hindsight.orders.examples import IGNORED
from language_model import LanguageModel


def model_of(kind: str, is_checkpointed: bool = False) -> LanguageModel:
    module: Any = build(CONFIGS[kind])
    module.activation_checkpointing = is_checkpointed
    return LanguageModel(module, np.arange(V)).train()


def make_batch(n_rows: int, with_documents: bool = False) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(n_rows)
    inputs_BT, targets_BT = torch.randint(0, V, (2, n_rows, C), generator=generator)
    targets_BT[0, -2:] = IGNORED
    documents_BT = (torch.arange(C) // 5).expand(n_rows, C)
    return {"input_ids": inputs_BT, "targets": targets_BT} | ({"documents": documents_BT} if with_documents else {})


def step(model: LanguageModel, batch: dict[str, Any]) -> list[torch.Tensor]:
    """Loss, sums and gradients of a batch."""
    outputs = model(batch)
    gradients = torch.autograd.grad(outputs["loss"], [*model.parameters()])
    return [outputs["loss"].detach(), outputs["sums"], *gradients]


@pytest.mark.parametrize("device", ON_DEVICE)
@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("gpt2", "plain"),
        ("gpt2", "checkpointed"),
        ("gpt2", "documents"),
        ("llama-2kv", "plain"),
        ("modern-2kv", "checkpointed"),
        ("lstm-norm", "plain"),
    ],
)
def test_a_compiled_model_has_the_losses_and_gradients_of_eager_mode(kind, how, device):
    where = device_of_process()
    model = where.module_to_device(model_of(kind, how == "checkpointed"))
    batch = where.batch_to_device(make_batch(3, how == "documents"))
    eager = copy.deepcopy(model)
    names = [*model.state_dict()]
    model.compile_regions("aot_eager" if device == "cpu" else "inductor")
    assert [*model.state_dict()] == names == [*eager.state_dict()]
    for one, other in zip(step(model, batch), step(eager, batch), strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-6)
    sums = [each.eval().eval_forward(batch) for each in (model, eager)]
    torch.testing.assert_close(*sums, rtol=1e-6, atol=0.0)


def test_all_blocks_are_one_program_and_odd_batches_and_texts_compile_none():
    module: Any = build(dataclasses.replace(CONFIGS["gpt2"], n_layers=9))
    model = LanguageModel(module, np.arange(V))
    model.compile_regions("aot_eager")
    batch = make_batch(4)
    step(model.train(), batch)
    with torch.no_grad():
        model.eval().eval_forward(batch)
        with torch.compiler.set_stance("fail_on_recompile"):
            model.eval_forward(make_batch(1))
            with torch.compiler.set_stance("force_eager"):  # as the samples of a run are written
                decoder = Decoder(model.module, 0, C)
                for token in range(8):
                    decoder.read(torch.tensor([[token]]))
    with torch.compiler.set_stance("fail_on_recompile"):
        step(model.train(), batch)
        with torch.no_grad(), pytest.raises(RuntimeError, match="recompile"):
            model.eval().eval_forward(make_batch(1))  # behind training, batches of an evaluation may be smaller


@pytest.mark.slow
def test_a_run_goes_on_compiled_or_not_with_the_same_checkpoint(shards, tmp_path):
    changes = ["optim.schedule=constant", "optim.cooldown_share=0", "optim.lr=3e-3", "samples.interval=2ba"]
    changes += ["eval_interval=3ba", "samples.length=8"]

    def run(name: str, *parts: str, first: int = 1) -> Path:
        for steps, compiled in enumerate(parts, start=first):
            made = train(
                shards, tmp_path, *changes, f"run_name={name}", f"max_duration={3 * steps}ba", f"compile={compiled}"
            )
        return made

    eager, there, back = run("eager", "false", "false"), run("there", "false", "true"), run("back", "true", "false")
    for mixed in (there, back):
        for key in ("train/loss_nats", "eval/loss_nats"):
            assert [*by_step(mixed, key).values()] == pytest.approx([*by_step(eager, key).values()], abs=1e-5)
        assert load_file(mixed / "model.safetensors").keys() == load_file(eager / "model.safetensors").keys()
    whole, parts = run("whole", "true", first=2), run("parts", "true", "true")
    assert losses(parts) == losses(whole), "bit for bit, compiled from beginning to end"
    assert (there / "samples.jsonl").read_text() == (eager / "samples.jsonl").read_text()
