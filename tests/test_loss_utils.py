import math

import pytest
import torch
import torch.nn.functional as F

import loss_utils
from hindsight.orders.examples import IGNORED
from hindsight.runs import METRIC_NAMES
from loss_utils import (
    TokenMetric,
    correct_predictions,
    mean_nats,
    metric_values,
    nats_to_bits,
    sums,
    target_nats,
    target_ranks,
)

BYTES_V = torch.tensor([0, 1, 2, 3, 5])


def random_batch(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits_NV = torch.randn(n, 5, generator=generator)
    targets_N = torch.randint(0, 5, (n,), generator=generator)
    targets_N[::4] = IGNORED
    return logits_NV, targets_N


def sums_of(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    correct_N = correct_predictions(logits_NV, targets_N)
    return sums(target_nats(logits_NV, targets_N), correct_N, targets_N, BYTES_V)


def test_the_loss_is_pytorchs_mean_cross_entropy_over_the_targets_that_count():
    logits_NV, targets_N = random_batch(50, seed=0)
    ours = mean_nats(target_nats(logits_NV, targets_N), targets_N)
    torch.testing.assert_close(ours, F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED))


def test_a_batch_of_filling_has_loss_0_and_gradient_0():
    logits_NV = torch.randn(3, 5, requires_grad=True)
    targets_N = torch.full((3,), IGNORED)
    loss = mean_nats(target_nats(logits_NV, targets_N), targets_N)
    loss.backward()
    assert loss.item() == 0
    assert logits_NV.grad is not None
    assert not logits_NV.grad.any()


def test_metrics_are_those_computed_by_hand():
    logits_NV = torch.log(torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.6], [0.2] * 5]))
    values = metric_values(sums_of(logits_NV, torch.tensor([0, 3, IGNORED])))
    nats = -math.log(0.5) - math.log(0.1)
    assert values["loss_nats"] == pytest.approx(nats / 2)
    assert values["perplexity"] == pytest.approx(math.exp(nats / 2))
    assert values["accuracy"] == 0.5
    assert values["bits_per_byte"] == pytest.approx(nats / math.log(2) / 3)  # 0 bytes of token 0, 3 of token 3


def test_one_nat_is_1_over_ln_2_bits():
    assert nats_to_bits(math.log(2)) == 1.0


def test_a_metric_over_batches_of_unequal_size_is_that_of_the_whole_set():
    logits_NV, targets_N = random_batch(100, seed=1)
    whole = metric_values(sums_of(logits_NV, targets_N))
    for name in METRIC_NAMES:
        metric = TokenMetric(name)
        for part in (slice(0, 7), slice(7, 60), slice(60, 100)):
            metric.update(sums_of(logits_NV[part], targets_N[part]))
        assert metric.compute().item() == pytest.approx(whole[name], rel=1e-12)


def test_low_precision_logits_are_widened_before_the_sum():
    logits_NV, targets_N = random_batch(50, seed=2)
    narrow_NV = logits_NV.bfloat16()
    assert target_nats(narrow_NV, targets_N).dtype == torch.float32
    torch.testing.assert_close(target_nats(narrow_NV, targets_N), target_nats(narrow_NV.float(), targets_N))


def test_a_rank_counts_the_larger_logits_and_0_is_what_counts_as_correct(monkeypatch):
    logits_NV, targets_N = random_batch(50, seed=3)
    logits_NV[7:9] = 1.0  # ties
    ranks_N = target_ranks(logits_NV, targets_N)
    for row_V, target, rank in zip(logits_NV.tolist(), targets_N.tolist(), ranks_N.tolist(), strict=True):
        assert rank == (0 if target == IGNORED else sum(logit > row_V[target] for logit in row_V))
    correct = (ranks_N[targets_N != IGNORED] == 0).sum()
    assert correct == sums_of(logits_NV, targets_N)[1]
    monkeypatch.setattr(loss_utils, "MOST_COMPARED", 12)
    assert torch.equal(target_ranks(logits_NV, targets_N), ranks_N)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="choose one of"):
        TokenMetric("bits_per_byte_of_inputs")
