"""The learning rate of a run that is made longer or shorter while it lasts, and goes on after that."""

import json
from dataclasses import replace

import pytest
from helpers.training_runs import by_step, train

from hindsight.config.optim import OptimConfig, Schedule
from hindsight.config.training import MoreLR
from hindsight.errors import InputError
from hindsight.training.lr_plan import as_records, change_line, extend, from_records, is_ahead, rate, whole
from hindsight.training.optim import learning_rate

BASE = OptimConfig(lr=1.0, warmup_steps=10, lr_init=0.1, lr_min=0.2, period_steps=30)
CONTINUE, CONSTANT, REWARM = MoreLR["continue"], MoreLR.constant, MoreLR.rewarm


@pytest.mark.parametrize("schedule", Schedule)
def test_a_run_of_unchanged_length_has_the_rates_of_its_schedule(schedule):
    config = replace(BASE, schedule=schedule)
    assert [rate(s, whole(90), config) for s in range(95)] == [learning_rate(s, 90, config) for s in range(95)]


@pytest.mark.parametrize("schedule", Schedule)
@pytest.mark.parametrize("total", [150, 95])
def test_by_default_a_longer_or_shorter_run_takes_the_schedule_of_its_new_length(schedule, total):
    config = replace(BASE, schedule=schedule)
    plan = extend(whole(100), 90, total, CONTINUE, config)
    assert [rate(s, plan, config) for s in range(91)] == [learning_rate(s, 100, config) for s in range(91)]
    assert [rate(s, plan, config) for s in range(91, 150)] == [learning_rate(s, total, config) for s in range(91, 150)]


@pytest.mark.parametrize("schedule", Schedule)
def test_constant_keeps_the_rate_of_the_last_step(schedule):
    config = replace(BASE, schedule=schedule)
    plan = extend(whole(100), 100, 150, CONSTANT, config)
    assert [rate(s, plan, config) for s in range(100)] == [learning_rate(s, 100, config) for s in range(100)]
    assert {rate(s, plan, config) for s in range(100, 160)} == {learning_rate(99, 100, config)}


@pytest.mark.parametrize("schedule", Schedule)
def test_rewarm_begins_at_the_rate_of_the_last_step_and_makes_the_schedule_anew(schedule):
    config = replace(BASE, schedule=schedule)
    plan = extend(whole(100), 100, 150, REWARM, config)
    last = learning_rate(99, 100, config)
    assert rate(100, plan, config) == last
    assert rate(105, plan, config) == pytest.approx((last + 1) / 2)
    assert rate(110, plan, config) == 1.0
    assert [rate(s, plan, config) for s in range(110, 155)] == [
        learning_rate(s - 100, 50, config) for s in range(110, 155)
    ]


def test_lengths_may_change_several_times_and_are_stored():
    plan = extend(whole(100), 50, 150, REWARM, BASE)
    plan = extend(plan, 120, 130, CONSTANT, BASE)
    plan = extend(plan, 130, 200, CONTINUE, BASE)
    assert [stretch.until for stretch in plan] == [100, 150, 130, 200]
    assert from_records(json.loads(json.dumps(as_records(plan)))) == plan
    assert extend(plan, 150, 200, REWARM, BASE) == plan, "the same length again changes nothing"
    assert extend(plan, 200, 150, REWARM, BASE) == plan, "nothing is left to train"
    line = change_line(plan[:3], plan, BASE)
    assert line is not None
    assert "at step 130: the run is now 200 steps long, not 130 (train.more_lr=continue)" in line


def test_a_plan_is_kept_that_was_made_at_the_step_of_the_newest_checkpoint():
    saved = whole(10)
    recorded = extend(saved, 10, 20, REWARM, OptimConfig(warmup_steps=2))
    assert is_ahead(recorded, saved, 10, 20)
    assert not is_ahead(recorded, saved, 10, 30)
    assert not is_ahead(saved, saved, 10, 20)


def test_a_rate_of_nothing_is_not_kept():
    with pytest.raises(InputError, match=r"train\.more_lr=constant would keep the rate of step 1, which is 0"):
        extend(whole(10), 1, 20, CONSTANT, replace(BASE, lr_init=0.0))


DAMAGED = [{"after": 5}, {"how": "sideways"}, {"lr": "1"}, {"until": -1}, {"after": True}, {"lr": float("nan")}]


@pytest.mark.parametrize("change", [*DAMAGED, {"until": 1 << 70}])
def test_a_plan_that_cannot_be_is_none(change):
    assert from_records([as_records(whole(10))[0] | change]) is None
    assert from_records(7) is None
    assert from_records([]) is None


@pytest.mark.parametrize("how", ["continue", "constant", "rewarm"])
@pytest.mark.parametrize("longer", ["max_duration=14ba", "train.more=8ba"])
def test_a_run_that_was_made_longer_and_is_interrupted_has_the_rates_of_one_that_was_not(
    shards, tmp_path, caplog, how, longer
):
    caplog.set_level("INFO", logger="hindsight")
    common = ["direction=backward", "optim.schedule=cosine", "checkpoint.interval=4ba", "model.n_layers=1"]
    rates, losses = {}, {}
    for name in ("whole", "interrupted"):
        given = [*common, f"run_name={name}", "max_duration=6ba"]
        folder = train(shards, tmp_path, *given)
        given = [*given, longer, f"train.more_lr={how}"]
        if name == "interrupted":
            (folder / "STOP").touch()
            with pytest.raises(SystemExit):
                train(shards, tmp_path, *given)
            assert max(by_step(folder)) == 7
        train(shards, tmp_path, *given)
        rates[name], losses[name] = by_step(folder, "train/lr"), by_step(folder)
    assert rates["interrupted"] == rates["whole"]
    assert losses["interrupted"] == losses["whole"]
    config = OptimConfig(lr=6e-4, warmup_steps=2)
    plan = extend(whole(6), 6, 14, MoreLR[how], config)
    assert [*rates["whole"].values()] == pytest.approx([rate(s, plan, config) for s in range(14)], rel=1e-12)
    told = [line for line in caplog.text.splitlines() if line.startswith("lr  ")]
    assert len(told) == 2  # where the length changed, and not where the same command went on
    assert all(f"at step 6: the run is now 14 steps long, not 6 (train.more_lr={how})" in line for line in told)
    assert len(json.loads((tmp_path / "whole" / "metadata.json").read_text())["lr_plan"]) == 2


def test_a_checkpoint_of_a_version_without_plans_knows_its_length_from_the_records(shards, tmp_path, monkeypatch):
    from hindsight.training import checkpoints

    saved = checkpoints.ResumeSaver.state_dict
    common = ["run_name=a", "optim.schedule=linear", "checkpoint.interval=6ba"]
    with monkeypatch.context() as before:
        before.setattr(
            checkpoints.ResumeSaver, "state_dict", lambda self: {k: v for k, v in saved(self).items() if k != "plan"}
        )
        folder = train(shards, tmp_path, *common, "max_duration=6ba")
    train(shards, tmp_path, *common, "max_duration=8ba", "train.more_lr=constant")
    rates = by_step(folder, "train/lr")
    assert rates[7] == rates[8] == pytest.approx(rates[6])


def test_a_longer_run_whose_last_checkpoints_are_damaged_has_the_rates_that_it_had(shards, tmp_path):
    common = ["optim.schedule=cosine", "checkpoint.interval=4ba", "checkpoint.keep=-1", "run_name=a"]
    train(shards, tmp_path, *common, "max_duration=8ba")
    given = [*common, "max_duration=14ba", "train.more_lr=rewarm"]
    folder = train(shards, tmp_path, *given)
    rates, losses = by_step(folder, "train/lr"), by_step(folder)
    for step in (14, 12, 8):
        (path,) = folder.glob(f"checkpoints/ep*-ba{step}-rank0.pt")
        path.write_bytes(b"")
    train(shards, tmp_path, *given)
    assert by_step(folder, "train/lr") == rates
    assert by_step(folder) == losses
