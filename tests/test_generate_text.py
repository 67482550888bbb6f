"""generate_text.py: what it writes, where the prompts come from, and where the texts go."""

import dataclasses
import io
import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from helpers.scripted_model import CONTEXT_LENGTH, TEXT, ByHeart, writer_of
from torch import nn

import generate_text
from hindsight.command_line import configuration_of
from hindsight.config.corpus import TextOrder
from hindsight.config.generation import GenerateConfig
from hindsight.errors import InputError
from hindsight.generation import batch
from hindsight.generation.prompts import read_prompts
from hindsight.generation.records import records_in_work
from hindsight.generation.writer import MISSING, Growth, Writer, readings_for
from hindsight.orders.known import open_order
from hindsight.tokenization.tokenizer import Tokenizer

GREEDY = GenerateConfig(run="a", temperature=0)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_dir)


def generate(run: Path, *arguments: str) -> None:
    generate_text.main(configuration_of("generate_text", [f"run={run}", *arguments]))


def written(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts_while_growing(writer: Writer, prompt: str, config: GenerateConfig = GREEDY) -> list[str]:
    return [text.text for (text,) in writer.write(writer.tokens_of(prompt, "prompt="), config, [0])]


def sentences(corpus: Path, n: int) -> list[str]:
    return [line for line in corpus.read_text(encoding="utf-8").splitlines() if len(line) < 60][:n]


def test_what_came_before_a_sentence_of_the_training_text_ends_exactly_in_it(trained, corpus, tmp_path):
    given = sentences(corpus, 3)
    (tmp_path / "endings.txt").write_text("\n".join(given), encoding="utf-8")
    for name in ("backward", "gru"):
        out = tmp_path / f"{name}.jsonl"
        generate(trained[name], f"prompts={tmp_path / 'endings.txt'}", f"out={out}", "samples=2", "length=12")
        records = written(out)
        assert len(records) == 6
        for record in records:
            assert record["text"].encode().endswith(record["prompt"].encode())
            assert len(record["text"]) > len(record["prompt"])
        assert [record["prompt"] for record in records[::2]] == given
        assert {(record["run"], record["order"], record["step"]) for record in records} == {
            (str(trained[name]), "backward", 12)
        }


@pytest.mark.parametrize(
    ("order", "is_reversed", "prompt", "expected", "growth"),
    [
        ("forward", False, "789", TEXT[7:], Growth.right),
        ("backward", False, "<=>", TEXT[: TEXT.index(">") + 1], Growth.left),
        ("forward", True, "<=>", TEXT[: TEXT.index(">") + 1], Growth.left),
        ("backward", True, "789", TEXT[7:], Growth.right),
        ("backward", False, "", TEXT, Growth.left),
    ],
)
def test_a_text_that_is_known_by_heart_is_written_to_its_end_or_begin(
    tokenizer, order, is_reversed, prompt, expected, growth
):
    writer = writer_of(tokenizer, order, is_reversed)
    (text,) = writer.texts(writer.tokens_of(prompt, "prompt="), GREEDY, [0])
    assert (text.text, text.prompt, text.is_ended, writer.growth) == (expected, prompt, True, growth)


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_a_character_is_shown_when_all_its_bytes_are_there(tokenizer, order):
    writer = writer_of(tokenizer, order, text="1水€é2")
    prompt = "1" if order == "forward" else "2"
    shown = texts_while_growing(writer, prompt)
    n_bytes = len("水€é".encode())
    assert len(shown) > n_bytes
    whole = ["1", "1水", "1水€", "1水€é", "1水€é2"] if order == "forward" else ["2", "é2", "€é2", "水€é2", "1水€é2"]
    assert [*dict.fromkeys(shown)] == whole


def test_bytes_that_no_character_has_are_told_in_the_end(tokenizer):
    writer = writer_of(tokenizer, "forward", text="1€2")
    assert texts_while_growing(writer, "1", dataclasses.replace(GREEDY, length=2))[-2:] == ["1", "1\ufffd"]


class Numbered(nn.Module):
    """Predicts, at each place, a token of its own."""

    def __init__(self, tokens: list[int], vocab_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.functional.one_hot(torch.tensor(tokens), vocab_size).float())

    def forward(self, inputs_BT: torch.Tensor) -> torch.Tensor:
        return self.weight[: inputs_BT.shape[1]].expand(len(inputs_BT), -1, -1)


@pytest.mark.parametrize("order", ["forward", "backward", "even_odd"])
def test_a_text_is_decoded_when_it_is_looked_at_and_once(tokenizer, order, monkeypatch):
    n_decoded, bytes_of = [0], tokenizer.bytes_of

    def counted(token: int) -> bytes:
        n_decoded[0] += 1
        return bytes_of(token)

    (reading,) = readings_for(open_order(order, 64, tokenizer), tokenizer.bos_id, None).values()
    module = Numbered([*tokenizer.encode_batch(["a"])[0]] * 64, tokenizer.vocab_size)
    writer = Writer(module, tokenizer, reading, 64, TextOrder.reading)
    tokens, config = writer.tokens_of("0", "prompt="), dataclasses.replace(GREEDY, length=60)
    monkeypatch.setattr(tokenizer, "bytes_of", counted)  # it still decodes; how often is the claim
    assert [len(text.text) for text in writer.texts(tokens, config, [0, 1])] == [61, 61]
    assert n_decoded == [2 * 61]
    *_, (text,) = writer.write(tokens, config, [0])
    assert len(text.text) == len(text.prompt) + 60 == 61
    assert n_decoded == [3 * 61]


def test_a_window_shows_what_is_missing(tokenizer):
    (reading,) = readings_for(open_order("even_odd", 6, tokenizer), tokenizer.bos_id, None).values()
    module = Numbered(tokenizer.encode_batch(["abcdef"])[0], tokenizer.vocab_size)
    writer = Writer(module, tokenizer, reading, 6, TextOrder.reading)
    shown = texts_while_growing(writer, "0", dataclasses.replace(GREEDY, length=5))
    m = MISSING
    assert shown == [
        f"0{m}{m}{m}{m}{m}",
        f"0{m}b{m}{m}{m}",
        f"0{m}b{m}c{m}",
        f"0db{m}c{m}",
        f"0dbec{m}",
        *["0dbecf"] * 2,
    ]


def test_a_seed_gives_the_same_text_alone_and_among_others(trained, capsys, tmp_path):
    generate(trained["forward"], "prompt=water", "seed=5", "length=10")
    alone = capsys.readouterr().out
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "seven"}\n{"prompt": "water", "id": 3}\n')
    arguments = [f"prompts={tmp_path / 'prompts.jsonl'}", "samples=3", "seed=4", "length=10", "batch_size=2"]
    generate(trained["forward"], f"out={tmp_path / 'texts.jsonl'}", *arguments)
    records = written(tmp_path / "texts.jsonl")
    assert [(record["prompt"], record["seed"]) for record in records] == [
        (prompt, seed) for prompt in ("seven", "water") for seed in (4, 5, 6)
    ]
    assert f"{records[4]['text']}\n" == alone
    assert len({record["text"] for record in records}) == 6


@pytest.mark.parametrize("narrowed", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 0.0}], ids=str)
def test_each_key_of_sampling_narrows_the_draw(tokenizer, narrowed):
    writer, wide = writer_of(tokenizer, "forward"), dataclasses.replace(GREEDY, temperature=1e3)
    tokens = writer.tokens_of("0", "prompt=")
    assert writer.texts(tokens, wide, [0])[0].text != TEXT
    assert writer.texts(tokens, dataclasses.replace(wide, **narrowed), [0])[0].text == TEXT


def test_a_pipe_gives_a_line_for_each_line(tokenizer, capsys):
    writer = writer_of(tokenizer, "forward", text="0\n1\x1b\t2")
    batch.write_lines(writer, ["0", "1"], dataclasses.replace(GREEDY, samples=2))
    assert capsys.readouterr().out == "0\\n1\\x1b\\t2\n" * 2 + "1\\x1b\\t2\n" * 2


def test_prompts_come_from_standard_input(trained, capsys, monkeypatch):
    # In this process, where PyTorch is imported already: a pipe that is closed is read to its end in the same way.
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("light shone\r\n\nüber\n".encode())))
    generate(trained["backward"], "length=4")
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("light shone")
    assert second.endswith("über")


def test_nothing_on_standard_input_is_told_also_where_it_is_closed_and_a_prompt_asks_for_none(
    trained, capsys, monkeypatch, tmp_path
):
    out = f"out={tmp_path / 'a.jsonl'}"
    for stdin in (io.TextIOWrapper(io.BytesIO(b"\n \n")), None):
        monkeypatch.setattr(sys, "stdin", stdin)
        for arguments in ([], ["mode=score"]):
            with pytest.raises(InputError, match="standard input is empty"):
                generate(trained["forward"], *arguments)
            with pytest.raises(InputError, match="standard input is empty"):  # before the run is opened
                generate(tmp_path / "none", *arguments, out)
    assert not [*tmp_path.iterdir()]
    generate(trained["forward"], "prompt=seven", "length=2")
    assert capsys.readouterr().out.startswith("seven")


class Interrupted(ByHeart):
    """Is interrupted at a token."""

    at = -1

    def forward(self, inputs_BT: torch.Tensor) -> torch.Tensor:
        if self.at in inputs_BT:
            raise KeyboardInterrupt
        return super().forward(inputs_BT)


def test_a_file_that_was_interrupted_goes_on_and_is_that_of_one_go(tokenizer, tmp_path, caplog):
    caplog.set_level("INFO", "hindsight")
    writer, prompts = writer_of(tokenizer, "forward"), ["0", "5", "="]
    writer.module = module = Interrupted(tokenizer.encode_batch([TEXT])[0], tokenizer)
    config = dataclasses.replace(GREEDY, samples=3, batch_size=2, length=4)
    source = batch.Source("runs/a", "forward", 7, "fingerprint")
    batch.write_file(writer, prompts, config, source, tmp_path / "whole.jsonl")
    module.at, out = tokenizer.encode_batch(["="])[0][0], tmp_path / "texts.jsonl"
    with pytest.raises(KeyboardInterrupt):
        batch.write_file(writer, prompts, config, source, out)
    assert not out.exists()
    lines = tmp_path / ".texts.jsonl.partial" / "lines.jsonl"
    done = lines.read_bytes().splitlines(keepends=True)
    assert len(done) == 6
    lines.write_bytes(b"".join(done[:4]) + done[4][:-9])  # a kill may cut a line, here the second of two made at once
    module.at = tokenizer.encode_batch(["0"])[0][0]  # what is done is not done again
    batch.write_file(writer, prompts, config, source, out)
    assert "going on after 4 of 9" in caplog.text
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"texts.jsonl", "whole.jsonl"}


def test_what_was_begun_with_other_settings_is_kept_until_the_user_says_otherwise(tmp_path):
    out, folder = tmp_path / "a.jsonl", tmp_path / ".a.jsonl.partial"
    with suppress(KeyError), records_in_work(out, {"seed": 0, "prompts": "x"}, 2, "texts") as records:
        records.add({"number": 0})
        raise KeyError
    said = rf"1 of its lines are done, with other settings \(seed=0 then, 1 now, prompts\); .* remove {folder}"
    with pytest.raises(InputError, match=said), records_in_work(out, {"seed": 1, "prompts": "y"}, 2, "texts"):
        pass
    with records_in_work(out, {"seed": 0, "prompts": "x"}, 2, "texts") as records:
        assert records.n_done == 1
        records.add({"number": 1})
    assert written(out) == [{"number": 0}, {"number": 1}]


def test_what_was_begun_with_other_settings_and_has_no_line_is_begun_with_these(tmp_path):
    out = tmp_path / "a.jsonl"
    with suppress(KeyError), records_in_work(out, {"seed": 0}, 1, "texts"):
        raise KeyError
    with records_in_work(out, {"seed": 1}, 1, "texts") as records:
        records.add({"number": 1})
    assert written(out) == [{"number": 1}]


def test_a_file_goes_on_however_its_run_is_spelled(tokenizer, tmp_path):
    writer, prompts, out = writer_of(tokenizer, "forward"), ["0", "5"], tmp_path / "texts.jsonl"
    writer.module = module = Interrupted(tokenizer.encode_batch([TEXT])[0], tokenizer)
    module.at = tokenizer.encode_batch(["5"])[0][0]
    config = dataclasses.replace(GREEDY, length=4)
    with pytest.raises(KeyboardInterrupt):
        batch.write_file(writer, prompts, config, batch.Source("runs/a", "forward", 7, "same"), out)
    module.at = tokenizer.encode_batch(["0"])[0][0]  # what is done is not done again
    with pytest.raises(InputError, match="checkpoint"):
        batch.write_file(writer, prompts, config, batch.Source("runs/a", "forward", 8, "other"), out)
    batch.write_file(writer, prompts, config, batch.Source("./runs/a/", "forward", 7, "same"), out)
    assert [record["prompt"] for record in written(out)] == prompts


def test_a_prompt_longer_than_the_context_is_read_from_its_end_or_begin_and_that_is_said(tokenizer, capsys):
    for order, end in (("forward", "last"), ("backward", "first")):
        writer = writer_of(tokenizer, order)
        prompt = TEXT[0] * CONTEXT_LENGTH
        assert writer.n_unread(CONTEXT_LENGTH - 1) == 0
        batch.write_once(writer, prompt, GREEDY)
        said = capsys.readouterr()
        assert f"the model sees 64, and begins with the {end} 32 of the prompt" in said.err
        assert prompt in said.out


def test_bad_input_is_one_line_before_anything_is_written(trained, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.txt").write_bytes(b"text\n\x80\x81\n")
    (tmp_path / "zeros.txt").write_bytes(b"text\0\n")
    (tmp_path / "names.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    (tmp_path / "half.jsonl").write_text('{"prompt": "\\ud800"}\n')
    (tmp_path / "there.jsonl").write_text("mine")
    run, out = trained["forward"], f"out={tmp_path / 'new.jsonl'}"
    cases = [
        (tmp_path / "none", ["prompt=a"], "does not exist; give the folder of a run"),
        (run, ["prompt=a", "checkpoint=7"], "has no such step, but 12, 10, 5"),
        (run, ["prompt=a", "direction=backward"], "direction=backward is for a run of order=both"),
        (run, ["prompt=a", "ending=b"], "ending= is for mode=infill, not for mode=write"),
        (run, ["prompt=a", f"prompts={tmp_path / 'empty.txt'}"], "give one of the two"),
        (run, ["prompt=\udcff"], "prompt= is no text in UTF-8"),
        (run, [f"prompts={tmp_path / 'empty.txt'}", out], "is empty; write `prompt` into it"),
        (run, [f"prompts={tmp_path / 'binary.txt'}", out], "binary.txt, line 2 is no text in UTF-8"),
        (run, [f"prompts={tmp_path / 'zeros.txt'}", out], "zeros.txt, line 1 is no text in UTF-8"),
        (run, [f"prompts={tmp_path / 'names.jsonl'}", out], "line 2 is no JSON object with `prompt` as text"),
        (run, [f"prompts={tmp_path / 'half.jsonl'}", out], "line 1, `prompt`, is no text in UTF-8"),
        (run, [f"prompts={tmp_path / 'none.txt'}", out], "No such file"),
        (run, [f"prompts={tmp_path}/", out], "must be .txt with one a line, or .jsonl"),
        (run, ["prompt=a", f"out={tmp_path / 'there.jsonl'}"], "is there already; remove it"),
        (run, ["prompt=a", f"out={tmp_path / 'no' / 'a.jsonl'}"], "there is no folder"),
        (trained["even_odd"], ["prompt=" + "seven rivers ran " * 9], "order=even_odd fills a window of 32; shorten it"),
    ]
    before = {path.name for path in tmp_path.iterdir()}
    for folder, arguments, said in cases:
        with pytest.raises(InputError, match=said):
            generate(folder, *arguments)
    assert {path.name for path in tmp_path.iterdir()} == before
    assert (tmp_path / "there.jsonl").read_text() == "mine"


def test_a_run_of_both_directions_writes_in_the_one_that_is_asked_for(tokenizer):
    order = open_order("both", 8, tokenizer)
    assert [*readings_for(order, tokenizer.bos_id, None)] == ["forward", "backward"]
    assert [*readings_for(order, tokenizer.bos_id, "backward")] == ["backward", "forward"]


def test_a_file_of_prompts_gives_the_texts_that_are_asked_for(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst \r\n\r\nsecond")
    (tmp_path / "b.jsonl").write_text('{"prompt": "a", "ending": "b\\nc", "id": 1}\n')
    assert read_prompts(str(tmp_path / "a.txt"), ["prompt"]) == [{"prompt": "first "}, {"prompt": "second"}]
    assert read_prompts(str(tmp_path / "b.jsonl"), ["prompt", "ending"]) == [{"prompt": "a", "ending": "b\nc"}]
    with pytest.raises(InputError, match=r"must be .jsonl, with `prompt` and `ending`"):
        read_prompts(str(tmp_path / "a.txt"), ["prompt", "ending"])


def test_nothing_of_a_run_changes_by_writing(trained, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in trained["even_odd"].rglob("*")}
    generate(trained["even_odd"], "prompt=seven", f"out={tmp_path / 'a.jsonl'}", "length=200")
    assert {path: path.stat().st_mtime_ns for path in trained["even_odd"].rglob("*")} == before
    (record,) = written(tmp_path / "a.jsonl")
    assert record["tokens"] <= 32
    assert record["text"].startswith("seven")
