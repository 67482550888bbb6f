"""The weights and config.json of a model of ours, as transformers loads them.

A GPT becomes GPT-2 or Llama, by the names in hf_weights.py. A GPT of block=modern, a GRU or LSTM keeps its own names:
the class that loads it, in_folder/modeling_hindsight_gpt.py or modeling_hindsight_rnn.py, lies beside it.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hindsight.config.model import GPT_MODEL_TYPE, RNN_MODEL_TYPE, Activation, Block, GPTConfig, ModelConfig, RNNConfig
from hindsight.errors import InputError
from hindsight.export.reading import HowItReads
from hindsight.files import set_usual_mode, write_atomically
from hindsight.hf_weights import HEAD, to_hugging_face

CONFIG, GENERATION_CONFIG, WEIGHTS = "config.json", "generation_config.json", "model.safetensors"
POSITIONS = "positions.weight"


def write_model(
    module: nn.Module,
    config: ModelConfig,
    reading: HowItReads,
    special_ids: dict[str, int],
    more: dict[str, Any],
    folder: Path,
) -> None:
    """Write model.safetensors, config.json and generation_config.json.

    Args:
        module: a GPT or an RNN of this config, on the CPU.
        config: the model.
        reading: how it reads; GPT-2's positions behind its windows, which were never trained, are left out.
        special_ids: bos_token_id and eos_token_id, and for generation pad_token_id.
        more: what config.json says beside the model.
        folder: where to.
    """
    from safetensors.torch import save_file

    weights = module.state_dict()
    vocab_size = weights[HEAD].shape[0]
    config = replace(config, context_length=reading.context_length)
    tensors = {name: weight for name, weight in weights.items() if not (config.tied_head and name == HEAD)}
    if isinstance(config, RNNConfig):
        content = rnn_config(config, vocab_size)
    elif isinstance(config, GPTConfig) and config.block is Block.modern:
        content = modern_config(config, vocab_size)
    elif isinstance(config, GPTConfig):
        tensors = to_hugging_face(_within_window(weights, reading.context_length), config)
        content = gpt_config(config, vocab_size)
    else:
        raise InputError(f"model.name={config.name} is neither a GPT nor an RNN, and cannot be exported.")
    # Copies: parts of one matrix, such as the rows of `qkv`, share memory, which safetensors refuses.
    save_file({name: weight.clone() for name, weight in tensors.items()}, folder / WEIGHTS, {"format": "pt"})
    set_usual_mode(folder / WEIGHTS)
    content |= {name: special_ids[name] for name in ("bos_token_id", "eos_token_id")}
    content |= {"dtype": "float32", "use_cache": True, "hindsight": reading.as_json(), **more}
    _write(folder / CONFIG, content)
    # A pipeline's own default, 256 new tokens, would go on behind the last position.
    _write(folder / GENERATION_CONFIG, {**special_ids, "max_length": reading.context_length})


def gpt_config(config: GPTConfig, vocab_size: int) -> dict[str, Any]:
    """Give the content of config.json for a GPT-2 or Llama, without the ids of special tokens."""
    shared = {
        "vocab_size": vocab_size,
        "tie_word_embeddings": config.tied_head,
        "initializer_range": 0.02,
    }
    if config.block is Block.gpt2:
        return shared | {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "n_positions": config.context_length,
            "n_embd": config.d_model,
            "n_layer": config.n_layers,
            "n_head": config.n_heads,
            "n_inner": config.d_hidden,
            "activation_function": "gelu_new" if config.activation is Activation.gelu_tanh else "gelu",
            "layer_norm_epsilon": config.norm_eps,
            "attn_pdrop": config.dropout,
            "resid_pdrop": config.dropout,
            "embd_pdrop": config.embedding_dropout,
        }
    return shared | {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_hidden,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_key_value_heads,
        "head_dim": config.d_model // config.n_heads,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        # Of transformers 4, and of 5: either alone would be passed over by the other.
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": config.has_bias,
        "mlp_bias": config.has_bias,
        "attention_dropout": config.dropout,
    }


def modern_config(config: GPTConfig, vocab_size: int) -> dict[str, Any]:
    """Give the content of config.json for a GPT of block=modern, without the ids of special tokens."""
    return _own_config(config, vocab_size, f"modeling_{GPT_MODEL_TYPE}.HindsightGPT") | {
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_key_value_heads,
        "d_hidden": config.d_hidden,
        "activation": config.activation.name,
        "bias": config.has_bias,
        "rope_theta": config.rope_theta,
        "norm_eps": config.norm_eps,
        "logit_softcap": config.logit_softcap,
    }


def rnn_config(config: RNNConfig, vocab_size: int) -> dict[str, Any]:
    """Give the content of config.json for a GRU or LSTM, without the ids of special tokens."""
    return _own_config(config, vocab_size, f"modeling_{RNN_MODEL_TYPE}.HindsightRNN") | {
        "cell": config.cell.value,
        "final_norm": config.final_norm,
    }


def _own_config(config: ModelConfig, vocab_size: int, code: str) -> dict[str, Any]:
    """What config.json says of every model whose code lies in the folder.

    Args:
        config: the model.
        vocab_size: number of token ids.
        code: where its classes are, and how their names begin.
    """
    return {
        "model_type": config.own_model_type,
        "architectures": [f"{code.rpartition('.')[2]}ForCausalLM"],
        "auto_map": {"AutoConfig": f"{code}Config", "AutoModelForCausalLM": f"{code}ForCausalLM"},
        "vocab_size": vocab_size,
        "max_position_embeddings": config.context_length,
        "d_model": config.d_model,
        "n_layers": config.n_layers,
        "tie_word_embeddings": config.tied_head,
        "dropout": config.dropout,
        "embedding_dropout": config.embedding_dropout,
    }


def _within_window(weights: dict[str, Tensor], context_length: int) -> dict[str, Tensor]:
    """Leave out the learned positions that no window has."""
    if POSITIONS not in weights:
        return weights
    return {**weights, POSITIONS: weights[POSITIONS][:context_length]}


def _write(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
