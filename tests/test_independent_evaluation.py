"""Our evaluation beside one that shares no code with it: stock Streaming, transformers, float64, plain Python."""

import json

import numpy as np
import pytest
import torch
from helpers.training_runs import records, train
from safetensors.torch import load_file
from streaming import StreamingDataset
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

T = 32


def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our weights of a run by the names of GPT-2, whose layers keep matrices as (inputs, outputs)."""
    words = {"embedding.": "wte.", "positions.": "wpe.", "blocks.": "h.", "attention_norm": "ln_1", "mlp_norm": "ln_2"}
    words |= {"attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj", "mlp.up": "mlp.c_fc"}
    words |= {"mlp.down": "mlp.c_proj", "norm.": "ln_f."}
    found = {"lm_head.weight": weights.pop("head.weight")}
    for name, weight in weights.items():
        is_transposed = weight.ndim == 2 and name.startswith("blocks.")
        for ours, theirs in words.items():
            name = name.replace(ours, theirs) if theirs != "ln_f." or name.startswith("norm.") else name
        found[f"transformer.{name}"] = weight.T if is_transposed else weight
    return found


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_an_independent_evaluation_agrees_with_ours(shards, tmp_path, direction):
    changes = ["max_duration=20ba", "optim.lr=0.01", "model.context_length=32", f"direction={direction}"]
    folder = train(shards, tmp_path, *changes)
    config = GPT2Config(vocab_size=300, n_positions=T, n_embd=24, n_layer=2, n_head=2, tie_word_embeddings=False)
    model = GPT2LMHeadModel(config).eval()
    model.load_state_dict(renamed(load_file(folder / "model.safetensors")))
    model.double()
    blocks = StreamingDataset(local=str(shards / "val"), shuffle=False, batch_size=1)
    counts = json.loads((shards / "manifest.json").read_text())["splits"]["val"]
    tokens = np.concatenate([blocks[i]["tokens"] for i in range(len(blocks))])[: counts["tokens"]].astype(np.int64)
    bos = AutoTokenizer.from_pretrained(str(shards / "tokenizer")).bos_token_id
    nats = []
    for start in range(0, len(tokens), T):
        window = tokens[start : start + T]
        targets = torch.tensor(window if direction == "forward" else window[::-1].copy())
        inputs = torch.cat([torch.tensor([bos]), targets[:-1]])
        with torch.no_grad():
            nats += torch.nn.functional.cross_entropy(model(inputs[None]).logits[0], targets, reduction="none").tolist()
    last = records(folder)[-1]
    assert len(nats) == counts["tokens"]
    assert last["eval/loss_nats"] == pytest.approx(sum(nats) / len(nats), abs=1e-6)
    assert last["eval/bits_per_byte"] == pytest.approx(sum(nats) / np.log(2) / counts["bytes"], abs=1e-6)
    assert last["eval/loss_nats"] < 5.5  # of a model that has learned
