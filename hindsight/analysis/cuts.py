"""Where the gap between two orders lives: the losses of every token, summed by what the token is and where it stands.

Every cut divides all tokens into bins, whose contributions sum to the gap of the whole. Sums are over tokens, and means
over seeds; the spread over seeds stands beside each gap, because the unit of inference is the trained run.

Shapes: O = 2 orders (the reference, and the one that is compared with it), S seeds, I tokens, K bins.
"""

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hindsight import runs
from hindsight.analysis.cut_sums import Array, Sums, power_of_two, power_of_two_labels
from hindsight.analysis.passages import Passages
from hindsight.analysis.side_by_side import CHUNK_ROWS, Chunk, check_same, side_by_side
from hindsight.analysis.token_classes import CLASSES, TokenClasses, text_of, texts_of
from hindsight.analysis.token_losses import TokenLosses

NEAR = (1, 4, 16, 64)
"""How many tokens next to a boundary are left out."""
BOUNDARIES = {
    "near_document_start": "the first {tokens} of each document",
    "near_document_edge": "the first and the last {tokens} of each document, and its EOS",
    "little_context": "what has fewer than {k} of context in one of the orders",
}
"""Which tokens are left out. The start of a document is hard for a model that reads forward, its end for one that reads
backward: only the second and the third treat both alike."""
WINDOW_BINS = 16
"""Bins of the position in a window, of equal length."""
N_DECILES = 10
N_TOKENS = 20
"""Tokens of the vocabulary that are listed each way."""
MIN_COUNT = 20
"""How often a token occurs at least that is listed by its mean."""
MOST_DOCUMENTS = 1000
"""Documents with a bin of their own, those with the largest contributions; the others share one."""
MEASURED = ("data", "split", "step", "context", "context_length", "text_order")
"""What is said of the files, by the keys of their metadata."""
BEGINNING = 12
"""Tokens of a document's beginning by which it is known."""


def cuts_of_groups(report: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """Cut the gap of every group of comparison.json whose runs all have a file of token losses.

    Returns:
        What `cuts_of` says of a group, by its number in the list.

    Raises:
        InputError: a file is damaged, or of other data.
    """
    cuts: dict[int, dict[str, Any]] = {}
    for number, group in enumerate(report["groups"]):
        paths = token_files_of(group)
        if paths is not None:
            opened = {o: {seed: TokenLosses.open(path) for seed, path in of.items()} for o, of in paths.items()}
            cuts[number] = cuts_of(opened)
    return cuts


def token_files_of(group: Mapping[str, Any]) -> dict[str, dict[int, Path]] | None:
    """Find the files of token losses of a group of comparison.json, by order and by the seeds that both orders have.

    Returns:
        None if a run has none, if one is not of the step that is compared, or if the orders share no seed: where
        `read_texts` did not take them, and so did not compare each with the run beside it.
    """
    if group["text"] is None or not group["seeds"]:
        return None
    name = Path(runs.TOKEN_LOSSES)
    found: dict[str, dict[int, Path]] = {}
    for order in (group["reference"], group["order"]):
        own = f"{name.stem}-{order}{name.suffix}" if group["is_both"] else name
        found[order] = {seed: Path(group["runs"][order][str(seed)]) / own for seed in group["seeds"]}
    return found if all(path.exists() for of in found.values() for path in of.values()) else None


def cuts_of(files: Mapping[str, Mapping[int, TokenLosses]]) -> dict[str, Any]:
    """Cut the gap between two orders in all ways.

    Args:
        files: token losses by order, the reference first, and by seed; a seed that one order lacks is left out.

    Returns:
        The whole, its cuts, what is left where tokens are left out, tokens and passages.

    Raises:
        InputError: a file is damaged, or of other data than the first.
    """
    (reference, of_reference), (order, of_order) = files.items()
    seeds = [seed for seed in of_reference if seed in of_order]
    given = [of[seed] for of in (of_reference, of_order) for seed in seeds]
    check_same(given)
    gathered = _Gathered(given[0], len(seeds))
    for chunk, following in pairwise(chain(side_by_side(given), [None])):
        assert chunk is not None
        gathered.add(chunk, int(following.ids[0]) if following is not None else None)
    metadata = given[0].metadata
    return {
        "reference": reference,
        "order": order,
        "seeds": seeds,
        "n_tokens": gathered.n_tokens,
        "measured": {key: metadata[key] for key in MEASURED},
        "whole": gathered.whole(),
        "cuts": gathered.cuts(),
        "equal_context": gathered.equal_context(),
        "left_out": gathered.left_out(),
        "tokens": gathered.tokens(),
        "passages": gathered.passages.result(),
    }


class _Gathered:
    """Sums of all bins, from chunks of rows; what it holds grows with windows, documents and vocabulary alone."""

    def __init__(self, file: TokenLosses, n_seeds: int) -> None:
        self.token_bytes, self.special = file.token_bytes, file.special
        self.is_eos_of_id = np.array([is_eos(self.special.get(i, "")) for i in range(len(self.token_bytes))])
        self.table = self.token_bytes, self.special, file.is_reversed
        self.classes = TokenClasses(*self.table)
        self.passages = Passages(self.token_bytes, self.special, file.rows, file.is_reversed)
        self.text_length_of_document, self.beginnings = _documents(file, self.is_eos_of_id)
        names = ("context", "window_place", "document_place", "document", "id", "class", *BOUNDARIES)
        self.sums = {name: Sums(n_seeds) for name in names}
        self.n_tokens = 0
        self.last_id: int | None = None

    def add(self, chunk: Chunk, following_id: int | None) -> None:
        """Add the tokens of a chunk to every bin that they are in; `following_id` is the first of the next chunk."""
        until_end_I = self.text_length_of_document[chunk.documents] - 1 - chunk.document_places
        bins: dict[str, Array] = {
            "window_place": chunk.window_places,
            "document_place": power_of_two(chunk.document_places),
            "document": chunk.documents,
            "id": chunk.ids,
            "class": self.classes.of(chunk.ids, self.last_id, following_id),
            "near_document_start": np.digitize(chunk.document_places, NEAR),
            # The EOS stands behind the text, at -1.
            "near_document_edge": np.digitize(np.minimum(chunk.document_places, until_end_I), NEAR),
            "little_context": np.digitize(chunk.contexts.min(0), NEAR),
        }
        for o, context_I in enumerate(chunk.contexts):
            for s, nats_I in enumerate(chunk.nats[o]):
                for name, bins_I in (bins | {"context": context_I}).items():
                    self.sums[name].add(o, s, bins_I, nats_I)
        self.passages.add(chunk)
        self.n_tokens += len(chunk.ids)
        self.last_id = int(chunk.ids[-1])

    def whole(self) -> dict[str, Any]:
        """All tokens as one bin."""
        return self._rows(self.sums["class"].grouped(np.zeros_like), ["all tokens"])[0]

    def cuts(self) -> dict[str, list[dict[str, Any]]]:
        """Give the bins of every cut, by the name of the cut."""
        context = self.sums["context"].grouped(power_of_two)
        position = self.sums["window_place"].trimmed()
        n_places = position.n_bins
        length = -(-n_places // WINDOW_BINS)
        starts = range(0, n_places, length)
        window_labels = [f"{a:,} to {min(a + length, n_places) - 1:,}" if length > 1 else f"{a:,}" for a in starts]
        document_place = self.sums["document_place"].trimmed()
        deciles = self.sums["id"].grouped(self._decile_of_id)
        decile_labels = [f"{k + 1}" for k in range(N_DECILES)]
        decile_labels[0], decile_labels[-1] = "1 (most frequent)", f"{N_DECILES} (rarest)"
        return {
            "context": self._rows(context, power_of_two_labels(context.n_bins)),
            "window_place": self._rows(position.grouped(lambda k: k // length), window_labels),
            "document_place": self._rows(document_place, power_of_two_labels(document_place.n_bins)),
            "frequency": self._rows(deciles, decile_labels[: deciles.n_bins]),
            "class": self._rows(self.sums["class"].trimmed(), CLASSES),
            "document": self._document_rows(),
        }

    def equal_context(self) -> dict[str, Any]:
        """Average the gap at equal context, by how often the orders had each length of context."""
        sums = self.sums["context"]
        n_OK = sums.n_OSK[:, 0]
        in_both_K = n_OK.all(0)
        weight_K = n_OK.mean(0)[in_both_K]
        if not len(weight_K):
            return {"gap_nats": None, "gap_std_nats": None, "share_of_tokens": 0.0}
        means_OSK = sums.nats_OSK[:, :, in_both_K] / n_OK[:, None, in_both_K]
        gap_S = (means_OSK[1] - means_OSK[0]) @ weight_K / weight_K.sum()
        return {
            "gap_nats": float(gap_S.mean()),
            "gap_std_nats": float(gap_S.std(ddof=1)) if len(gap_S) > 1 else None,
            "share_of_tokens": float(weight_K.sum() / self.n_tokens),
        }

    def left_out(self) -> list[dict[str, Any]]:
        """Give the gap without EOS or the tokens beside boundaries, and that of these."""
        splits = [{"kind": "eos", "k": None} | self._split("every EOS", self.sums["id"], self.is_eos_of_id)]
        for name, label in BOUNDARIES.items():
            bins = np.arange(self.sums[name].n_bins)
            for number, k in enumerate(NEAR):
                named = label.format(tokens="token" if k == 1 else f"{k} tokens", k=f"{k} token{'s' * (k > 1)}")
                splits.append({"kind": name, "k": k} | self._split(named, self.sums[name], bins <= number))
        return [split for split in splits if "rest" in split and "left_out" in split]

    def tokens(self) -> dict[str, Any]:
        """List the tokens of the vocabulary with the largest contributions, and the largest means, each way."""
        sums = self.sums["id"].trimmed()
        n_K, gap_K = sums.counts, sums.gap_sums
        by_contribution = np.argsort(-gap_K, kind="stable")
        frequent = np.flatnonzero(n_K >= MIN_COUNT)
        by_mean = frequent[np.argsort(-(gap_K / np.maximum(n_K, 1))[frequent], kind="stable")]
        lists = {
            "contribution_harder": by_contribution[gap_K[by_contribution] > 0][:N_TOKENS],
            "contribution_easier": by_contribution[gap_K[by_contribution] < 0][::-1][:N_TOKENS],
            "mean_harder": by_mean[gap_K[by_mean] > 0][:N_TOKENS],
            "mean_easier": by_mean[gap_K[by_mean] < 0][::-1][:N_TOKENS],
        }
        texts = {name: [*texts_of(ids.tolist(), *self.table)] for name, ids in lists.items()}
        return {"min_count": MIN_COUNT} | {
            name: self._rows(sums.select(ids), texts[name]) for name, ids in lists.items()
        }

    def _rows(self, sums: Sums, labels: Sequence[str]) -> list[dict[str, Any]]:
        return sums.rows(labels[: sums.n_bins], self.n_tokens)

    def _split(self, label: str, sums: Sums, is_out_K: Array) -> dict[str, Any]:
        """Divide all tokens in two."""
        is_out_K = np.pad(is_out_K, (0, max(0, sums.n_bins - len(is_out_K))))
        rows = self._rows(sums.grouped(lambda k: is_out_K[k]), ["rest", "left_out"])
        return {"label": label} | {row["label"]: row for row in rows}

    def _decile_of_id(self, ids: Array) -> Array:
        """Tenths of all tokens, from the most frequent ids to the rarest; an id is in one as a whole."""
        n_K = self.sums["id"].counts[ids]
        order = np.argsort(-n_K, kind="stable")
        middle = np.cumsum(n_K[order]) - n_K[order] / 2
        deciles = np.empty(len(ids), np.int64)
        deciles[order] = np.minimum(N_DECILES * middle / self.n_tokens, N_DECILES - 1)
        return deciles

    def _document_rows(self) -> list[dict[str, Any]]:
        sums = self.sums["document"].trimmed()
        largest = np.sort(np.argsort(-np.abs(sums.gap_sums), kind="stable")[:MOST_DOCUMENTS])
        group_of_document = np.full(sums.n_bins, len(largest))
        group_of_document[largest] = np.arange(len(largest))
        beginnings = [text_of(self.beginnings[k][self.beginnings[k] >= 0].tolist(), *self.table) for k in largest]
        labels = [f"{k}: {text.strip()}" for k, text in zip(largest.tolist(), beginnings, strict=True)]
        n_others = sums.n_bins - len(largest)
        return self._rows(sums.grouped(lambda k: group_of_document[k]), [*labels, f"{n_others:,} others"])


def is_eos(name: str) -> bool:
    """Whether a special token ends a document, by its name in our tokenizers and in those of others."""
    return "eos" in name.lower() or name in ("<|endoftext|>", "</s>")


def _documents(file: TokenLosses, is_eos_of_id: Array) -> tuple[Array, Array]:
    """Read how many tokens each document has without its EOS, and the ids of its beginning (-1 where it has fewer).

    In reversed text that is what it ends with.
    """
    lengths = np.zeros(0, np.int64)
    beginnings = np.zeros((0, BEGINNING), np.int32)
    for batch in file.batches(["id", "document", "document_place"], CHUNK_ROWS):
        documents, places = batch["document"], batch["document_place"]
        n_more = int(documents.max()) + 1 - len(lengths)
        if n_more > 0:
            lengths = np.pad(lengths, (0, n_more))
            beginnings = np.pad(beginnings, ((0, n_more), (0, 0)), constant_values=-1)
        is_text = ~is_eos_of_id[batch["id"]]
        lengths += np.bincount(documents[is_text], minlength=len(lengths))
        kept = is_text if file.is_reversed else places < BEGINNING
        beginnings[documents[kept], places[kept] % BEGINNING] = batch["id"][kept]  # of the same place, the last stays
    if file.is_reversed:
        turned = (lengths[:, None] + np.arange(BEGINNING)) % BEGINNING
        beginnings = np.take_along_axis(beginnings, turned, axis=1)
    return lengths, beginnings
