import json
from pathlib import Path

import pytest
from helpers.training_runs import TINY

import benchmarks.start
from benchmarks.start import Moment, Start, measure_start, phases_of, rows_of


@pytest.mark.slow
def test_the_moments_of_a_start_follow_each_other_and_the_run_is_ended_behind_its_first_step(
    shards: Path, tmp_path: Path
):
    folder, trainer, step = measure_start(shards, tmp_path, [*TINY, "max_duration=100000ba"])
    assert 0 < folder.wall_s < trainer.wall_s < step.wall_s
    assert 0 < folder.cpu_s < trainer.cpu_s < step.cpu_s
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["step"] == 1
    assert not (tmp_path / "run" / "finished.json").exists()


def test_a_start_that_fails_is_told_with_what_it_said(tmp_path: Path):
    with pytest.raises(RuntimeError, match=r"made no first step: train_composer.py: data.path=.*nowhere"):
        measure_start(tmp_path / "nowhere", tmp_path, [])


def test_phases_are_medians_and_the_whole_has_the_target(monkeypatch):
    starts = [Start(*(Moment(factor * wall, wall) for wall in (5.0, 6.0, 6.5))) for factor in (1, 1.5, 9)]
    phases = phases_of(starts)
    assert phases["Trainer with loggers"] == Moment(1.5, 1.0)
    assert phases["command to first step"] == Moment(9.75, 6.5)
    assert [row.met for row in rows_of(starts)] == [None, None, None, True]
    monkeypatch.setattr(benchmarks.start, "TARGET_S", 9.0)
    assert str(rows_of(starts)[-1]) == "| command to first step | 9.75 s, CPU 6.50 s | ≤ 9 s | NO |"
