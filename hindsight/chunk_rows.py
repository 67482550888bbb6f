"""How many rows of logits are there at once with loss=chunked; also for plans, which import no torch."""

MOST_LOGITS = {"cpu": 1 << 24, "cuda": 1 << 28}
"""Logits of a chunk. On a CPU, chunks beyond its cache are slower: 2048 rows at V=4096 by a quarter."""
MOST_LOGITS_IN_HALF = {"cpu": 7 << 20, "cuda": 1 << 28}
"""The same in half precision, of which a copy in float32 is made each time: from 32 MiB on, malloc takes new pages of
the system for it, and a chunk takes up to half as long again."""
MOST_ROWS = {"cpu": 512, "cuda": 1 << 20}
MOST_ROWS_IN_HALF = {"cpu": 512, "cuda": 4096}
"""In float16 a sum of gradients over more rows could overflow, whatever the loss is scaled by."""
FEWEST_ROWS = 64
ROW_TILE = {"cpu": 1, "cuda": 128}
"""Rows are a multiple of it: matrix products of a GPU take tiles of so many."""


def rows_of(n_rows: int, vocab_size: int, device: str, is_half: bool) -> int:
    """Choose the rows of a chunk so that its memory is bounded, and chunks are about equal.

    Args:
        n_rows: predictions of a microbatch.
        vocab_size: logits of each.
        device: type of the device, as torch names it.
        is_half: whether logits are in bfloat16 or float16.
    """
    kind = "cpu" if device == "cpu" else "cuda"
    most_rows, most_logits = (MOST_ROWS_IN_HALF, MOST_LOGITS_IN_HALF) if is_half else (MOST_ROWS, MOST_LOGITS)
    most = min(most_rows[kind], max(FEWEST_ROWS, most_logits[kind] // vocab_size))
    rows = -(-n_rows // max(1, -(-n_rows // most)))
    return max(1, -(-rows // ROW_TILE[kind]) * ROW_TILE[kind])
