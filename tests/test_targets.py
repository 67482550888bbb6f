import pytest

from benchmarks.recorded import Ratio
from benchmarks.table import Row
from benchmarks.targets import main
from hindsight.errors import InputError


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


def test_ratios_are_compared_with_those_that_were_recorded(tmp_path, capsys):
    main(["--record", "a"], PARTS, tmp_path / "recorded.json")
    main([], {"a": lambda: ([], [Ratio("ours over theirs", 0.6)])}, tmp_path / "recorded.json")
    assert "SLOWER by 20%: ours over theirs" in capsys.readouterr().out


def test_an_unknown_part_is_refused_with_the_known_ones(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["c"], PARTS, tmp_path / "recorded.json")
    assert "c: choose of a, b" in capsys.readouterr().err
