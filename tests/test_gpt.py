import dataclasses
import math
import re

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from gpt import GELUMLP, GPT, Attention, Layer, SwiGLUMLP
from hindsight.command_line import register_schemas, to_dataclass
from hindsight.config.model import Block, GPTConfig, ModelConfig
from hindsight.config.schemas import CONF_DIR, model_names
from hindsight.hf_weights import from_hugging_face
from rnn import RNN

V, T = 31, 12
PAPER_MILLIONS = {
    "gpt_nano": 4.9,
    "gpt_micro": 13.7,
    "gpt_mini": 22,
    "gpt_small": 55.7,
    "gpt1": 162,
    "gpt_medium": 405,
    "gpt_xl": 1640,
}


def gpt2_config(**changes) -> GPTConfig:
    base = GPTConfig(name="tiny", n_layers=2, d_model=16, n_heads=4, context_length=T)
    return dataclasses.replace(base, **changes)


def llama_config(**changes) -> GPTConfig:
    return gpt2_config(**{"block": Block.llama, "n_kv_heads": 2, "mlp_ratio": 2.5, **changes})


BOTH = pytest.mark.parametrize("config", [gpt2_config(), llama_config()], ids=["gpt2", "llama"])


def build(config: GPTConfig, seed: int = 0, **options) -> GPT:
    torch.manual_seed(seed)
    return GPT(config, V, **options)


def tokens(seed: int = 1) -> Tensor:
    return torch.randint(V, (2, T), generator=torch.Generator().manual_seed(seed))


def named_config(name: str) -> ModelConfig:
    register_schemas()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = compose("train_composer", overrides=[f"model={name}", "direction=forward"])
    return to_dataclass(composed).model


def n_parameters(model: nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def randomize(model: nn.Module) -> None:
    """Weights large enough for every part of the model to show in the logits."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            mean = 1.0 if weight.ndim == 1 and name.endswith("weight") else 0.0
            weight.copy_(mean + 0.3 * torch.randn(weight.shape, generator=generator))


# ------------------------------------------------------------------------------------------------------- named models


@pytest.mark.parametrize(("name", "millions"), PAPER_MILLIONS.items())
def test_the_papers_gpts_have_its_parameter_counts(name: str, millions: float):
    config = named_config(name)
    assert isinstance(config, GPTConfig)
    assert (config.context_length, config.tied_head) == (256, False)
    with torch.device("meta"):
        n = n_parameters(GPT(config, 50257))
    L, D = config.n_layers, config.d_model
    # embedding, head, positions; a block's matrices (4 + 8) D^2, biases (4 + 5) D, norms 4 D; the final norm
    assert n == 2 * 50257 * D + 256 * D + L * (12 * D**2 + 13 * D) + 2 * D
    assert n / 1e6 == pytest.approx(millions, rel=0.02)


def test_gpt2_has_the_parameter_count_of_the_released_model():
    config = named_config("gpt2")
    assert isinstance(config, GPTConfig)
    with torch.device("meta"):
        ours = n_parameters(GPT(config, 50257))
        released = n_parameters(GPT2LMHeadModel(GPT2Config()))
    assert ours == released == 124_439_808


@pytest.mark.parametrize("name", model_names())
def test_a_named_model_has_the_name_and_the_parameter_count_that_its_file_says(name: str):
    config = named_config(name)
    assert config.name == name
    with torch.device("meta"):
        model = GPT(config, 50257) if isinstance(config, GPTConfig) else RNN(config, 50257)  # type: ignore[arg-type]
    assert all(weight.is_meta for weight in model.parameters())
    header = " ".join((CONF_DIR / "model" / f"{name}.yaml").read_text().splitlines()[:2])
    if name != "gpt_demo":
        said = re.search(r"([\d,]+) parameters at vocabulary 50257", header)
        assert said is not None
        assert int(said[1].replace(",", "")) == n_parameters(model)


# ---------------------------------------------------------------------------------------------------------- reference


@pytest.mark.parametrize("tied", [False, True])
def test_gpt2_block_gives_the_logits_of_hugging_faces_gpt2(tied: bool):
    theirs = GPT2LMHeadModel(
        GPT2Config(vocab_size=V, n_positions=T, n_embd=16, n_layer=2, n_head=4, tie_word_embeddings=tied)
    ).eval()
    randomize(theirs)
    ours = build(gpt2_config(tied_head=tied)).eval()
    ours.load_state_dict(from_hugging_face(theirs.state_dict(), ours.config))
    inputs_BT = tokens()
    with torch.no_grad():
        expected_BTV = theirs(inputs_BT).logits
        assert expected_BTV.std() > 0.5
        torch.testing.assert_close(ours(inputs_BT), expected_BTV, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_llama_block_gives_the_logits_of_hugging_faces_llama(n_kv_heads: int):
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=V,
            hidden_size=16,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=n_kv_heads,
            max_position_embeddings=T,
            rms_norm_eps=1e-4,
            rope_theta=100.0,
        )
    ).eval()
    randomize(theirs)
    ours = build(llama_config(n_kv_heads=n_kv_heads, norm_eps=1e-4, rope_theta=100.0)).eval()
    ours.load_state_dict(from_hugging_face(theirs.state_dict(), ours.config))
    inputs_BT = tokens()
    with torch.no_grad():
        expected_BTV = theirs(inputs_BT).logits
        assert expected_BTV.std() > 0.5
        torch.testing.assert_close(ours(inputs_BT), expected_BTV, atol=1e-5, rtol=1e-5)


# --------------------------------------------------------------------------------------------------------- properties


@BOTH
def test_a_later_input_changes_no_earlier_logit_and_all_later_ones(config: GPTConfig):
    model = build(config).eval()
    randomize(model)
    inputs_BT = tokens()
    with torch.no_grad():
        logits_BTV = model(inputs_BT)
        for t in range(T):
            changed_BT = inputs_BT.clone()
            changed_BT[:, t] = (changed_BT[:, t] + 1) % V
            changed_BTV = model(changed_BT)
            assert torch.equal(changed_BTV[:, :t], logits_BTV[:, :t])
            assert (changed_BTV != logits_BTV).any(-1)[:, t:].all()


@BOTH
def test_logits_are_the_head_of_hidden(config: GPTConfig):
    model = build(config).eval()
    hidden_BTD = model.hidden(tokens())
    assert hidden_BTD.shape == (2, T, 16)
    assert torch.equal(model(tokens()), hidden_BTD @ model.head.weight.T)


@BOTH
def test_a_tied_head_is_the_embedding(config: GPTConfig):
    tied = build(dataclasses.replace(config, tied_head=True))
    untied = build(config)
    assert tied.head.weight is tied.embedding.weight
    assert untied.head.weight.data_ptr() != untied.embedding.weight.data_ptr()
    assert n_parameters(untied) - n_parameters(tied) == V * 16


@BOTH
def test_the_seed_decides_the_initial_weights_bit_for_bit(config: GPTConfig):
    first, again, other = build(config), build(config), build(config, seed=1)
    pairs = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


@BOTH
def test_the_initial_weights_do_not_depend_on_the_number_of_threads(config: GPTConfig):
    wide = dataclasses.replace(config, d_model=64)
    threads, weights = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            weights.append(build(wide).state_dict().values())
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@BOTH
def test_the_initial_weights_are_spread_as_gpt2s(config: GPTConfig):
    model = build(dataclasses.replace(config, n_layers=8, d_model=64))
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            expected = 1.0 if name.endswith("weight") else 0.0
            assert (weight == expected).all(), name
        else:
            residual = ".attention.out." in name or ".mlp.down." in name
            std = 0.02 / math.sqrt(16) if residual else 0.02
            assert weight.std().item() == pytest.approx(std, rel=0.1), name


def test_a_window_beyond_the_learned_positions_is_refused_by_key():
    inputs_BT = torch.zeros(1, T + 1, dtype=torch.int64)
    with pytest.raises(ValueError, match=rf"model\.context_length={T} .* {T + 1} tokens .* set model\.context_length"):
        build(gpt2_config())(inputs_BT)
    assert build(llama_config())(inputs_BT).shape == (1, T + 1, V)


def test_mlp_width_is_rounded_to_the_nearest_number():
    gelu = GELUMLP(gpt2_config(mlp_ratio=3.0))
    swiglu = SwiGLUMLP(llama_config(d_model=48, mlp_ratio=2.6666))
    assert (gelu.up.out_features, swiglu.up.out_features) == (48, 128)


# ------------------------------------------------------------------------------------------------------------ dropout


@BOTH
@pytest.mark.parametrize("key", ["dropout", "embedding_dropout"])
def test_dropout_acts_in_training_only(config: GPTConfig, key: str):
    model = build(dataclasses.replace(config, **{key: 0.5}))
    plain = build(config)
    inputs_BT = tokens()
    assert not torch.equal(model.train()(inputs_BT), model(inputs_BT))
    assert torch.equal(model.eval()(inputs_BT), plain.eval()(inputs_BT))


def test_attention_weights_are_dropped():
    attention = Attention(gpt2_config(dropout=0.5))
    x_BTD = torch.randn(2, T, 16)
    assert not torch.equal(attention.train()(x_BTD, None), attention(x_BTD, None))
    assert torch.equal(attention.eval()(x_BTD, None), attention(x_BTD, None))


@pytest.mark.parametrize("silent", ["attention.out", "mlp.down"])
def test_both_additions_to_the_residual_stream_are_dropped(silent: str):
    layer = Layer(gpt2_config(dropout=0.5)).train()
    layer.attention.dropout = 0.0
    for weight in layer.get_submodule(silent).parameters():
        nn.init.zeros_(weight)
    x_BTD = torch.randn(2, T, 16)
    added_BTD = layer(x_BTD, None) - x_BTD
    assert 0.3 < (added_BTD == 0).float().mean() < 0.7


# -------------------------------------------------------------------------------------------------- ways to execute it


@BOTH
def test_activation_checkpointing_recomputes_the_blocks_and_leaves_loss_and_gradients(config: GPTConfig):
    config = dataclasses.replace(config, dropout=0.1, embedding_dropout=0.1)
    results, calls = [], []
    for activation_checkpointing in (False, True):
        model = build(config, activation_checkpointing=activation_checkpointing).train()
        model.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
        torch.manual_seed(3)
        loss_nats = F.cross_entropy(model(tokens(1)).flatten(0, 1), tokens(2).flatten())
        loss_nats.backward()
        results.append([loss_nats, *(weight.grad for weight in model.parameters())])
        assert len(calls) == (2 if activation_checkpointing else 1)
        model.eval()(tokens()).sum().backward()
        assert len(calls) == (3 if activation_checkpointing else 2)
        calls.clear()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@BOTH
@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_torch_compile_takes_the_model_as_one_graph(config: GPTConfig, activation_checkpointing: bool):
    model = build(config, activation_checkpointing=activation_checkpointing)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens()), model(tokens()))


@BOTH
def test_bf16_autocast_gives_nearly_the_logits_of_fp32(config: GPTConfig):
    model = build(config)
    randomize(model)
    with torch.autocast("cpu", torch.bfloat16):
        logits_BTV = model(tokens())
    assert logits_BTV.dtype is torch.bfloat16
    expected_BTV = model(tokens())
    assert (logits_BTV - expected_BTV).std() < 0.03 * expected_BTV.std()
