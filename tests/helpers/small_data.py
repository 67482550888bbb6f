"""Small texts, and the configuration of their conversion; what they import takes no second."""

import random
from pathlib import Path
from typing import Any

import numpy as np

from hindsight.config.conversion import ConvertConfig
from hindsight.conversion.text_source import draws_of
from hindsight.shards.mds import HEAD_BYTES, OFFSET_BYTES
from hindsight.text.digest import content_of, hash_document

SENTENCE = "in the beginning was word and light shone over dark water while seven rivers ran to the sea é 水"
WORDS = SENTENCE.split()


def make_text(n_documents: int, seed: int) -> str:
    """Documents of a few lines in which each word hints at the next, a blank line between them."""
    rng = random.Random(seed)
    documents = []
    for _ in range(n_documents):
        at, lines = rng.randrange(len(WORDS)), []
        for _ in range(rng.randint(2, 6)):
            words = []
            for _ in range(rng.randint(4, 12)):
                words.append(WORDS[at])
                at = (at + 1 if rng.random() < 0.7 else rng.randrange(len(WORDS))) % len(WORDS)
            lines.append(" ".join(words).capitalize() + ".\n")
        documents.append("".join(lines))
    return "\n".join(documents)


def shard_bytes_of(n_blocks: int, block_length: int = 64) -> int:
    """Size of a shard of so many blocks, its head counted with what it takes at most."""
    return HEAD_BYTES + n_blocks * (2 * block_length + OFFSET_BYTES)


def convert_config(corpus: Path | str, tokenizer_dir: Path, out: Path, **changes: Any) -> ConvertConfig:
    """Blocks of 64 tokens, five of them to a shard, and about a fifth of the documents for validation."""
    settings: dict[str, Any] = {"block_length": 64, "val_share": 0.2, "shard_bytes": shard_bytes_of(5), "workers": 1}
    return ConvertConfig(corpus=str(corpus), tokenizer=str(tokenizer_dir), out=str(out), **(settings | changes))


def draws(texts: list[str], seed: int) -> np.ndarray:
    """The draw of each document, below the share of validation for those that are held out."""
    hashes = b"".join(hash_document(content_of(text.encode())) for text in texts)
    return draws_of(np.frombuffer(hashes, "<u8")[::2], seed)
