"""Lines of metrics and samples: whatever they hold, nothing that can be read is lost, and nothing is kept in memory."""

import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest
from helpers.training_runs import by_step, train

from hindsight import runs
from hindsight.errors import InputError
from hindsight.json_lines import keep_copy, keep_until, read_backward, read_records


def line(step: int, **more: object) -> bytes:
    return json.dumps({"step": step, "tokens": 8 * step, **more}).encode() + b"\n"


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "metrics.jsonl"


@pytest.mark.parametrize("ending", [b"", b'{"step": 4, "to', b"\xff\xfe", b"\0" * 100, line(4)[:-1], b"\n\n"])
def test_lines_after_the_step_and_a_cut_last_line_go_and_nothing_is_told(path, caplog, ending):
    path.write_bytes(line(1) + line(2) + line(3) + ending)
    last = keep_until(path, 2, once=True)
    assert last is not None
    assert (last.record["step"], last.start) == (2, len(line(1)))
    assert path.read_bytes() == line(1) + line(2)
    assert not caplog.messages
    assert os.listdir(path.parent) == [path.name]


def test_a_last_line_without_its_end_stays_where_it_is_whole(path):
    path.write_bytes(line(1) + line(2)[:-1])
    assert keep_until(path, 5, once=True) is not None
    assert path.read_bytes() == line(1) + line(2)


BAD = [
    *(b'{"step": 2, "tok\n', b"[1, 2]\n", b"7\n", b"null\n", b'"text"\n', b'{"tokens": 8}\n', b"\xff\xfe\n", b"\0\0\n"),
    *(
        b'{"step": "2"}\n',
        b'{"step": 2.5}\n',
        b'{"step": true}\n',
        b'{"step": -1}\n',
        b'{"step": NaN}\n',
        b"[" * 9999 + b"\n",
    ),
    *(
        line(1),
        line(0),
        line(99),
        b'{"step": 2, nothing}\n',
        b"x" * (17 << 20) + b"\n",
        b'{"step": ' + b"9" * 5000 + b"}\n",
    ),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad[:20]))
def test_a_line_in_the_middle_that_cannot_be_read_costs_no_other_and_the_file_is_kept(path, caplog, bad):
    content = line(1) + bad + line(3) + line(4)
    for attempt in (1, 2):
        path.write_bytes(content)
        last = keep_until(path, 3, once=True)
        assert last is not None
        assert last.record["step"] == 3
        assert last.start == len(line(1))
        assert path.with_name(f"metrics.jsonl.damaged-{attempt}").read_bytes() == content
        assert [record["step"] for record in read_records(path)] == [1, 3]
    assert "metrics.jsonl: line 2 " in caplog.messages[-1]
    assert "is no JSON object with a step that follows" in caplog.messages[-1]
    assert f"kept as metrics.jsonl.damaged-{attempt}." in caplog.messages[-1]


def test_windows_ends_of_lines_and_nan_stay_as_they_are(path):
    content = line(1)[:-1] + b"\r\n" + b'{"step": 2, "loss": NaN}\n' + b'\xef\xbb\xbf{"step": 3}\n'
    path.write_bytes(content)
    assert keep_until(path, 3, once=True) is not None
    assert path.read_bytes() == content


def test_samples_have_several_lines_a_step(path, caplog):
    path.write_bytes(line(1) + line(2) * 2 + line(3))
    assert keep_until(path, 2, once=False) is not None
    assert path.read_bytes() == line(1) + line(2) * 2
    assert not caplog.messages


def test_nothing_is_left_of_a_file_whose_lines_are_all_later(path):
    path.write_bytes(line(5) + line(6))
    assert keep_until(path, 4, once=True) is None
    assert path.read_bytes() == b""
    assert keep_until(path.with_name("missing"), 4, once=True) is None


def test_a_file_is_read_from_its_end_across_blocks(path):
    path.write_bytes(b"".join(line(step, text="é" * step) for step in range(1, 1500)) + b"no\n" + line(1500)[:-1])
    assert [record["step"] for record in read_backward(path)] == [*range(1500, 0, -1)]
    assert not [*read_backward(path.with_name("missing"))]


@pytest.mark.parametrize("every", [1, 7, 900, 1500, 2000])
def test_lines_that_hold_a_text_are_found_from_the_end_wherever_blocks_end(path, every):
    steps = range(1, 2000)
    path.write_bytes(
        b"".join(line(step, text="é" * (step % 50), **{"x": 1} if step % every == 0 else {}) for step in steps)
    )
    found = [record["step"] for record in read_backward(path, b'"x"')]
    assert found == [step for step in reversed(steps) if step % every == 0]


def test_a_line_that_is_too_long_is_damage_and_no_cut_line(path):
    path.write_bytes(line(1) + b"x" * (17 << 20) + b"\n" + line(2))
    with pytest.raises(InputError, match="line 2 is no JSON object"):
        list(read_records(path))
    assert [record["step"] for record in read_backward(path)] == [2]


def test_a_pipe_is_no_file_of_lines(path):
    os.mkfifo(path)
    for attempt in (
        lambda: keep_until(path, 1, once=True),
        lambda: next(read_backward(path)),
        lambda: list(read_records(path)),
    ):
        with pytest.raises(InputError, match=r"metrics\.jsonl cannot be read \(no regular file\)"):
            attempt()


def test_a_hundred_thousand_lines_take_a_second_and_no_memory(path):
    path.write_bytes(b"".join(line(step, **{"eval/loss_nats": 1.5, "text": "x" * 200}) for step in range(1, 100_001)))
    tracemalloc.start()
    began = time.monotonic()
    try:
        assert keep_until(path, 90_000, once=True) is not None
        assert runs.is_evaluated(path.parent, 90_000)
        assert runs.last_value(path, "eval/loss_nats") == 1.5
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 20


def test_a_run_with_a_damaged_line_goes_on_with_all_others(shards, tmp_path, caplog):
    changes = ["run_name=a", "samples.interval=2ba", "samples.length=2"]
    folder = train(shards, tmp_path, *changes, "max_duration=4ba")
    for name in ("metrics.jsonl", "samples.jsonl"):
        first, *others = (folder / name).read_bytes().splitlines(keepends=True)
        (folder / name).write_bytes(b"".join([first, b"\xff damaged\n", *others]))
    train(shards, tmp_path, *changes, "max_duration=6ba")
    assert [*by_step(folder)] == [1, 2, 3, 4, 5, 6]
    assert [record["step"] for record in read_records(folder / "samples.jsonl")] == [2, 4, 6]
    assert (folder / "metrics.jsonl.damaged-1").read_bytes().count(b"damaged") == 1
    assert sum("line 2 is no JSON object" in message for message in caplog.messages) == 2


def test_lines_that_nothing_will_write_again_are_copied(path, caplog):
    whole = b"".join(b'{"step": %d}\n' % step for step in range(1, 6))
    path.write_bytes(whole)
    keep_copy(path, 5)
    assert [*path.parent.iterdir()] == [path]
    keep_copy(path, 3)
    keep_until(path, 3, once=True)
    assert path.with_name(f"{path.name}.until-5").read_bytes() == whole
    assert "lines after step 3, whose checkpoint is gone, are kept in" in caplog.text
