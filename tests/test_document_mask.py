"""document_mask=true: each document's part of a window is a window of its own, for every model and order."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import CONFIGS, GRU
from helpers.training_runs import losses, train
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from hindsight.config.model import Cell
from hindsight.document_attention import attend_within, block_mask_of, mask_of
from hindsight.loading.collate import Collate
from hindsight.orders.documents import places_within
from hindsight.orders.examples import IGNORED, make_example
from hindsight.orders.known import open_order
from language_model import build_model

T, BOS, EOS, VOCAB = 24, 20, 21, 22
FILLING = {"input_ids": BOS, "targets": IGNORED, "documents": T}
"""What padding has."""
MODELS = {
    **{name: replace(CONFIGS[name], context_length=T) for name in ("gpt2", "llama", "modern")},
    "gru": GRU,
    "lstm": replace(GRU, cell=Cell.lstm),
}
ORDERS = ["forward", "backward", "even_odd", "blocks:5", "half_back_forward", "uniform_random:1"]


def window_of(rng: np.random.Generator, *lengths: int) -> list[int]:
    """Tokens of documents of these lengths, EOS included, the last of which goes on behind the window."""
    tokens = rng.integers(0, 20, sum(lengths))
    tokens[np.cumsum(lengths)[:-1] - 1] = EOS
    return tokens.tolist()


def windows() -> list[list[int]]:
    """Full windows of one document and of several, one that ends with its document, and a short one."""
    rng = np.random.default_rng(0)
    return [
        window_of(rng, 24),
        window_of(rng, 7, 1, 11, 5),
        [*window_of(rng, 4, 19), EOS],
        window_of(rng, 5, 4),
        [EOS, *window_of(rng, 9, 14)],
    ]


def batch_of(rows: list[list[int]], order: str) -> dict[str, Tensor]:
    samples = [{"tokens": np.array(row)} for row in rows]
    return Collate(open_order(order, T), BOS, T, EOS)(samples)


def alone(order: str, rows: list[list[int]]) -> list[tuple[Tensor, Tensor, list[int], int]]:
    """Each document of the windows in a window of its own: its inputs and targets, and where these were, in which."""
    found = []
    for number, row in enumerate(rows):
        read = open_order(order, T).permutation(np.array(row)).tolist()
        document_at = np.cumsum([0, *(token == EOS for token in row[:-1])])
        for document in range(document_at[-1] + 1):
            steps = [step for step, position in enumerate(read) if document_at[position] == document]
            targets = [row[read[step]] for step in steps]
            found.append((torch.tensor([[BOS, *targets[:-1]]]), torch.tensor(targets), steps, number))
    return found


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("model", MODELS)
def test_a_document_has_the_logits_that_it_has_alone_in_a_window(model, order):
    module = build_model(MODELS[model], VOCAB, seed=1).eval()
    batch = batch_of(windows(), order)
    logits_BTV = module(batch["input_ids"], batch["documents"])
    parts = alone(order, windows())
    assert len(parts) == 12
    for inputs_1T, targets_n, steps, number in parts:
        assert torch.equal(batch["targets"][number, steps], targets_n)
        assert torch.equal(batch["input_ids"][number, steps], inputs_1T[0])
        torch.testing.assert_close(logits_BTV[number, steps], module(inputs_1T)[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(module(batch["input_ids"])[1], logits_BTV[1], atol=1e-3), "the mask matters"


@given(st.sampled_from(ORDERS), st.integers(0, 2**32 - 1), st.lists(st.integers(0, T), min_size=1, max_size=4))
def test_inputs_and_places_are_those_of_the_definition(order, seed, lengths):
    rng = np.random.default_rng(seed)
    rows = [rng.choice([1, 2, 3, EOS], length).tolist() for length in lengths]
    batch = batch_of(rows, order)
    places_BT = places_within(batch["documents"])
    for row, inputs, targets, documents, places in zip(
        rows, *(values.tolist() for values in (*batch.values(), places_BT)), strict=True
    ):
        assert targets[len(row) :] == [IGNORED] * (T - len(row))
        read = open_order(order, T).permutation(np.array(row, np.int64)).tolist()
        for step, position in enumerate(read):
            assert (targets[step], documents[step]) == (row[position], row[:position].count(EOS))
            earlier = [other for other in range(step) if documents[other] == documents[step]]
            assert inputs[step] == (targets[earlier[-1]] if earlier else BOS)
            assert places[step] == len(earlier)


@pytest.mark.parametrize("order", ORDERS[1:])
@pytest.mark.parametrize("model", MODELS)
def test_training_in_an_order_is_training_forward_on_windows_and_documents_in_that_order(model, order):
    rows = windows()
    beforehand = {name: torch.full((len(rows), T), fill) for name, fill in FILLING.items()}
    for number, row in enumerate(rows):
        last_read = {}
        for step, position in enumerate(open_order(order, T).permutation(np.array(row)).tolist()):
            document = row[:position].count(EOS)
            beforehand["documents"][number, step] = document
            beforehand["targets"][number, step] = row[position]
            beforehand["input_ids"][number, step] = last_read.get(document, BOS)
            last_read[document] = row[position]
    one, other = (gradients(MODELS[model], batch) for batch in (batch_of(rows, order), beforehand))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def gradients(config: Any, batch: dict[str, Tensor], **changes: Any) -> list[Tensor]:
    """Gradients of the mean loss of a batch."""
    module = build_model(config, VOCAB, seed=1, **changes).train()
    logits_BTV = module(batch["input_ids"], batch.get("documents"))
    torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten()).backward()
    return [weight.grad for weight in module.parameters() if weight.grad is not None]


@pytest.mark.parametrize("model", MODELS)
def test_no_loss_depends_on_what_is_read_of_another_document(model):
    module = build_model(MODELS[model], VOCAB, seed=1).eval()
    batch = batch_of(windows()[1:2], "even_odd")
    logits_TV = module(batch["input_ids"], batch["documents"])[0]
    for document in range(4):
        changed = batch["input_ids"].clone()
        changed[batch["documents"] == document] = 3
        same = batch["documents"][0] != document
        assert torch.equal(module(changed, batch["documents"])[0][same], logits_TV[same])


@pytest.mark.parametrize("model", MODELS)
def test_activations_that_are_computed_again_give_the_same_gradients(model):
    batch = batch_of(windows(), "backward")
    plain, again = (gradients(MODELS[model], batch, activation_checkpointing=on) for on in (False, True))
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))


def test_without_it_a_batch_and_its_logits_are_what_they_were():
    samples = [{"tokens": np.array(row)} for row in windows()]
    batch = Collate(open_order("backward", T), BOS, T)(samples)
    assert batch.keys() == {"input_ids", "targets"}
    whole = torch.tensor([windows()[0]])
    inputs_BT, _ = make_example(whole, open_order("backward", T), BOS)
    assert torch.equal(batch["input_ids"][:1], inputs_BT)


def test_a_window_of_one_document_has_the_losses_that_it_has_without():
    for config in MODELS.values():
        module = build_model(config, VOCAB, seed=1).eval()
        batch = batch_of(windows()[:1], "backward")
        torch.testing.assert_close(module(batch["input_ids"], batch["documents"]), module(batch["input_ids"]))


def test_the_masks_of_both_kinds_of_attention_are_the_same():
    documents_BT = batch_of(windows(), "even_odd")["documents"]
    mask_B1TT, block_mask = mask_of(documents_BT, 16, 0.0), block_mask_of(documents_BT)
    assert isinstance(mask_B1TT, Tensor)
    steps = torch.arange(T)
    for b in range(len(documents_BT)):
        attends = block_mask.mask_mod(torch.tensor(b), torch.tensor(0), steps[:, None], steps[None, :])
        assert torch.equal(attends, mask_B1TT[b, 0])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_gives_the_values_of_the_mask():
    documents_BT = batch_of(windows(), "even_odd")["documents"]
    q_BHTK, k_BHTK, v_BHTK = torch.randn(3, len(documents_BT), 2, T, 16, generator=torch.Generator().manual_seed(0))
    expected_BHTK = attend_within(q_BHTK, k_BHTK, v_BHTK, mask_of(documents_BT, 16, 0.0), 0.0)
    mixed_BHTK = flex_attention(q_BHTK, k_BHTK, v_BHTK, block_mask=block_mask_of(documents_BT))
    torch.testing.assert_close(mixed_BHTK, expected_BHTK)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_flex_attention_gives_the_values_and_gradients_of_the_mask():
    documents_BT = batch_of(windows(), "even_odd")["documents"]
    inputs = torch.randn(3, len(documents_BT), 2, T, 32, generator=torch.Generator().manual_seed(0)).cuda()
    found = []
    for mask in (mask_of(documents_BT.cuda(), 32, 0.0), mask_of(documents_BT.cuda(), 32, 0.1)):
        q_k_v = inputs.clone().requires_grad_()
        mixed_BHTK = attend_within(q_k_v[0], q_k_v[1], q_k_v[2], mask, 0.0)
        mixed_BHTK.square().sum().backward()
        found.append((mixed_BHTK, q_k_v.grad))
    assert not isinstance(mask_of(documents_BT.cuda(), 32, 0.0), Tensor)
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)


def test_a_run_with_the_mask_has_its_name_and_other_losses(shards, tmp_path):
    masked = train(shards, tmp_path / "a", "document_mask=true", "order=backward")
    plain = train(shards, tmp_path / "b", "direction=backward")
    assert masked.name == plain.name.replace("-backward-", "-backward-docmask-")
    assert losses(masked) != losses(plain)
