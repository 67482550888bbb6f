"""mode=score: what texts cost under models of both directions, beside evaluate_tokens.py and a plain loop."""

import io
import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.small_data import convert_config, make_text
from helpers.token_runs import T, model_of, score
from helpers.training_runs import train

import convert_to_mds
import generate_text
import train_tokenizer
from hindsight.config.corpus import TextOrder
from hindsight.config.generation import GenerateConfig, Mode
from hindsight.config.tokenizer import TokenizerConfig
from hindsight.errors import InputError
from hindsight.generation.judges import Judge, Judges
from hindsight.generation.scored_texts import scored, write_file
from hindsight.generation.scores import readers_of, token_nats
from hindsight.orders.known import open_order
from hindsight.text.graphemes import reverse_text
from hindsight.tokenization.tokenizer import Tokenizer

TEXTS = ["Light shone over dark water.", "In the beginning was é 水 word", "W"]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir):
    return Tokenizer.load(tokenizer_dir)


def reader_of(folder, order, tokenizer):
    (reader,) = readers_of(model_of(folder), open_order(order, T, tokenizer), tokenizer.bos_id, T)
    return reader


def score_texts(run, **keys):
    generate_text.main(GenerateConfig(run=str(run), mode=Mode.score, **keys))


def by_hand(module, tokens, start_id):
    """Minus the logarithm of the probability of each token after those before it, each from a pass of its own."""
    nats = []
    for place, token in enumerate(tokens):
        with torch.no_grad():
            logits_V = module(torch.tensor([[start_id, *tokens[:place]]]))[0, -1].double()
        nats.append(-float(logits_V.log_softmax(-1)[token]))
    return nats


@pytest.mark.parametrize(("name", "order"), [("forward", "forward"), ("backward", "backward"), ("gru", "backward")])
def test_a_token_costs_what_the_model_gives_it_after_those_that_it_has_read(trained, tokenizer, name, order):
    reader = reader_of(trained[name], order, tokenizer)
    texts = [tokens[: T - number] for number, tokens in enumerate(tokenizer.encode_batch(TEXTS))]
    turn = slice(None, None, -1 if order == "backward" else 1)
    for tokens, nats in zip(texts, token_nats(reader, texts, batch_size=2), strict=True):
        expected = by_hand(reader.module, tokens[turn], tokenizer.bos_id)[turn]
        np.testing.assert_allclose(nats, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["forward", "backward", "even_odd"])
def test_a_whole_document_costs_what_evaluate_tokens_says(trained, tokenizer, name, tmp_path):
    document = make_text(n_documents=1, seed=5) + make_text(n_documents=1, seed=6)
    (tmp_path / "text.txt").write_text(document, encoding="utf-8")
    losses = score(trained[name], tmp_path / "losses.parquet", f"corpus={tmp_path / 'text.txt'}")
    score_texts(trained[name], text=document, whole=True, out=str(tmp_path / "out.jsonl"))
    (record,) = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    rows = losses.read(["nats"])["nats"].tolist()
    assert record["tokens"] == len(rows) > 2 * T
    np.testing.assert_allclose(record["token_nats"][name], rows, atol=2e-5)
    assert record["nats"][name] == pytest.approx(sum(rows), rel=1e-5)
    assert record["bytes"] == len(document.encode())
    assert record["bits_per_byte"][name] == pytest.approx(sum(rows) / math.log(2) / len(document.encode()), rel=1e-5)


def test_both_models_together_are_the_mean_of_both(trained, tokenizer, tmp_path):
    (tmp_path / "texts.txt").write_text("\n\n".join(TEXTS))
    out = tmp_path / "out.jsonl"
    score_texts(trained["backward"], other=str(trained["forward"]), prompts=str(tmp_path / "texts.txt"), out=str(out))
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["text"] for record in records] == TEXTS
    tokens = tokenizer.encode_batch(TEXTS)
    for name in ("forward", "backward"):
        alone = token_nats(reader_of(trained[name], name, tokenizer), tokens, batch_size=8)
        assert [record["nats"][name] for record in records] == pytest.approx([each.sum() for each in alone])
    for record in records:
        assert record["models"]["backward"] == {"run": str(trained["backward"]), "step": 12}
        assert record["nats"]["both"] == pytest.approx((record["nats"]["forward"] + record["nats"]["backward"]) / 2)
        assert len(record["token_nats"]["both"]) == len(record["token_texts"]) == record["tokens"]


def test_a_text_that_is_cut_into_windows_is_said_to_be(trained, tmp_path, capsys, caplog):
    long, short = 40 * "light ", "light"
    score_texts(trained["forward"], text=long)
    assert f"the context has {T}, and such a text is cut" in capsys.readouterr().err
    (tmp_path / "texts.txt").write_text(f"{short}\n{long}\n")
    score_texts(trained["forward"], prompts=str(tmp_path / "texts.txt"))
    assert capsys.readouterr().err.startswith("text 2 has ")
    caplog.set_level("WARNING", "hindsight")
    score_texts(trained["forward"], prompts=str(tmp_path / "texts.txt"), out=str(tmp_path / "out.jsonl"))
    assert "1 of 2 texts are longer than the context" in caplog.text


def test_a_run_of_both_directions_needs_no_other_and_gives_each_alone(read_both_ways, tokenizer, capsys):
    for direction, names in ((None, ["forward", "backward", "both"]), ("backward", ["backward"])):
        score_texts(read_both_ways, text=TEXTS[0], direction=direction)
        head, *rows = capsys.readouterr().out.splitlines()
        assert head.split() == ["token", *names]
        assert len(rows) == len(tokenizer.encode_batch([TEXTS[0]])[0]) + 3
        totals = {row.split()[0]: [float(value) for value in row.split()[1:]] for row in rows[-3:]}
        assert set(totals) == {"nats", "nats/token", "bits/byte"}
        assert totals["bits/byte"][-1] == pytest.approx(totals["nats"][-1] / math.log(2) / len(TEXTS[0]), abs=1e-3)
    readers = readers_of(model_of(read_both_ways), open_order("both", T, tokenizer), tokenizer.bos_id, T)
    assert readers[0].reading.start_id != readers[1].reading.start_id


def test_texts_on_standard_input_are_lines_of_nats_whatever_is_scored_beside_them(trained, monkeypatch, capsys):
    lines = []
    for batch_size in (1, 8):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(TEXTS).encode()), encoding="utf-8"))
        score_texts(trained["forward"], batch_size=batch_size)
        lines.append(capsys.readouterr().out.splitlines())
    assert lines[0][0] == "forward_nats\ttext"
    assert [line.split("\t")[1] for line in lines[0][1:]] == TEXTS
    nats = [[float(line.split("\t")[0]) for line in some[1:]] for some in lines]
    assert nats[0] == pytest.approx(nats[1], abs=2e-4)


class Failing(torch.nn.Module):
    """A model that works a number of times."""

    def __init__(self, module, times):
        super().__init__()
        self.module, self.times = module, times

    def forward(self, inputs_BT):
        self.times -= 1
        if self.times < 0:
            raise RuntimeError("enough")
        return self.module(inputs_BT)


def test_a_file_goes_on_after_what_was_done_and_one_that_is_there_is_kept(trained, tokenizer, tmp_path):
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    keys = {"prompts": str(tmp_path / "texts.jsonl"), "batch_size": 1}
    score_texts(trained["forward"], **keys, out=str(tmp_path / "whole.jsonl"))
    with pytest.raises(InputError, match="is there already"):
        score_texts(trained["forward"], **keys, out=str(tmp_path / "whole.jsonl"))
    (record, *_) = [json.loads(line) for line in (tmp_path / "whole.jsonl").read_text().splitlines()]
    reader, model = reader_of(trained["forward"], "forward", tokenizer), record["models"]["forward"]
    out = tmp_path / "again.jsonl"
    for times in (2, 1):  # the third text is all that is left
        failing = replace(reader, module=Failing(reader.module, times))
        judges = Judges([Judge(failing, model["run"], model["step"], "same")], tokenizer, TextOrder.reading)
        with pytest.raises(RuntimeError, match="enough") if times == 2 else nullcontext():
            write_file(judges, TEXTS, whole=False, batch_size=1, out=out)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_long_texts_of_an_earlier_start_are_counted_too(trained, tokenizer, tmp_path, caplog):
    caplog.set_level("WARNING", "hindsight")
    reader, texts = reader_of(trained["forward"], "forward", tokenizer), [40 * "light ", "light", 40 * "water "]
    n_windows = math.ceil(len(tokenizer.encode_batch(texts)[0]) / T)
    for times in (n_windows + 1, 1000):
        failing = replace(reader, module=Failing(reader.module, times))
        judges = Judges([Judge(failing, "a", 1, "same")], tokenizer, TextOrder.reading)
        with pytest.raises(RuntimeError, match="enough") if times < 1000 else nullcontext():
            write_file(judges, texts, whole=False, batch_size=1, out=tmp_path / "out.jsonl")
    assert "2 of 3 texts are longer than the context" in caplog.text


def test_reversed_text_is_turned_before_it_is_tokenized(trained, tokenizer):
    reader = reader_of(trained["forward"], "forward", tokenizer)
    judges = Judges([Judge(reader, "a", 1, "b")], tokenizer, TextOrder.reversed)
    (found,) = scored(judges, ["ab né"], whole=True, batch_size=1)
    assert found.tokens == [*tokenizer.encode_batch([reverse_text("ab né")])[0], tokenizer.eos_id]
    assert (found.text, found.n_bytes) == ("ab né", 6)


@pytest.fixture(scope="module")
def other_tokenizer(tmp_path_factory):
    """A backward run on data with a tokenizer of its own."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "text.txt").write_text(make_text(n_documents=30, seed=3), encoding="utf-8")
    train_tokenizer.main(TokenizerConfig(corpus=str(folder / "text.txt"), out=str(folder / "tok"), vocab_size=290))
    convert_to_mds.main(convert_config(folder / "text.txt", folder / "tok", folder / "data"))
    return train(folder / "data", folder, "direction=backward", "max_duration=1ba")


@pytest.mark.parametrize(
    ("run", "other", "message"),
    [
        ("forward", "forward", r"is forward, as run=.* is; give a run with direction=backward"),
        ("forward", "even_odd", r"other=.* has order=even_odd"),
        ("even_odd", "forward", r"run=.* has order=even_odd"),
        ("both", "forward", r"run=.* has order=both.*without other="),
        ("forward", "nowhere", r"other=nowhere does not exist"),
        ("forward", "tokenizer", r"other=.* has another tokenizer than run="),
    ],
)
def test_runs_that_are_no_pair_are_refused(trained, read_both_ways, other_tokenizer, run, other, message):
    folders = {**trained, "both": read_both_ways, "tokenizer": other_tokenizer, "nowhere": "nowhere"}
    with pytest.raises(InputError, match=message):
        score_texts(folders[run], other=str(folders[other]), text="a")


def test_a_damaged_second_run_is_named_by_the_key_that_gave_it(trained, tmp_path):
    copy = shutil.copytree(trained["backward"], tmp_path / "copy")
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("seed: 0", "seed: none"))
    with pytest.raises(InputError, match=f"^other={copy}: config.yaml is damaged"):
        score_texts(trained["forward"], other=str(copy), text="a")
    (copy / "config.yaml").write_text(config)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(InputError, match=f"^other={copy} has no checkpoint"):
        score_texts(trained["forward"], other=str(copy), text="a")


def test_what_cannot_be_scored_is_refused(trained, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="text= is empty"):
        score_texts(trained["forward"], text="")
    with pytest.raises(InputError, match=r"direction=backward is for a run of order=both"):
        score_texts(trained["forward"], text="a", direction="backward")
    with pytest.raises(InputError, match="whole=true is for mode=score"):
        GenerateConfig(run="a", prompt="a", whole=True)
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n{"text": ""}\n')
    with pytest.raises(InputError, match="text 2 is empty"):
        score_texts(trained["forward"], prompts=str(tmp_path / "texts.jsonl"), out=str(tmp_path / "out.jsonl"))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with pytest.raises(InputError, match="text= is required"):
        score_texts(trained["forward"])
