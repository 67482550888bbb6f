import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_models import CONFIGS, EVERY_ARCHITECTURE, GPT2, START, C, Plain, V, build
from helpers.training_runs import train
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from gpt import GPT
from hindsight.config.model import ModelConfig
from hindsight.errors import InputError
from hindsight.generation.sampling import Sampling
from hindsight.generation.writing import Text, last, write
from hindsight.hf_weights import to_hugging_face
from hindsight.orders.known import open_order
from hindsight.orders.order import Reading

EOS = 7
ORDERS = pytest.mark.parametrize("order", ["forward", "backward", "even_odd"])


def texts(module: nn.Module, order: str, prompt: list[int], length: int, seeds: list[int], **options) -> list[Text]:
    sampling = options.get("sampling", Sampling(1.0, 20))
    reading = Reading(open_order(order, C), START)
    return last(write(module, prompt, reading, options.get("eos_id", EOS), length, C, sampling, seeds))


def seen(text: Text) -> tuple[list[int | None], tuple[int, int], bool]:
    return text.tokens, text.prompt, text.is_ended


@EVERY_ARCHITECTURE
@ORDERS
def test_several_seeds_at_once_give_what_each_gives_alone_and_what_a_model_without_memory_gives(
    config: ModelConfig, order: str
):
    module, prompt, seeds = build(config), [3, 1, 4, 1], [*range(12)]
    together = texts(module, order, prompt, 40, seeds)
    expected = [*map(seen, together)]
    assert expected == [seen(texts(module, order, prompt, 40, [seed])[0]) for seed in seeds]
    assert expected == [*map(seen, texts(Plain(module), order, prompt, 40, seeds))]
    assert all(len(text.known) == 4 + text.n_written for text in together)
    assert len({tuple(text.known) for text in together}) == 12
    assert any(text.is_ended for text in together)
    assert len({len(text.known) for text in together}) > 1, "some texts end before others, and these go on"


@pytest.mark.parametrize(("name", "their_class"), [("gpt2", GPT2LMHeadModel), ("llama-2kv", LlamaForCausalLM)])
def test_the_likeliest_text_is_that_of_hugging_faces_generate(name: str, their_class: type):
    module = build(CONFIGS[name])
    assert isinstance(module, GPT)
    ids: dict[str, Any] = {"bos_token_id": START, "eos_token_id": EOS, "pad_token_id": EOS}
    if their_class is GPT2LMHeadModel:
        sizes: dict[str, Any] = {
            "n_positions": C,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 4,
            "tie_word_embeddings": False,
        }
        shape = GPT2Config(vocab_size=V, **ids, **sizes)
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
        shape = LlamaConfig(vocab_size=V, num_key_value_heads=2, rms_norm_eps=1e-5, **ids, **sizes)
    theirs = their_class(shape).eval()
    theirs.load_state_dict(to_hugging_face(module.state_dict(), module.config), strict=False)
    given = torch.tensor([[START, 3, 1, 4]])
    expected = theirs.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=8, do_sample=False)
    (text,) = texts(module, "forward", [3, 1, 4], 8, [0], sampling=Sampling(0.0))
    assert [START, *text.known] == expected[0].tolist()
    assert len(text.known) == 11


def test_all_texts_are_shown_from_the_start_and_those_that_ended_stay():
    steps = [
        *write(build(GPT2), [3, 1], Reading(open_order("forward", C), START), EOS, 30, C, Sampling(1.0), [5, 6, 9])
    ]
    assert [(text.tokens, text.prompt, text.n_written) for text in steps[0]] == [([3, 1], (0, 2), 0)] * 3
    for before, after in pairwise(steps):
        for old, new in zip(before, after, strict=True):
            grown = len(new.tokens) == len(old.tokens) + 1
            assert new.tokens[: len(old.tokens)] == old.tokens
            assert seen(new) == seen(old) if old.is_ended else grown != new.is_ended
    assert [text.is_ended or len(text.tokens) == 32 for text in steps[-1]] == [True] * 3


class Reads(nn.Module):
    """Remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.given: list[list[int]] = []

    def forward(self, inputs_BT: torch.Tensor) -> torch.Tensor:
        self.given += inputs_BT.tolist()
        return torch.zeros(*inputs_BT.shape, V)


def test_of_a_prompt_beyond_the_context_a_model_sees_the_half_next_to_what_it_writes():
    prompt = [*range(10, 10 + C)]
    for order, seen in (("forward", prompt[-C // 2 :]), ("backward", prompt[: C // 2][::-1])):
        module = Reads()
        (text,) = texts(module, order, prompt, 1, [0])
        assert module.given == [[START, *seen]]
        assert text.tokens[slice(*text.prompt)] == prompt
    module = Reads()
    texts(module, "forward", prompt[:-1], 1, [0])
    assert module.given == [[START, *prompt[:-1]]], "which just fits"


def test_a_window_is_read_in_its_order_and_the_prompt_where_it_stands():
    module = Reads()
    (text,) = texts(module, "even_odd", [21, 22, 23, 24], 4, [0], eos_id=-1)
    assert text.known[:4] == [21, 22, 23, 24]
    read = [START, *(text.known[position] for position in (0, 2, 4, 6, 1, 3, 5, 7))]
    assert module.given == [read[:n] for n in (3, 4, 7, 8)]


def test_a_prompt_that_leaves_no_room_in_a_window_is_refused_at_once():
    module = Reads()
    with pytest.raises(InputError, match=r"prompt= has 12 tokens, and .* order=even_odd .* 12; .* at most 11"):
        texts(module, "even_odd", [1] * C, 5, [0])
    assert module.given == []
    assert len(texts(module, "even_odd", [1] * (C - 1), 5, [0])[0].tokens) == C


@EVERY_ARCHITECTURE
def test_writing_leaves_training_as_it_was_also_where_it_is_broken_off(config: ModelConfig):
    module = build(dataclasses.replace(config, dropout=0.5, embedding_dropout=0.5)).train()
    before = torch.get_rng_state()
    assert seen(texts(module, "forward", [3], 5, [0])[0]) == seen(texts(module, "forward", [3], 5, [0])[0])
    steps = write(module, [3], Reading(open_order("forward", C), START), EOS, 9, C, Sampling(1.0), [0, 1])
    next(steps)
    assert not module.training
    steps.close()
    assert module.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(weight.grad is None and weight.requires_grad for weight in module.parameters())


def test_samples_of_a_training_take_a_prompt_of_any_length(shards: Path, tmp_path: Path):
    long = "and the sea " * 40
    samples = ["samples.interval=1ba", f"samples.prompts=['{long}']"]
    run = train(shards, tmp_path, "order=even_odd", "max_duration=1ba", "run_name=a", *samples)
    assert (run / "samples.jsonl").read_text().count("\n") == 1
