import json
import logging
import re
import shutil

import pytest
from helpers.conversion_runs import contents
from helpers.small_data import convert_config
from helpers.texts import byte_level
from test_inspect_mds import look
from tokenizers import AddedToken

import convert_to_h5
import convert_to_mds
import train_tokenizer
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.shards.manifest import Manifest
from hindsight.tokenization.round_trip import find_loss, loses_text
from hindsight.tokenization.tokenizer import Tokenizer

GPT2_WORDS = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BYTES_ONLY = GPT2_WORDS | {"use_regex": False}


def split(pattern, behavior, invert=False):
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [step, BYTES_ONLY]}}


LOSSY = {
    "prefix": {"pre_tokenizer": GPT2_WORDS | {"add_prefix_space": True}},
    "lower": {"normalizer": {"type": "Lowercase"}},
    "nfc": {"normalizer": {"type": "NFC"}},
    "strip": {"normalizer": {"type": "Strip", "strip_left": True, "strip_right": True}},
    "prepend": {"normalizer": {"type": "Prepend", "prepend": " "}},
    "replace": {"normalizer": {"type": "Replace", "pattern": {"String": "\r\n"}, "content": "\n"}},
    "sequence": {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}},
    "removed": split(r"\s+", "Removed"),
    "unmatched": split(r"\p{L}+", "Removed", invert=True),
    "white space": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, GPT2_WORDS]}},
}
LOSSLESS = {
    "none": {},
    "isolated": split(r"\p{L}+|\d|\s+|.", "Isolated"),
    "merged": split(r"\s", "MergedWithNext"),
    "truncation": {"truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}},
    "padding": {
        "padding": {
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 4,
            "pad_type_id": 0,
            "pad_token": "<|pad|>",
        }
    },
    "template": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<|bos|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<|eos|>", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                name: {"id": name, "ids": [number], "tokens": [name]}
                for number, name in ((0, "<|bos|>"), (1, "<|eos|>"))
            },
        }
    },
}


def changed(tokenizer_dir, folder, changes):
    """A copy of a tokenizer with other settings."""
    shutil.copytree(tokenizer_dir, folder)
    spec = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(spec | changes))
    return folder


@pytest.mark.parametrize("kind", LOSSY)
def test_a_tokenizer_that_loses_text_is_refused_or_its_tokens_are_what_counts(
    kind, corpus, tokenizer_dir, tmp_path, caplog
):
    tokenizer = changed(tokenizer_dir, tmp_path / "tokenizer", LOSSY[kind])
    with pytest.raises(InputError, match=r"does not give the text back: .* becomes .* lossy_tokenizer=true"):
        convert_to_mds.main(convert_config(corpus, tokenizer, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    for number, script in enumerate((convert_to_mds, convert_to_h5)):
        out = tmp_path / f"out{number}"
        script.main(convert_config(corpus, tokenizer, out, lossy_tokenizer=True))
        text, status = look(out, caplog, windows=0)
        assert status == 0, text
        assert Manifest.load(out).settings["lossy_tokenizer"] is True
    convert_to_h5.main(convert_config(tmp_path / "out0", tokenizer, tmp_path / "again"))
    assert look(tmp_path / "again", caplog, windows=0)[1] == 0


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_tokenizer_that_gives_the_text_back_is_taken_whatever_else_it_sets(
    kind, corpus, tokenizer_dir, tmp_path, shards
):
    tokenizer = changed(tokenizer_dir, tmp_path / "tokenizer", LOSSLESS[kind])
    convert_to_mds.main(convert_config(corpus, tokenizer, tmp_path / "out"))
    counts, expected = Manifest.load(tmp_path / "out").splits, Manifest.load(shards).splits
    assert [split.bytes for split in counts.values()] == [split.bytes for split in expected.values()]
    if kind in ("truncation", "padding", "template"):
        assert counts == expected


def test_dropout_is_switched_off_and_a_line_says_so(corpus, tokenizer_dir, tmp_path, shards, caplog):
    caplog.set_level(logging.INFO, "hindsight")
    spec = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    tokenizer = changed(tokenizer_dir, tmp_path / "tokenizer", {"model": spec["model"] | {"dropout": 0.5}})
    for name in ("a", "b"):
        convert_to_mds.main(convert_config(corpus, tokenizer, tmp_path / name, encoder="tokenizers"))
    assert "leaves out merges at random (dropout=0.5): here it does not" in caplog.text
    for split in ("train", "val"):
        assert contents(tmp_path / "a" / split) == contents(tmp_path / "b" / split) == contents(shards / split)


def test_dropout_of_a_reference_is_not_taken_over(corpus, tokenizer_dir, tmp_path):
    spec = json.loads((tokenizer_dir / "tokenizer.json").read_text())
    reference = changed(tokenizer_dir, tmp_path / "reference", {"model": spec["model"] | {"dropout": 0.5}})
    config = TokenizerConfig(corpus=str(corpus), out=str(tmp_path / "out"), vocab_size=300, reference=str(reference))
    train_tokenizer.main(config)
    assert json.loads((tmp_path / "out" / "tokenizer.json").read_text())["model"]["dropout"] is None


def test_text_lost_where_no_hard_text_shows_it_is_found_in_the_document(tokenizer_dir, tmp_path):
    (tmp_path / "corpus.txt").write_text("a\n\n" * 50 + "x" * (1 << 18) + "\n\nthe Qq of it\n\nb\n")
    replaced = {"normalizer": {"type": "Replace", "pattern": {"String": "Qq"}, "content": "q"}}
    tokenizer = changed(tokenizer_dir, tmp_path / "tokenizer", replaced)
    with pytest.raises(InputError, match=r"its tokens stand for 12 bytes of the 13 .* begins with 'the Qq of it"):
        convert_to_mds.main(convert_config(tmp_path / "corpus.txt", tokenizer, tmp_path / "out", workers=2))


def test_added_tokens_that_swallow_spaces_lose_text(tmp_path):
    backend = byte_level()
    from tokenizers import pre_tokenizers, trainers

    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>", "</s>"]
    )
    backend.train_from_iterator(["a b"], trainer)
    special = {"bos": "<s>", "eos": "</s>", "pad": None}
    backend.add_tokens(["é"])
    assert not loses_text(Tokenizer(json.loads(backend.to_str()), special, "x"))
    backend.add_tokens([AddedToken("漢", lstrip=True)])
    tokenizer = Tokenizer(json.loads(backend.to_str()), special, "x")
    assert loses_text(tokenizer)
    loss = find_loss(tokenizer, lambda text: tokenizer.tokenize(text)[0].numpy(), ["é x", "a 漢"])
    assert loss is not None
    assert re.fullmatch("'a 漢' becomes 'a漢'", loss)


def test_older_data_of_a_tokenizer_that_loses_text_is_not_called_damaged(corpus, tokenizer_dir, tmp_path, caplog):
    tokenizer = changed(tokenizer_dir, tmp_path / "tokenizer", LOSSY["prefix"])
    out = tmp_path / "out"
    convert_to_mds.main(convert_config(corpus, tokenizer, out, lossy_tokenizer=True))
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["settings"]["lossy_tokenizer"]
    for counts in manifest["splits"].values():
        counts["bytes"] -= counts["documents"]  # a space before each
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert look(out, caplog, windows=0)[1] == 0
