"""Files of token losses that are made up, of real text by a small vocabulary, for tests of what reads them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hindsight.analysis.token_losses import TokenLosses, TokenLossWriter

EOS, CONTEXT_LENGTH = "<|eos|>", 64
METADATA = {
    "run": "a",
    "folder": "runs/a",
    "order": "forward",
    "seed": 0,
    "step": 20,
    "split": "val",
    "data_fingerprint": "d1",
    "tokenizer_fingerprint": "t1",
    "data": "data/here",
    "context": "windows",
    "context_length": CONTEXT_LENGTH,
    "document_mask": False,
    "git_commit": "a1",
}


def write_token_file(
    path: Path, token_bytes: Sequence[bytes], special: Mapping[int, str], columns: Mapping[str, Any], **metadata: Any
) -> TokenLosses:
    """Write a file with these columns, whole; `metadata` changes what it says of itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TokenLossWriter(path, METADATA | metadata, token_bytes, special) as writer:
        writer.add(columns)
    return TokenLosses.open(path)


def tokens_of(documents: Sequence[str]) -> tuple[list[bytes], dict[int, str], dict[str, np.ndarray]]:
    """Divide documents into words, a space before each, and other characters; the EOS behind each document is id 0.

    Returns:
        The bytes of each id, the special tokens, and the columns of a file that say where its tokens stand.
    """
    texts = [[text.encode() for text in re.findall(r" ?[^\W\d_]{1,5}|\d| ?[^\w\s]|\s", each)] for each in documents]
    ids = {text: number for number, text in enumerate(dict.fromkeys(text for each in texts for text in each), start=1)}
    parts = [[*(ids[text] for text in each), 0] for each in texts]
    flat = np.array([i for part in parts for i in part])
    place = np.arange(len(flat))
    columns = {
        "place": place,
        "document": np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
        "document_place": np.concatenate([np.arange(len(part)) for part in parts]),
        "window_place": place % CONTEXT_LENGTH,
        "id": flat,
        "bytes": np.array([0, *map(len, ids)])[flat],
    }
    return [b"", *ids], {0: EOS}, columns


def losses_of(columns: Mapping[str, np.ndarray], order: str, seed: int, gap_nats: float = 0.05) -> dict[str, Any]:
    """Make up losses: frequent tokens are easy, context helps, seeds differ, and every third id is harder backward."""
    rng = np.random.default_rng([seed, order == "backward"])
    ids, place = columns["id"], columns["window_place"]
    n = len(ids)
    length = np.minimum(CONTEXT_LENGTH, n - (columns["place"] - place))
    context = length - 1 - place if order == "backward" else place
    surprise = -np.log(np.bincount(ids)[ids] / n)
    nats = surprise * (0.45 + 0.5 / (1 + context) ** 0.5) * rng.gamma(4, 0.25, n) + rng.normal(0, 0.004)
    if order == "backward":
        nats += 2 * gap_nats * (ids % 3 == 0) + 3 * gap_nats * (columns["document_place"] < 8)
    nats = np.maximum(nats, 1e-4).astype(np.float32)
    rank = np.floor(np.expm1(np.minimum(nats, 9)) * rng.random(n)).astype(np.int32)
    return {"context": context, "nats": nats, "rank": rank, "likeliest": rank == 0}


def write_group(
    root: Path, documents: Sequence[str], seeds: Sequence[int] = (0, 1, 2), gap_nats: float = 0.05, **metadata: Any
) -> dict[str, dict[int, TokenLosses]]:
    """Write a file for each order and seed, as root/ORDER-SEED/token_losses.parquet."""
    token_bytes, special, columns = tokens_of(documents)
    return {
        order: {
            seed: write_token_file(
                root / f"{order}-{seed}" / "token_losses.parquet",
                token_bytes,
                special,
                columns | losses_of(columns, order, seed, gap_nats),
                **({"order": order, "seed": seed} | metadata),
            )
            for seed in seeds
        }
        for order in ("forward", "backward")
    }
