import math

import pytest
import torch
from composer.core import Callback

from hindsight.config.optim import Clip
from hindsight.training.callback_order import Phase, check_order
from hindsight.training.gradient import ClipGradient, StopAtNonFiniteLoss, clip_adaptively


class State:
    """What the callbacks read of Composer's state."""

    def __init__(self, loss: float = 1.0) -> None:
        self.model = torch.nn.Linear(3, 2)
        self.total_loss_dict = {"loss/train/total": loss}
        self.timestamp = type("Timestamp", (), {"batch": 7})()
        (10 * self.model(torch.ones(4, 3)).sum()).backward()

    def norm(self) -> float:
        return float(torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None]).norm())


def test_a_long_gradient_is_scaled_to_the_largest_norm_and_its_own_norm_is_known():
    state, clip = State(), ClipGradient(1.0)
    before = state.norm()
    clip.after_train_batch(state, None)  # pyright: ignore[reportArgumentType]
    assert before > 1
    assert state.norm() == pytest.approx(1, rel=1e-4)
    assert float(clip.norm(state)) == pytest.approx(before)  # pyright: ignore[reportArgumentType]


def test_each_number_of_the_gradient_is_clipped_on_demand_and_the_norm_is_that_before():
    state, clip = State(), ClipGradient(0.5, Clip["value"])
    before = [p.grad.clone() for p in state.model.parameters() if p.grad is not None]
    norm = state.norm()
    clip.after_train_batch(state, None)  # pyright: ignore[reportArgumentType]
    for parameter, gradient in zip(state.model.parameters(), before, strict=True):
        assert torch.equal(parameter.grad, gradient.clamp(-0.5, 0.5))  # pyright: ignore[reportArgumentType]
    assert state.norm() < norm
    assert float(clip.norm(state)) == pytest.approx(norm)  # pyright: ignore[reportArgumentType]


def test_adaptive_clipping_limits_the_gradient_of_a_row_by_the_norm_of_its_weights():
    weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]]))
    weight.grad = torch.tensor([[0.03, 0.04], [3.0, 4.0], [3.0, 4.0]])
    bias = torch.nn.Parameter(torch.zeros(2))
    bias.grad = torch.tensor([0.0, 2.0])
    clip_adaptively([weight, bias], 0.1)
    assert torch.equal(weight.grad[0], torch.tensor([0.03, 0.04]))  # 0.05 is less than 0.1 * 5
    torch.testing.assert_close(weight.grad[1].norm(), torch.tensor(0.1 * 0.5))
    torch.testing.assert_close(weight.grad[1] / weight.grad[1].norm(), torch.tensor([0.6, 0.8]))
    # What begins at 0 can leave it.
    torch.testing.assert_close(weight.grad[2].norm(), torch.tensor(0.1 * 1e-3))
    torch.testing.assert_close(bias.grad, torch.tensor([0.0, 0.1 * 1e-3]))


def test_without_a_limit_the_gradient_stays_and_its_norm_is_that_of_the_present_step():
    first, second, clip = State(), State(), ClipGradient(None)
    for state in (first, second):
        before = state.norm()
        clip.before_train_batch(state, None)  # pyright: ignore[reportArgumentType]
        clip.after_train_batch(state, None)  # pyright: ignore[reportArgumentType]
        assert state.norm() == before
        assert float(clip.norm(state)) == pytest.approx(before)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(loss):
    StopAtNonFiniteLoss().batch_end(State(), None)  # pyright: ignore[reportArgumentType]
    with pytest.raises(FloatingPointError, match="The loss of step 7"):
        StopAtNonFiniteLoss().batch_end(State(loss), None)  # pyright: ignore[reportArgumentType]


def of_phase(phase: Phase) -> Callback:
    callback = Callback()
    callback.phase = phase  # pyright: ignore[reportAttributeAccessIssue]
    return callback


def test_callbacks_are_listed_by_their_phase():
    check_order([of_phase(Phase.hold), of_phase(Phase.save), of_phase(Phase.save), of_phase(Phase.leave)])
    with pytest.raises(AssertionError, match="out of order"):
        check_order([of_phase(Phase.leave), of_phase(Phase.save)])
    with pytest.raises(AssertionError, match="has no phase"):
        check_order([Callback()])
