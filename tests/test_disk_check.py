"""The room for checkpoints is looked at before the first step: what fits is never refused, and what cannot fit is."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.training_runs import compose_config, records, train

from hindsight.errors import InputError
from hindsight.training.checkpoint_files import outdated
from hindsight.training.course import Course
from hindsight.training.disk import added, state_bytes

COURSE = Course(steps=25, epoch_steps=10, epoch_tokens=950, batch_tokens=100)
EACH_STEP_IN = {
    "3ba": range(3, 26, 3),
    "5ba": range(5, 26, 5),
    "25ba": [25],
    "40ba": [],
    "1ep": [10, 20],
    "2ep": [20],
    "700tok": [7, 15, 22],  # 700, 950 + 500 and 1900 + 200 tokens
}
"""Steps at which these intervals fall, up to the 25th."""


def written(step: int, existing: list[int], intervals: tuple[str, str], keep: int) -> tuple[int, int]:
    """Most checkpoints that lie there at once, and those at the end, of savers that save at these intervals."""
    names = [f"ep0-ba{saved}-rank0.pt" for saved in existing]
    most = len(names)
    for saved in range(step + 1, COURSE.steps + 1):
        if any(saved in EACH_STEP_IN[interval] for interval in intervals) or saved == COURSE.steps:
            names.append(f"ep0-ba{saved}-rank0.pt")
            most = max(most, len(names))
            for name in outdated(names, names[-1], keep):
                names.remove(name)
    return most, len(names)


@pytest.mark.parametrize("eval_interval", ["40ba", "3ba", "1ep"])
@pytest.mark.parametrize("keep", [-1, 1, 2, 5])
def test_what_is_counted_is_what_savers_write_from_any_step_on(keep: int, eval_interval: str):
    given = ["direction=forward", "data.path=d", f"checkpoint.keep={keep}", "checkpoint.backup_interval=7ba"]
    config = compose_config("train_composer", *given, f"eval_interval={eval_interval}")
    for interval, step, n_existing in itertools.product(EACH_STEP_IN, (0, 7, 24), (0, 1, 3)):
        existing = [*range(step - n_existing + 1, step + 1)] if step else []
        changed = replace(config, checkpoint=replace(config.checkpoint, interval=interval))
        most, left = written(step, existing, (interval, eval_interval), keep)
        backups = COURSE.steps // 7 - step // 7
        assert added(changed, COURSE, step, len(existing)) == (most - len(existing), left - len(existing), backups)


def test_a_run_is_refused_before_its_first_step_where_its_checkpoints_have_no_room(shards, tmp_path, disk):
    keys = ["max_duration=12ba", "checkpoint.interval=3ba", f"checkpoint.folder={disk}", "run_name=a"]
    need = 3 * state_bytes(30_432, 30_432)
    (disk / "ballast").write_bytes(bytes((4 << 20) - need + 20_000))
    refused = rf"checkpoint.folder={disk}: .* 1.10 MB more, at least \(3 more checkpoints at once, 365 kB each\); make"
    with pytest.raises(InputError, match=refused) as raised:
        train(shards, tmp_path, *keys)
    assert "give another checkpoint.folder, or save less (checkpoint.keep=2)." in str(raised.value)
    assert not [path for path in (tmp_path / "a").iterdir() if not path.name.startswith(".")]
    with pytest.raises(InputError, match="and 4 backups, 365 kB each"):
        train(shards, tmp_path, *keys, "checkpoint.backup_interval=3ba")
    (disk / "ballast").unlink()
    folder = train(shards, tmp_path, *keys)
    assert len(records(folder)) == 12


def test_a_run_goes_on_where_old_checkpoints_make_room_for_new_ones(shards, tmp_path, disk):
    keys = ["checkpoint.interval=3ba", f"checkpoint.folder={disk}", "run_name=a"]
    folder = train(shards, tmp_path, *keys, "max_duration=6ba")
    (disk / "ballast").write_bytes(bytes((4 << 20) - 3 * 425_000))  # two are there, and one fits beside them
    train(shards, tmp_path, *keys, "max_duration=12ba")
    assert len(records(folder)) == 12
    with pytest.raises(InputError, match="2 more checkpoints at once"):
        train(shards, tmp_path, *keys, "max_duration=24ba", "checkpoint.keep=3")


def test_a_start_that_may_end_early_needs_room_for_one_checkpoint(shards, tmp_path, disk):
    (disk / "ballast").write_bytes(bytes((4 << 20) - 900_000))
    keys = ["max_duration=6ba", "checkpoint.interval=2ba", f"checkpoint.folder={disk}", "run_name=a"]
    with pytest.raises(InputError, match="3 more checkpoints at once"):
        train(shards, tmp_path, *keys)
    train(shards, tmp_path, *keys, "max_time=1h", "checkpoint.keep=1")


def test_a_run_that_has_come_to_its_end_needs_no_room(shards, tmp_path: Path, disk):
    keys = ["max_duration=3ba", f"checkpoint.folder={disk}", "run_name=a"]
    train(shards, tmp_path, *keys)
    (disk / "ballast").write_bytes(bytes(3_700_000))
    train(shards, tmp_path, *keys)
