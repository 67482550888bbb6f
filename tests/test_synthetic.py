"""Synthetic languages: their floors by brute force, and their symmetries."""

import itertools
import math
import re
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from helpers.processes import ROOT

from hindsight.config.made_corpus import KEYS, CorpusKind, MakeCorpusConfig
from hindsight.orders.known import open_order
from hindsight.synthetic.chains import markov_chain, reversible_chain
from hindsight.synthetic.hidden_markov import hidden_chain
from hindsight.synthetic.known import LANGUAGES, language_of, recorded_language
from hindsight.synthetic.language import Language
from hindsight.synthetic.linear_map import inverse, sparse_matrix
from hindsight.synthetic.maps import code_of, many_to_one_of
from hindsight.synthetic.primes import primes_below

SMALL: dict[str, dict[str, Any]] = {
    "markov": {"length": 6, "symbols": 3, "markov_order": 1},
    "markov-2": {"length": 5, "symbols": 3, "markov_order": 2},
    "markov-null": {"length": 7, "symbols": 2, "markov_order": 2},
    "markov-3": {"length": 8, "symbols": 2, "markov_order": 3},
    "reversible_markov": {"length": 6, "symbols": 3},
    "hidden_markov": {"length": 5, "symbols": 2, "states": 3},
    "hidden_markov-null": {"length": 5, "symbols": 3, "states": 2},
    "code": {"samples": 2, "symbols": 3, "letters": 2},
    "many_to_one": {"samples": 2, "values": 12, "multiplicity": 3},
    "linear_map": {"bits": 5, "nonzeros": 2, "flips": 0.0, "samples": 1},
    "linear_map-flips": {"bits": 4, "nonzeros": 3, "flips": 0.2, "samples": 1},
    "linear_map-null": {"bits": 4, "nonzeros": 1, "flips": 0.1, "samples": 1},
    "linear_map-samples": {"bits": 3, "nonzeros": 2, "flips": 0.0, "samples": 2},
    "primes": {"digits": 1, "reversed_digits": False, "samples": 2},
    "primes-reversed": {"digits": 2, "reversed_digits": True, "samples": 1},
}
"""Languages whose texts can all be listed."""
Law = dict[str, float]


def kind_of(name: str) -> CorpusKind:
    return CorpusKind[name.split("-")[0]]


def small(name: str, seed: int = 0) -> Language:
    return language_of(kind_of(name), {"documents": 1, "seed": seed, **SMALL[name]})


def law_of(name: str, seed: int = 0) -> Law:
    """Every text of a small language with its probability, from the definition and not from the entropy's formula."""
    return LAWS[kind_of(name)](seed=seed, **SMALL[name])


def spelt(symbols: Any) -> str:
    return "".join(chr(ord("a") + int(symbol)) for symbol in symbols)


def law_of_chain(next_CV: np.ndarray, start_C: np.ndarray, order: int, length: int) -> Law:
    law = {}
    n_symbols = next_CV.shape[1]
    for text in itertools.product(range(n_symbols), repeat=length):
        contexts = [int("".join(map(str, text[place : place + order])), n_symbols) for place in range(length - order)]
        first = int("".join(map(str, text[:order])), n_symbols)
        law[spelt(text)] = start_C[first] * math.prod(
            next_CV[context, symbol] for context, symbol in zip(contexts, text[order:], strict=True)
        )
    return law


def law_of_markov(length: int, symbols: int, markov_order: int, seed: int) -> Law:
    chain = markov_chain(symbols, markov_order, seed)
    return law_of_chain(chain.next, chain.start, markov_order, length)


def law_of_reversible(length: int, symbols: int, seed: int) -> Law:
    chain = reversible_chain(symbols, seed)
    return law_of_chain(chain.next, chain.start, 1, length)


def law_of_hidden(length: int, symbols: int, states: int, seed: int) -> Law:
    """Summed over all ways through the states."""
    chain, law = hidden_chain(symbols, states, seed), defaultdict[str, float](float)
    for way in itertools.product(range(states), repeat=length):
        walked = chain.start[way[0]] * math.prod(chain.moves[a, b] for a, b in itertools.pairwise(way))
        for text in itertools.product(range(symbols), repeat=length):
            law[spelt(text)] += walked * math.prod(chain.emits[s, v] for s, v in zip(way, text, strict=True))
    return dict(law)


def of_documents(sample_law: Law, samples: int) -> Law:
    return {
        ";".join(chosen): math.prod(sample_law[each] for each in chosen)
        for chosen in itertools.product(sample_law, repeat=samples)
    }


def law_of_code(samples: int, symbols: int, letters: int, seed: int) -> Law:
    code_W = code_of(symbols, letters, seed)
    words = [spelt(word) for word in itertools.product(range(symbols), repeat=letters)]
    sample_law = {f"{word}>{words[code]}": 1 / len(words) for word, code in zip(words, code_W, strict=True)}
    return of_documents(sample_law, samples)


def law_of_many(samples: int, values: int, multiplicity: int, seed: int) -> Law:
    map_X = many_to_one_of(values, multiplicity, seed)
    assert set(Counter(map_X.tolist()).values()) == {multiplicity}
    width = len(str(values - 1))
    return of_documents({f"{x:0{width}}>{y}": 1 / values for x, y in enumerate(map_X)}, samples)


def law_of_linear(bits: int, nonzeros: int, flips: float, samples: int, seed: int) -> Law:
    matrix = sparse_matrix(bits, nonzeros, np.random.default_rng([seed, 0]))
    law: dict[str, float] = defaultdict(float)
    for x in itertools.product((0, 1), repeat=bits):
        y = [sum(int(a) * b for a, b in zip(row, x, strict=True)) % 2 for row in matrix]
        for flipped in itertools.product((0, 1), repeat=bits):
            probability = 2.0**-bits * math.prod(flips if flip else 1 - flips for flip in flipped)
            shown = [bit ^ flip for bit, flip in zip(y, flipped, strict=True)]
            law["".join(map(str, x)) + "|" + "".join(map(str, shown))] += probability
    return of_documents({text: probability for text, probability in law.items() if probability}, samples)


def law_of_primes(digits: int, reversed_digits: bool, samples: int, seed: int) -> Law:
    known = [n for n in range(2, 10**digits) if all(n % divisor for divisor in range(2, n))]
    pairs = list(itertools.combinations(known, 2))
    step = -1 if reversed_digits else 1

    def written(number: int, width: int) -> str:
        return f"{number:0{width}}"[::step]

    return of_documents(
        {f"{written(p, digits)}*{written(q, digits)}={written(p * q, 2 * digits)}": 1 / len(pairs) for p, q in pairs},
        samples,
    )


LAWS = {
    CorpusKind.markov: law_of_markov,
    CorpusKind.reversible_markov: law_of_reversible,
    CorpusKind.hidden_markov: law_of_hidden,
    CorpusKind.code: law_of_code,
    CorpusKind.many_to_one: law_of_many,
    CorpusKind.linear_map: law_of_linear,
    CorpusKind.primes: law_of_primes,
}


# ------------------------------------------------------------------------------------------------------------- floors


def test_every_language_is_tested_here():
    assert LAWS.keys() == LANGUAGES.keys()
    assert LANGUAGES.keys() == {kind for kind, keys in KEYS.items() if {"documents", "seed"} <= keys.keys()}


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", SMALL)
def test_the_floor_is_the_entropy_of_all_texts(name, seed):
    law, language = law_of(name, seed), small(name, seed)
    assert math.fsum(law.values()) == pytest.approx(1)
    nats = -math.fsum(p * math.log(p) for p in law.values() if p)
    assert language.nats == pytest.approx(nats, rel=1e-9)
    assert language.twin_probability == pytest.approx(math.fsum(p * p for p in law.values()), rel=1e-9)
    assert language.possible_texts == len(law)
    assert {len(text) for text in law} == {language.characters}


@pytest.mark.parametrize("name", SMALL)
def test_the_standard_deviation_of_a_code_length_is_that_over_all_texts(name):
    law = law_of(name)
    mean = -math.fsum(p * math.log(p) for p in law.values() if p)
    std = math.sqrt(math.fsum(p * (math.log(p) + mean) ** 2 for p in law.values() if p))
    is_drawn = kind_of(name) is CorpusKind.hidden_markov
    assert small(name).nats_std == pytest.approx(std, rel=0.05 if is_drawn else 1e-6, abs=1e-6)


def test_the_language_of_a_recorded_floor_is_known_and_text_is_none():
    recorded = recorded_language({"kind": "markov", "settings": {"seed": 1, "length": 9}})
    assert recorded is not None
    assert recorded.nats == language_of(CorpusKind.markov, {**KEYS[CorpusKind.markov], "seed": 1, "length": 9}).nats
    assert recorded_language({"kind": "bible", "settings": {}}) is None
    assert recorded_language({"kind": "coins"}) is None


@pytest.mark.parametrize("order", ["forward", "backward", "middle_out", "uniform_random:3"])
@pytest.mark.parametrize("name", ["markov", "hidden_markov", "linear_map-flips", "many_to_one"])
def test_what_the_best_reader_pays_is_the_floor_in_every_order(name, order):
    """A reader who knows the law and guesses each token of a document from those before it in the order."""
    language = small(name)
    law = {f"<:{text}\n$": p for text, p in law_of(name).items()}  # $ for EOS
    places = open_order(order, language.tokens).permutation(np.arange(language.tokens)).tolist()
    seen = [defaultdict[str, float](float) for _ in range(language.tokens + 1)]
    for text, p in law.items():
        read = "".join(text[place] for place in places)
        for end, counts in enumerate(seen):
            counts[read[:end]] += p
    paid = [
        -sum(p * math.log(p / before[read[:-1]]) for read, p in after.items() if p)
        for before, after in itertools.pairwise(seen)
    ]
    assert sum(paid) / language.tokens == pytest.approx(language.nats / language.tokens, rel=1e-9)
    certain = [paid[places.index(place)] for place in (0, 1, language.tokens - 2, language.tokens - 1)]
    assert certain == pytest.approx([0] * 4, abs=1e-12)


@pytest.mark.parametrize("name", SMALL)
def test_documents_are_drawn_by_the_law(name):
    law, language = law_of(name), small(name)
    drawn = language.draw(100_000, np.random.default_rng(0))
    counts = Counter(row.tobytes().decode() for row in drawn)
    assert counts.keys() <= law.keys()
    lengths = np.array([-math.log(law[row.tobytes().decode()]) for row in drawn])
    assert abs(lengths.mean() - language.nats) <= 4 * lengths.std() / math.sqrt(len(lengths)) + 1e-9
    # chi-squared of texts that are expected often enough; its mean is their number, its variance twice that
    often = {text: p * len(drawn) for text, p in law.items() if p * len(drawn) >= 10}
    surprise = sum((counts[text] - expected) ** 2 / expected for text, expected in often.items())
    assert surprise < len(often) + 5 * math.sqrt(2 * len(often))


def test_beyond_the_texts_that_are_summed_the_entropy_of_a_hidden_chain_is_between_its_bounds():
    chain = hidden_chain(2, 2, 0)
    summed = chain.bounds(16)
    assert (summed.summed, summed.error) == (16, 0)
    for fewer in (4, 8, 12):
        cut = chain.bounds(16, 2**fewer)
        assert cut.summed == fewer
        assert abs(cut.nats - summed.nats) <= cut.error
    assert chain.bounds(16, 2**12).error < 1e-3
    # a model whose state is seen: its entropy is that of a chain, at every length
    seen = type(chain)(chain.moves, np.eye(2), chain.start)
    rate = -sum(s * p * math.log(p) for s, row in zip(chain.start, chain.moves, strict=True) for p in row)
    first = -sum(s * math.log(s) for s in chain.start)
    assert seen.bounds(100).nats == pytest.approx(first + 99 * rate, rel=1e-9)


# ---------------------------------------------------------------------------------------------------------- symmetries


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", SMALL)
def test_nulls_have_the_same_law_when_they_are_reversed_and_others_do_not(name, seed):
    law = law_of(name, seed)
    reversed_law = {text[::-1]: p for text, p in law.items()}
    is_same = reversed_law.keys() == law.keys() and all(
        math.isclose(p, reversed_law[text], rel_tol=1e-9) for text, p in law.items()
    )
    assert is_same == (small(name, seed).role.value == "null")


def test_the_documentation_says_which_kinds_are_nulls_calibrations_and_positives():
    text = (ROOT / "docs" / "synthetic.md").read_text(encoding="utf-8")
    said = {kind: set(roles.split(", ")) for kind, roles in re.findall(r"^\*\*`(\w+)`\*\* \(([^)]*)\)", text, re.M)}
    found: dict[str, set[str]] = {}
    for kind in LANGUAGES:
        language = language_of(kind, MakeCorpusConfig(out="a", kind=kind).settings)
        found[kind.name] = {language.role.value} | ({"calibration"} if language.is_calibration else set())
    assert said == found


@pytest.mark.parametrize(("bits", "nonzeros"), [(2, 1), (3, 2), (8, 1), (9, 2), (16, 3), (16, 8), (7, 6), (64, 2)])
def test_maps_are_sparse_and_invertible(bits, nonzeros):
    for seed in range(5):
        matrix = sparse_matrix(bits, nonzeros, np.random.default_rng(seed))
        ones = sorted(matrix.sum(1).tolist())
        assert ones == [nonzeros - 1] * (nonzeros % 2 == 0) + [nonzeros] * (bits - (nonzeros % 2 == 0))
        assert (matrix.astype(int) @ inverse(matrix) % 2 == np.eye(bits)).all()


def test_the_inverse_of_a_sparse_map_is_not_sparse_but_of_one_with_a_one_a_row():
    weights = {
        nonzeros: np.mean([inverse(sparse_matrix(16, nonzeros, np.random.default_rng(s))).sum(1) for s in range(20)])
        for nonzeros in (1, 2, 3)
    }
    assert weights[1] == 1
    assert weights[2] > 3
    assert weights[3] > 6


def test_primes_are_those_that_nothing_divides():
    assert primes_below(100).tolist() == [n for n in range(2, 100) if all(n % divisor for divisor in range(2, n))]
