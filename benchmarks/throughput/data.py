"""Shards of random letters, for the Trainer."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import convert_to_mds
import train_tokenizer
from benchmarks.throughput.setup import Setup
from hindsight.config.conversion import ConvertConfig
from hindsight.config.tokenizer import TokenizerConfig

WINDOWS_PER_BLOCK = 8
WINDOWS_PER_DOCUMENT = 4
VAL_SHARE = 0.1
MOST_TOKENS = 1 << 24
"""Tokens of the shards at most; a longer benchmark begins another epoch."""
LETTERS = list("abcdefghijklmnopqrstuvwxyz     .")


def make_shards(setup: Setup, folder: Path) -> Path:
    """Convert random letters, enough for all turns, by a tokenizer of bytes; return the folder of the shards."""
    rng = np.random.default_rng(setup.seed)
    length = WINDOWS_PER_DOCUMENT * setup.context_length
    needed = min((setup.rounds + 2) * (setup.steps + 1) * setup.step_tokens, MOST_TOKENS)
    n_documents = int(needed / (1 - VAL_SHARE) / length * 1.2) + 20
    documents = ("".join(rng.choice(LETTERS, length)) for _ in range(n_documents))
    (folder / "text.txt").write_text("\n\n".join(documents))
    with only_errors():
        train_tokenizer.main(TokenizerConfig(vocab_size="bytes", out=str(folder / "tokenizer")))
        convert_to_mds.main(
            ConvertConfig(
                corpus=str(folder / "text.txt"),
                tokenizer=str(folder / "tokenizer"),
                out=str(folder / "shards"),
                block_length=WINDOWS_PER_BLOCK * setup.context_length,
                val_share=VAL_SHARE,
                workers=1,
            )
        )
    return folder / "shards"


@contextmanager
def only_errors() -> Iterator[None]:
    """Keep from the screen what the commands say of data that nobody asked for."""
    log = logging.getLogger("hindsight")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
