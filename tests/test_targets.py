import json
import re

import pytest

from benchmarks.recorded import Ratio
from benchmarks.table import Row
from benchmarks.targets import gpt_4096, gpt_bf16, main
from hindsight.config.training import Precision
from hindsight.errors import InputError
from hindsight.training.precision import is_available


def fails():
    raise InputError("precision=bf16 needs another processor")


PARTS = {
    "a": lambda: ([Row("ours over theirs", "0.50", "≥ 0.4", True)], [Ratio("ours over theirs", 0.5)]),
    "b": fails,
}


def test_a_part_that_fails_is_a_row_and_the_others_are_measured(tmp_path, capsys):
    main([], PARTS, tmp_path / "recorded.json")
    out = capsys.readouterr().out
    assert "| ours over theirs | 0.50 | ≥ 0.4 | yes |" in out
    assert "| b | not measured: precision=bf16 needs another processor |  | NO |" in out
    assert "Nothing is recorded of" in out
    assert out.endswith("; --record (make bench RECORD=1) does.\n")


def test_ratios_are_compared_with_those_that_were_recorded(tmp_path, capsys):
    main(["--record", "a"], PARTS, tmp_path / "recorded.json")
    main([], {"a": lambda: ([], [Ratio("ours over theirs", 0.6)])}, tmp_path / "recorded.json")
    assert "SLOWER by 20%: ours over theirs" in capsys.readouterr().out


def test_an_unknown_part_is_refused_with_the_known_ones(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["c"], PARTS, tmp_path / "recorded.json")
    assert "c: choose of a, b" in capsys.readouterr().err


def test_rows_and_ratios_are_written_as_json(tmp_path, capsys):
    main(["--json", str(tmp_path / "a.json"), "a"], PARTS, tmp_path / "recorded.json")
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["rows"] == [{"name": "ours over theirs", "value": "0.50", "target": "≥ 0.4", "met": True}]
    assert written["ratios"] == {"ours over theirs": 0.5}
    assert written["machine"] in written["compared_with_recorded"][0]
    with pytest.raises(SystemExit):
        main(["--json", str(tmp_path / "none" / "a.json")], {"a": fails}, tmp_path / "recorded.json")
    assert "is no file, and none can be made there" in capsys.readouterr().err


TINY = ["model=gpt_nano", "vocab_size=300", "context_length=32", "batch_size=4", "rounds=1", "steps=1", "compile=false"]


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.timeout(600)
def test_parts_measure_what_their_rows_say():
    rows, ratios = gpt_4096(TINY)
    assert [(row.name, row.target) for row in rows] == [
        ("GPT (fp32, loss=chunked), V 300: a GPT-2 in plain PyTorch, as nanoGPT's, over ours, CPU time", ""),
        ("GPT (fp32, loss=chunked), V 300: Hugging Face's GPT-2 over ours, CPU time", "≥ 1.4"),
        ("the bare loop over the Trainer with everything on but W&B, CPU time", "≥ 0.97"),
        ("the Trainer's waits for data, of its time", ""),
        ("to the first step, compilation included", ""),
        ("bare (fp32, loss=chunked)", ""),
        ("trainer (fp32, loss=chunked)", ""),
        ("plain (fp32)", ""),
        ("huggingface (fp32)", ""),
    ]
    assert re.fullmatch(r"[\d,]+ tokens/s, MFU [\d.]+%", rows[-1].value)
    assert [ratio.name.partition(": ")[0] for ratio in ratios] == ["gpt_nano, V 300, 4 x 32 tokens"] * len(ratios)
    if not is_available(Precision.bf16):
        return
    rows, ratios = gpt_bf16(TINY)
    assert [(row.name.partition(": ")[2], row.target) for row in rows] == [
        ("Hugging Face's GPT-2 in fp32 over ours in bf16, CPU time", "≥ 2.2"),
        ("Hugging Face's GPT-2 in bf16 over ours in bf16, CPU time", ""),
    ]
    over = {"fp32" if "(fp32)" in ratio.name else "bf16": 1 / ratio.value for ratio in ratios}
    assert [row.value.split()[0] for row in rows] == [f"{over[name]:.2f}" for name in ("fp32", "bf16")]
