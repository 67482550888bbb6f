"""By how much the code length of a document varies in a synthetic language, and so the floor of a sample of it.

The code length of a document is -ln p of its text under the true law; its mean is the entropy. The mean over n
documents that are held out differs from it by about its standard deviation over the root of n.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hindsight.config.made_corpus import KEYS, CorpusKind
from hindsight.synthetic.chains import Chain, markov_chain, reversible_chain
from hindsight.synthetic.hidden_markov import HiddenChain, hidden_chain
from hindsight.synthetic.language import document_generator

ALL_ALIKE = (CorpusKind.code, CorpusKind.many_to_one, CorpusKind.primes)
"""Kinds in which all texts are equally likely."""
DRAWN = 4096
"""Documents of a hidden chain from which its standard deviation is estimated, to about 1%."""


def code_length_std(kind: str, settings: Mapping[str, Any]) -> float | None:
    """Standard deviation of the code length of a document, in nats; None for what is no synthetic language.

    Exact, but for hidden chains, for which it is that of DRAWN documents.

    Args:
        kind: of a corpus.
        settings: its keys; those that are missing are the usual ones.
    """
    if kind not in CorpusKind.__members__ or "documents" not in KEYS[CorpusKind[kind]]:
        return None
    of = {**KEYS[CorpusKind[kind]], **settings}
    match CorpusKind[kind]:
        case CorpusKind.markov:
            return _of_chain(markov_chain(of["symbols"], of["markov_order"], of["seed"]), of["length"])
        case CorpusKind.reversible_markov:
            return _of_chain(reversible_chain(of["symbols"], of["seed"]), of["length"])
        case CorpusKind.hidden_markov:
            return _of_hidden(hidden_chain(of["symbols"], of["states"], of["seed"]), of["length"])
        case CorpusKind.linear_map:
            p, n = of["flips"], of["samples"] * of["bits"]
            return math.sqrt(n * p * (1 - p)) * abs(math.log((1 - p) / p)) if 0 < p < 1 else 0.0
        case known:
            return 0.0 if known in ALL_ALIKE else None


def _of_chain(chain: Chain, length: int) -> float:
    """By the moments of the code length of what is behind each context, from the last symbol to the first."""
    nats_CV = -np.log(chain.next)
    mean_C = square_C = np.zeros(len(chain.start))
    for _ in range(length - chain.order):
        mean_CV, square_CV = mean_C[chain.followed], square_C[chain.followed]
        mean_C = (chain.next * (nats_CV + mean_CV)).sum(1)
        square_C = (chain.next * (nats_CV**2 + 2 * nats_CV * mean_CV + square_CV)).sum(1)
    first_C = -np.log(chain.start)
    mean = float(chain.start @ (first_C + mean_C))
    square = float(chain.start @ (first_C**2 + 2 * first_C * mean_C + square_C))
    return math.sqrt(max(square - mean**2, 0.0))


def _of_hidden(chain: HiddenChain, length: int) -> float:
    """By the forward algorithm on documents that are drawn."""
    drawn = chain.draw(DRAWN, length, document_generator(0))
    states_NS = np.tile(chain.start, (DRAWN, 1))
    nats_N = np.zeros(DRAWN)
    for place in range(length):
        emitted_NS = states_NS * chain.emits[:, drawn[:, place]].T
        sums_N = emitted_NS.sum(1)
        nats_N -= np.log(sums_N)
        states_NS = emitted_NS / sums_N[:, None] @ chain.moves
    return float(nats_N.std(ddof=1))
