"""Weights & Biases after a kill: what it lacked is logged when the run goes on, each step once."""

import json
from collections import Counter
from pathlib import Path

import pytest
from helpers.killed_runs import RUN, kill_group
from helpers.training_runs import lines, records

from hindsight.training.wandb_files import logged_rows

pytestmark = [pytest.mark.slow, pytest.mark.dist]


def rows_of(folder: Path) -> Counter:
    """How often each name of each step is in the files of W&B."""
    found = Counter((step, name) for step, names in logged_rows(folder) for name in names)
    return Counter({key: times for key, times in found.items() if not key[1].startswith("_")})


def expected_of(folder: Path) -> Counter:
    """What metrics.jsonl and samples.jsonl say."""
    expected = Counter(
        (line["step"], name) for line in records(folder) for name in line if name.startswith(("train/", "eval/"))
    )
    steps = {json.loads(line)["step"] for line in (folder / "samples.jsonl").read_text().splitlines()}
    return expected + Counter((step, "samples") for step in steps)


def test_what_a_kill_kept_from_wandb_is_logged_at_the_resume_and_each_step_once(fork_server, shards, tmp_path):
    run = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a", "wandb.mode=offline"]
    run += ["samples.interval=8ba", "samples.length=2"]
    folder = tmp_path / "a"
    for steps in (20, 35):
        processes = fork_server.start(run)
        assert fork_server.reaches(lambda steps=steps: lines(folder) >= steps), fork_server.output()
        kill_group(processes)
        fork_server.statuses()
    assert fork_server.run(run) == [0], fork_server.output()
    assert len(list(folder.glob("wandb/offline-run-*"))) == 3
    assert [line["step"] for line in records(folder)] == [*range(1, 49)]
    assert rows_of(folder) == expected_of(folder)


def test_a_file_of_wandb_that_is_cut_or_damaged_is_read_as_far_as_it_goes(fork_server, shards, tmp_path):
    run = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "run_name=a", "wandb.mode=offline", "max_duration=12ba"]
    run += ["samples.interval=8ba", "samples.length=2"]
    folder = tmp_path / "a"
    assert fork_server.run(run) == [0], fork_server.output()
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    whole, content = rows_of(folder), path.read_bytes()
    assert whole == expected_of(folder)
    for damaged in (content[: len(content) // 2], content[:10], b"", content[:2000] + b"\0" + content[2001:]):
        path.write_bytes(damaged)
        assert not rows_of(folder) - whole
    path.write_bytes(content[: len(content) // 2])
    assert fork_server.run([*run, "max_duration=16ba"]) == [0], fork_server.output()
    assert rows_of(folder) == expected_of(folder)
