"""The key `loss`: every way has the losses, the predictions and the gradients of all logits at once."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_models import CONFIGS, V
from helpers.training_runs import by_step, losses, train

from hindsight.config.training import Loss
from hindsight.errors import InputError
from hindsight.fused_cross_entropy import liger_cross_entropy, linear_cross_entropy, missing_for_liger, require_liger
from hindsight.orders.examples import IGNORED
from hindsight.training.optim import freeze
from language_model import LanguageModel, build_model


def make_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, V, (4, 11), generator=generator)
    targets = ids[:, 1:].clone()
    targets[3, 5:] = IGNORED
    return {"input_ids": ids[:, :-1], "targets": targets}


@pytest.mark.parametrize("tied_head", [False, True])
@pytest.mark.parametrize("kind", CONFIGS)
def test_chunks_give_a_model_the_loss_the_sums_and_the_gradients_of_all_logits(kind: str, tied_head: bool):
    found = []
    for loss in (Loss.plain, Loss.chunked, Loss.auto):
        config = CONFIGS[kind]
        config = type(config)(**{**vars(config), "tied_head": tied_head})
        model = LanguageModel(build_model(config, V, seed=0), np.arange(V), loss=loss).train()
        outputs = model(make_batch())
        outputs["loss"].backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters()}
        with torch.no_grad():
            evaluated = model.eval()(make_batch())["sums"]
        found.append((outputs["loss"], outputs["sums"], evaluated, gradients))
    plain, chunked, auto = found
    torch.testing.assert_close(chunked, plain)
    torch.testing.assert_close(auto, chunked, rtol=0, atol=0)
    assert torch.equal(chunked[1][1:], plain[1][1:]), "correct predictions, targets and bytes are counted"


def test_a_run_computes_its_loss_as_the_key_says(shards: Path, tmp_path: Path):
    keys = ["max_duration=3ba", "eval_interval=3ba"]
    runs = {loss.name: train(shards, tmp_path, f"run_name={loss.name}", f"loss={loss.name}", *keys) for loss in
            (Loss.plain, Loss.chunked, Loss.auto)}  # fmt: skip
    assert losses(runs["auto"]) == losses(runs["chunked"])
    for key in ("train/loss_nats", "eval/loss_nats", "eval/accuracy"):
        plain, chunked = (list(by_step(runs[name], key).values()) for name in ("plain", "chunked"))
        assert plain == pytest.approx(chunked, rel=1e-6)
    plain, chunked = ((runs[name] / "model.safetensors").read_bytes() for name in ("plain", "chunked"))
    assert plain != chunked, "another order of the sums"


def test_a_head_above_frozen_layers_is_trained_by_chunks_where_liger_would_give_it_no_gradient():
    gradients = []
    for loss in (Loss.chunked, Loss.liger):
        model = LanguageModel(build_model(CONFIGS["gpt2"], V, seed=0), np.arange(V), loss=loss).train()
        freeze(model.module, ["embedding", "positions", "norm", *(f"blocks.{i}" for i in range(len(model.layers)))])
        model(make_batch())["loss"].backward()
        gradients.append(model.module.head.weight.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_ligers_loss_is_refused_where_it_cannot_run():
    require_liger(Loss.chunked)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"loss=liger needs a GPU; use loss=chunked"):
            require_liger(Loss.liger)


@pytest.mark.parametrize(
    ("installed", "has_gpu", "missing"),
    [
        (None, False, "a GPU; use loss=chunked here"),
        (None, True, "Liger Kernel; `pip install"),
        ("0.7.1", True, "Liger Kernel 0.8 or later, and 0.7.1 is installed; `pip install --upgrade"),
        ("0.8.0", False, "a GPU;"),
    ],
)
def test_what_ligers_loss_lacks_is_said(installed, has_gpu, missing):
    said = missing_for_liger(installed, has_gpu)
    assert said is not None
    assert said.startswith(missing)


@pytest.mark.parametrize("installed", ["0.8", "0.8.0", "0.10.2", "1.0.0.dev3"])
def test_ligers_loss_lacks_nothing_with_a_new_version(installed):
    assert missing_for_liger(installed, has_gpu=True) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ligers_loss_is_that_of_chunks(dtype: torch.dtype):
    pytest.importorskip("liger_kernel")
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(300, 64, generator=generator).cuda().requires_grad_()
    weight_VD = torch.randn(501, 64, generator=generator).cuda().requires_grad_()
    targets_N = torch.randint(0, 501, (300,), generator=generator).cuda()
    targets_N[::4] = IGNORED
    found = []
    for score in (partial(linear_cross_entropy, rows=100), liger_cross_entropy):
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            scores = score(hidden_ND, weight_VD, targets_N)
        found.append((scores.total, scores.correct, torch.autograd.grad(scores.total, [hidden_ND, weight_VD])))
    torch.testing.assert_close(found[1], found[0], rtol=2e-2, atol=1e-2)
