import dataclasses
import math
import re

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from gpt import GPT, MLP, Attention, Layer, SwiGLUMLP
from hindsight.command_line import register_schemas, to_dataclass
from hindsight.config.model import Activation, Block, GPTConfig, Init, ModelConfig
from hindsight.config.schemas import CONF_DIR, model_names
from hindsight.hf_weights import from_hugging_face
from language_model import build_model

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


def modern_config(**changes) -> GPTConfig:
    return llama_config(**{"block": Block.modern, "activation": Activation.relu2, "logit_softcap": 1.5, **changes})


CONFIGS = {"gpt2": gpt2_config(), "llama": llama_config(), "modern": modern_config()}
EVERY_BLOCK = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


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
        model = build_model(config, 50257, seed=0)
    assert all(weight.is_meta for weight in model.parameters())
    header = " ".join((CONF_DIR / "model" / f"{name}.yaml").read_text().splitlines()[:2])
    if not name.endswith("_demo"):
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


def plain_modern(weights: dict[str, Tensor], config: GPTConfig, inputs_BT: Tensor) -> Tensor:
    """The logits of block=modern by its definition: one head, one position and one earlier position at a time."""
    K, repeats = config.d_model // config.n_heads, config.n_heads // config.n_key_value_heads

    def unit(x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + config.norm_eps).sqrt()

    def turned(x_K: Tensor, t: int) -> Tensor:
        pairs = torch.complex(x_K[: K // 2], x_K[K // 2 :])
        angles = t * config.rope_theta ** (-2 * torch.arange(K // 2, dtype=torch.float64) / K)
        pairs = pairs * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([pairs.real, pairs.imag])

    rows = []
    for inputs_T in inputs_BT:
        x_TD = weights["embedding.weight"][inputs_T]
        for i in range(config.n_layers):
            own = {name.removeprefix(f"blocks.{i}."): weight for name, weight in weights.items()}
            qkv = (unit(x_TD) * own["attention_norm.weight"]) @ own["attention.qkv.weight"].T
            vectors_TNK = qkv.unflatten(-1, (-1, K))  # of the queries' heads, then of the keys', then of the values'
            mixed_THK = torch.zeros(len(x_TD), config.n_heads, K, dtype=x_TD.dtype)
            for t in range(len(x_TD)):
                for h in range(config.n_heads):
                    g = config.n_heads + h // repeats
                    q_K = turned(unit(vectors_TNK[t, h]), t)
                    scores = torch.stack([q_K @ turned(unit(vectors_TNK[s, g]), s) for s in range(t + 1)])
                    shares = (scores / math.sqrt(K)).softmax(0)
                    mixed_THK[t, h] = shares @ vectors_TNK[: t + 1, g + config.n_key_value_heads]
            x_TD = x_TD + mixed_THK.flatten(1) @ own["attention.out.weight"].T
            y_TD = unit(x_TD) * own["mlp_norm.weight"]
            hidden_TF = y_TD @ own["mlp.up.weight"].T
            if config.activation is Activation.relu2:
                hidden_TF = torch.where(hidden_TF > 0, hidden_TF**2, 0)
            else:
                gate_TF = y_TD @ own["mlp.gate.weight"].T
                hidden_TF = hidden_TF * gate_TF / (1 + (-gate_TF).exp())
            x_TD = x_TD + hidden_TF @ own["mlp.down.weight"].T
        logits_TV = (unit(x_TD) * weights["norm.weight"]) @ weights["head.weight"].T
        c = config.logit_softcap
        rows.append(logits_TV if c is None else c * torch.tanh(logits_TV / c))
    return torch.stack(rows)


@pytest.mark.parametrize("n_kv_heads", [1, 4])
@pytest.mark.parametrize(
    ("activation", "logit_softcap"), [(Activation.relu2, 1.5), (Activation.swiglu, 15.0), (Activation.relu2, None)]
)
def test_modern_block_gives_the_logits_of_its_definition(n_kv_heads: int, activation: Activation, logit_softcap):
    config = modern_config(n_kv_heads=n_kv_heads, activation=activation, logit_softcap=logit_softcap, rope_theta=50.0)
    model = build(config).double().eval()
    randomize(model)
    with torch.no_grad():
        expected_BTV = plain_modern(model.state_dict(), config, tokens())
        assert expected_BTV.std() > 0.5
        # The angles are computed in float32.
        torch.testing.assert_close(model(tokens()), expected_BTV, atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------- modern


def test_with_qk_norm_the_size_of_queries_and_keys_does_not_matter():
    for config, matters in ((modern_config(norm_eps=1e-12), False), (llama_config(), True)):
        model = build(config).eval()
        randomize(model)
        with torch.no_grad():
            before_BTV = model(tokens())
            n_rows = (config.n_heads + config.n_key_value_heads) * 4
            for attention in (module for module in model.modules() if isinstance(module, Attention)):
                attention.qkv.weight[:n_rows] *= 8
            assert torch.allclose(model(tokens()), before_BTV, atol=1e-5) is not matters


def test_the_soft_cap_bounds_the_logits_and_keeps_their_order():
    capped, plain = (build(modern_config(logit_softcap=cap)).eval() for cap in (1.5, None))
    for model in (capped, plain):
        randomize(model)
    with torch.no_grad():
        logits_BTV, plain_BTV = capped(tokens()), plain(tokens())
    assert logits_BTV.abs().max() < 1.5 < plain_BTV.abs().max()
    assert torch.equal(logits_BTV.argmax(-1), plain_BTV.argmax(-1))


def test_with_zero_out_each_block_begins_as_the_identity():
    model = build(modern_config(init=Init.zero_out)).train()
    x_BTD = model.embedding(tokens())
    assert torch.equal(model.hidden(tokens()), model.norm(x_BTD))
    model(tokens()).sum().backward()
    for name, weight in model.named_parameters():
        is_zero = name.endswith((".out.weight", ".down.weight"))
        assert (weight.count_nonzero() == 0) == is_zero, name
        assert weight.grad is not None
        assert not is_zero or weight.grad.count_nonzero() > 0, name


# --------------------------------------------------------------------------------------------------------- properties


@EVERY_BLOCK
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


@EVERY_BLOCK
def test_logits_are_the_head_of_hidden(config: GPTConfig):
    model = build(config).eval()
    hidden_BTD = model.hidden(tokens())
    assert hidden_BTD.shape == (2, T, 16)
    expected_BTV = hidden_BTD @ model.head.weight.T
    if config.logit_softcap is not None:
        expected_BTV = config.logit_softcap * torch.tanh(expected_BTV / config.logit_softcap)
    assert torch.equal(model(tokens()), expected_BTV)
    assert torch.equal(model.logits(hidden_BTD), expected_BTV)


@EVERY_BLOCK
def test_a_tied_head_is_the_embedding(config: GPTConfig):
    tied = build(dataclasses.replace(config, tied_head=True))
    untied = build(config)
    assert tied.head.weight is tied.embedding.weight
    assert untied.head.weight.data_ptr() != untied.embedding.weight.data_ptr()
    assert n_parameters(untied) - n_parameters(tied) == V * 16


@EVERY_BLOCK
def test_the_seed_decides_the_initial_weights_bit_for_bit(config: GPTConfig):
    first, again, other = build(config), build(config), build(config, seed=1)
    pairs = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(first.embedding.weight, other.embedding.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


@EVERY_BLOCK
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


@EVERY_BLOCK
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
    gelu = MLP(gpt2_config(mlp_ratio=3.0))
    swiglu = SwiGLUMLP(llama_config(d_model=48, mlp_ratio=2.6666))
    assert (gelu.up.out_features, swiglu.up.out_features) == (48, 128)


# ------------------------------------------------------------------------------------------------------------ dropout


@EVERY_BLOCK
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


@EVERY_BLOCK
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


@EVERY_BLOCK
def test_torch_compile_takes_a_block_as_one_graph(config: GPTConfig):
    model, compiled = build(config), build(config)
    torch.compiler.reset()
    for block in compiled.blocks:
        block.compile(backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens()), model(tokens()))


@EVERY_BLOCK
def test_bf16_autocast_gives_nearly_the_logits_of_fp32(config: GPTConfig):
    model = build(config)
    randomize(model)
    with torch.autocast("cpu", torch.bfloat16):
        logits_BTV = model(tokens())
    assert logits_BTV.dtype is (torch.bfloat16 if config.logit_softcap is None else torch.float32)
    expected_BTV = model(tokens())
    assert (logits_BTV - expected_BTV).std() < 0.03 * expected_BTV.std()
