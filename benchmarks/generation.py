"""What a written token costs: `python -m benchmarks.generation`, from the repository's root; about 10 minutes.

One thread, on the CPU. What is compared takes turns in one process, of which the first does not count; a ratio is taken
within a round, and the median over rounds is shown, with the least and the largest. No text ends before its length.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import train_tokenizer
from benchmarks.table import HEAD, Row
from gpt import GPT
from hindsight.config.corpus import TextOrder
from hindsight.config.generation import GenerateConfig
from hindsight.config.model import Cell, GPTConfig, RNNConfig
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.generation.sampling import Sampling
from hindsight.generation.writer import Writer
from hindsight.generation.writing import Text, last, write
from hindsight.hf_weights import to_hugging_face
from hindsight.orders.known import open_order
from hindsight.orders.order import Reading
from hindsight.tokenization.tokenizer import Tokenizer
from language_model import build_model
from rnn import RNN

VOCAB_SIZE, CONTEXT, ROUNDS = 8192, 1024, 4
PROMPT = [*range(1, 17)]
BOS_ID, NO_ID = 0, -1
GPT_CONFIG = GPTConfig(name="gpt", n_layers=6, d_model=384, n_heads=6, context_length=CONTEXT)
RNN_CONFIG = RNNConfig(name="gru", n_layers=3, d_model=512, cell=Cell.gru)
LIKELIEST, DRAWN = Sampling(0.0), Sampling(0.8, top_k=50)
NEAR, FAR = slice(32, 96), slice(-80, -16)
"""Tokens whose times are compared: early ones, and those before the context is full."""
LONG, LONG_ROWS, LATE = 2500, 8, (slice(100, 300), slice(-200, -1))
"""Texts that go on past the context, and their tokens whose times are compared."""


def our_text(module: nn.Module, length: int, n_rows: int, sampling: Sampling) -> list[Text]:
    """Write with the code of this repository."""
    reading = Reading(open_order("forward", CONTEXT), BOS_ID)
    texts = last(write(module, PROMPT, reading, NO_ID, length, CONTEXT, sampling, range(n_rows)))
    assert all(len(text.tokens) == len(PROMPT) + length for text in texts)
    return texts


def their_text(theirs: Any, length: int, n_rows: int, sampling: Sampling) -> Tensor:
    """Write with Hugging Face's `generate`."""
    ids = torch.tensor([[BOS_ID, *PROMPT]]).repeat(n_rows, 1)
    is_drawn = sampling.temperature > 0
    how = {"temperature": sampling.temperature, "top_k": sampling.top_k} if is_drawn else {}
    written = theirs.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=is_drawn, **how
    )
    assert written.shape == (n_rows, ids.shape[1] + length)
    return written


@torch.no_grad()
def plain_loop(module: RNN, length: int) -> list[int]:
    """Write with a GRU by a loop with nothing around it; the likeliest tokens."""
    states, new, written = [None] * len(module.layers), torch.tensor([[BOS_ID, *PROMPT]]), []
    for _ in range(length):
        x_BTD = module.embedding(new)
        for i, layer in enumerate(module.layers):
            x_BTD, states[i] = layer(x_BTD, states[i])
        new = module.logits(x_BTD[:, -1:]).argmax(-1)
        written.append(int(new))
    return written


def seconds_of(work: Callable[[], object]) -> float:
    """Time that a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def contest(name: str, n_tokens: int, ours: Callable[[], object], theirs: Callable[[], object]) -> Row:
    """Let both take turns, and compare their times."""
    turns = [(seconds_of(ours), seconds_of(theirs)) for _ in range(ROUNDS + 1)][1:]
    ratios = [our_s / their_s for our_s, their_s in turns]
    ratio, our_ms = statistics.median(ratios), 1000 * statistics.median(our_s for our_s, _ in turns) / n_tokens
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return Row(name, f"{ratio:.2f} ({spread}); {our_ms:.2f} ms a step", "≤ 1.0", ratio <= 1.0)


def growth(name: str, texts: Callable[[], Iterator[object]], near: slice = NEAR, far: slice = FAR) -> Row:
    """Compare the time of late tokens with that of early ones."""
    ratios: list[float] = []
    for _ in range(ROUNDS + 1):
        marks = [time.perf_counter() for _ in texts()]
        steps = [after - before for before, after in pairwise(marks)]
        ratios.append(statistics.median(steps[far]) / statistics.median(steps[near]))
    ratio = statistics.median(ratios[1:])
    return Row(name, f"{ratio:.2f} ({min(ratios[1:]):.2f} to {max(ratios[1:]):.2f})")


def tokens_of(module: nn.Module) -> Iterator[list[Text]]:
    """Write until the context is full."""
    reading = Reading(open_order("forward", CONTEXT), BOS_ID)
    return write(module, PROMPT, reading, NO_ID, CONTEXT - 1 - len(PROMPT), CONTEXT, LIKELIEST, [0])


def rows_of_writer() -> list[Row]:
    """Measure what text costs beside its tokens: a writer, which decodes, over the tokens alone, by a GRU."""
    with TemporaryDirectory() as folder:
        train_tokenizer.main(TokenizerConfig(vocab_size="bytes", out=f"{folder}/tokenizer"))
        tokenizer = Tokenizer.load(f"{folder}/tokenizer")
    gru = build_model(RNN_CONFIG, tokenizer.vocab_size, seed=0).eval()
    reading, rows = Reading(open_order("forward", CONTEXT), BOS_ID), range(LONG_ROWS)
    writer = Writer(gru, tokenizer, reading, CONTEXT, TextOrder.reading)
    config = GenerateConfig(run="a", temperature=0, length=LONG)

    def plain() -> list[Text]:
        return last(write(gru, PROMPT, reading, NO_ID, LONG, CONTEXT, LIKELIEST, rows))

    if [text.n_written for text in plain()] != [text.n_tokens for text in writer.texts(PROMPT, config, rows)]:
        raise RuntimeError("A text ended before its length.")
    name = f"GRU, {LONG_ROWS} x {LONG} tokens as text"
    return [
        growth(f"{name}: one of the last 200 over an early one", lambda: writer.write(PROMPT, config, rows), *LATE),
        Row(
            f"{name}, over the tokens alone", contest("", LONG, lambda: writer.texts(PROMPT, config, rows), plain).value
        ),
    ]


@torch.no_grad()
def growth_without_memory(module: nn.Module) -> Row:
    """The same where each token takes a pass over the whole context."""
    near_BT, far_BT = torch.zeros(1, NEAR.stop, dtype=torch.int64), torch.zeros(1, CONTEXT, dtype=torch.int64)
    turns = [(seconds_of(lambda: module(far_BT)), seconds_of(lambda: module(near_BT))) for _ in range(ROUNDS + 1)][1:]
    ratio = statistics.median(far_s / near_s for far_s, near_s in turns)
    return Row("the same, computed anew for each token", f"{ratio:.1f}")


def rows_of() -> list[Row]:
    """Measure everything."""
    module = build_model(GPT_CONFIG, VOCAB_SIZE, seed=0).eval()
    assert isinstance(module, GPT)
    gru = build_model(RNN_CONFIG, VOCAB_SIZE, seed=0).eval()
    assert isinstance(gru, RNN)
    theirs = huggingface_of(module)
    if our_text(module, 64, 1, LIKELIEST)[0].tokens != their_text(theirs, 64, 1, LIKELIEST)[0, 1:].tolist():
        raise RuntimeError("Ours and Hugging Face's do not write the same text.")
    if our_text(gru, 64, 1, LIKELIEST)[0].tokens[len(PROMPT) :] != plain_loop(gru, 64):
        raise RuntimeError("Ours and the plain loop do not write the same text.")
    rows = [growth("GPT: a token near the end of the context over an early one", lambda: tokens_of(module))]
    rows += [growth_without_memory(module), growth("GRU: the same", lambda: tokens_of(gru))]
    for length, n_rows, sampling in [
        (64, 1, LIKELIEST),
        (256, 1, LIKELIEST),
        (1000, 1, LIKELIEST),
        (64, 8, LIKELIEST),
        (512, 8, LIKELIEST),
        (256, 8, DRAWN),
    ]:
        rows.append(
            contest(
                f"GPT over `generate`: {n_rows} x {length} tokens, {'top_k=50' if sampling is DRAWN else 'likeliest'}",
                length,
                partial(our_text, module, length, n_rows, sampling),
                partial(their_text, theirs, length, n_rows, sampling),
            )
        )
    loop = contest("", 256, lambda: our_text(gru, 256, 1, LIKELIEST), lambda: plain_loop(gru, 256))
    rows.append(Row("GRU over a plain loop: 1 x 256 tokens, likeliest", loop.value))
    return rows + rows_of_writer()


def huggingface_of(module: GPT) -> GPT2LMHeadModel:
    """Hugging Face's GPT-2 with the weights of ours."""
    config = module.config
    sizes: dict[str, Any] = {
        "n_embd": config.d_model,
        "n_layer": config.n_layers,
        "n_head": config.n_heads,
        "n_positions": CONTEXT,
    }
    ids: dict[str, Any] = {"bos_token_id": BOS_ID, "eos_token_id": None, "pad_token_id": BOS_ID}
    shape = GPT2Config(vocab_size=VOCAB_SIZE, tie_word_embeddings=False, attn_implementation="sdpa", **sizes, **ids)
    theirs = GPT2LMHeadModel(shape).eval()
    theirs.load_state_dict(to_hugging_face(module.state_dict(), config))
    return theirs


def main() -> None:
    """Measure, and print the table."""
    torch.set_num_threads(1)
    sys.stdout.write("\n".join([HEAD, *map(str, rows_of())]) + "\n")


if __name__ == "__main__":
    main()
