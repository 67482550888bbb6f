"""Models that score texts, one or a forward and a backward one, with what they need to read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hindsight.config.corpus import TextOrder
from hindsight.generation.scores import Reader
from hindsight.text.graphemes import reverse_text
from hindsight.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class Judge:
    """A model that scores texts.

    Args:
        reader: the model.
        run: its run, as it was given.
        step: that of its checkpoint.
        fingerprint: hash of the checkpoint.
    """

    reader: Reader
    run: str
    step: int
    fingerprint: str


@dataclass(frozen=True)
class Judges:
    """Models of the same tokens.

    Args:
        all: one, or a forward and a backward one.
        tokenizer: that of their training data.
        text_order: whether the text of documents was reversed before it was tokenized.
    """

    all: Sequence[Judge]
    tokenizer: Tokenizer
    text_order: TextOrder

    @property
    def readers(self) -> list[Reader]:
        """The models."""
        return [judge.reader for judge in self.all]

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """What a record says of each, by the order in which it reads."""
        return {judge.reader.name: {"run": judge.run, "step": judge.step} for judge in self.all}

    @property
    def fingerprints(self) -> dict[str, str]:
        """The hash of each checkpoint."""
        return {judge.reader.name: judge.fingerprint for judge in self.all}

    @property
    def is_reversed(self) -> bool:
        """Whether the models were trained on reversed text."""
        return self.text_order is TextOrder.reversed

    def turned(self, text: str) -> str:
        """Turn a text as it was turned before it was tokenized, or back."""
        return reverse_text(text) if self.is_reversed else text

    def tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts, in the order of the training text."""
        return self.tokenizer.encode_batch([self.turned(text) for text in texts])
