import math

import pytest
import torch
from composer.core import Callback

from hindsight.training.callback_order import Phase, check_order
from hindsight.training.gradient import ClipGradient, StopAtNonFiniteLoss


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
