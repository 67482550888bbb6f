"""Evaluations that are shared, interrupted, repeated: the same rows, and nothing of another evaluation."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from helpers.killed_runs import kill_group
from helpers.processes import ROOT
from helpers.token_runs import T, names, score
from helpers.training_runs import compose_config

import evaluate_tokens
from hindsight.analysis.token_losses import COLUMNS, TokenLosses
from hindsight.errors import InputError
from hindsight.evaluation import losses_in_work
from hindsight.evaluation.losses_in_work import IDENTITY, Work
from hindsight.evaluation.scoring import Pass
from hindsight.loading.collate import Collate
from hindsight.orders.known import open_order


def assert_same(one: TokenLosses, other: TokenLosses) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(one.read([name])[name], other.read([name])[name])
    assert one.metadata | {"git_commit": ""} == other.metadata | {"git_commit": ""}


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """Sliding losses of the backward run, in one go."""
    return score(trained["backward"], tmp_path_factory.mktemp("whole") / "a.parquet", *SLIDING)


SLIDING = ["context=sliding:3", "batch_size=2"]


def parts_of(work) -> list[str]:
    return sorted(path.name for path in work.glob("*/*.npz"))


def interrupted_after(n_parts, monkeypatch, *arguments):
    """Interrupt an evaluation when it has made so many parts."""
    save, made = Work.save, []

    def limited(self, part, rows):
        if len(made) == n_parts:
            raise KeyboardInterrupt
        save(self, part, rows)
        made.append(part)

    with monkeypatch.context() as patch:
        patch.setattr(Work, "save", limited)
        with pytest.raises(KeyboardInterrupt):
            score(*arguments)


@pytest.fixture
def begun(trained, tmp_path, monkeypatch):
    """The work folder of an evaluation that was interrupted after 7 parts."""
    monkeypatch.setattr(losses_in_work, "PART_TOKENS", 64)
    interrupted_after(7, monkeypatch, trained["backward"], tmp_path / "a.parquet", *SLIDING)
    assert len(parts_of(tmp_path / ".a.parquet.partial")) == 7
    return tmp_path / ".a.parquet.partial"


def test_what_was_interrupted_goes_on_from_its_parts_and_gives_the_same_rows(trained, begun, whole, caplog):
    parts = sorted(begun.glob("*/*.npz"))
    parts[2].write_bytes(parts[2].read_bytes()[:-100])  # by a lost disk
    before = {path: path.stat().st_mtime_ns for path in parts}
    kept = {}
    assemble = losses_in_work.assemble

    def look(*arguments):
        kept.update({path: path.stat().st_mtime_ns for path in parts})
        return assemble(*arguments)

    with pytest.MonkeyPatch.context() as patch, caplog.at_level("INFO", "hindsight"):
        patch.setattr("hindsight.evaluation.evaluate.assemble", look)
        found = score(trained["backward"], begun.parent / "a.parquet", *SLIDING)
    assert [path for path in parts if kept[path] != before[path]] == [parts[2]]
    assert "going on where it was, after 6 of" in caplog.text
    assert_same(found, whole)
    assert [path.name for path in begun.parent.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("change", ["context=sliding:4", "batch_size=4", "checkpoint=10", "split=train"])
def test_other_arguments_take_over_none_of_the_parts(trained, begun, change, monkeypatch):
    run = trained["forward"] if change == "checkpoint=10" else trained["backward"]
    changed = [*(each for each in SLIDING if each.split("=")[0] != change.split("=")[0]), change]
    interrupted_after(0, monkeypatch, run, begun.parent / "a.parquet", *changed)
    assert parts_of(begun) == []
    assert (begun / "all" / IDENTITY).exists()


def test_what_is_done_says_so_and_is_made_again_for_a_newer_checkpoint_only(trained, tmp_path, caplog, monkeypatch):
    run, out = trained["forward"], tmp_path / "a.parquet"
    at_10 = score(run, out, "checkpoint=10")
    stamp = out.stat().st_mtime_ns
    with caplog.at_level("INFO", "hindsight"), monkeypatch.context() as patch:
        patch.setattr("language_model.build_model", lambda *_: pytest.fail("a model was built"))
        score(run, out, "checkpoint=10")
    assert f"{out}: already there, nothing to do." in caplog.text
    assert f"{at_10.metadata['sums']['nats'] / at_10.rows:.6f} nats/token" in caplog.text
    assert out.stat().st_mtime_ns == stamp
    newest = score(run, out)
    assert (at_10.metadata["step"], newest.metadata["step"]) == (10, 12)
    before = names(tmp_path)
    with pytest.raises(InputError, match=r"holds other losses, with context=windows \(now sliding:8\); choose another"):
        score(run, out, "context=sliding:8")
    with pytest.raises(InputError, match=r"holds other losses, with run=forward \(now backward\)"):
        score(trained["backward"], out)
    assert names(tmp_path) == before
    out.write_text("mine")
    with pytest.raises(InputError, match=r"a.parquet is damaged or no parquet file .* Choose another out, or"):
        score(run, out)
    assert names(tmp_path) == {"a.parquet": b"mine"}


@pytest.mark.dist
def test_two_processes_give_the_rows_of_one(fork_server, trained, whole, tmp_path):
    out = tmp_path / "a.parquet"
    arguments = [f"run={trained['backward']}", f"out={out}", *SLIDING]
    assert fork_server.run(arguments, 2, script="evaluate_tokens") == [0, 0], fork_server.output()
    assert fork_server.output().count("nats/token") == 1
    assert_same(TokenLosses.open(out), whole)


@pytest.mark.slow
@pytest.mark.dist
def test_what_is_killed_or_asked_to_stop_goes_on_with_any_number_of_processes(fork_server, trained, whole, tmp_path):
    out, work = tmp_path / "a.parquet", tmp_path / ".a.parquet.partial"
    arguments = [f"run={trained['backward']}", f"out={out}", *SLIDING]

    def stopped(number, ranks, after):
        before = len(parts_of(work))
        processes = fork_server.start(arguments, ranks, script="evaluate_tokens")
        assert fork_server.reaches(lambda: len(parts_of(work)) >= before + after), fork_server.output()
        kill_group(processes, number)
        return fork_server.statuses()

    assert stopped(signal.SIGKILL, 1, 5) == [-signal.SIGKILL]
    assert stopped(signal.SIGKILL, 2, 5) == [-signal.SIGKILL] * 2
    assert stopped(signal.SIGTERM, 1, 5) == [75]
    assert "Interrupted by SIGTERM: what is done stays, and the same command goes on." in fork_server.output()
    assert stopped(signal.SIGINT, 2, 5) == [75, 75]
    assert not out.exists()
    assert fork_server.run(arguments, 2, script="evaluate_tokens") == [0, 0], fork_server.output()
    assert "going on where it was, after" in fork_server.output()
    assert_same(TokenLosses.open(out), whole)
    assert os.listdir(tmp_path) == ["a.parquet"]
    assert fork_server.run(arguments, 1, script="evaluate_tokens") == [0], fork_server.output()
    assert "already there, nothing to do." in fork_server.output()


@pytest.mark.dist
def test_damage_that_one_of_two_processes_meets_ends_both_with_one_line(fork_server, trained, shards, tmp_path):
    data = shutil.copytree(shards, tmp_path / "shards")
    last = max((data / "val").glob("*.mds"))
    content = bytearray(last.read_bytes())
    content[-60] ^= 1
    last.write_bytes(content)
    arguments = [f"run={trained['forward']}", f"out={tmp_path / 'a.parquet'}", f"data={data}"]
    assert fork_server.run(arguments, 2, script="evaluate_tokens") == [2, 2]
    assert f"evaluate_tokens.py: {last} is damaged" in fork_server.output()
    assert "Traceback" not in fork_server.output()
    assert not (tmp_path / "a.parquet").exists()


def test_a_run_that_reads_each_window_in_several_ways_has_a_file_for_each(trained, tmp_path, monkeypatch, caplog):
    def two_passes(run, data):
        orders = {name: open_order(name, T) for name in ("forward", "backward")}
        return [Pass(name, order, Collate(order, data.tokenizer.bos_id, T)) for name, order in orders.items()]

    forward = score(trained["forward"], tmp_path / "one.parquet")
    monkeypatch.setattr(evaluate_tokens, "passes", two_passes)
    config = compose_config("evaluate_tokens", f"run={trained['forward']}", f"out={tmp_path / 'a.parquet'}")
    caplog.clear()
    with caplog.at_level("INFO", "hindsight"):
        evaluate_tokens.main(config)
        evaluate_tokens.main(config)
    assert caplog.text.count("nats/document") == 4
    assert caplog.text.count("already there") == 1
    files = [TokenLosses.open(tmp_path / f"a-{name}.parquet") for name in ("forward", "backward")]
    assert [file.metadata["order"] for file in files] == ["forward", "backward"]
    assert_same(files[0], forward)
    assert files[1].read(["context"])["context"][0] == T - 1
    assert len([*tmp_path.iterdir()]) == 3


def test_a_second_evaluation_into_the_same_file_is_refused_while_the_first_goes_on(trained, tmp_path):
    work = tmp_path / ".a.parquet.partial"
    code = "import sys; from pathlib import Path; from hindsight.files import locked\n"
    code += "with locked(Path(sys.argv[1]), 'held'): print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(work)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        with pytest.raises(InputError, match=r"another process evaluates into it \(process \d+ on"):
            evaluate_tokens.main(
                compose_config("evaluate_tokens", f"run={trained['forward']}", f"out={tmp_path / 'a.parquet'}")
            )
