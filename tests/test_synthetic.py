"""Synthetic languages: their floors by brute force, their symmetries, and the corpora that are written."""

import itertools
import json
import logging
import lzma
import math
import random
import re
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from helpers.processes import ROOT
from helpers.small_data import convert_config
from helpers.training_runs import compose_config

import convert_to_mds
import make_corpus
import train_tokenizer
from hindsight.config.corpus import CorpusConfig
from hindsight.config.made_corpus import KEYS, CorpusKind, MakeCorpusConfig
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.orders.known import open_order
from hindsight.shards.mds import read_index, read_shard
from hindsight.synthetic.chains import markov_chain, reversible_chain
from hindsight.synthetic.hidden_markov import hidden_chain
from hindsight.synthetic.known import LANGUAGES, language_of, recorded_language
from hindsight.synthetic.language import Language
from hindsight.synthetic.linear_map import inverse, sparse_matrix
from hindsight.synthetic.maps import code_of, many_to_one_of
from hindsight.synthetic.primes import primes_below
from hindsight.text.documents import Corpus

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


def code_lengths_of_chain(text_NL: np.ndarray, seed: int, order: int) -> np.ndarray:
    chain = markov_chain(4, order, seed)
    powers = 4 ** np.arange(order - 1, -1, -1)
    contexts = np.stack([text_NL[:, t : t + order] @ powers for t in range(text_NL.shape[1] - order + 1)], 1)
    return -np.log(chain.start[contexts[:, 0]]) - np.log(chain.next[contexts[:, :-1], text_NL[:, order:]]).sum(1)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_code_length_of_a_made_corpus_is_the_floor_of_a_chain(tmp_path, order):
    made = make(tmp_path / "c.txt", kind=CorpusKind.markov, markov_order=order)
    lines = made.read_bytes().split()
    text_NL = np.array([list(line[2:]) for line in lines]) - ord("a")
    lengths = code_lengths_of_chain(text_NL, 0, order)
    floor = json.loads((tmp_path / "c.txt.floor.json").read_text())
    assert len(lengths) == 20_000
    assert abs(lengths.mean() - floor["nats_per_document"]) < 4 * lengths.std() / math.sqrt(len(lengths))


@pytest.mark.parametrize("kind", [CorpusKind.reversible_markov, CorpusKind.hidden_markov])
def test_the_code_length_of_a_made_corpus_is_the_floor_of_what_emits_it(tmp_path, kind):
    """By the forward algorithm, which knows the true source and neither the formula nor the sum of the floor."""
    lines = make(tmp_path / "c.txt", kind=kind).read_bytes().split()
    text_NL = np.array([list(line[2:]) for line in lines]) - ord("a")
    if kind is CorpusKind.hidden_markov:
        chain = hidden_chain(3, 3, 0)
        start_S, moves_SS, emits_SV = chain.start, chain.moves, chain.emits
    else:  # the symbol is the state, and seen
        chain = reversible_chain(4, 0)
        start_S, moves_SS, emits_SV = chain.start, chain.next, np.eye(4)
    law_NS, lengths = np.tile(start_S, (len(text_NL), 1)), np.zeros(len(text_NL))
    for symbols_N in text_NL.T:
        law_NS = law_NS * emits_SV[:, symbols_N].T
        shown_N = law_NS.sum(1)
        lengths -= np.log(shown_N)
        law_NS = law_NS / shown_N[:, None] @ moves_SS
    floor = json.loads((tmp_path / "c.txt.floor.json").read_text())
    assert text_NL.shape == (20_000, 60)
    assert abs(lengths.mean() - floor["nats_per_document"]) < 4 * lengths.std() / math.sqrt(len(lengths))


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


# ------------------------------------------------------------------------------------------------------------- corpora


def make(out, **keys):
    make_corpus.main(MakeCorpusConfig(out=str(out), **keys))
    return out


@pytest.mark.parametrize("kind", list(LANGUAGES))
def test_documents_of_a_corpus_are_all_equally_long_and_fewer_are_the_beginning_of_more(tmp_path, kind):
    few, many = (make(tmp_path / f"{n}.txt", kind=kind, documents=n, seed=3) for n in (100, 5000))
    documents = [document.raw for document in Corpus(CorpusConfig(corpus=str(many))).documents()]
    floor = json.loads((tmp_path / "5000.txt.floor.json").read_text())
    assert len(documents) == 5000
    assert {len(document) + 1 for document in documents} == {floor["tokens_per_document"]}  # EOS
    assert floor["nats_per_token"] == floor["nats_per_document"] / floor["tokens_per_document"]
    assert (floor["kind"], floor["settings"]["documents"]) == (kind.name, 5000)
    assert f"= {floor['nats_per_token']:.9g} nats a token" in floor["derivation"]
    assert many.read_bytes().startswith(few.read_bytes())
    assert make(tmp_path / "other.txt", kind=kind, documents=100, seed=4).read_bytes() != few.read_bytes()


def test_a_converted_window_is_a_document(tmp_path):
    corpus = make(tmp_path / "c.txt", kind=CorpusKind.linear_map, documents=200)
    tokens = json.loads((tmp_path / "c.txt.floor.json").read_text())["tokens_per_document"]
    train_tokenizer.main(TokenizerConfig(vocab_size="bytes", out=str(tmp_path / "bytes")))
    convert_to_mds.main(convert_config(corpus, tmp_path / "bytes", tmp_path / "data", block_length=2 * tokens))
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert sum(manifest["splits"][split]["documents"] for split in ("train", "val")) == 200
    for split in ("train", "val"):
        folder = tmp_path / "data" / split
        shards = [read_shard(folder, entry, manifest["dtype"], 2 * tokens) for entry in read_index(folder)]
        windows = np.concatenate(shards).reshape(-1, tokens)[: manifest["splits"][split]["documents"]]
        eos_id = windows[0, -1]
        assert (windows[:, :2] == windows[0, :2]).all()
        assert (windows[:, -1] == eos_id).all()
        assert (windows[:, :-1] != eos_id).all()


def test_the_same_again_is_left_as_it_is_and_anything_else_is_refused(tmp_path, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    keys: dict[str, Any] = {"kind": CorpusKind.code, "documents": 50}
    out = make(tmp_path / "folder" / "c.txt", **keys)
    assert {path.name for path in out.parent.iterdir()} == {"c.txt", "c.txt.floor.json"}
    content = out.read_bytes()
    out.with_name("c.txt.floor.json").unlink()  # as a process leaves it that was killed between the two
    make(out, **keys)
    assert "already there, nothing to do" in caplog.text
    assert out.with_name("c.txt.floor.json").is_file()
    for other in ({"documents": 49}, {"documents": 51}, {"seed": 1}, {"samples": 3}):
        with pytest.raises(InputError, match="holds something else"):
            make(out, **keys | other)
    assert out.read_bytes() == content


def test_documents_that_are_a_good_part_of_all_there_are_bring_a_warning(tmp_path, caplog):
    make(tmp_path / "many.txt", kind=CorpusKind.linear_map, bits=20, documents=20_000)
    assert "are about" not in caplog.text
    make(tmp_path / "few.txt", kind=CorpusKind.linear_map, bits=10, documents=100)
    assert "100 documents are about 10% of all that there are" in caplog.text


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("kind=markov bits=3", "bits=3 is for kind=linear_map, not for kind=markov; leave it out."),
        ("seed=3", "seed=3 is for kind=markov, kind=reversible_markov"),
        ("kind=excerpts", "kind=excerpts needs corpus=."),
        ("kind=excerpts corpus=a document_bytes=0", "document_bytes=0 must be greater than 0."),
        ("kind=code documents=0", "documents=0 must be greater than 0."),
        ("kind=code seed=-1", "seed=-1 must be at least 0"),
        ("kind=markov symbols=1", "symbols=1 must be from 2 to 26."),
        ("kind=markov symbols=26 markov_order=3", "make 17576 contexts; at most 1024."),
        ("kind=markov markov_order=4", "markov_order=4 must be from 1 to 3."),
        ("kind=markov markov_order=2 length=2", "length=2 must be greater than markov_order=2."),
        ("kind=hidden_markov states=9", "states=9 must be from 2 to 8."),
        ("kind=code symbols=26 letters=3", "17576 words; choose fewer"),
        ("kind=many_to_one values=10 multiplicity=3", "multiplicity=3 must divide values=10"),
        ("kind=linear_map nonzeros=20", "nonzeros=20 must be at least 1 and less than bits=20."),
        ("kind=linear_map flips=0.6", "flips=0.6 must lie between 0 and 0.5."),
        ("kind=primes digits=7", "digits=7 must be from 1 to 6."),
        ("kind=primes samples=0", "samples=0 must be from 1 to 1024."),
    ],
)
def test_what_does_not_fit_a_kind_is_refused_by_name(keys, words):
    with pytest.raises(InputError) as refused:
        compose_config("make_corpus", "out=a", *keys.split())
    assert words in str(refused.value)


# ------------------------------------------------------------------------------------------------------------ excerpts


def test_excerpts_take_whole_lines_up_to_so_many_bytes_and_always_the_first(tmp_path):
    corpus = tmp_path / "a.txt.xz"
    corpus.write_bytes(lzma.compress("ab\ncd\nef\n\nétés too long\nx\n\n\n\na\n\nabcd\nlast\n".encode()))
    made = make(tmp_path / "made.txt", kind=CorpusKind.excerpts, corpus=str(corpus), document_bytes=6)
    assert made.read_text() == "ab\ncd\n\nétés too long\n\na\n\nabcd\n"
    made = make(tmp_path / "all.txt", kind=CorpusKind.excerpts, corpus=str(corpus))
    assert made.read_text() == "ab\ncd\nef\n\nétés too long\nx\n\na\n\nabcd\nlast\n"


def test_excerpts_of_a_damaged_text_leave_nothing_behind(tmp_path):
    corpus = tmp_path / "a.txt.xz"
    corpus.write_bytes(lzma.compress(random.Random(0).randbytes(100_000).hex().encode())[:-1000])
    with pytest.raises(InputError, match=r"a\.txt\.xz"):
        make(tmp_path / "made.txt", kind=CorpusKind.excerpts, corpus=str(corpus))
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt.xz"]
