"""A model that knows one text by heart, and a session with it that starts without a run."""

import sys
import time

import torch
from torch import Tensor, nn

from hindsight.config.corpus import TextOrder
from hindsight.config.generation import GenerateConfig
from hindsight.generation.writer import Writer
from hindsight.orders.known import open_order
from hindsight.orders.order import readings_of
from hindsight.text.graphemes import reverse_text
from hindsight.tokenization.tokenizer import Tokenizer

TEXT = "0123456789€!#$%&*+-/<=>?@^_~"
"""Each of its bytes is a token, and stands there once; a tokenizer of words knows none of these."""
CONTEXT_LENGTH = 64


class ByHeart(nn.Module):
    """Predicts the token that follows the last one in a text, and the end of the document behind all others.

    Args:
        tokens: those of the text, all different, in the order in which they are read.
        tokenizer: theirs.
        pause_s: seconds that a prediction takes.
    """

    def __init__(self, tokens: list[int], tokenizer: Tokenizer, pause_s: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.pause_s = pause_s
        self.follows = torch.full((tokenizer.vocab_size,), tokenizer.eos_id)
        self.follows[[tokenizer.bos_id, *tokens[:-1]]] = torch.tensor(tokens)

    def forward(self, inputs_BT: Tensor) -> Tensor:
        """Return logits_BTV."""
        time.sleep(self.pause_s)
        return 100.0 * nn.functional.one_hot(self.follows[inputs_BT], len(self.follows))


def writer_of(
    tokenizer: Tokenizer, order: str, is_reversed: bool = False, text: str = TEXT, pause_s: float = 0.0
) -> Writer:
    """A writer whose model has learned a text in one of the directions, or its reverse."""
    learned = reverse_text(text) if is_reversed else text
    tokens = tokenizer.encode_batch([learned])[0]
    assert len({*tokens}) == len(tokens)
    module = ByHeart(tokens[::-1] if order == "backward" else tokens, tokenizer, pause_s)
    (reading,) = readings_of(open_order(order, CONTEXT_LENGTH, tokenizer), tokenizer.bos_id).values()
    text_order = TextOrder.reversed if is_reversed else TextOrder.reading
    return Writer(module, tokenizer, reading, CONTEXT_LENGTH, text_order)


def main() -> None:
    """Hold a session: TOKENIZER ORDER PAUSE_S."""
    from hindsight.generation import terminal

    folder, order, pause_s = sys.argv[1:]
    writer = writer_of(Tokenizer.load(folder), order, pause_s=float(pause_s))
    terminal.write({"": writer}, GenerateConfig(run="a"), "by heart")


if __name__ == "__main__":
    main()
