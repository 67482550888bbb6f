"""text_order=reversed: the text of each document is reversed before it is tokenized, and everything else stays."""

import ast
import gzip
import json
import logging
import math
import shutil
import time

import numpy as np
import pyarrow as pa
import pytest
import regex
from helpers.conversion_runs import contents, stop_after
from helpers.processes import run_command
from helpers.small_data import convert_config
from helpers.training_runs import records, train
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import parquet

import convert_to_h5
import convert_to_mds
import inspect_mds
import train_tokenizer
from hindsight import runs
from hindsight.config.conversion import InspectConfig
from hindsight.config.corpus import CorpusConfig, TextOrder
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.shards.manifest import SPLITS, Manifest
from hindsight.text.documents import Corpus
from hindsight.text.graphemes import JOINING, MARK, SIGN, _Kinds, reverse_text
from hindsight.text.sampling import Sample
from hindsight.tokenization.tokenizer import Tokenizer

HARD = [
    *"ab1 \t\r\n\u2028éß漢水。",
    *"\u0301\u0308\u20dd\ufe0f\u200d\u200c\u00ad\ufeff",
    *"🇨🇭🇩🇪👩👧🏽☎❤\U000e0067",
    *"\u1100\u1112\u1161\u1175\u11a8\u11ab가각",
    *"कषमि\u094d\u0cc6\u0cd6ก\u0e33\u0e31",
    *"\u0600\u06dd\u070f\u0d4e",
]
"""Characters of which each joins some others into a cluster, and some that join none."""
EXAMPLES = {
    "a\r\nb\n": "\nb\r\na",
    "cafe\u0301!": "!e\u0301fac",
    "x👩‍👩‍👧‍👦👍🏽": "👍🏽👩‍👩‍👧‍👦x",
    "🇨🇭🇩🇪 ok": "ko 🇩🇪🇨🇭",
    "한국": "국한",
    "\u1112\u1161\u11ab\u1100\u116e\u11a8": "\u1100\u116e\u11a8\u1112\u1161\u11ab",
    "क्षत्रिय": "यत्रिक्ष",
    "a \u06001": "\u06001 a",
    # Parts that would be other clusters in reverse stay as they are; so do marks and signs at the ends.
    "a🇨🇭🇩b": "b🇨🇭🇩a",
    "x\n\ry": "y\n\rx",
    "\u0301ab": "\u0301ba",
    "ab\u0600": "ba\u0600",
    "\u1161\u1100 x": "x \u1161\u1100",
}


@pytest.mark.parametrize("text", EXAMPLES, ids=ascii)
def test_clusters_stay_whole_in_reverse(text):
    assert reverse_text(text) == EXAMPLES[text]


@given(st.lists(st.sampled_from(HARD) | st.characters(codec="utf-8"), max_size=40).map("".join))
@example("".join(HARD))
@example("".join(HARD[::-1]) * 50)
@example("🇨" * 2001)
@example("🇨🇨\u0301" + "🇨" * 1000)
def test_reversed_twice_any_text_is_itself_with_the_same_characters(text):
    backward = reverse_text(text)
    assert reverse_text(backward) == text
    assert sorted(backward) == sorted(text)


@given(st.lists(st.sampled_from(HARD), max_size=20).map("".join))
def test_every_text_whose_clusters_are_the_same_in_reverse_is_reversed_by_clusters(text):
    clusters = regex.findall(r"\X", text)
    backward = "".join(clusters[::-1])
    kinds = [_Kinds()[ord(character)] for character in backward[:1] + backward[-1:] + text[:1] + text[-1:]]
    if regex.findall(r"\X", backward) == clusters[::-1] and not {MARK, SIGN} & {*kinds}:
        assert reverse_text(text) == backward


def test_characters_that_join_others_are_none_of_those_that_the_fast_search_passes_over():
    kinds = _Kinds()
    joining = [code for code in range(0x300) if kinds[code] in (MARK, SIGN, JOINING)]
    assert joining == [ord("\r")]


@pytest.mark.parametrize("text", ["🇨" * 100_000, "\u0301" * 500_000, "\n\r" * 100_000, "क्" * 100_000], ids=ascii)
def test_no_text_takes_more_than_linear_time(text):
    start = time.monotonic()
    assert reverse_text(reverse_text(text)) == text
    assert time.monotonic() - start < 20


DOCUMENTS = ["First é one.\r\nline", "last 🇨🇭🇩🇪\n", "a<|endoftext|>b"]


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "jsonl", "parquet"])
def test_documents_of_every_kind_of_file_are_reversed_and_hashed_as_they_are_read(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        parquet.write_table(pa.table({"text": DOCUMENTS}), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    else:
        text = "\n\n".join(text.rstrip("\n") for text in DOCUMENTS).encode()
        path.write_bytes(gzip.compress(text) if kind == "txt.gz" else text)
    reading, backward = (CorpusConfig(corpus=str(path), text_order=order) for order in TextOrder)
    as_read, in_reverse = (list(Corpus(config).documents()) for config in (reading, backward))
    assert len(as_read) == 3
    assert [document.raw for document in in_reverse] == [document.raw for document in as_read]
    assert [document.text for document in in_reverse] == [reverse_text(document.text) for document in as_read]
    assert in_reverse[2].text.startswith("b>|txetfodne|<a")
    samples = [Sample(Corpus(config), None, 0).read().fingerprint for config in (reading, backward)]
    assert samples[0] == samples[1]


def reversed_config(corpus, tokenizer, out, **changes):
    return convert_config(corpus, tokenizer, out, text_order=TextOrder.reversed, **changes)


@pytest.fixture(scope="module")
def reversed_tokenizer(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("tokenizer") / "reversed"
    config = TokenizerConfig(corpus=str(corpus), out=str(out), vocab_size=300, text_order=TextOrder.reversed)
    train_tokenizer.main(config)
    return out


@pytest.fixture(scope="module")
def reversed_shards(corpus, reversed_tokenizer, tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "reversed"
    convert_to_mds.main(reversed_config(corpus, reversed_tokenizer, out))
    return out


def documents_of(folder):
    """The documents of each split of a converted corpus, as they were tokenized."""
    tokenizer = Tokenizer.load(folder / "tokenizer")
    source = inspect_mds.ConvertedTokens(folder, Manifest.load(folder), tokenizer)
    texts = {}
    for split in SPLITS:
        tokens = np.concatenate([source.read(part).tokens for part in source.parts() if part.split == split])
        ends = np.flatnonzero(tokens == tokenizer.eos_id)
        texts[split] = [tokenizer.detokenize(part) for part in np.split(tokens, ends + 1)[:-1]]
    return texts


def test_both_orders_hold_out_the_same_documents_of_the_same_bytes(shards, reversed_shards):
    as_read, in_reverse = documents_of(shards), documents_of(reversed_shards)
    for split in SPLITS:
        assert len(as_read[split]) > 5
        assert in_reverse[split] == [reverse_text(text) for text in as_read[split]]
    manifests = [Manifest.load(folder) for folder in (shards, reversed_shards)]
    assert manifests[0].corpus_fingerprint == manifests[1].corpus_fingerprint
    for split in SPLITS:
        documents, n_bytes = zip(*((m.splits[split].documents, m.splits[split].bytes) for m in manifests), strict=True)
        assert len({*documents}) == len({*n_bytes}) == 1


def test_records_name_the_order_only_where_it_is_reversed(shards, tokenizer_dir, reversed_shards, reversed_tokenizer):
    settings = [Manifest.load(folder).settings for folder in (shards, reversed_shards)]
    made = [json.loads((folder / "hindsight.json").read_text()) for folder in (tokenizer_dir, reversed_tokenizer)]
    for plain, in_reverse in (settings, [record["settings"] for record in made]):
        assert in_reverse == plain | {"text_order": "reversed"}
        assert "text_order" not in plain
    assert made[0]["fingerprint"] != made[1]["fingerprint"]
    assert made[0]["corpus_fingerprint"] == made[1]["corpus_fingerprint"]


def test_with_one_tokenizer_of_bytes_the_orders_differ_in_their_fingerprints_alone(corpus, tmp_path, caplog):
    train_tokenizer.main(TokenizerConfig(vocab_size="bytes", out=str(tmp_path / "tokenizer")))
    convert_to_mds.main(convert_config(corpus, tmp_path / "tokenizer", tmp_path / "plain"))
    convert_to_mds.main(reversed_config(corpus, tmp_path / "tokenizer", tmp_path / "reversed"))
    plain, in_reverse = (Manifest.load(tmp_path / name) for name in ("plain", "reversed"))
    assert plain.splits == in_reverse.splits
    assert plain.fingerprint != in_reverse.fingerprint
    assert "was trained on" not in caplog.text


def test_workers_an_interruption_and_another_format_give_the_same(
    corpus, reversed_tokenizer, reversed_shards, tmp_path, monkeypatch
):
    monkeypatch.setattr("hindsight.text.documents.PART_BYTES", 2000)
    monkeypatch.setattr("hindsight.conversion.workers.SAVE_INTERVAL_S", 0)
    out = tmp_path / "out"
    with monkeypatch.context() as limited:
        stop_after(limited, 6)
        with pytest.raises(SystemExit, match="130"):
            convert_to_mds.main(reversed_config(corpus, reversed_tokenizer, out))
    with pytest.raises(InputError, match="text_order=reversed"):
        convert_to_mds.main(convert_config(corpus, reversed_tokenizer, out))
    convert_to_mds.main(reversed_config(corpus, reversed_tokenizer, out, workers=2))
    assert contents(out) == contents(reversed_shards)
    convert_to_h5.main(convert_config(out, reversed_tokenizer, tmp_path / "h5"))
    assert documents_of(tmp_path / "h5") == documents_of(reversed_shards)
    assert Manifest.load(tmp_path / "h5").is_reversed


@pytest.mark.dist
def test_workers_of_dask_give_the_same(corpus, reversed_tokenizer, reversed_shards, tmp_path):
    arguments = [f"corpus={corpus}", f"tokenizer={reversed_tokenizer}", f"out={tmp_path / 'out'}", "val_share=0.2"]
    arguments += ["text_order=reversed", "block_length=64", "engine=dask", "workers=2"]
    done = run_command("python", "convert_to_mds.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert documents_of(tmp_path / "out") == documents_of(reversed_shards)


def test_tokens_that_were_made_before_cannot_be_reversed(shards, h5_data, tokenizer_dir, tmp_path):
    published = shutil.copyfile(h5_data / "tokens.h5", tmp_path / "published.h5")
    for tokens in (shards, h5_data, published):
        with pytest.raises(InputError, match=r"text_order=reversed is for text.* convert the text"):
            convert_to_mds.main(reversed_config(tokens, tokenizer_dir, tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["published.h5"]


def test_a_tokenizer_of_the_other_order_is_taken_with_a_warning(
    corpus, tokenizer_dir, reversed_tokenizer, tmp_path, caplog
):
    def warnings_of(convert, tokenizer, name):
        caplog.clear()
        convert_to_mds.main(convert(corpus, tokenizer, tmp_path / name))
        return [record.message for record in caplog.records if record.levelno >= logging.WARNING]

    (line,) = warnings_of(reversed_config, tokenizer_dir, "a")
    assert "was trained on text_order=reading, and this is text_order=reversed" in line
    (line,) = warnings_of(convert_config, reversed_tokenizer, "b")
    assert "was trained on text_order=reversed, and this is text_order=reading" in line
    assert warnings_of(convert_config, tokenizer_dir, "c") == []
    assert warnings_of(reversed_config, reversed_tokenizer, "d") == []


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_windows_are_shown_in_reading_order_and_it_is_said(reversed_shards, shards, caplog, order):
    caplog.set_level(logging.INFO, "hindsight")
    inspect_mds.main(
        InspectConfig(path=str(reversed_shards), split="val", windows=100, context_length=16, order=order, verify=False)
    )
    lines = [record.message for record in caplog.records if "val window" in record.message]
    head = f", {order}, text_order=reversed, shown in reading order: "
    assert len(lines) > 5
    assert all(head in line for line in lines)
    texts = documents_of(shards)["val"]
    if order == "forward":
        shown = [part for line in lines for part in ast.literal_eval(line.split(head)[1]).split("⏎EOS⏎")]
        assert all("\ufffd" in part or any(part in text for text in texts) for part in shown)
    assert "text_order" in caplog.text.split("settings: ")[1].splitlines()[0]


def test_a_model_of_reversed_text_writes_in_reading_order_and_is_scored_on_the_same_bytes(
    shards, reversed_shards, tmp_path
):
    samples = ["samples.interval=6ba", 'samples.prompts=["naïve sea"]', "samples.length=12"]
    for order, data, starts in (("forward", reversed_shards, False), ("backward", reversed_shards, True)):
        folder = train(data, tmp_path / "runs", f"direction={order}", f"run_name={order}", *samples)
        (sample,) = [json.loads(line) for line in (folder / runs.SAMPLES).read_text().splitlines()]
        assert sample["prompt"] == "naïve sea"
        assert len(sample["text"]) > len(sample["prompt"])
        assert sample["text"].startswith("naïve sea") is starts
        assert sample["text"].endswith("naïve sea") is not starts
        metadata = json.loads((folder / runs.METADATA).read_text())
        assert metadata["text_order"] == "reversed"
        last = records(folder)[-1]
        val = Manifest.load(shards).splits["val"]
        assert (metadata["val_bytes"], metadata["val_documents"]) == (val.bytes, val.documents)
        bits = last["eval/loss_nats"] * metadata["val_tokens"] / (math.log(2) * val.bytes)
        assert last["eval/bits_per_byte"] == pytest.approx(bits, rel=1e-6)
