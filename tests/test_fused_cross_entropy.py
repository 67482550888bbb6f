"""The head and cross-entropy by chunks are those of all logits at once."""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hindsight.chunk_rows import rows_of
from hindsight.fused_cross_entropy import Scores, linear_cross_entropy
from hindsight.orders.examples import IGNORED
from loss_utils import correct_predictions, target_nats

D = 8


class Case(NamedTuple):
    hidden: Tensor
    weight: Tensor
    targets: Tensor


def make_case(n: int = 37, vocab_size: int = 53, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Case:
    generator = torch.Generator().manual_seed(n)
    hidden_ND = torch.randn(n, D, generator=generator, dtype=dtype) * scale
    weight_VD = torch.randn(vocab_size, D, generator=generator, dtype=dtype)
    targets_N = torch.randint(0, vocab_size, (n,), generator=generator)
    targets_N[2::5] = IGNORED
    return Case(hidden_ND.requires_grad_(), weight_VD.requires_grad_(), targets_N)


def all_logits(case: Case, softcap: float | None = None) -> Scores:
    logits_NV = F.linear(case.hidden, case.weight)
    if softcap is not None:
        logits_NV = softcap * torch.tanh(logits_NV.float() / softcap)
    nats_N = target_nats(logits_NV, case.targets)
    return Scores(nats_N.sum(), nats_N.detach(), correct_predictions(logits_NV.detach(), case.targets))


def gradients(total: Tensor, case: Case) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total / 7, [case.hidden, case.weight])


@pytest.mark.parametrize("padded_to", [1, 64])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize(("n", "rows"), [(37, 10), (40, 10), (1, 10), (9, 10), (37, None), (37, 1)])
def test_loss_gradients_and_predictions_are_those_of_all_logits(n, rows, softcap, padded_to):
    case = make_case(n)
    plain, chunked = all_logits(case, softcap), linear_cross_entropy(*case, softcap, rows=rows, padded_to=padded_to)
    torch.testing.assert_close(chunked.total, plain.total)
    torch.testing.assert_close(chunked.nats, plain.nats)
    assert torch.equal(chunked.correct, plain.correct)
    torch.testing.assert_close(gradients(chunked.total, case), gradients(plain.total, case))
    assert not chunked.nats.requires_grad


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_the_gradient_is_that_of_differences(softcap):
    case = make_case(11, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda hidden, weight: linear_cross_entropy(hidden, weight, case.targets, softcap, rows=4).total,
        (case.hidden, case.weight),
    )


def test_windows_are_taken_as_they_are_and_a_tied_weight_gets_both_gradients():
    case = make_case(36)
    ids = torch.arange(36) % 53

    def total(chunked: bool) -> Tensor:
        hidden_BTD = F.embedding(ids, case.weight).view(4, 9, D).tanh()
        if chunked:
            return linear_cross_entropy(hidden_BTD, case.weight, case.targets, rows=10).total
        return all_logits(case._replace(hidden=hidden_BTD.flatten(0, 1))).total

    (one,), (other,) = (torch.autograd.grad(total(chunked), [case.weight]) for chunked in (True, False))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_no_gradient_is_taken_of_what_is_frozen(frozen):
    case = make_case()
    case = case._replace(**{frozen: getattr(case, frozen).detach()})
    linear_cross_entropy(*case, rows=10).total.backward()
    plain = make_case()
    all_logits(plain).total.backward()
    for name in ("hidden", "weight"):
        if name == frozen:
            assert getattr(case, name).grad is None
        else:
            torch.testing.assert_close(getattr(case, name).grad, getattr(plain, name).grad)


def test_an_evaluation_has_the_same_scores_without_gradient():
    case = make_case()
    with torch.no_grad():
        scores = linear_cross_entropy(*case, rows=10)
    again = linear_cross_entropy(*case, rows=10)
    assert not scores.total.requires_grad
    assert all(torch.equal(one, other) for one, other in zip(scores, again, strict=True))


def test_a_batch_of_padding_has_loss_0_and_gradient_0():
    case = make_case()
    case.targets.fill_(IGNORED)
    scores = linear_cross_entropy(*case, rows=10)
    assert scores.total == 0
    assert not scores.correct.any()
    assert not any(gradient.any() for gradient in gradients(scores.total, case))


def test_logits_of_any_size_have_a_loss_and_a_gradient():
    case = make_case(scale=1e4)
    plain, chunked = all_logits(case), linear_cross_entropy(*case, rows=10)
    torch.testing.assert_close(chunked.nats, plain.nats)
    torch.testing.assert_close(gradients(chunked.total, case), gradients(plain.total, case), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_products_are_narrow_and_sums_are_float32(dtype):
    case = make_case(300, 530)
    with torch.autocast("cpu", dtype):
        plain, chunked = all_logits(case), linear_cross_entropy(*case, rows=64, padded_to=64)
    assert chunked.total.dtype == chunked.nats.dtype == torch.float32
    torch.testing.assert_close(chunked.nats, plain.nats)
    assert torch.equal(chunked.correct, plain.correct)
    exact = gradients(all_logits(case).total, case)
    for ours, theirs, right in zip(gradients(chunked.total, case), gradients(plain.total, case), exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - right).norm() < 1.05 * (theirs - right).norm() < 0.01 * right.norm()


def test_a_small_gradient_survives_float16():
    case = make_case(8, 53)
    tiny = 1e-4 / 65536
    with torch.autocast("cpu", torch.float16):
        total = linear_cross_entropy(*case).total
    scaled = torch.autograd.grad(total * tiny * 65536, [case.weight])[0] / 65536
    right = torch.autograd.grad(all_logits(case).total * tiny, [case.weight])[0]
    assert (scaled - right).norm() < 0.01 * right.norm()


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_compiled_it_gives_what_it_gives_eagerly(compiled):
    case = make_case()

    def step(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Scores:
        return linear_cross_entropy(hidden_ND.tanh(), weight_VD, targets_N, 3.0, rows=10, compiled=compiled)

    eager, graph = step(*case), torch.compile(step, fullgraph=True)(*case)
    torch.testing.assert_close(graph, eager)
    torch.testing.assert_close(gradients(graph.total, case), gradients(eager.total, case))
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(step, fullgraph=True)(*case).nats, eager.nats)


@pytest.mark.parametrize("is_half", [False, True])
@pytest.mark.parametrize(("device", "most_mib"), [("cpu", 128), ("cuda", 1100)])
@pytest.mark.parametrize("vocab_size", [300, 4096, 50257, 262144])
@pytest.mark.parametrize("n_rows", [1, 100, 8192, 32768])
def test_a_chunk_has_bounded_memory_and_chunks_are_about_equal(n_rows, vocab_size, device, most_mib, is_half):
    rows = rows_of(n_rows, vocab_size, device, is_half)
    assert 4 * rows * vocab_size <= most_mib << 20
    n_chunks = math.ceil(n_rows / rows)
    assert n_chunks * rows - n_rows < n_chunks * (1 if device == "cpu" else 128)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_float16_sums_no_gradient_up_to_infinity(device):
    n_rows, vocab_size = 65536, 256
    hidden_ND = torch.full((n_rows, 1), 8.0, requires_grad=True)
    weight_VD = torch.linspace(0, 0.2, vocab_size)[:, None].requires_grad_()
    targets_N = torch.zeros(n_rows, dtype=torch.int64)
    with torch.autocast("cpu", torch.float16):
        rows = rows_of(n_rows, vocab_size, device, is_half=True)
        scores = linear_cross_entropy(hidden_ND, weight_VD, targets_N, rows=rows)
    assert gradients(scores.total, Case(hidden_ND, weight_VD, targets_N))[-1].isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("compiled", [False, True])
def test_on_a_gpu_the_scores_are_those_of_all_logits(compiled, dtype):
    on_cpu = make_case(1000, 5001)
    case = Case(*(tensor.detach().cuda() for tensor in on_cpu))
    case = case._replace(hidden=case.hidden.requires_grad_(), weight=case.weight.requires_grad_())
    exact = gradients(all_logits(on_cpu).total, on_cpu)
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        chunked = linear_cross_entropy(*case, rows=256, compiled=compiled)
    tolerance = 1e-3 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(chunked.total.cpu(), all_logits(on_cpu).total, rtol=tolerance, atol=0)
    for ours, right in zip(gradients(chunked.total, case), exact, strict=True):
        assert (ours.cpu() - right).norm() < tolerance * right.norm()
