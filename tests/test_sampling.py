from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hindsight.errors import InputError
from hindsight.generation.sampling import LEAST_TEMPERATURE, Sampling


def logits(n_rows: int, vocab_size: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(n_rows, vocab_size, generator=torch.Generator().manual_seed(seed))


def theirs(sampling: Sampling) -> Any:
    """The same filters of Hugging Face's, in the order in which `generate` applies them."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k is not None:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p is not None:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return warpers


@given(
    temperature=st.floats(0.1, 3),
    top_k=st.none() | st.integers(1, 50),
    top_p=st.none() | st.floats(0.01, 1),
    min_p=st.none() | st.floats(0.001, 1),
    seed=st.integers(0, 1000),
)
def test_what_is_left_to_draw_from_is_what_hugging_faces_filters_leave(temperature, top_k, top_p, min_p, seed):
    sampling = Sampling(temperature, top_k, top_p, min_p)
    logits_BV = logits(3, 40, seed)
    before_BV = logits_BV.clone()
    expected_BV = theirs(sampling)(torch.empty(3, 0, dtype=torch.int64), logits_BV.clone())
    assert torch.equal(sampling.filtered(logits_BV), expected_BV)
    assert torch.equal(logits_BV, before_BV)


def left(sampling: Sampling, probabilities: list[float]) -> list[int]:
    (filtered_V,) = sampling.filtered(torch.tensor([probabilities]).log())
    return filtered_V.isfinite().nonzero().flatten().tolist()


def test_each_filter_leaves_what_its_definition_says():
    probabilities = [0.05, 0.4, 0.1, 0.3, 0.15]
    assert left(Sampling(1.0, top_k=2), probabilities) == [1, 3]
    assert left(Sampling(1.0, top_p=0.75), probabilities) == [1, 3, 4]
    assert len(left(Sampling(1.0, top_p=0.5), [0.25] * 4)) == 2, "which have 0.5 together"
    assert left(Sampling(1.0, min_p=0.3), probabilities) == [1, 3, 4], "at least 0.3 x 0.4"
    assert left(Sampling(1.0, top_k=4, top_p=0.85), probabilities) == [1, 3, 4], "0.85 of what top_k left"
    assert left(Sampling(0.5, min_p=0.3), probabilities) == [1, 3], "the temperature comes first"


@pytest.mark.parametrize(
    "sampling", [Sampling(1.0, 1000), Sampling(1.0, top_p=1e-9), Sampling(1.0, min_p=1.0)], ids=str
)
def test_a_token_is_always_left(sampling: Sampling):
    filtered_BV = sampling.filtered(logits(2, 7))
    assert torch.equal(filtered_BV.argmax(-1), logits(2, 7).argmax(-1))
    assert filtered_BV.isfinite().sum() == (14 if sampling.top_k else 2)


def test_temperature_0_takes_the_likeliest_token_whatever_the_filters():
    logits_BV = logits(4, 20)
    assert Sampling(0.0, 3, 0.5, 0.5).draw(logits_BV, []) == logits_BV.argmax(-1).tolist()


def test_what_is_no_number_is_told_for_what_it_is():
    for bad in (torch.nan, torch.inf):
        logits_BV = torch.tensor([[0.0, bad, 1.0]])
        for temperature in (0.0, 1.0):
            with pytest.raises(InputError, match="predicts NaN or infinity"):
                Sampling(temperature).draw(logits_BV, [torch.Generator()])


@pytest.mark.parametrize("temperature", [1e-40, 1e-30, LEAST_TEMPERATURE])
def test_a_small_temperature_takes_the_likeliest_token_also_of_large_logits(temperature: float):
    logits_BV = 1e35 * logits(4, 20)
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    assert Sampling(temperature).draw(logits_BV, generators) == logits_BV.argmax(-1).tolist()


def test_tokens_are_drawn_by_their_probabilities():
    generators = [torch.Generator().manual_seed(seed) for seed in range(20_000)]
    logits_BV = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(len(generators), -1)
    counts = torch.tensor(Sampling(0.5, top_k=3).draw(logits_BV, generators)).bincount(minlength=4)
    torch.testing.assert_close(counts / 20_000, torch.tensor([0, 4, 9, 16]) / 29, atol=0.01, rtol=0)


def test_what_a_generator_gives_does_not_depend_on_the_other_texts():
    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    logits_BV = logits(3, 20)
    together = Sampling(1.0, 10).draw(logits_BV, generators(5, 6, 7))
    alone = [Sampling(1.0, 10).draw(logits_BV[i : i + 1], generators(5 + i))[0] for i in range(3)]
    assert together == alone
