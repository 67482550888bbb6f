import gzip
import json
import logging
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.processes import ROOT
from helpers.texts import byte_level, make_corpus, save_reference, texts
from tokenizers import normalizers, processors

import train_tokenizer
from hindsight.config.corpus import CorpusConfig
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.text.documents import Corpus
from hindsight.text.sampling import documents_of
from hindsight.tokenization import bpe_training
from hindsight.tokenization.hf_folder import key_without_role
from hindsight.tokenization.tokenizer import PIECE_CHARS, Tokenizer, cut


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus") / "corpus.txt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, corpus):
    out = tmp_path_factory.mktemp("tokenizer") / "made" / "here"
    train_tokenizer.main(TokenizerConfig(corpus=corpus, out=str(out), vocab_size=300))
    return out


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.load(folder)


@pytest.mark.parametrize("spec", ["[]", "{}", '{"decoder": {"type": "ByteLevel"}}', '{"decoder": null}'])
def test_a_damaged_tokenizer_is_refused(tmp_path, spec):
    (tmp_path / "tokenizer.json").write_text(spec)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "a", "eos_token": "b"}')
    with pytest.raises(InputError, match="tokenizer="):
        Tokenizer.load(tmp_path)


def test_any_text_comes_back_as_it_was(tokenizer):
    for text in texts():
        assert tokenizer.detokenize(tokenizer.tokenize(text)) == text


def test_the_bytes_of_the_ids_sum_to_the_bytes_of_the_text(tokenizer):
    assert tokenizer.bytes_per_token.shape == (tokenizer.vocab_size,)
    for text in texts():
        assert tokenizer.bytes_per_token[tokenizer.tokenize(text)[0]].sum() == len(text.encode())


def test_tokenize_gives_one_row_of_int64_without_bos_and_eos(tokenizer):
    ids = tokenizer.tokenize("time and time")
    assert ids.dtype == torch.int64
    assert ids.shape == (1, len(tokenizer.encode_batch(["time and time"])[0]))
    assert tokenizer.tokenize("").shape == (1, 0)


def test_special_tokens_have_ids_of_their_own_and_no_bytes(tokenizer, folder):
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 4)
    assert tokenizer.bytes_per_token[:5].tolist() == [0] * 5
    assert tokenizer.bytes_per_token[5:].min() == 1
    stored = json.loads((folder / "tokenizer.json").read_text())
    assert [token["content"] for token in stored["added_tokens"]] == bpe_training.SPECIAL_TOKENS


def test_the_name_of_a_special_token_in_a_text_is_ordinary_text(tokenizer):
    ids = tokenizer.tokenize("a<|eos|>b<|bos|>")
    assert tokenizer.eos_id not in ids
    assert tokenizer.bos_id not in ids


def test_detokenize_skips_special_tokens_and_takes_tensors_arrays_and_lists(tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode_batch(["time<|eos|>"])[0], tokenizer.eos_id, tokenizer.pad_id]
    for form in (ids, np.array(ids, np.uint16), torch.tensor(ids), torch.tensor([ids])):
        assert tokenizer.detokenize(form) == "time<|eos|>"


def test_encode_batch_gives_the_ids_of_tokenize(tokenizer):
    assert tokenizer.encode_batch(texts()) == [tokenizer.tokenize(text)[0].tolist() for text in texts()]


def test_auto_tokenizer_loads_the_folder_and_gives_the_same_ids(tokenizer, folder):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 1, 4)
    assert getattr(theirs, key_without_role()) == ["<|forward|>", "<|backward|>"]
    assert len(theirs) == tokenizer.vocab_size == 300
    for text in texts():
        ids = theirs(text, split_special_tokens=True).input_ids
        assert ids == tokenizer.tokenize(text)[0].tolist()
        assert theirs.decode(ids) == text


def test_pieces_of_a_long_text_have_the_ids_of_the_whole(tokenizer):
    rng = random.Random(2)
    parts = ["word", "été", "don't", " ", "\n", "\n\n", "\r\n", "\u2028", "\x1c", ".", "42", "它", "\u00a0", "\u180e"]
    text = "".join(rng.choices(parts, k=80_000))
    pieces = list(tokenizer.cut(text))
    assert len(pieces) > 4
    assert "".join(pieces) == text
    assert min(len(piece) for piece in pieces[:-1]) > PIECE_CHARS
    ids = [token_id for piece_ids in tokenizer.encode_batch(pieces) for token_id in piece_ids]
    assert ids == tokenizer.encode_batch([text])[0]


def test_a_text_without_a_place_to_cut_stays_whole():
    assert list(cut("x" * 3 * PIECE_CHARS)) == ["x" * 3 * PIECE_CHARS]
    assert list(cut("")) == [""]


def test_training_twice_gives_the_same_files(folder, corpus, tmp_path):
    train_tokenizer.main(TokenizerConfig(corpus=corpus, out=str(tmp_path / "again"), vocab_size=300))
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["hindsight.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_fingerprint_follows_the_content_and_not_the_place(folder, tokenizer, tmp_path):
    def copied(name, change=None):
        (tmp_path / name).mkdir()
        for file in ("tokenizer.json", "tokenizer_config.json"):
            content = json.loads((folder / file).read_text())
            if change is not None:
                change(file, content)
            (tmp_path / name / file).write_text(json.dumps(content))
        return Tokenizer.load(tmp_path / name).fingerprint

    def other_eos(file, content):
        if file == "tokenizer_config.json":
            content["eos_token"] = "<|backward|>"  # noqa: S105

    def other_merges(file, content):
        if file == "tokenizer.json":
            content["model"]["merges"][5:7] = content["model"]["merges"][6:4:-1]

    def padding(file, content):
        if file == "tokenizer_config.json":
            content["model_max_length"] = 7

    assert copied("same") == copied("unrelated", padding) == tokenizer.fingerprint
    assert len({tokenizer.fingerprint, copied("eos", other_eos), copied("merges", other_merges)}) == 3


def test_a_folder_that_is_no_tokenizer_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"data.tokenizer=.* has no tokenizer.json"):
        Tokenizer.load(tmp_path, "data.tokenizer")
    spec = json.loads((folder / "tokenizer.json").read_text())
    for token in spec["added_tokens"]:
        token["content"] = token["content"].replace("os|>", "-of-text|>")
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(InputError, match="has no bos and no eos token"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer_config.json cannot be read"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_that_lacks_a_byte_is_refused(folder, tmp_path):
    content = json.loads((folder / "tokenizer.json").read_text())
    del content["model"]["vocab"]["ÿ"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer_config.json").write_bytes((folder / "tokenizer_config.json").read_bytes())
    with pytest.raises(InputError, match="lacks some of the 256 bytes"):
        Tokenizer.load(tmp_path)


def test_a_reference_lends_its_normalizer_pattern_and_special_tokens(corpus, tmp_path):
    backend = byte_level(normalizers.NFC(), r"\p{L}+|\d|\s+|.")
    backend.enable_truncation(8)
    special = {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<mask>"]}
    reference = save_reference(tmp_path / "reference", backend, **special)
    out = tmp_path / "out"
    train_tokenizer.main(TokenizerConfig(corpus=corpus, out=str(out), vocab_size=280, reference=reference))
    stored = json.loads((out / "tokenizer.json").read_text())
    lent = json.loads((tmp_path / "reference" / "tokenizer.json").read_text())
    assert [stored[key] == lent[key] for key in ("normalizer", "pre_tokenizer", "decoder")] == [True] * 3
    assert sorted(token["content"] for token in stored["added_tokens"]) == ["</s>", "<mask>", "<s>"]
    assert lent["truncation"] is not None
    assert stored["truncation"] is None
    tokenizer = Tokenizer.load(out)
    assert json.loads((out / "hindsight.json").read_text())["fingerprint"] == tokenizer.fingerprint
    assert tokenizer.vocab_size == 280
    assert not tokenizer.cuttable
    assert tokenizer.detokenize(tokenizer.tokenize("e\u0301 <s>42")) == "é <s>42"
    assert tokenizer.detokenize([tokenizer.bos_id]) == ""


def test_a_reference_without_bos_gets_our_special_tokens_beside_its_own(corpus, tmp_path):
    reference = save_reference(tmp_path / "reference", byte_level(), eos_token="<end>")  # noqa: S106 - a token
    out = tmp_path / "out"
    train_tokenizer.main(TokenizerConfig(corpus=corpus, out=str(out), vocab_size=300, reference=reference))
    stored = {
        token["content"]: token["id"] for token in json.loads((out / "tokenizer.json").read_text())["added_tokens"]
    }
    assert sorted(stored) == sorted(["<end>", *bpe_training.SPECIAL_TOKENS])
    tokenizer = Tokenizer.load(out)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (
        stored["<|bos|>"],
        stored["<end>"],
        stored["<|pad|>"],
    )


def test_a_reference_that_sets_off_its_text_with_bos_does_not_do_so_here(corpus, tmp_path):
    backend = byte_level()
    backend.add_special_tokens(["<s>"])
    backend.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    reference = save_reference(tmp_path / "reference", backend, bos_token="<s>", eos_token="<s>")  # noqa: S106 - a token
    out = tmp_path / "out"
    train_tokenizer.main(TokenizerConfig(corpus=corpus, out=str(out), vocab_size=300, reference=reference))
    tokenizer = Tokenizer.load(out)
    assert tokenizer.bos_id not in tokenizer.tokenize("time")
    assert tokenizer.bos_id not in tokenizer.encode_batch(["time"])[0]


def test_a_reference_that_is_missing_is_refused(corpus, tmp_path):
    def refused(reference, match):
        with pytest.raises(InputError, match=match):
            train_tokenizer.main(
                TokenizerConfig(corpus=corpus, out=str(tmp_path / "out"), vocab_size=300, reference=str(reference))
            )
        assert not (tmp_path / "out").exists()

    refused(tmp_path / "missing", r"reference=.*missing does not exist")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"reference=.*empty cannot be loaded")


def learn_sample(corpus, out, seed):
    train_tokenizer.main(TokenizerConfig(corpus=corpus, out=str(out), vocab_size=270, sample_bytes=1000, seed=seed))
    return (out / "tokenizer.json").read_bytes()


def test_a_sample_depends_on_the_seed_alone(corpus, tmp_path):
    first = learn_sample(corpus, tmp_path / "a", 0)
    assert learn_sample(corpus, tmp_path / "b", 0) == first
    assert learn_sample(corpus, tmp_path / "c", 1) != first


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_sample_is_drawn_over_the_whole_corpus_and_stops_when_it_is_large_enough(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("hindsight.text.parts.SMALL_FILE_BYTES", 0)
    texts = [f"document number {number}\n" for number in range(50_000)]
    data = "\n".join(texts).encode()
    (tmp_path / f"a.txt{suffix}").write_bytes(gzip.compress(data) if suffix else data)
    config = CorpusConfig(corpus=str(tmp_path))
    draws = [[document.text for document in documents_of(Corpus(config), 100_000, seed)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    for drawn in draws:
        assert 100_000 <= sum(map(len, drawn)) < 110_000
        assert len(set(drawn)) == len(drawn)
        numbers = sorted(int(text.split()[-1]) for text in drawn)
        assert numbers[0] < 10_000
        assert numbers[-1] > 40_000
    assert len(list(documents_of(Corpus(config), 10**9, 0))) == 50_000
    assert [document.text for document in documents_of(Corpus(config), None, 0)] == texts


def test_a_sample_of_standard_input_is_refused():
    with pytest.raises(InputError, match="sample_bytes= needs to read corpus=- twice"):
        list(documents_of(Corpus(CorpusConfig(corpus="-")), 1000, 0))


def test_a_vocabulary_that_the_corpus_cannot_fill_is_refused_with_the_size_that_it_fills(corpus, tmp_path):
    config = TokenizerConfig(corpus=corpus, out=str(tmp_path / "out"), vocab_size=50257)
    with pytest.raises(InputError, match=r"vocab_size=50257 .* it fills (\d+)") as refusal:
        train_tokenizer.main(config)
    assert list(tmp_path.iterdir()) == []
    config.vocab_size = int(str(refusal.value).split("it fills ")[1].split(";")[0])
    train_tokenizer.main(config)
    assert Tokenizer.load(config.out).vocab_size == config.vocab_size


def test_a_vocabulary_smaller_than_the_bytes_is_refused(corpus, tmp_path):
    with pytest.raises(InputError, match=r"vocab_size=260 .* at least 261"):
        train_tokenizer.main(TokenizerConfig(corpus=corpus, out=str(tmp_path / "out"), vocab_size=260))


def test_training_again_does_nothing_and_says_so(folder, corpus, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    train_tokenizer.main(TokenizerConfig(corpus=corpus, out=str(folder), vocab_size=300))
    assert "already there, nothing to do" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(folder, corpus, tmp_path):
    def refused(config, match):
        with pytest.raises(InputError, match=match):
            train_tokenizer.main(config)

    refused(TokenizerConfig(corpus=corpus, out=str(folder), vocab_size=301), "with other settings")
    other = make_corpus(tmp_path / "other.txt", seed=3)
    refused(TokenizerConfig(corpus=other, out=str(folder), vocab_size=300), "another corpus")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    refused(TokenizerConfig(corpus=corpus, out=str(tmp_path / "out"), vocab_size=300), "holds something else")
    refused(TokenizerConfig(corpus=corpus, out=other, vocab_size=300), "holds something else")
    refused(TokenizerConfig(corpus=corpus, out="s3://bucket/x", vocab_size=300), "not on this machine")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    assert Tokenizer.load(folder).vocab_size == 300


def test_bad_input_ends_with_status_2_and_one_line(tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"good\n\nba\xffd\n")
    arguments = [f"corpus={tmp_path / 'bad.txt'}", f"out={tmp_path / 'out'}", "vocab_size=300"]
    done = subprocess.run(
        [sys.executable, "train_tokenizer.py", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [done.stderr.strip()]
    assert "not UTF-8 at byte 8" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.txt"]
