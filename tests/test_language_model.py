import numpy as np
import pytest
import torch

from hindsight.config.model import Cell, GPTConfig, RNNConfig
from hindsight.errors import InputError
from hindsight.generation.sampling import Sampling
from hindsight.generation.writing import last
from hindsight.generation.writing import write as write_texts
from hindsight.orders.examples import IGNORED
from hindsight.orders.known import open_order
from hindsight.orders.order import Reading
from language_model import LanguageModel, build_model
from loss_utils import metric_values

GPT_TINY = GPTConfig(name="tiny", n_layers=2, d_model=16, n_heads=2, context_length=16, dropout=0.1)
RNN_TINY = RNNConfig(name="tiny", n_layers=2, d_model=16, cell=Cell.lstm)
VOCAB = 11


@pytest.mark.parametrize("config", [GPT_TINY, RNN_TINY], ids=["gpt", "lstm"])
def test_initial_weights_depend_on_the_seed_alone_and_leave_the_random_state_as_it_was(config):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build_model(config, VOCAB, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = build_model(config, VOCAB, seed=3).state_dict(), build_model(config, VOCAB, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused():
    with pytest.raises(InputError, match=r"model.vocab_size=5 is less than the tokenizer's 11"):
        build_model(GPTConfig(name="x", n_layers=1, d_model=4, n_heads=1, vocab_size=5), VOCAB, seed=0)


def make_batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, VOCAB, (4, 17), generator=generator)
    targets = ids[:, 1:].clone()
    targets[3, 5:] = IGNORED
    return {"input_ids": ids[:, :-1], "targets": targets}


def test_the_loss_and_the_sums_come_from_the_same_cross_entropy():
    model = LanguageModel(build_model(GPT_TINY, VOCAB, seed=0), np.arange(VOCAB)).eval()
    batch = make_batch()
    outputs = model(batch)
    values = metric_values(outputs["sums"])
    assert values["loss_nats"] == pytest.approx(model.loss(outputs, batch).item(), rel=1e-6)
    targets = batch["targets"][batch["targets"] != IGNORED]
    assert outputs["sums"][2] == len(targets)
    assert outputs["sums"][3] == targets.sum()  # token id i stands for i bytes here
    predicted = model.module(batch["input_ids"]).argmax(-1)
    assert outputs["sums"][1] == (predicted == batch["targets"]).sum()


def test_metrics_cost_nothing_in_training_where_they_are_off_and_evaluation_has_them_all_the_same():
    model = LanguageModel(build_model(GPT_TINY, VOCAB, seed=0), np.arange(VOCAB), train_metrics=False)
    assert "sums" not in model.train()(make_batch())
    assert "sums" in model.eval()(make_batch())


class Counter(torch.nn.Module):
    """Predicts the successor of the last token modulo 10, for certain, and 7 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.longest = 0

    def forward(self, inputs_BT: torch.Tensor) -> torch.Tensor:
        self.longest = max(self.longest, inputs_BT.shape[1])
        following = torch.where(inputs_BT == 10, 7, (inputs_BT + 1) % 10)
        return torch.nn.functional.one_hot(following, VOCAB).float() * 1000


def write(order: str, prompt: list[int], length: int, eos_id: int = 99) -> list[int]:
    reading = Reading(open_order(order, 4), 10)
    (text,) = last(write_texts(Counter(), prompt, reading, eos_id, length, 4, Sampling(1.0, None), [0]))
    return text.known


def test_a_forward_model_writes_after_the_prompt_and_a_backward_one_before_it():
    assert write("forward", [3, 4], 3) == [3, 4, 5, 6, 7]
    assert write("backward", [3, 4], 3) == [6, 5, 4, 3, 4]


def test_in_another_order_a_model_fills_the_window_around_the_prompt():
    # It reads 2, 1, 3, 0: the last two are the prompt's, or written after what it read before them.
    assert write("middle_out", [], 4) == [0, 8, 7, 9]
    assert write("middle_out", [3, 4], 2) == [3, 4, 7, 5]
    assert write("middle_out", [3, 4], 9) == [3, 4, 7, 5], "no more than the context"
    assert write("even_odd", [], 4, eos_id=8) == [7, 9], "7 and 8 are read first, as tokens 0 and 2"


def test_writing_starts_without_a_prompt_stops_at_the_end_of_a_document_and_keeps_to_the_context():
    assert write("forward", [], 2) == [7, 8]
    assert write("forward", [3], 9, eos_id=6) == [3, 4, 5]
    model = Counter()
    last(write_texts(model, [1], Reading(open_order("forward", 4), 10), 99, 9, 4, Sampling(1.0, 3), [0]))
    assert model.longest == 4


def test_the_same_seed_gives_the_same_text_and_the_models_mode_stays():
    model = build_model(GPT_TINY, VOCAB, seed=0).train()

    def text() -> list[int]:
        reading = Reading(open_order("forward", 16), 10)
        return last(write_texts(model, [1], reading, 99, 20, 16, Sampling(1.0, 5), [5]))[0].known

    assert text() == text()
    assert model.training
