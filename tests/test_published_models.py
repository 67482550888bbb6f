"""The models of arXiv:2401.17505, from the formulas of its code (github.com/frotaur/LLM-Arrows-of-Time, tag original).

Its GPT adds, in each block, attention of LN(x) and an MLP with exact GELU of LN(x) to x, then has LN and a head
without bias; all linear layers but the head have biases. Its GRU and LSTM are torch.nn's, with LN before the head. All
its weights are PyTorch's defaults. The formulas are computed here in float64, one weight after the other.
"""

import math

import pytest
import torch
from helpers.training_runs import compose_config
from torch import Tensor, nn

from gpt import GPT
from hindsight.config.model import Cell, GPTConfig, ModelConfig, RNNConfig
from language_model import build_model
from rnn import RNN

V, T = 41, 11
GPTS = ["nano", "micro", "mini", "small", "medium", "xl"]
RNNS = [f"{cell}_{size}" for cell in ("gru", "lstm") for size in ("small", "medium", "large")]
SMALL = {"gpt": ["model.n_layers=3", "model.n_heads=4", "model.d_model=24"], "rnn": ["model.d_model=24"]}


def config_of(name: str, *changes: str) -> ModelConfig:
    return compose_config("train_composer", "direction=forward", f"model={name}", *changes).model


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Draw weights that are large enough for every part of the model to show in the logits; give them in float64."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            weight.copy_(mean + 0.3 * torch.randn(weight.shape, generator=generator))
    return {name: weight.double() for name, weight in model.state_dict().items()}


def layer_norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return w[f"{name}.weight"] * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() + w[f"{name}.bias"]


def linear(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def published_gpt(w: dict[str, Tensor], ids_BT: Tensor, n_layers: int, n_heads: int) -> Tensor:
    length = ids_BT.shape[1]
    x = w["embedding.weight"][ids_BT] + w["positions.weight"][:length]
    future = torch.ones(length, length).triu(1).bool()
    for i in range(n_layers):
        q, k, v = linear(layer_norm(x, w, f"blocks.{i}.attention_norm"), w, f"blocks.{i}.attention.qkv").chunk(3, -1)
        heads = []
        for q_h, k_h, v_h in zip(q.chunk(n_heads, -1), k.chunk(n_heads, -1), v.chunk(n_heads, -1), strict=True):
            scores = q_h @ k_h.mT / math.sqrt(q_h.shape[-1])
            exp = scores.exp().masked_fill(future, 0)
            heads.append(exp / exp.sum(-1, keepdim=True) @ v_h)
        x = x + linear(torch.cat(heads, -1), w, f"blocks.{i}.attention.out")
        hidden = gelu(linear(layer_norm(x, w, f"blocks.{i}.mlp_norm"), w, f"blocks.{i}.mlp.up"))
        x = x + linear(hidden, w, f"blocks.{i}.mlp.down")
    return layer_norm(x, w, "norm") @ w["head.weight"].T


def published_rnn(w: dict[str, Tensor], ids_BT: Tensor, n_layers: int, cell: Cell) -> Tensor:
    x = w["embedding.weight"][ids_BT]
    for i in range(n_layers):
        names = [f"layers.{i}.{kind}_{side}_l0" for side in ("ih", "hh") for kind in ("weight", "bias")]
        w_ih, b_ih, w_hh, b_hh = (w[name] for name in names)
        h = c = torch.zeros_like(x[:, 0])
        states = []
        for t in range(x.shape[1]):
            from_x, from_h = x[:, t] @ w_ih.T + b_ih, h @ w_hh.T + b_hh
            if cell is Cell.gru:
                (r_x, z_x, n_x), (r_h, z_h, n_h) = from_x.chunk(3, -1), from_h.chunk(3, -1)
                z = torch.sigmoid(z_x + z_h)
                h = (1 - z) * torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h) + z * h
            else:
                i_gate, f_gate, g, o_gate = (from_x + from_h).chunk(4, -1)
                c = torch.sigmoid(f_gate) * c + torch.sigmoid(i_gate) * torch.tanh(g)
                h = torch.sigmoid(o_gate) * torch.tanh(c)
            states.append(h)
        x = torch.stack(states, 1)
    return layer_norm(x, w, "norm") @ w["head.weight"].T


def assert_same_logits(model: torch.nn.Module, ids_BT: torch.Tensor, expected_BTV: torch.Tensor) -> None:
    """Compare in float32 and, more strictly, in float64."""
    with torch.no_grad():
        logits_BTV = model(ids_BT)
        assert expected_BTV.std() > 0.5
        torch.testing.assert_close(logits_BTV.double(), expected_BTV, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.double()(ids_BT), expected_BTV, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("name", [f"paper_gpt_{size}" for size in GPTS] + ["paper_gpt1"])
def test_the_published_gpt_has_the_same_logits_with_the_same_weights(name: str):
    config = config_of(name, *SMALL["gpt"])
    assert isinstance(config, GPTConfig)
    model = build_model(config, V, seed=0).eval()
    weights, ids_BT = weights_of(model), torch.randint(V, (2, T), generator=torch.Generator().manual_seed(1))
    expected_BTV = published_gpt(weights, ids_BT, config.n_layers, config.n_heads)
    assert_same_logits(model, ids_BT, expected_BTV)


@pytest.mark.parametrize("name", RNNS)
def test_the_published_rnn_has_the_same_logits_with_the_same_weights(name: str):
    config = config_of(f"paper_{name}", *SMALL["rnn"])
    assert isinstance(config, RNNConfig)
    model = build_model(config, V, seed=0).eval()
    weights, ids_BT = weights_of(model), torch.randint(V, (2, T), generator=torch.Generator().manual_seed(1))
    expected_BTV = published_rnn(weights, ids_BT, config.n_layers, config.cell)
    assert_same_logits(model, ids_BT, expected_BTV)


@pytest.mark.parametrize("name", ["paper_gpt_medium", "paper_gru_medium", "paper_lstm_medium"])
def test_the_initial_weights_are_pytorchs_defaults(name: str):
    changes = ["model.n_layers=2", "model.d_model=64"] + (["model.n_heads=4"] if "gpt" in name else [])
    model = build_model(config_of(name, *changes), 500, seed=0)
    for part_name, part in model.named_modules():
        for weight_name, weight in part.named_parameters(recurse=False):
            if isinstance(part, nn.Embedding):
                assert weight.std().item() == pytest.approx(1, rel=0.05), part_name
            elif isinstance(part, nn.LayerNorm):
                assert (weight == (1.0 if weight_name == "weight" else 0.0)).all()
            else:  # uniform within a bound, biases too
                inputs = part.in_features if isinstance(part, nn.Linear) else 64
                assert weight.abs().max() <= inputs**-0.5, part_name
                assert weight.std().item() == pytest.approx((3 * inputs) ** -0.5, rel=0.2), f"{part_name}.{weight_name}"


@pytest.mark.parametrize(("name", "kind"), [("gpt_medium", GPT), ("gru_medium", RNN)])
def test_a_paper_model_has_the_published_sizes_and_dropout(name: str, kind: type):
    ours, published = config_of(name), config_of(f"paper_{name}")
    sizes = [(each.n_layers, each.d_model, each.context_length) for each in (ours, published)]
    assert sizes[0] == sizes[1]
    dropouts = {GPT: (0.1, 0.1), RNN: (0.0, 0.05)}
    assert (published.dropout, published.embedding_dropout) == dropouts[kind]
    assert (ours.dropout, ours.embedding_dropout) == (0, 0)


@pytest.mark.parametrize(("block", "default"), [("gpt2", True), ("llama", False)])
def test_linear_layers_have_biases_on_demand(block: str, default: bool):
    for given, expected in (("null", default), ("true", True), ("false", False)):
        changes = [f"model.block={block}", f"model.bias={given}", "model.n_layers=1"]
        model = build_model(config_of("gpt_nano", "model.n_heads=2", *changes), V, seed=0)
        found = {
            part.bias is not None
            for name, part in model.named_modules()
            if isinstance(part, nn.Linear) and name != "head"
        }
        assert found == {expected}
        assert model.head.bias is None
