"""How fast a run trains, over its last steps."""

from collections import deque

from composer.core import State

SPEED_STEPS = 20
"""Optimizer steps over which the speed is taken."""


class Speed:
    """Tokens and seconds of training over the last SPEED_STEPS; evaluations and checkpoints do not count."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int, float]] = deque(maxlen=SPEED_STEPS + 1)

    def mark(self, state: State) -> None:
        """Record how far the run is, once a step."""
        time = state.timestamp
        self._marks.append((int(time.batch), int(time.token), time.total_wct.total_seconds()))

    def start(self, state: State) -> None:
        """Record where this process began to train, before its first step."""
        if not self._marks:
            self.mark(state)

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second; 0 before two steps are marked."""
        if len(self._marks) < 2:
            return 0.0
        (_, tokens_before, seconds_before), (_, tokens, seconds) = self._marks[0], self._marks[-1]
        return (tokens - tokens_before) / max(seconds - seconds_before, 1e-9)

    def seconds_for(self, steps: int) -> float:
        """Seconds that so many steps take at this speed; 0 before two steps are marked."""
        if len(self._marks) < 2:
            return 0.0
        (step_before, _, seconds_before), (step, _, seconds) = self._marks[0], self._marks[-1]
        return steps * (seconds - seconds_before) / max(step - step_before, 1)
