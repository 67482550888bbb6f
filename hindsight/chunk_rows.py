"""How many rows of logits are there at once with loss=chunked; also for plans, which import no torch."""

MOST_LOGITS = {"cpu": 1 << 24, "cuda": 1 << 28}
"""Logits of a chunk. On a CPU, chunks beyond its cache are slower: 2048 rows at V=4096 by a quarter."""
MOST_ROWS = {"cpu": 512, "cuda": 1 << 20}
FEWEST_ROWS = 64
ROW_TILE = {"cpu": 1, "cuda": 128}
"""Rows are a multiple of it: matrix products of a GPU take tiles of so many."""


def rows_of(n_rows: int, vocab_size: int, device: str) -> int:
    """Choose the rows of a chunk so that its memory is bounded, and chunks are about equal.

    Args:
        n_rows: predictions of a microbatch.
        vocab_size: logits of each.
        device: type of the device, as torch names it.
    """
    kind = "cpu" if device == "cpu" else "cuda"
    most = min(MOST_ROWS[kind], max(FEWEST_ROWS, MOST_LOGITS[kind] // vocab_size))
    rows = -(-n_rows // max(1, -(-n_rows // most)))
    return max(1, -(-rows // ROW_TILE[kind]) * ROW_TILE[kind])
