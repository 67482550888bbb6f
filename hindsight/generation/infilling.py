"""Fill a gap between a beginning and an ending, with a forward and a backward model.

The forward model writes texts from the beginning on, the backward one texts before the ending. Any first part of one
and any last part of another can be joined, and both models say where: at each point the forward model tells what it
costs to go on with the other's next token, and the backward model, which comes from behind, what the other's last token
costs. These are predictions that each makes along its own text, so that all joins of all pairs cost one pass over each
text. The best join of each pair is then scored as a whole, beginning, middle and ending, by both models, and these are
ranked. Two models that meet in a gap are those of arXiv:2303.07295; that one direction judges what the other wrote is
in arXiv:2403.13799 and arXiv:2507.01335.

A longer middle costs more nats. So that length by itself neither helps nor harms, a middle is credited, for each of its
tokens, with what a token of all middles costs on average, those aside at which a model meets what the other wrote.

Shapes: p tokens of a text written forward, q tokens of one written backward, C token ids of which the cost is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hindsight.generation.sampling import Sampling
from hindsight.generation.scores import Reader, log_probs, token_nats
from hindsight.generation.writing import Text, last, write

Tokens = list[int]


@dataclass(frozen=True)
class Sides:
    """What is around a gap, as far as the models see it.

    Args:
        before: tokens before the gap.
        after: tokens behind it.
        length: tokens that fit between them at most.
    """

    before: Tokens
    after: Tokens
    length: int

    @classmethod
    def of(cls, beginning: Tokens, ending: Tokens, length: int, context_length: int) -> "Sides":
        """Cut what is around a gap so that it fits into the context together with a middle, of half of that at most.

        Where both sides are too long, each keeps the half that is nearer to the gap; what one does not need is the
        other's.
        """
        length = min(length, context_length // 2)
        room = context_length - length
        n_after = min(len(ending), max(room // 2, room - len(beginning)))
        n_before = min(len(beginning), room - n_after)
        return cls(beginning[len(beginning) - n_before :], ending[:n_after], length)


@dataclass(frozen=True)
class Join:
    """A middle made of the first part of a text written forward and the last part of one written backward.

    Args:
        middle: its tokens.
        n_forward: how many of them the forward model wrote.
    """

    middle: tuple[int, ...]
    n_forward: int


@dataclass(frozen=True)
class Filled:
    """A middle that was judged.

    Args:
        join: the middle.
        forward_nats: what the middle and the ending cost after the beginning.
        backward_nats: what the beginning and the middle cost before the ending.
        credit: nats that a middle of its length is credited.
    """

    join: Join
    forward_nats: float
    backward_nats: float
    credit: float

    @property
    def score(self) -> float:
        """Mean of both models in nats, less the credit: the smaller, the better."""
        return (self.forward_nats + self.backward_nats) / 2 - self.credit


@dataclass(frozen=True)
class Pair:
    """A forward and a backward model.

    Args:
        forward: the one.
        backward: the other.
        eos_id: id between documents.
    """

    forward: Reader
    backward: Reader
    eos_id: int

    @property
    def context_length(self) -> int:
        """Tokens that both see."""
        return min(self.forward.context_length, self.backward.context_length)


def fill(pair: Pair, sides: Sides, sampling: Sampling, seeds: Sequence[int], batch_size: int) -> list[Filled]:
    """Fill a gap.

    Args:
        pair: the models.
        sides: what is around the gap.
        sampling: how tokens are drawn.
        seeds: of the draws, one for each text that each model writes.
        batch_size: texts that are written or scored at once.

    Returns:
        The best join of each pair of texts, each middle once, best first.
    """
    forward = written(pair.forward, sides.before, sides.length, pair, sampling, seeds, batch_size)
    backward = written(pair.backward, sides.after, sides.length, pair, sampling, seeds, batch_size)
    joins = best_joins(pair, sides, forward, backward, range(1, sides.length + 1), batch_size)
    return judged(pair, sides, joins, batch_size)


def written(
    reader: Reader, side: Tokens, length: int, pair: Pair, sampling: Sampling, seeds: Sequence[int], batch_size: int
) -> list[Tokens]:
    """Let a model write into the gap, from its side; tokens in reading order, without the side."""
    texts: list[Text] = []
    for first in range(0, len(seeds), batch_size):
        some = seeds[first : first + batch_size]
        texts += last(
            write(reader.module, side, reader.reading, pair.eos_id, length, pair.context_length, sampling, some)
        )
    return [[*text.known[: text.prompt[0]], *text.known[text.prompt[1] :]] for text in texts]


def best_joins(
    pair: Pair, sides: Sides, forward: list[Tokens], backward: list[Tokens], lengths: range, batch_size: int
) -> list[Join]:
    """Find the best join of each text written forward with each written backward; each middle once.

    Args:
        pair: the models.
        sides: what is around the gap.
        forward: texts written forward, in reading order.
        backward: texts written backward, in reading order.
        lengths: how long a middle may be, in tokens.
        batch_size: texts that are scored at once.
    """
    ids = np.unique([token for text in [sides.before[-1:], sides.after[:1], *forward, *backward] for token in text])
    turned = [text[::-1] for text in backward]  # from here on, all is in the order in which its model reads
    starts = _steps(pair.forward, sides.before, forward, ids, batch_size)
    ends = _steps(pair.backward, sides.after[::-1], turned, ids, batch_size)
    n_own = sum(len(each.text) for each in starts + ends)
    rate = sum(float(each.own[-1]) for each in starts + ends) / max(n_own, 1)
    joins: dict[tuple[int, ...], Join] = {}
    for start in starts:
        for end in ends:
            costs = start.own[:, None] + end.own[None]
            costs = costs + start.of([sides.after[0], *end.text]) + end.of([sides.before[-1], *start.text]).T
            n_tokens = np.arange(len(start.own))[:, None] + np.arange(len(end.own))[None]
            costs = np.where(np.isin(n_tokens, lengths), costs - rate * n_tokens, np.inf)
            n_start, n_end = np.unravel_index(costs.argmin(), costs.shape)
            if np.isfinite(costs[n_start, n_end]):
                middle = (*start.text[:n_start], *end.text[:n_end][::-1])
                joins.setdefault(middle, Join(middle, int(n_start)))
    return [*joins.values()]


@dataclass(frozen=True)
class _Steps:
    """A text of n tokens in the order of a model, and what the model predicted after each of them.

    Args:
        text: the tokens.
        ids: (C,) some token ids, sorted.
        nats: (n + 1, C) what each of them costs behind the first 0, 1, ... n tokens.
    """

    text: Tokens
    ids: NDArray[np.int64]
    nats: NDArray[np.float32]

    @property
    def own(self) -> NDArray[np.float64]:
        """(n + 1,) nats of the first 0, 1, ... n tokens."""
        nats_n = self.nats[np.arange(len(self.text)), np.searchsorted(self.ids, self.text)]
        return np.concatenate([[0.0], nats_n.cumsum(dtype=np.float64)])

    def of(self, tokens: Tokens) -> NDArray[np.float64]:
        """(n + 1, len(tokens)) nats of each token, some of `ids`, behind the first 0, 1, ... n tokens."""
        return self.nats[:, np.searchsorted(self.ids, tokens)].astype(np.float64)


def _steps(reader: Reader, side: Tokens, texts: list[Tokens], ids: NDArray[np.int64], batch_size: int) -> list[_Steps]:
    """Let a model predict behind each token of texts that follow a side; all in the order of the model."""
    steps: list[_Steps] = []
    columns = torch.from_numpy(ids).to(reader.device)
    for first in range(0, len(texts), batch_size):
        some = texts[first : first + batch_size]
        inputs_BT = torch.full((len(some), 1 + len(side) + max(map(len, some))), reader.reading.start_id)
        for row_T, text in zip(inputs_BT, some, strict=True):
            row_T[1 : 1 + len(side) + len(text)] = torch.tensor([*side, *text])
        nats_BTC = -log_probs(reader, inputs_BT)[:, len(side) :, columns].cpu()
        steps += [
            _Steps(text, ids, nats_TC[: len(text) + 1].numpy()) for text, nats_TC in zip(some, nats_BTC, strict=True)
        ]
    return steps


def judged(pair: Pair, sides: Sides, joins: Sequence[Join], batch_size: int) -> list[Filled]:
    """Score middles with what is around them, by both models; best first."""
    texts = [[*sides.before, *join.middle, *sides.after] for join in joins]
    forward = token_nats(pair.forward, texts, batch_size)
    backward = token_nats(pair.backward, texts, batch_size)
    first, rate = len(sides.before), _rate(len(sides.before), joins, forward, backward)
    found = [
        Filled(
            join,
            float(ahead[first:].sum()),
            float(back[: first + len(join.middle)].sum()),
            rate * len(join.middle),
        )
        for join, ahead, back in zip(joins, forward, backward, strict=True)
    ]
    return sorted(found, key=lambda each: each.score)


def _rate(
    first: int, joins: Sequence[Join], forward: list[NDArray[np.float64]], backward: list[NDArray[np.float64]]
) -> float:
    """Mean nats of the middles' tokens, which begin at `first`, but for those at which a model meets the other's."""
    inside: list[NDArray[np.float64]] = [np.zeros(0)]
    for join, ahead, back in zip(joins, forward, backward, strict=True):
        middle = slice(first, first + len(join.middle))
        met = [join.n_forward] if 0 < join.n_forward < len(join.middle) else []
        inside += [np.delete(ahead[middle], met), np.delete(back[middle], [place - 1 for place in met])]
    nats = np.concatenate(inside)
    return float(nats.sum()) / max(len(nats), 1)
