"""The direction of a model."""

from enum import Enum


class Direction(Enum):
    """The end of the text from which a model reads: its first token (forward) or its last (backward)."""

    forward = "forward"
    backward = "backward"
