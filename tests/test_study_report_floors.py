"""Sections of a study's report on languages whose answer is known: floors, nulls, and what must be equal."""

import copy
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reported_studies import FLOORS, ORDERS, SEEDS, made_up
from helpers.small_study import COINS_NATS, T, compare, study_result
from helpers.study_pages import (
    Study,
    assert_shown,
    figures_of,
    half_of,
    last_losses,
)
from helpers.training_runs import by_step

from hindsight.analysis.tables import shown
from hindsight.studies.report_floors import floors_section
from hindsight.studies.report_groups import group_study


def test_floors_are_held_beside_the_losses_of_each_order(small_study, study_runs):
    rows = {(row["group"], row["order"]): row for row in small_study.table("floor (nats/token)")}
    assert [*rows] == [*itertools.product(("coins", "map"), ORDERS)]
    for (corpus, order), row in rows.items():
        losses, floor = last_losses(study_runs, corpus=corpus, order=order), FLOORS[corpus]["nats_per_token"]
        above = 100 * (losses / floor - 1)
        half = half_of(above)
        assert_shown(row["above the floor (%), 95% interval"], above.mean(), above.mean() - half, above.mean() + half)
    [calibration] = small_study.table("calibration")
    above = {order: 100 * (last_losses(study_runs, corpus="coins", order=order) / COINS_NATS - 1) for order in ORDERS}
    furthest = max(above, key=lambda order: abs(above[order].mean()))
    assert (calibration["calibration"], calibration["in order"]) == ("coins", furthest)
    assert_shown(calibration["furthest from the floor (%)"], above[furthest].mean())
    assert calibration["within 2% in every order"] == ("yes" if abs(above[furthest].mean()) <= 2 else "no")


def test_the_tokens_after_which_a_floor_was_near_are_those_of_the_first_evaluation(study_runs, tmp_path):
    runs = [run for run in study_runs if run.axes["corpus"] == "coins"]
    # A floor that all runs come near, half of the way: 5% above it is what some evaluation is the first to reach.
    curves = {run.name: by_step(Path(run.folder), "eval/loss_nats") for run in runs}
    floor = max([*curve.values()][1] for curve in curves.values()) / 1.05
    floors = {"coins": FLOORS["coins"] | {"nats_per_token": floor, "role": "positive"}}
    report = Study(tmp_path, study_result(runs, ["floors"], floors=floors))
    for row in report.table("positive"):
        tokens = []
        for run in runs:
            if run.axes["order"] == row["order"]:
                of_step = by_step(Path(run.folder), "tokens")
                step = next(step for step, loss in curves[run.name].items() if loss <= 1.05 * floor)
                tokens.append(of_step[step])
        assert row["tokens to within 5%"] == f"{round(np.mean(tokens)):,}"
        assert row["seeds within 5%"] == "3 of 3"


def test_whether_the_interval_of_a_null_contains_0_is_said(small_study, study_runs):
    forward, backward = (last_losses(study_runs, corpus="coins", order=order) for order in ORDERS)
    gap = backward - forward
    contains = abs(gap.mean()) <= half_of(gap)
    [row] = small_study.table("null")
    assert (row["null"], row["seeds"]) == ("coins", "3")
    assert row["95% interval contains 0"] == ("yes" if contains else "no")
    assert_shown(row["gap of backward (nats/token)"], gap.mean(), gap.mean() - half_of(gap), gap.mean() + half_of(gap))
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
    [row] = report.table("null")
    assert row["95% interval contains 0"] == "too few seeds"
    assert "0 of 1 nulls (too few seeds in 1) show no gap and backward is harder in 0 of 1 positives" in report.text


def test_numbers_of_documents_are_those_of_the_windows(study_runs):
    """The synthetic languages of these tests have a window a document, as their floors ask for."""
    for run in study_runs:
        assert run.metadata["val_tokens"] == T * run.metadata["val_documents"]
        assert shown(run.metadata["vocab_size"]) == "261"


def floors_report(
    out: Path, curves: dict[str, list[list[float]]], *corpora: str, n_documents: int = 0, **floor: Any
) -> Study:
    """A report on languages whose floor is 1 nat a token, with runs of such losses by order and seed."""
    runs = [
        made_up(
            out / "runs",
            {"corpus": corpus, "order": order, "seed": seed},
            losses,
            data_fingerprint=corpus,
            val_documents=n_documents,
        )
        for corpus in corpora
        for order, of in curves.items()
        for seed, losses in enumerate(of)
    ]
    compare(out, runs)
    about = {"kind": "map", "role": "positive", "nats_per_token": 1.0} | floor
    return Study(out, study_result(runs, ["floors"], floors=dict.fromkeys(corpora, about)))


NEAR_AT_2, NEAR_AT_3, NOT_NEAR, FAR = [1.2, 1.04, 1.0], [1.5, 1.2, 1.03], [1.3, 1.2, 1.1], [2.0, 1.9, 1.8]


def test_which_order_is_sooner_near_its_floor_is_counted_seed_by_seed_with_runs_that_never_came_there(tmp_path):
    curves = {
        "forward": [NEAR_AT_2, NEAR_AT_2, NOT_NEAR, NEAR_AT_3, FAR],
        "backward": [NOT_NEAR, NEAR_AT_3, NEAR_AT_3, NEAR_AT_3, FAR],
    }
    report = floors_report(tmp_path, curves, "map")
    said = "forward is sooner than backward in 2 of 5 seeds (backward never came near in 1), later in 1 (forward never "
    said += "came near in 1), at the same evaluation in 1, neither came near in 1."
    assert f"To within 5% of the floor: {said}" in report.text
    assert (
        "To within 25% of the floor: forward is sooner than backward in 2 of 5 seeds, at the same evaluation in 2, "
        "neither came near in 1."
    ) in report.text
    rows = {row["order"]: row for row in report.table("positive")}
    assert rows["forward"]["seeds within 5%"] == "3 of 5"
    assert rows["forward"]["sooner within 5%, by seed"] == "\u2013"
    assert rows["backward"]["sooner within 5%, by seed"] == "forward in 2, backward in 1, level in 1, neither in 1"
    assert (rows["backward"]["tokens to within 25%"], rows["backward"]["seeds within 25%"]) == ("\u2013", "4 of 5")


def test_an_order_that_never_came_near_is_later_than_one_that_did(tmp_path):
    report = floors_report(tmp_path, {"forward": [NEAR_AT_2] * 3, "backward": [FAR] * 3}, "f1", "f2")
    said = "forward is sooner than backward in 3 of 3 seeds (backward never came near in 3)."
    for share in ("5%", "25%"):
        rows = [
            (row["positive"], row["order"], row[f"tokens to within {share}"], row[f"sooner within {share}, by seed"])
            for row in report.table("positive")
        ]
        assert rows == [
            row
            for name in ("f1", "f2")
            for row in (
                (name, "forward", "1,280" if share == "5%" else "640", "\u2013"),
                (name, "backward", "\u2013", "forward in 3"),
            )
        ]
        said_of_both = said.replace("3 of 3 seeds", "6 of 6 pairs of runs").replace("in 3)", "in 6)")
        assert f"To within {share} of the floor: {said_of_both}" in report.text


def test_a_run_that_is_shorter_than_the_other_took_does_not_say_which_is_sooner(tmp_path):
    report = floors_report(tmp_path, {"forward": [NEAR_AT_3] * 3, "backward": [NOT_NEAR, [1.5], [1.04]]}, "map")
    assert (
        "To within 5% of the floor: forward is sooner than backward in 1 of 3 seeds (backward never came near in 1), "
        "later in 1, not known yet in 1."
    ) in report.text


def test_where_no_order_comes_near_that_is_said(tmp_path):
    report = floors_report(tmp_path, {"forward": [FAR], "backward": [FAR]}, "map")
    assert "To within 5% of the floor: neither forward nor backward came near in 1 seed." in report.text


def test_a_calibration_is_within_2_percent_if_all_its_orders_are(tmp_path):
    curves = {"forward": [[1.5, 1.015]] * 3, "backward": [[1.5, 0.99]] * 3, "even_odd": [[1.5, 1.0]] * 3}
    report = floors_report(tmp_path / "within", curves, "chain", role="calibration")
    assert report.table("calibration") == [
        {
            "calibration": "chain",
            "within 2% in every order": "yes",
            "furthest from the floor (%)": "+1.50",
            "in order": "forward",
        }
    ]
    assert "Within 2% of the floor in every order, where that is asked for: 1 of 1." in report.text
    curves["backward"] = [[1.5, 1.03]] * 3
    report = floors_report(tmp_path / "beyond", curves, "chain", role="calibration")
    [row] = report.table("calibration")
    assert (row["within 2% in every order"], row["in order"]) == ("no", "backward")
    assert report.text.index("0 of 1 calibrations reach their floors.") < 200
    assert "Within 2% of the floor in every order, where that is asked for: 0 of 1." in report.text


def test_a_reversible_language_is_a_null_of_backward_against_forward_alone(tmp_path):
    curves = {
        order: [[2.0, loss + 0.001 * seed * sign] for seed, sign in enumerate((0, 1, -1))]
        for order, loss in (("forward", 1.0), ("backward", 1.0), ("even_odd", 1.5))
    }
    report = floors_report(tmp_path, curves, "chain", role="null")
    assert "Nulls whose 95% interval of the gap contains 0: 1 of 1." in report.text
    assert [row["95% interval contains 0"] for row in report.table("null")] == ["yes"]
    assert "even_odd against forward" not in report.text
    assert "neither direction is harder" in report.text


def test_a_language_that_is_asked_for_two_things_has_a_row_for_each(tmp_path):
    curves = {"forward": [[1.5, 1.0 + 0.001 * seed] for seed in SEEDS], "backward": [[1.5, 1.001]] * 3}
    report = floors_report(tmp_path, curves, "chain", role="null", is_calibration=True)
    assert [row["calibration"] for row in report.table("calibration")] == ["chain"]
    assert [row["null"] for row in report.table("null")] == ["chain"]
    assert "1 of 1 calibrations reach their floors and 1 of 1 nulls show no gap." in report.text


def test_where_one_folder_is_gone_the_evaluations_of_both_are_compared(study_runs, tmp_path):
    runs = copy.deepcopy([run for run in study_runs if run.axes["corpus"] in ("map", "turned") and not run.is_sweep])
    next(run for run in runs if run.name == "turned-forward-1").folder = str(tmp_path / "gone")
    report = Study(tmp_path / "out", study_result(runs, ["exact"], study={"corpora": {"turned": {"turned": "map"}}}))
    rows = report.table("must equal")
    assert [(row["losses compared"], row["equal"]) for row in rows] == [("12", "yes"), ("4", "yes")]


def test_a_calibration_of_which_an_order_is_not_done_is_neither_within_2_percent_nor_beyond(tmp_path):
    curves = {"forward": [[1.5, 1.0]] * 3, "backward": [[1.5, 1.03]] * 3}
    known = floors_report(tmp_path, curves, "chain", role="calibration").result
    for order, within, furthest in (("backward", "\u2013", "+0.00"), ("forward", "no", "+3.00")):
        result = copy.deepcopy(known)
        for run in result.runs:
            run.state = "interrupted" if run.axes["order"] == order else run.state
        report = Study(tmp_path / order, result)
        [row] = report.table("calibration")
        assert (row["within 2% in every order"], row["furthest from the floor (%)"]) == (within, furthest)
        assert "0 of 1 calibrations reach their floors" in report.text


def test_the_headline_counts_positives_in_which_backward_is_harder(tmp_path):
    curves = {"forward": [[1.5, 1.1 + 0.001 * seed] for seed in SEEDS], "backward": [[1.5, 1.2]] * 3}
    report = floors_report(tmp_path / "harder", curves, "f1", "f2")
    assert "Backward is harder in 2 of 2 positives." in report.text
    assert "Positives in which backward is harder, by the 95% interval of the gap: 2 of 2." in report.text
    curves = {"forward": curves["backward"], "backward": curves["forward"]}
    assert "Backward is harder in 0 of 1 positives." in floors_report(tmp_path / "easier", curves, "f1").text


LOW = {"forward": [[2.0, 0.97], [1.5, 0.971], [1.5, 0.972]], "backward": [[2.0, 1.01]] * 3}


def test_losses_below_the_floor_are_drawn_and_warned_of(tmp_path):
    report = floors_report(tmp_path, LOW, "map")
    assert "map, forward: the whole interval over seeds lies below the floor, by at least 2.65%" in report.text
    assert "map, backward" not in report.text
    [panels] = figures_of(floors_section(group_study(report.result, None)))
    axes = panels.drawings[0].figure.axes[0]
    lowest = [min(np.asarray(line.get_ydata())) for line in axes.lines]
    assert [value for value in lowest if value < 0] == pytest.approx([-3, -2.9, -2.8])
    assert axes.get_ylim()[0] < -3
    two_seeds = {order: of[:2] for order, of in LOW.items()}
    assert "map, forward: the loss of every run lies below" in floors_report(tmp_path / "two", two_seeds, "map").text


def test_the_sample_error_of_the_held_out_documents_stands_beside_the_floor(tmp_path):
    settings = {"length": 60, "symbols": 4, "seed": 0}
    floor = {"kind": "reversible_markov", "settings": settings, "nats_per_document": 68.8167, "role": "null"}
    reports = {n: floors_report(tmp_path / str(n), LOW, "chain", n_documents=n, **floor) for n in (16, 1000)}
    for n, report in reports.items():
        row, _ = report.table("floor (nats/token)")
        # By the law of this chain, a document varies by 4.4011 nats.
        assert_shown(row["sample error (%)"], 100 * 4.4011 / math.sqrt(n) / 68.8167)
        assert row["held-out documents"] == shown(n)
        assert ("lies below the floor" in report.text) == (n == 1000)  # of 16 documents, 2.7% are within two errors


def test_groups_are_counted_by_what_their_language_is_for_and_turned_ones_are_left_out(tmp_path):
    gaps = {"coins": 0.0, "map": 0.1, "turned": -0.1}
    runs = [
        made_up(
            tmp_path / "runs",
            {"corpus": corpus, "order": order, "seed": seed},
            2.0 + (gap + 0.001 * (seed - 1)) * (order == "backward"),
            data_fingerprint=corpus,
        )
        for corpus, gap in gaps.items()
        for order in ORDERS
        for seed in SEEDS
    ]
    compare(tmp_path, runs)
    floors, corpora = FLOORS | {"turned": FLOORS["map"]}, {"corpora": {"turned": {"turned": "map"}}}
    report = Study(tmp_path, study_result(runs, ["gap"], floors=floors, study=corpora))
    assert "Nulls : backward is harder in 0 of 1 groups, easier in 0, not told apart in 1." in report.text
    assert "Positives : backward is harder in 1 of 1 groups, easier in 0." in report.text
    assert [row["group"] for row in report.table("null (%)")] == ["coins", "map"]
