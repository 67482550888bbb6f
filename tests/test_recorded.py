import pytest
import torch
from helpers.processes import ROOT

from benchmarks.recorded import Ratio, compare, machine_kind, read_recorded, record
from hindsight.errors import InputError

HERE, ELSEWHERE = "a processor, 1 thread, torch 2.7.0", "a GPU, torch 2.7.0"


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "folder" / "recorded.json"
    record(path, HERE, [Ratio("ours over theirs", 0.8), Ratio("Trainer over loop", 1.0)])
    return path


def test_a_ratio_over_10_percent_larger_than_recorded_is_told(recorded):
    now = [Ratio("ours over theirs", 0.9), Ratio("Trainer over loop", 1.09)]
    (line,) = compare(read_recorded(recorded), HERE, now)
    assert line.startswith("SLOWER by 12%: ours over theirs: 0.900, recorded 0.800 (20")


def test_ratios_within_10_percent_and_faster_ones_are_no_news(recorded):
    now = [Ratio("ours over theirs", 0.5), Ratio("Trainer over loop", 1.1)]
    assert compare(read_recorded(recorded), HERE, now) == [
        "Nothing is over 10% slower than recorded on this kind of machine."
    ]


def test_another_kind_of_machine_is_not_compared(recorded):
    said = compare(read_recorded(recorded), ELSEWHERE, [Ratio("ours over theirs", 9.0)])
    assert said == [f"Nothing is recorded of {ELSEWHERE}; record=true does."]
    assert compare(read_recorded(recorded), ELSEWHERE, []) == []
    (other_way,) = compare(read_recorded(recorded), ELSEWHERE, [Ratio("ours over theirs", 9.0)], "--record")
    assert other_way == f"Nothing is recorded of {ELSEWHERE}; --record does."


def test_a_measure_that_was_never_recorded_is_counted(recorded):
    now = [Ratio("ours over theirs", 0.8), Ratio("another size", 9.0)]
    assert compare(read_recorded(recorded), HERE, now) == [
        "Nothing is over 10% slower than recorded on this kind of machine.",
        "1 of 2 ratios were never recorded on this kind of machine; record=true does.",
    ]
    (only,) = compare(read_recorded(recorded), HERE, now[1:])
    assert only.startswith("1 of 1 ratios were never recorded")


def test_recording_anew_replaces_the_same_ratio_and_keeps_the_others(recorded):
    record(recorded, HERE, [Ratio("ours over theirs", 0.71234567)])
    record(recorded, ELSEWHERE, [Ratio("ours over theirs", 0.5)])
    ratios = {kind: {name: each["ratio"] for name, each in of.items()} for kind, of in read_recorded(recorded).items()}
    assert ratios == {
        HERE: {"ours over theirs": 0.7123, "Trainer over loop": 1.0},
        ELSEWHERE: {"ours over theirs": 0.5},
    }


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": {"b": {"ratio": "x", "date": 1, "commit": 1}}}'])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "recorded.json").write_text(content)
    with pytest.raises(InputError, match="holds no recorded ratios"):
        read_recorded(tmp_path / "recorded.json")


def test_a_kind_of_machine_is_a_processor_with_threads_and_a_version_of_torch():
    assert machine_kind("cpu", 1).endswith(f", 1 thread, torch {torch.__version__}")
    assert machine_kind("cpu", 2) != machine_kind("cpu", 1)


def test_what_is_recorded_here_can_be_read():
    path = ROOT / "benchmarks" / "recorded.json"
    content = read_recorded(path)
    assert [*filter(None, content.values())]
    assert all(0 < entry["ratio"] < 10 for of in content.values() for entry in of.values())
