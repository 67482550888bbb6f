"""The direction of a model."""

from enum import Enum


class Direction(Enum):
    """The order in which a model reads a window: first token first, or last token first."""

    forward = "forward"
    backward = "backward"
