"""Conversions that are interrupted, and go on: whatever happens, the result is that of one that was not."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from helpers.conversion_runs import contents, parts_done, run_to_the_end, start, stop_after
from helpers.processes import ROOT, run_command
from helpers.small_data import convert_config, draws, make_text

import convert_to_h5
import convert_to_mds
import inspect_mds
from hindsight.config.conversion import InspectConfig
from hindsight.config.corpus import OnError
from hindsight.conversion import workers as conversion_workers
from hindsight.conversion.token_part import TokenPart
from hindsight.errors import InputError
from hindsight.files import locked
from hindsight.shards.manifest import Manifest
from hindsight.text.digest import Digest

N_KILLS = 20


@pytest.mark.dist
@pytest.mark.parametrize("script", ["convert_to_mds", "convert_to_h5"])
def test_the_result_is_the_same_for_any_number_of_workers(tmp_path, large_corpus, tokenizer_dir, script):
    for workers in (1, 2, 5):
        out = tmp_path / str(workers)
        run_to_the_end(start(script, large_corpus, tokenizer_dir, out, workers), out)
    results = [contents(tmp_path / str(workers)) for workers in (1, 2, 5)]
    assert results[0] == results[1] == results[2]
    assert len(results[0]) > (40 if script == "convert_to_mds" else 3)
    assert Manifest.load(tmp_path / "1").summary["duplicate_documents"] >= 800


@pytest.mark.dist
@pytest.mark.slow
@pytest.mark.parametrize("script", ["convert_to_mds", "convert_to_h5"])
def test_twenty_random_kills_end_in_the_same_bytes(tmp_path, large_corpus, tokenizer_dir, script):
    run_to_the_end(start(script, large_corpus, tokenizer_dir, tmp_path / "whole"), tmp_path / "whole")
    rng = random.Random(7)
    out, work = tmp_path / "killed", tmp_path / ".killed.partial"
    for kill in range(N_KILLS):
        before, more = parts_done(work), rng.choice([0, 0, 1, 3, 10, 20, 40])
        process = start(script, large_corpus, tokenizer_dir, out)
        while process.poll() is None and (not (work / "lock").exists() or parts_done(work) < before + more):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        # Half of the time the parent alone, as what frees memory does: its workers must end by themselves.
        if kill % 2:
            process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.05)
        if out.exists():  # it was done before it was killed; a folder that is there is whole
            assert contents(out) == contents(tmp_path / "whole")
            shutil.rmtree(out)
            shutil.rmtree(work, ignore_errors=True)  # as another call does where the result is there
        else:
            assert parts_done(work) >= before
    run_to_the_end(start(script, large_corpus, tokenizer_dir, out), out)
    assert contents(out) == contents(tmp_path / "whole")
    assert not work.exists()


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of a few documents, so that a small corpus has many; the state is saved after each."""
    monkeypatch.setattr("hindsight.text.documents.PART_BYTES", 2000)
    monkeypatch.setattr("hindsight.conversion.workers.SAVE_INTERVAL_S", 0)


def count_reads(monkeypatch):
    """Count the parts that are made from now on."""
    from hindsight.conversion.text_source import TextSource

    made = []
    read = TextSource.read
    monkeypatch.setattr(TextSource, "read", lambda self, part: (made.append(part), read(self, part))[1])
    return made


@pytest.fixture
def interrupted(tmp_path, corpus, tokenizer_dir, small_parts, monkeypatch):
    """A conversion that was interrupted after six parts."""
    with monkeypatch.context() as limited:
        stop_after(limited, 6)
        with pytest.raises(SystemExit, match="130"):
            convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out"))
    assert (tmp_path / ".out.partial").is_dir()
    assert not (tmp_path / "out").exists()
    return tmp_path / "out"


def test_what_was_done_is_not_done_again(interrupted, corpus, tokenizer_dir, shards, monkeypatch):
    made = count_reads(monkeypatch)
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, interrupted))
    total = -(-corpus.stat().st_size // 2000)
    assert len(made) == total - 6
    assert {k: v for k, v in contents(interrupted).items() if k != "manifest.json"} == {
        k: v for k, v in contents(shards).items() if k != "manifest.json"
    }
    assert not (interrupted.parent / ".out.partial").exists()


def test_what_is_left_of_a_work_folder_without_its_state_counts_for_nothing(interrupted, corpus, tokenizer_dir, shards):
    work = interrupted.parent / ".out.partial"
    (work / "state.npz").unlink()  # as a kill leaves it while the folder is removed at the end
    assert (work / "hashes").stat().st_size > 0
    assert (work / "parts.log").stat().st_size > 0
    (work / "result" / "train" / "shard.99999.mds").touch()
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, interrupted))
    assert contents(interrupted) == contents(shards)


def test_another_corpus_tokenizer_or_setting_is_refused_and_nothing_is_lost(
    interrupted, tmp_path, corpus, tokenizer_dir, shards
):
    before = contents(tmp_path / ".out.partial")

    def refuse(match, corpus=corpus, script=convert_to_mds, **changes):
        with pytest.raises(InputError, match=match):
            script.main(convert_config(corpus, tokenizer_dir, interrupted, **changes))
        after = contents(tmp_path / ".out.partial")
        assert {name: after.get(name) for name in before} == before | {"lock": after["lock"]}

    refuse(r"out= was begun with seed=0 \(now 1\); start again with what it was", seed=1)
    refuse(r"begun with block_length=64 \(now 32\)", block_length=32)
    refuse(r"begun with format=mds \(now h5\)", script=convert_to_h5)
    refuse(r"begun with text_key=text \(now title\)", text_key="title")
    refuse(r"begun with max_document_bytes=", max_document_bytes=100)
    other = tmp_path / "other.txt"
    other.write_text(make_text(120, seed=9))
    refuse(r"corpus= is not, or no longer, the one with which this conversion began", corpus=other)
    other.write_text(corpus.read_text()[:300])
    refuse(r"corpus= is not, or no longer, the one with which", corpus=other)
    shutil.copy(corpus, other)
    convert_to_mds.main(convert_config(other, tokenizer_dir, interrupted))
    assert Manifest.load(interrupted).fingerprint == Manifest.load(shards).fingerprint


@pytest.mark.dist
def test_a_corpus_that_was_copied_is_the_same_when_the_result_is_there(tmp_path, corpus, tokenizer_dir, shards, caplog):
    caplog.set_level("INFO", "hindsight")
    shutil.copy(corpus, tmp_path / "copy.txt")
    convert_to_mds.main(convert_config(tmp_path / "copy.txt", tokenizer_dir, shards))
    assert "already there, nothing to do" in caplog.text
    changed = (tmp_path / "copy.txt").read_bytes().replace(b"sea", b"SEA", 1)
    (tmp_path / "copy.txt").write_bytes(changed)
    with pytest.raises(InputError, match="holds a conversion with corpus_fingerprint="):
        convert_to_mds.main(convert_config(tmp_path / "copy.txt", tokenizer_dir, shards, workers=2))


@pytest.mark.dist
def test_a_second_converter_says_so_and_stops(interrupted, corpus, tokenizer_dir):
    code = (
        "import sys; from hindsight.files import locked; from pathlib import Path\n"
        "with locked(Path(sys.argv[1]), 'held'):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    work = interrupted.parent / ".out.partial"
    command = [sys.executable, "-c", code, str(work)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=rf"another process converts into it \(process {process.pid} on "):
            convert_to_mds.main(convert_config(corpus, tokenizer_dir, interrupted))
        process.kill()
    with locked(work, "free again"):
        pass


def test_parts_of_another_corpus_that_nothing_was_taken_of_settle_nothing(
    tmp_path, tokenizer_dir, small_parts, monkeypatch
):
    monkeypatch.setattr("hindsight.text.documents.PART_BYTES", 1)
    in_train = [text for n in range(200) if draws([text := f"number {n}\n"], 0)[0] > 0.5][:6]
    in_val = next(text for n in range(200) if draws([text := f"number {n}\n"], 0)[0] < 0.2)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(in_train))
    config = convert_config(corpus, tokenizer_dir, tmp_path / "out")
    convert_to_mds.main(config)
    shutil.move(tmp_path / "out", tmp_path / "expected")
    with monkeypatch.context() as limited:
        stop_after(limited, 3)
        with pytest.raises(SystemExit, match="130"):
            convert_to_mds.main(config)
    # A stale part, such as one of an earlier text: it would show that val has something, and is made anew.
    corpus.write_text("\n".join([*in_train[:5], in_val]))
    with monkeypatch.context() as limited:
        stop_after(limited, 100)
        limited.setattr(
            "hindsight.conversion.convert.complete", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        limited.setattr("hindsight.conversion.assembly.Assembly.take", lambda self, end: 0)
        with pytest.raises((SystemExit, InputError)):
            convert_to_mds.main(config)
    corpus.write_text("\n".join(in_train))
    convert_to_mds.main(config)
    ours, expected = contents(tmp_path / "out"), contents(tmp_path / "expected")
    assert {name: ours[name] for name in ours if name != "manifest.json"} == {
        name: expected[name] for name in expected if name != "manifest.json"
    }


def test_damaged_parts_are_made_again(interrupted, tmp_path, corpus, tokenizer_dir, shards, monkeypatch):
    # Undo the last save, as if the machine had failed: parts that wait, one of them cut off.
    parts = tmp_path / ".out.partial" / "parts"
    (parts / "00000006.npz").write_bytes(b"half")
    (parts / ".00000007.npz.123.partial").write_bytes(b"rest")
    convert_to_mds.main(convert_config(corpus, tokenizer_dir, interrupted))
    assert Manifest.load(interrupted).fingerprint == Manifest.load(shards).fingerprint


def test_a_shard_that_vanished_is_noticed(interrupted, tmp_path, corpus, tokenizer_dir):
    (tmp_path / ".out.partial" / "result" / "train" / "shard.00000.mds").unlink()
    with pytest.raises(
        InputError, match=r"shard\.00000\.mds is gone or damaged; remove .*\.out\.partial and start again"
    ):
        convert_to_mds.main(convert_config(corpus, tokenizer_dir, interrupted))
    assert not interrupted.exists()


def test_what_a_process_left_that_was_killed_at_the_very_end_is_removed(tmp_path, corpus, tokenizer_dir, shards):
    shutil.copytree(shards, tmp_path / "out")
    (tmp_path / ".out.partial" / "parts").mkdir(parents=True)
    config = convert_config(corpus, tokenizer_dir, tmp_path / "out")
    with locked(tmp_path / ".out.partial", "held"):
        pass  # a lock does not hold against its own process
    convert_to_mds.main(config)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_bad_text_at_the_end_loses_nothing(tmp_path, corpus, tokenizer_dir, small_parts, monkeypatch):
    monkeypatch.setattr("hindsight.conversion.text_source.SAMPLE_PARTS", 1)
    (tmp_path / "text").mkdir()
    shutil.copy(corpus, tmp_path / "text" / "1.txt")
    (tmp_path / "text" / "2.txt").write_bytes(b"bad \xff\n")
    config = convert_config(tmp_path / "text", tokenizer_dir, tmp_path / "out")
    with pytest.raises(InputError, match=r"2\.txt is not UTF-8 at byte 4; .* What is done stays in .*\.out\.partial"):
        convert_to_mds.main(config)
    made = count_reads(monkeypatch)
    (tmp_path / "text" / "2.txt").write_bytes(b"good\n")
    convert_to_mds.main(config)
    assert len(made) <= 2
    assert sum(counts.documents or 0 for counts in Manifest.load(tmp_path / "out").splits.values()) == 121


def test_another_folder_of_tokens_is_refused(tmp_path, corpus, tokenizer_dir, shards, monkeypatch):
    other = tmp_path / "other.txt"
    other.write_text(corpus.read_text().replace("sea", "SEA"))
    convert_to_mds.main(convert_config(other, tokenizer_dir, tmp_path / "other"))

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as limited:
        limited.setattr("hindsight.conversion.convert.complete", killed)
        with pytest.raises(SystemExit, match="130"):
            convert_to_h5.main(convert_config(shards, tokenizer_dir, tmp_path / "out"))
    with pytest.raises(InputError, match="begun with corpus_fingerprint="):
        convert_to_h5.main(convert_config(tmp_path / "other", tokenizer_dir, tmp_path / "out"))
    convert_to_h5.main(convert_config(shards, tokenizer_dir, tmp_path / "out"))
    assert Manifest.load(tmp_path / "out").fingerprint == Manifest.load(shards).fingerprint


def test_what_was_skipped_is_not_taken_over_by_a_conversion_that_must_not_skip(
    tmp_path, corpus, tokenizer_dir, small_parts, monkeypatch
):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "0.txt").write_bytes(b"bad \xff\n\ngood\n")
    shutil.copy(corpus, tmp_path / "text" / "1.txt")
    monkeypatch.setattr("hindsight.conversion.text_source.SAMPLE_BYTES", 0)
    config = convert_config(tmp_path / "text", tokenizer_dir, tmp_path / "out", on_error=OnError.skip)
    with monkeypatch.context() as limited:
        stop_after(limited, 8)
        with pytest.raises(SystemExit, match="130"):
            convert_to_mds.main(config)
    config.on_error = OnError.stop
    with pytest.raises(InputError, match="is not UTF-8 at byte 4"):
        convert_to_mds.main(config)
    config.on_error = OnError.skip
    convert_to_mds.main(config)
    config.on_error = OnError.stop
    with pytest.raises(InputError, match=r"on_error=skip \(now stop\), which left something out"):
        convert_to_mds.main(config)


@pytest.mark.dist
def test_what_is_skipped_is_listed_in_the_manifest(tmp_path, corpus, tokenizer_dir):
    (tmp_path / "text").mkdir()
    shutil.copy(corpus, tmp_path / "text" / "1.txt")
    (tmp_path / "text" / "2.txt").write_bytes(b"bad \xff\n\ngood\n")
    (tmp_path / "text" / "3.txt").symlink_to(tmp_path / "nowhere")
    config = convert_config(tmp_path / "text", tokenizer_dir, tmp_path / "out", on_error=OnError.skip, workers=2)
    convert_to_mds.main(config)
    manifest = Manifest.load(tmp_path / "out")
    assert sum(counts.documents or 0 for counts in manifest.splits.values()) == 121
    assert manifest.summary["skipped"] == 2
    assert [line.split(";")[0] for line in manifest.summary["skipped_list"]] == [
        f"corpus: {tmp_path}/text/2.txt is not UTF-8 at byte 4",
        f"corpus: {tmp_path}/text/3.txt cannot be read (No such file or directory)",
    ]


@pytest.mark.dist
def test_a_full_disk_loses_nothing(disk, corpus, tokenizer_dir, shards):
    (disk / "ballast").write_bytes(bytes((4 << 20) - (106 << 10)))
    arguments = [f"corpus={corpus}", f"tokenizer={tokenizer_dir}", f"out={disk / 'out'}", "block_length=64"]
    arguments += ["val_share=0.2", "shard_bytes=1172", "workers=2"]
    done = run_command("python", "convert_to_mds.py", *arguments)
    assert done.returncode == 2, done.stderr
    assert "the disk is full; make room, and the same command goes on where it was." in done.stderr.splitlines()[-1]
    (disk / "ballast").unlink()
    done = run_command("python", "convert_to_mds.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert Manifest.load(disk / "out").fingerprint == Manifest.load(shards).fingerprint
    inspect_mds.main(InspectConfig(path=str(disk / "out")))


@pytest.mark.dist
def test_a_worker_that_is_killed_is_reported_and_the_rest_is_kept(
    tmp_path, corpus, tokenizer_dir, small_parts, monkeypatch
):
    from hindsight.conversion.text_source import TextSource

    read, parent = TextSource.read, os.getpid()

    def killed(self, part):
        if part.segments[0].start == 16_000 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, part)

    config = convert_config(corpus, tokenizer_dir, tmp_path / "out", workers=2)
    with monkeypatch.context() as limited:
        limited.setattr(TextSource, "read", killed)
        with pytest.raises(InputError, match=r"A worker was ended from outside, perhaps because memory ran out"):
            convert_to_mds.main(config)
    convert_to_mds.main(config)
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_a_part_that_a_shared_file_system_shows_late_is_waited_for(
    tmp_path, corpus, tokenizer_dir, small_parts, monkeypatch
):
    save = TokenPart.save

    def late(self, path):  # no NFS is here: a file appears after it was said to be there, as it does there
        save(self, hidden := path.with_name(f".{path.name}"))
        threading.Timer(0.3, hidden.rename, [path]).start()

    convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "expected"))
    with monkeypatch.context() as slow:  # workers=1, so that parts are saved in this process
        slow.setattr(TokenPart, "save", late)
        convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out"))
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")
    with monkeypatch.context() as never:  # no file comes, however long one waits
        never.setattr(TokenPart, "save", lambda self, path: None)
        never.setattr("hindsight.conversion.assembly.SEEN_WITHIN_S", 0.1)
        with pytest.raises(InputError, match=r"00000000.npz was made, but is not seen here"):
            convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "never"))


def test_a_part_that_a_worker_of_another_conversion_writes_late_is_not_taken(
    tmp_path, corpus, tokenizer_dir, small_parts, monkeypatch
):
    save = TokenPart.save
    others = {}
    with monkeypatch.context() as other:  # keep what it writes
        other.setattr(TokenPart, "save", lambda self, path: (others.update({path.name: self}), save(self, path)))
        convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "other", seed=9))
    with monkeypatch.context() as late:  # what was written last under a name is what the other conversion makes
        late.setattr(TokenPart, "save", lambda self, path: save(others[path.name], path))
        with pytest.raises(InputError, match=r"was written by a worker of an earlier conversion"):
            convert_to_mds.main(convert_config(corpus, tokenizer_dir, tmp_path / "out"))


def test_a_conversion_of_an_earlier_version_goes_on_by_its_own_rule_of_the_split(
    tmp_path, tokenizer_dir, small_parts, monkeypatch, caplog
):
    caplog.set_level("INFO", "hindsight")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in make_text(120, seed=1).split("\n\n"))
    (tmp_path / "a.jsonl").write_text(lines)
    config = convert_config(tmp_path / "a.jsonl", tokenizer_dir, tmp_path / "old")
    with monkeypatch.context() as earlier:
        earlier.setattr("hindsight.conversion.convert.SPLIT_BY", "text")
        convert_to_mds.main(config)
        config.out = str(tmp_path / "out")
        stop_after(earlier, 6)
        with pytest.raises(SystemExit, match="130"):
            convert_to_mds.main(config)
    convert_to_mds.main(config)
    assert contents(tmp_path / "out") == contents(tmp_path / "old")
    assert Manifest.load(tmp_path / "out").settings["split_by"] == "text"
    convert_to_mds.main(config)
    assert "already there, nothing to do" in caplog.text
    config.out = str(tmp_path / "new")
    convert_to_mds.main(config)
    assert Manifest.load(tmp_path / "new").settings["split_by"] == "content"
    assert contents(tmp_path / "new") != contents(tmp_path / "old")


def test_countless_problems_are_counted_and_the_first_are_listed(tmp_path, tokenizer_dir, monkeypatch):
    monkeypatch.setattr("hindsight.text.problems.LISTED_PROBLEMS", 10)
    (tmp_path / "a.jsonl").write_text("x\n" * 500 + "".join(json.dumps({"text": str(n)}) + "\n" for n in range(50)))
    config = convert_config(tmp_path / "a.jsonl", tokenizer_dir, tmp_path / "out", on_error=OnError.skip)
    convert_to_mds.main(config)
    summary = Manifest.load(tmp_path / "out").summary
    assert (summary["skipped"], len(summary["skipped_list"])) == (500, 10)


def test_a_part_that_an_earlier_version_stored_is_read(tmp_path):
    nothing: Any = np.zeros(0, np.int64)
    part = TokenPart("signature", Digest(), *[nothing] * 5, problems=["a", "b"], empty=3)
    part.save(tmp_path / "part.npz")
    with np.load(tmp_path / "part.npz") as stored:
        content = dict(stored)
    head = json.loads(content["head"].tobytes())[:5]
    np.savez(tmp_path / "part.npz", **content | {"head": np.frombuffer(json.dumps(head).encode(), np.uint8)})
    read = TokenPart.load(tmp_path / "part.npz")
    assert read is not None
    assert (read.problems, read.empty, read.marks, read.n_problems) == (["a", "b"], 3, {}, 2)


def test_a_state_that_takes_long_to_save_is_saved_less_often(monkeypatch):
    monkeypatch.setattr(conversion_workers, "SAVE_INTERVAL_S", 0.01)
    monkeypatch.setattr(conversion_workers, "QUICK_SAVE_S", 0.002)
    ended: list[float] = []

    def save() -> None:
        time.sleep(0.02)
        ended.append(time.monotonic())

    saves = conversion_workers.SeldomSaves(save)
    while len(ended) < 3:
        saves.save_if_due()
    assert ended[2] - ended[1] > 0.1
