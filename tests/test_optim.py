import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import get_inverse_sqrt_schedule

from hindsight.config.optim import OptimConfig, Schedule
from hindsight.training.optim import build_optimizer, learning_rate, parameter_groups

BASE = OptimConfig(lr=1.0, warmup_steps=10, lr_init=0.1, lr_min=0.2)


def rates(config: OptimConfig, total_steps: int = 110) -> list[float]:
    return [learning_rate(step, total_steps, config) for step in range(total_steps + 5)]


@pytest.mark.parametrize("schedule", Schedule)
def test_the_warm_up_rises_linearly_from_lr_init_to_the_peak(schedule):
    values = rates(replace(BASE, schedule=schedule))
    assert values[0] == 0.1
    assert values[5] == pytest.approx(0.55)
    assert values[10] == 1.0
    assert max(values) == 1.0


def test_constant_stays_at_the_peak_until_its_cool_down():
    values = rates(replace(BASE, schedule=Schedule.constant, cooldown_share=0.2))
    assert values[10:89] == [1.0] * 79
    assert values[99] == pytest.approx(0.2 + 0.8 * 11 / 22)
    assert values[110:] == [0.2] * 5


def test_constant_without_a_cool_down_never_falls():
    assert rates(replace(BASE, schedule=Schedule.constant, cooldown_share=0.0))[10:] == [1.0] * 105


def test_linear_falls_to_lr_min_at_the_last_step_and_stays():
    values = rates(replace(BASE, schedule=Schedule.linear))
    assert values[60] == pytest.approx(0.6)
    assert values[110:] == pytest.approx([0.2] * 5)


def test_cosine_is_half_a_cosine():
    values = rates(replace(BASE, schedule=Schedule.cosine))
    assert values[35] == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert values[60] == pytest.approx(0.6)
    assert values[110:] == pytest.approx([0.2] * 5)


def test_each_restart_begins_at_shrink_times_the_peak_before():
    values = rates(replace(BASE, schedule=Schedule.cosine_restarts, period_steps=20, shrink=0.5))
    assert values[10] == 1.0
    assert values[20] == pytest.approx(0.6)
    assert values[30] == pytest.approx(0.5)
    assert values[50] == pytest.approx(0.25)
    assert values[70] == pytest.approx(0.2)  # 0.125 would lie below lr_min
    assert min(values[10:]) >= 0.2


def test_polynomial_is_the_share_that_is_left_to_the_power():
    values = rates(replace(BASE, schedule=Schedule.polynomial, power=3))
    assert values[60] == pytest.approx(0.2 + 0.8 * 0.5**3)
    assert values[110:] == pytest.approx([0.2] * 5)
    linear = rates(replace(BASE, schedule=Schedule.linear))
    assert rates(replace(BASE, schedule=Schedule.polynomial, power=1)) == pytest.approx(linear)


def test_inverse_sqrt_falls_with_the_step_whatever_the_length_of_the_run():
    config = replace(BASE, schedule=Schedule.inverse_sqrt, lr_min=0.0)
    values = rates(config)
    assert values[40] == pytest.approx(0.5)
    assert values[90] == pytest.approx(1 / 3)
    assert rates(config, 1000)[:110] == values[:110]
    model = nn.Linear(2, 2)
    theirs = get_inverse_sqrt_schedule(torch.optim.SGD(model.parameters(), lr=1.0), num_warmup_steps=10)
    plain = replace(config, lr_init=0.0)
    for step in range(100):
        assert theirs.get_last_lr()[0] == pytest.approx(learning_rate(step, 100, plain))
        theirs.optimizer.step()
        theirs.step()


def test_without_warm_up_the_first_step_is_at_the_peak():
    assert learning_rate(0, 100, replace(BASE, warmup_steps=0)) == 1.0


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.linear = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 7, bias=False)
        self.head.weight = self.embedding.weight


def test_only_matrices_that_are_no_embedding_decay():
    model = Tied()
    decaying, others = parameter_groups(model, 0.1)
    assert [id(p) for p in decaying["params"]] == [id(model.linear.weight)]
    assert decaying["weight_decay"] == 0.1
    assert others["weight_decay"] == 0.0
    expected = {id(p) for p in (model.embedding.weight, model.linear.bias, model.norm.weight, model.norm.bias)}
    assert {id(p) for p in others["params"]} == expected


def test_everything_decays_on_demand_as_with_pytorchs_default():
    model = Tied()
    groups = build_optimizer(model, replace(BASE, decay_all=True, weight_decay=0.3)).param_groups
    decaying = {id(p) for group in groups for p in group["params"] if group["weight_decay"] == 0.3}
    assert decaying == {id(p) for p in model.parameters()}


def test_the_optimizer_has_every_parameter_once_and_the_settings_asked_for():
    model = Tied()
    optimizer = build_optimizer(model, replace(BASE, betas=[0.8, 0.9], eps=1e-6))
    parameters = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(parameters) == sorted(id(p) for p in model.parameters())
    assert optimizer.defaults["betas"] == (0.8, 0.9)
    assert optimizer.defaults["eps"] == 1e-6
    assert isinstance(optimizer, torch.optim.AdamW)
