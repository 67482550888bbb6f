"""The sizes in config.json of a folder of Hugging Face, as the keys of our models: what is checked before all else.

Only what gpt.py computes with the same numbers is taken. Where config.json lacks a key, transformers' default holds.
"""

from typing import Any

from hindsight.config.model import (
    GPT_MODEL_TYPE,
    RNN_MODEL_TYPE,
    Activation,
    Block,
    Cell,
    GPTConfig,
    ModelConfig,
    RNNConfig,
)
from hindsight.errors import InputError

TANH = {"gelu_new", "gelu_pytorch_tanh"}
"""What transformers calls GELU in its tanh approximation."""


def sizes_of(config: dict[str, Any], where: str) -> ModelConfig:
    """Read what a model is from its config.json.

    Args:
        config: its content.
        where: how messages name the folder.

    Raises:
        InputError: it is a model that is not known here, or the file is damaged.
    """
    kind = config.get("model_type")
    _refuse(where, config, "quantization_config", None)
    try:
        if kind == "gpt2":
            return _gpt2(config, where)
        if kind == "llama":
            return _llama(config, where)
        if kind == GPT_MODEL_TYPE:
            return _modern(config)
        if kind == RNN_MODEL_TYPE:
            return _rnn(config)
    except InputError as error:
        if str(error).startswith(where):
            raise
        raise InputError(f"{where}: by its config.json, {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{where}: config.json is damaged ({reason}); copy the folder again.") from None
    raise InputError(
        f"{where} has model_type={kind} in its config.json; give a GPT-2, a Llama, or a run of train_composer.py."
    )


def _gpt2(config: dict[str, Any], where: str) -> GPTConfig:
    for key, value in (
        ("scale_attn_weights", True),
        ("scale_attn_by_inverse_layer_idx", False),
        ("add_cross_attention", False),
    ):
        _refuse(where, config, key, value)
    d_model = _count(config, "n_embd", 768)
    activation = config.get("activation_function", "gelu_new")
    if activation != "gelu" and activation not in TANH:
        raise InputError(f"{where} has activation_function={activation}; model.activation is gelu or gelu_tanh.")
    return GPTConfig(
        name=Block.gpt2.name,
        n_layers=_count(config, "n_layer", 12),
        d_model=d_model,
        n_heads=_count(config, "n_head", 12),
        context_length=_count(config, "n_positions", 1024),
        mlp_ratio=ratio_of(_count(config, "n_inner", 4 * d_model), d_model),
        activation=Activation.gelu if activation == "gelu" else Activation.gelu_tanh,
        norm_eps=float(config.get("layer_norm_epsilon", 1e-5)),
        tied_head=_flag(config, "tie_word_embeddings", True),
    )


def _llama(config: dict[str, Any], where: str) -> GPTConfig:
    d_model = _count(config, "hidden_size", 4096)
    n_heads = _count(config, "num_attention_heads", 32)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise InputError(f"{where} scales its rotary positions (rope_type={kind}), which model.block=llama does not.")
    _refuse(where, config, "head_dim", d_model // n_heads)
    _refuse(where, {**rope, **config}, "partial_rotary_factor", 1.0)
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise InputError(f"{where} has hidden_act={config['hidden_act']}; model.block=llama has silu.")
    biases = [_flag(config, key, False) for key in ("attention_bias", "mlp_bias")]
    if biases[0] != biases[1]:
        raise InputError(
            f"{where} has attention_bias={biases[0]} and mlp_bias={biases[1]}; here, model.bias is for both."
        )
    return GPTConfig(
        name=Block.llama.name,
        block=Block.llama,
        n_layers=_count(config, "num_hidden_layers", 32),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=_count(config, "num_key_value_heads", n_heads),
        context_length=_count(config, "max_position_embeddings", 2048),
        mlp_ratio=ratio_of(_count(config, "intermediate_size", 11008), d_model),
        bias=biases[0],
        rope_theta=float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
        norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        tied_head=_flag(config, "tie_word_embeddings", False),
    )


def _modern(config: dict[str, Any]) -> GPTConfig:
    d_model = _count(config, "d_model", 16)
    softcap = config.get("logit_softcap")
    return GPTConfig(
        name=Block.modern.name,
        block=Block.modern,
        n_layers=_count(config, "n_layers", 1),
        d_model=d_model,
        n_heads=_count(config, "n_heads", 1),
        n_kv_heads=_count(config, "n_kv_heads", 1),
        mlp_ratio=ratio_of(_count(config, "d_hidden", 64), d_model),
        activation=Activation[config["activation"]],
        bias=_flag(config, "bias", False),
        rope_theta=float(config["rope_theta"]),
        norm_eps=float(config["norm_eps"]),
        logit_softcap=None if softcap is None else float(softcap),
        tied_head=_flag(config, "tie_word_embeddings", False),
    )


def _rnn(config: dict[str, Any]) -> RNNConfig:
    return RNNConfig(
        name=RNN_MODEL_TYPE,
        cell=Cell[config["cell"]],
        n_layers=_count(config, "n_layers", 1),
        d_model=_count(config, "d_model", 16),
        final_norm=_flag(config, "final_norm", False),
        tied_head=_flag(config, "tie_word_embeddings", False),
    )


def ratio_of(d_hidden: int, d_model: int) -> float:
    """Give the shortest model.mlp_ratio that makes this width of the MLP's hidden layer."""
    ratios = (float(f"{d_hidden / d_model:.{digits}g}") for digits in range(1, 18))
    return next(ratio for ratio in ratios if round(ratio * d_model) == d_hidden)


def _count(config: dict[str, Any], key: str, default: int) -> int:
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not int or value < 1:
        raise ValueError(f"{key} is {ascii(value)[:80]}")
    return value


def _flag(config: dict[str, Any], key: str, default: bool) -> bool:
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not bool:
        raise ValueError(f"{key} is {ascii(value)[:80]}")
    return value


def _refuse(where: str, config: dict[str, Any], key: str, expected: Any) -> None:
    """Raise InputError for a setting that changes what is computed in a way that gpt.py does not know."""
    value = config.get(key)
    if value is not None and value != expected:
        instead = f", not {expected}" if expected is not None else ""
        shown = ascii(value) if not isinstance(value, dict) else "{...}"
        raise InputError(
            f"{where} has {key}={shown[:80]} in its config.json{instead}, which the models here do not have."
        )
