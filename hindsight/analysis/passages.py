"""Passages of the text with the losses of every token: those with the largest gaps, and one to read."""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hindsight.analysis.side_by_side import Chunk
from hindsight.analysis.token_classes import text_of, texts_of

PASSAGE_TOKENS = 64
"""Length of the passages among which the largest gaps are looked for."""
N_PASSAGES = 5
"""Passages that are kept each way."""
AROUND_TOKENS = 24
"""Tokens before and after a passage that are shown as its context, as far as its chunk of rows goes."""
SHOWN_TOKENS = 400
"""Length of the passage to read."""


class Passages:
    """Collects passages from chunks of rows.

    Args:
        token_bytes: the bytes that each id stands for.
        special: names of the special tokens by their ids.
        n_tokens: rows of the whole file.
        is_reversed: whether the tokens stand for reversed text: passages are shown in reading order, their last row
            first.
    """

    def __init__(
        self, token_bytes: Sequence[bytes], special: Mapping[int, str], n_tokens: int, is_reversed: bool = False
    ) -> None:
        self.token_bytes, self.special, self.is_reversed = token_bytes, special, is_reversed
        self.shown_from = n_tokens // 3
        self.shown: list[dict[str, Any]] = []
        self.shown_start: int | None = None
        self.largest: list[list[tuple[float, int, dict[str, Any]]]] = [[], []]

    def add(self, chunk: Chunk) -> None:
        """Look at the passages of the next chunk."""
        self._add_shown(chunk)
        gap_I = (chunk.nats[1] - chunk.nats[0]).mean(0)
        starts = np.arange(0, len(gap_I) - PASSAGE_TOKENS + 1, PASSAGE_TOKENS)
        if not len(starts):
            return
        gaps = gap_I[: len(starts) * PASSAGE_TOKENS].reshape(-1, PASSAGE_TOKENS).sum(1)
        for heap, sign in zip(self.largest, (1, -1), strict=True):
            for k in np.argsort(-sign * gaps, kind="stable")[:N_PASSAGES]:
                key = (sign * float(gaps[k]), -(chunk.start + int(starts[k])))
                if len(heap) < N_PASSAGES:
                    heapq.heappush(heap, (*key, self._passage(chunk, int(starts[k]), float(gaps[k]))))
                elif key > heap[0][:2]:
                    heapq.heapreplace(heap, (*key, self._passage(chunk, int(starts[k]), float(gaps[k]))))

    def result(self) -> dict[str, Any]:
        """Give the passages with the largest gaps each way, the largest first, and the one to read."""
        harder, easier = ([passage for _, _, passage in sorted(heap, reverse=True)] for heap in self.largest)
        return {
            "tokens_each": PASSAGE_TOKENS,
            "order_harder": [passage for passage in harder if passage["gap_sum_nats"] > 0],
            "order_easier": [passage for passage in easier if passage["gap_sum_nats"] < 0],
            "shown": {"row": self.shown_start, "tokens": self._ordered(self.shown)},
        }

    def _add_shown(self, chunk: Chunk) -> None:
        """Take the first tokens from a window's start on, a third into the file."""
        start = 0
        if self.shown_start is None:
            places = chunk.start + np.arange(len(chunk.ids))
            starts = np.flatnonzero((places >= self.shown_from) & (chunk.window_places == 0))
            if not len(starts):
                return
            start = int(starts[0])
            self.shown_start = chunk.start + start
        self.shown += self._tokens(chunk, start, min(len(chunk.ids), start + SHOWN_TOKENS - len(self.shown)))

    def _passage(self, chunk: Chunk, start: int, gap: float) -> dict[str, Any]:
        stop = start + PASSAGE_TOKENS
        around = [chunk.ids[max(0, start - AROUND_TOKENS) : start], chunk.ids[stop : stop + AROUND_TOKENS]]
        before, after = self._ordered([*map(self._text, around)])
        return {
            "row": chunk.start + start,
            "document": int(chunk.documents[start]),
            "document_place": int(chunk.document_places[start]),
            "gap_sum_nats": gap,
            "gap_nats": gap / PASSAGE_TOKENS,
            "before": before,
            "text": self._text(chunk.ids[start:stop]),
            "tokens": self._ordered(self._tokens(chunk, start, stop)),
            "after": after,
        }

    def _ordered(self, rows: list[Any]) -> list[Any]:
        """Bring what is in the order of the file into reading order."""
        return rows[::-1] if self.is_reversed else rows

    def _text(self, ids: NDArray[Any]) -> str:
        return text_of(ids.tolist(), self.token_bytes, self.special, self.is_reversed)

    def _tokens(self, chunk: Chunk, start: int, stop: int) -> list[dict[str, Any]]:
        nats_OI = chunk.nats[:, :, start:stop].mean(1)
        rank_OSI, context_OI = chunk.ranks[:, :, start:stop], chunk.contexts[:, start:stop]
        texts = texts_of(chunk.ids[start:stop].tolist(), self.token_bytes, self.special, self.is_reversed)
        return [
            {
                "text": text,
                "nats": nats_OI[:, i].tolist(),
                "ranks": rank_OSI[:, :, i].tolist(),
                "context": context_OI[:, i].tolist(),
            }
            for i, text in enumerate(texts)
        ]
