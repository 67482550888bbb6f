"""Sections of a study's report on languages whose answer is known: floors, nulls, and what must be equal."""

import copy
import itertools
import json
from pathlib import Path

import numpy as np
from helpers.reported_studies import FLOORS, ORDERS, SEEDS
from helpers.small_study import T, compare, study_result
from helpers.study_pages import (
    Study,
    assert_shown,
    half_of,
    last_losses,
)
from helpers.training_runs import by_step

from hindsight.analysis.tables import shown


def test_floors_are_held_beside_the_losses_of_each_order(small_study, study_runs):
    rows = {(row["group"], row["order"]): row for row in small_study.table("floor (nats/token)")}
    assert [*rows] == [*itertools.product(("coins", "map"), ORDERS)]
    for (corpus, order), row in rows.items():
        losses, floor = last_losses(study_runs, corpus=corpus, order=order), FLOORS[corpus]["nats_per_token"]
        above = 100 * (losses / floor - 1)
        half = half_of(above)
        assert_shown(row["above the floor (%), 95% interval"], above.mean(), above.mean() - half, above.mean() + half)
        assert row["within 2%"] == ("yes" if abs(above.mean()) <= 2 else "no")


def test_the_tokens_after_which_a_floor_was_near_are_those_of_the_first_evaluation(study_runs, tmp_path):
    runs = [run for run in study_runs if run.axes["corpus"] == "coins"]
    # A floor that all runs come near, half of the way: 5% above it is what some evaluation is the first to reach.
    curves = {run.name: by_step(Path(run.folder), "eval/loss_nats") for run in runs}
    floor = max([*curve.values()][1] for curve in curves.values()) / 1.05
    floors = {"coins": FLOORS["coins"] | {"nats_per_token": floor, "role": "positive"}}
    report = Study(tmp_path, study_result(runs, ["floors"], floors=floors))
    for row in report.table("floor (nats/token)"):
        tokens = []
        for run in runs:
            if run.axes["order"] == row["order"]:
                of_step = by_step(Path(run.folder), "tokens")
                step = next(step for step, loss in curves[run.name].items() if loss <= 1.05 * floor)
                tokens.append(of_step[step])
        assert row["tokens to within 5%"] == f"{round(np.mean(tokens)):,}"
        assert row["seeds within 5%"] == "3 of 3"
        assert f"{row['order']} after {row['tokens to within 5%']} tokens" in report.text


def test_whether_the_interval_of_a_null_contains_0_is_said(small_study, study_runs):
    forward, backward = (last_losses(study_runs, corpus="coins", order=order) for order in ORDERS)
    gap = backward - forward
    contains = abs(gap.mean()) <= half_of(gap)
    said = "contains 0" if contains else "does not contain 0"
    assert f"The 95% interval of the gap (backward against forward) {said}" in small_study.text
    assert f"Nulls whose 95% interval of the gap contains 0: {int(contains)} of 1." in small_study.text


def test_runs_of_turned_windows_equal_those_of_the_other_direction_bit_for_bit(small_study, study_runs):
    rows = small_study.table("must equal")
    assert [(row["run"], row["must equal"]) for row in rows] == [
        (f"turned-forward-{seed}", f"map-backward-{seed}") for seed in SEEDS[:2]
    ]
    n_losses = 8 + 4
    assert all((row["losses compared"], row["equal"]) == (str(n_losses), "yes") for row in rows)
    assert "All losses of 2 pairs of runs that must be equal bit for bit are the same numbers." in small_study.text


def test_the_first_loss_that_differs_by_the_last_bit_is_named(study_runs, tmp_path):
    results = copy.deepcopy([run for run in study_runs if run.axes["corpus"] in ("map", "turned") and not run.is_sweep])
    run = next(run for run in results if run.name == "turned-forward-1")
    lines = [json.loads(line) for line in (Path(run.folder) / "metrics.jsonl").read_text().splitlines()]
    lines[4]["train/loss_nats"] = np.nextafter(lines[4]["train/loss_nats"], 9)
    run.folder = str(tmp_path / run.name)
    Path(run.folder).mkdir()
    (Path(run.folder) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = Study(tmp_path / "out", study_result(results, ["exact"], study={"corpora": {"turned": {"turned": "map"}}}))
    rows = report.table("must equal")
    assert [(row["equal"], row["first step that differs"]) for row in rows] == [("yes", "\u2013"), ("no", "5")]
    assert "1 of 2 pairs of runs that must be equal bit for bit are so." in report.text


def test_too_few_seeds_are_no_interval_that_contains_0_and_a_turned_language_is_no_language_of_its_own(
    study_runs, tmp_path
):
    runs = [run for run in study_runs if run.axes["seed"] == 0]
    compare(tmp_path, runs)
    floors = FLOORS | {"turned": FLOORS["map"]}
    corpora = {"corpora": {"turned": {"turned": "map"}}}
    report = Study(tmp_path, study_result(runs, ["floors", "gap"], floors=floors, study=corpora))
    assert "Nulls whose 95% interval of the gap contains 0: 0 of 1 (too few seeds in 1)." in report.text
    assert {row["group"] for row in report.table("floor (nats/token)")} == {"coins", "map"}
    assert "Whether the gap is 0 cannot be told" in report.text


def test_numbers_of_documents_are_those_of_the_windows(study_runs):
    """The synthetic languages of these tests have a window a document, as their floors ask for."""
    for run in study_runs:
        assert run.metadata["val_tokens"] == T * run.metadata["val_documents"]
        assert shown(run.metadata["vocab_size"]) == "261"
