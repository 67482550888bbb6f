"""vocab_size=bytes: a token for each byte, and the special tokens."""

import json
import logging

import numpy as np
import pytest
from helpers.processes import run_command
from helpers.small_data import convert_config
from helpers.texts import byte_level, make_corpus, save_reference, texts
from helpers.training_runs import records, train
from tokenizers import normalizers

import convert_to_mds
import train_tokenizer
from hindsight.config.conversion import EncoderName
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.shards.manifest import SPLITS, Manifest
from hindsight.tokenization.bpe_training import SPECIAL_TOKENS
from hindsight.tokenization.fast_encoding import HARD_TEXTS, choose_encoder
from hindsight.tokenization.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("bytes") / "tokenizer"
    train_tokenizer.main(TokenizerConfig(vocab_size="bytes", out=str(out)))
    return out


@pytest.fixture(scope="module")
def tokenizer(folder):
    return Tokenizer.load(folder)


def test_each_byte_is_a_token_and_nothing_else_but_the_special_tokens(tokenizer):
    assert tokenizer.vocab_size == 256 + len(SPECIAL_TOKENS)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 4)
    assert tokenizer.bytes_per_token.tolist() == [0] * 5 + [1] * 256
    assert sorted(tokenizer.bytes_of(number) for number in range(5, 261)) == [bytes([byte]) for byte in range(256)]


def test_the_tokens_of_a_text_are_its_bytes_with_every_library(tokenizer):
    for name in EncoderName:
        encoder = choose_encoder(tokenizer, name, texts())
        assert encoder.name == ("tokenizers" if name is EncoderName.tokenizers else "tiktoken")
        for text in [*texts(), *HARD_TEXTS]:
            assert b"".join(map(tokenizer.bytes_of, encoder.encode(text).tolist())) == text.encode()


def test_auto_tokenizer_loads_the_folder_and_gives_the_same_ids(tokenizer, folder):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    assert len(theirs) == tokenizer.vocab_size
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 1, 4)
    for text in texts():
        ids = theirs(text, split_special_tokens=True).input_ids
        assert ids == tokenizer.tokenize(text)[0].tolist()
        assert theirs.decode(ids) == text


def test_it_needs_no_corpus_and_is_the_same_with_any(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    corpus = make_corpus(tmp_path / "corpus.txt")
    train_tokenizer.main(TokenizerConfig(vocab_size="bytes", corpus=corpus, out=str(tmp_path / "again")))
    assert f"nothing is trained, and corpus={corpus} is not read" in caplog.text
    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()
    record = json.loads((folder / "hindsight.json").read_text())
    assert record["settings"] == {"vocab_size": "bytes", "reference": None}
    train_tokenizer.main(TokenizerConfig(vocab_size="bytes", out=str(folder)))
    assert "already there, nothing to do" in caplog.text
    with pytest.raises(InputError, match="with other settings"):
        train_tokenizer.main(TokenizerConfig(vocab_size="bytes", out=str(folder), add_bos=True))
    with pytest.raises(InputError, match="another corpus or with other settings"):
        train_tokenizer.main(TokenizerConfig(vocab_size=300, corpus=corpus, out=str(folder)))


def test_a_reference_lends_its_special_tokens_and_its_normalizer(tmp_path):
    special = {"bos_token": "<s>", "eos_token": "</s>", "additional_special_tokens": ["<mask>"]}
    reference = save_reference(tmp_path / "reference", byte_level(normalizers.NFC(), r"\p{L}+|\s+|."), **special)
    out = tmp_path / "out"
    train_tokenizer.main(TokenizerConfig(vocab_size="bytes", out=str(out), reference=reference))
    tokenizer = Tokenizer.load(out)
    assert tokenizer.vocab_size == 256 + 3
    assert sorted(token["content"] for token in tokenizer.spec["added_tokens"]) == ["</s>", "<mask>", "<s>"]
    assert tokenizer.detokenize(tokenizer.tokenize("e\u0301 <s>42")) == "é <s>42"


def test_its_corpus_has_a_token_a_byte_and_trains_a_model(corpus, folder, tmp_path):
    convert_to_mds.main(convert_config(corpus, folder, tmp_path / "data"))
    manifest = Manifest.load(tmp_path / "data")
    for split in SPLITS:
        counts = manifest.splits[split]
        assert counts.documents is not None
        assert counts.tokens == counts.bytes + counts.documents  # an EOS each
    last = records(train(tmp_path / "data", tmp_path / "runs"))[-1]
    assert 0 < last["eval/loss_nats"] < np.log(300)
    val = manifest.splits["val"]
    bits = last["eval/loss_nats"] / np.log(2) * val.tokens / val.bytes
    assert last["eval/bits_per_byte"] == pytest.approx(bits, rel=1e-6)


def test_the_command_needs_only_a_folder(tmp_path):
    done = run_command("python", "train_tokenizer.py", "vocab_size=bytes", f"out={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "261 token ids, the bytes and the special tokens" in done.stdout + done.stderr
    assert Tokenizer.load(tmp_path / "out").vocab_size == 261
